//! Devices as an agent tells of them. It is believed about its own host and no further: texts are cut, lists are bounded, and
//! a number that no device has is brought to one on which nothing is placed.

use croft_core::device::{
    BoardReport, Device, FUNCTIONS_MAX, FabricPartition, Gpu, Holder, Kind, MigInstance, MigProfile, Mode, Record,
    Reset, State, VgpuType,
};
use croft_core::id::DeviceId;
use croft_proto::v1;
use v1::device::{Kind as WireKind, State as WireState};
use v1::gpu::Mode as WireMode;

use super::time;
use crate::status::clip;

/// Of one host: a large server has some hundred functions, each network card's virtual ones included.
const DEVICES_MAX: usize = 8192;
const ID_MAX: usize = 80;
const CPU: &str = "cpu";
const WORD_MAX: usize = 100;
const TEXT_MAX: usize = 1000;
const COMPANIONS_MAX: usize = 64;
const PROFILES_MAX: usize = 64;
const TYPES_MAX: usize = 512;
const PARTITIONS_MAX: usize = 256;
/// No GPU has more memory than this.
const MIB_MAX: i64 = 1 << 30;

/// Those that can be named, each once.
#[must_use]
pub fn report_into(devices: Vec<v1::Device>) -> Vec<Device> {
    let mut seen = std::collections::BTreeSet::new();
    let named = devices.into_iter().take(DEVICES_MAX).filter_map(into);
    named.filter(|device| seen.insert(device.id.clone())).collect()
}

/// `None`: no id, or no kind that we know.
#[must_use]
pub fn into(wire: v1::Device) -> Option<Device> {
    let kind = kind_into(wire.kind())?;
    let id = id_into(wire.name.rsplit('/').next().unwrap_or_default())?;
    let physical = id_into(&wire.physical).filter(|_| kind == Kind::VirtualFunction);
    let index = u16::try_from(wire.function_index).ok().filter(|index| *index < FUNCTIONS_MAX);
    let physical = physical.zip(index);
    // Whoever has the physical function whole has this one: it cannot be given without knowing whose it is.
    let orphan = kind == Kind::VirtualFunction && physical.is_none();
    let (state, message) = match state_into(wire.state()) {
        State::Available if orphan => {
            (State::Unusable, "its host does not tell whose virtual function it is".to_owned())
        }
        state => (state, clip(&wire.message, TEXT_MAX)),
    };
    Some(Device {
        kind,
        state,
        reason: clip(&wire.reason, WORD_MAX),
        message,
        pci_id: clip(&wire.id, WORD_MAX),
        vendor_name: clip(&wire.vendor_name, WORD_MAX),
        device_name: clip(&wire.device_name, WORD_MAX),
        class: clip(&wire.class, 6),
        serial: clip(&wire.serial, WORD_MAX),
        slot_path: clip(&wire.slot_path, TEXT_MAX),
        driver: clip(&wire.driver, WORD_MAX),
        iommu_group: Some(wire.iommu_group).filter(|group| *group >= 0),
        companions: wire.companions.iter().take(COMPANIONS_MAX).filter_map(|id| id_into(id)).collect(),
        numa_node: Some(wire.numa_node).filter(|node| *node >= 0),
        physical,
        functions_total: count(wire.functions_total),
        functions_count: count(wire.functions_count),
        gpu: wire.gpu.filter(|_| kind == Kind::Gpu).map(gpu_into),
        last_reset: wire.last_reset.map(|reset| Reset {
            method: clip(&reset.method, WORD_MAX),
            time: reset.time.map(time::into).unwrap_or_default(),
            clean: reset.clean,
            message: clip(&reset.message, TEXT_MAX),
        }),
        id,
    })
}

/// What can stand in a resource name. `cpu` is the plane's own: the device of which logical CPUs are claimed.
fn id_into(text: &str) -> Option<DeviceId> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b":.-_".contains(&b);
    ((1..=ID_MAX).contains(&text.len()) && text.bytes().all(good) && text != CPU).then(|| text.into())
}

/// Each is an atom of whoever holds all of the device.
fn count(number: i32) -> u16 {
    u16::try_from(number.max(0)).unwrap_or(u16::MAX).min(FUNCTIONS_MAX)
}

/// A board whose numbers were cut contradicts itself, and is not placed on.
fn slices(number: i32) -> u8 {
    u8::try_from(number.max(0)).unwrap_or(u8::MAX)
}

fn gpu_into(wire: v1::Gpu) -> Gpu {
    let mode = mode_into(wire.mode());
    let board = wire.mig_capable.then(|| BoardReport {
        memory_slices: slices(wire.memory_slices),
        compute_slices: slices(wire.compute_slices),
        profiles: wire.mig_profiles.into_iter().take(PROFILES_MAX).map(profile_into).collect(),
    });
    let instances = wire.mig_instances.into_iter().take(PROFILES_MAX);
    let partitions = wire.fabric_partitions.into_iter().take(PARTITIONS_MAX);
    Gpu {
        model: Some(wire.model).filter(|model| croft_core::quota::device::is_model(model)).unwrap_or_default(),
        product_name: clip(&wire.product_name, WORD_MAX),
        uuid: clip(&wire.uuid, WORD_MAX),
        memory_mib: wire.memory_mib.clamp(0, MIB_MAX),
        mode,
        mig_enabled: wire.mig_enabled,
        board,
        mig_instances: instances
            .map(|instance| MigInstance {
                profile: clip(&instance.profile, WORD_MAX),
                start: slices(instance.start),
                size: slices(instance.size),
            })
            .collect(),
        vgpu_framework: clip(&wire.vgpu_framework, WORD_MAX),
        vgpu_types: wire.vgpu_types.into_iter().take(TYPES_MAX).map(vgpu_type_into).collect(),
        heterogeneous_capable: wire.heterogeneous_capable,
        fabric_partitions: partitions
            .map(|partition| FabricPartition {
                id: i64::from(partition.id),
                gpus: partition.gpus.iter().take(COMPANIONS_MAX).filter_map(|id| id_into(id)).collect(),
            })
            .collect(),
    }
}

fn profile_into(wire: v1::MigProfile) -> MigProfile {
    MigProfile {
        name: clip(&wire.name, WORD_MAX),
        memory_slices: slices(wire.memory_slices),
        starts: wire.starts.into_iter().take(PROFILES_MAX).map(slices).collect(),
        compute_slices: slices(wire.compute_slices),
        memory_mib: wire.memory_mib.clamp(0, MIB_MAX),
        max_count: i64::from(wire.max_count.max(0)),
    }
}

fn vgpu_type_into(wire: v1::VgpuType) -> VgpuType {
    VgpuType {
        name: clip(&wire.name, WORD_MAX),
        framebuffer_mib: wire.framebuffer_mib.clamp(0, MIB_MAX),
        mig_profile: clip(&wire.mig_profile, WORD_MAX),
        max_count: i64::from(wire.max_count.max(0)),
    }
}

#[must_use]
pub fn kind_into(kind: WireKind) -> Option<Kind> {
    Some(match kind {
        WireKind::Unspecified => return None,
        WireKind::Gpu => Kind::Gpu,
        WireKind::Function => Kind::Function,
        WireKind::VirtualFunction => Kind::VirtualFunction,
        WireKind::Usb => Kind::Usb,
    })
}

#[must_use]
pub fn kind_out(kind: Kind) -> WireKind {
    match kind {
        Kind::Gpu => WireKind::Gpu,
        Kind::Function => WireKind::Function,
        Kind::VirtualFunction => WireKind::VirtualFunction,
        Kind::Usb => WireKind::Usb,
    }
}

fn state_into(state: WireState) -> State {
    match state {
        // Who holds what is the plane's to say.
        WireState::Available | WireState::InUse => State::Available,
        WireState::Foreign => State::Foreign,
        WireState::Unhealthy => State::Unhealthy,
        WireState::Quarantined => State::Quarantined,
        WireState::Stuck => State::Stuck,
        WireState::Changed => State::Changed,
        WireState::Missing => State::Missing,
        // Also a word of a later version: nothing is placed on what is not understood.
        WireState::Unusable | WireState::Unspecified => State::Unusable,
    }
}

#[must_use]
pub fn state_out(state: State) -> WireState {
    match state {
        State::Available => WireState::Available,
        State::Foreign => WireState::Foreign,
        State::Unhealthy => WireState::Unhealthy,
        State::Quarantined => WireState::Quarantined,
        State::Stuck => WireState::Stuck,
        State::Changed => WireState::Changed,
        State::Missing => WireState::Missing,
        State::Unusable => WireState::Unusable,
    }
}

fn mode_into(mode: WireMode) -> Mode {
    match mode {
        WireMode::Idle => Mode::Idle,
        WireMode::Passthrough => Mode::Passthrough,
        WireMode::Vgpu => Mode::Vgpu,
        WireMode::MigVgpu => Mode::MigVgpu,
        // What is set up in a way that we do not know is not ours.
        WireMode::Foreign | WireMode::Unspecified => Mode::Foreign,
    }
}

#[must_use]
pub fn mode_out(mode: Mode) -> WireMode {
    match mode {
        Mode::Idle => WireMode::Idle,
        Mode::Passthrough => WireMode::Passthrough,
        Mode::Vgpu => WireMode::Vgpu,
        Mode::MigVgpu => WireMode::MigVgpu,
        Mode::Foreign => WireMode::Foreign,
    }
}

/// Why a device is QUARANTINED that its host finds nothing wrong with.
pub const OPERATOR_QUARANTINE: &str = "OperatorQuarantine";

/// The host's word, and what the plane has to add: who holds it, and that an operator closed it. A fault stays the host's
/// word, whatever else is true.
#[must_use]
pub fn record_out(record: &Record) -> v1::Device {
    let mut shown = out(record.name(), &record.device);
    shown.holders = record.holders.iter().map(holder_out).collect();
    shown.quarantined = record.quarantine.is_some();
    let healthy = record.device.state == State::Available;
    match &record.quarantine {
        Some(said) if healthy => {
            shown.state = WireState::Quarantined.into();
            shown.reason = OPERATOR_QUARANTINE.to_owned();
            shown.message.clone_from(said);
        }
        Some(said) => {
            let more = if said.is_empty() { "quarantined by an operator" } else { said };
            shown.message = [shown.message.as_str(), more]
                .into_iter()
                .filter(|text| !text.is_empty())
                .collect::<Vec<_>>()
                .join("; ");
        }
        None if healthy && record.in_use() => shown.state = WireState::InUse.into(),
        None => {}
    }
    shown
}

fn holder_out(holder: &Holder) -> v1::Holder {
    v1::Holder {
        instance: holder.name.clone(),
        atoms: holder.atoms.iter().map(ToString::to_string).collect(),
        mig_profiles: holder.mig_profiles.clone(),
        vgpu_types: holder.vgpu_types.clone(),
    }
}

#[must_use]
pub fn out(name: String, device: &Device) -> v1::Device {
    let (physical, function_index) = match &device.physical {
        Some((physical, index)) => (physical.to_string(), i32::from(*index)),
        None => (String::new(), 0),
    };
    v1::Device {
        name,
        kind: kind_out(device.kind).into(),
        state: state_out(device.state).into(),
        reason: device.reason.clone(),
        message: device.message.clone(),
        id: device.pci_id.clone(),
        vendor_name: device.vendor_name.clone(),
        device_name: device.device_name.clone(),
        class: device.class.clone(),
        serial: device.serial.clone(),
        slot_path: device.slot_path.clone(),
        driver: device.driver.clone(),
        iommu_group: device.iommu_group.unwrap_or(-1),
        companions: device.companions.iter().map(ToString::to_string).collect(),
        numa_node: device.numa_node.unwrap_or(-1),
        physical,
        function_index,
        functions_total: i32::from(device.functions_total),
        functions_count: i32::from(device.functions_count),
        gpu: device.gpu.as_ref().map(gpu_out),
        holders: Vec::new(),
        last_reset: device.last_reset.as_ref().map(|reset| v1::Reset {
            method: reset.method.clone(),
            time: Some(time::out(reset.time)),
            clean: reset.clean,
            message: reset.message.clone(),
        }),
        quarantined: false,
    }
}

fn gpu_out(gpu: &Gpu) -> v1::Gpu {
    let board = gpu.board.as_ref();
    v1::Gpu {
        model: gpu.model.clone(),
        product_name: gpu.product_name.clone(),
        uuid: gpu.uuid.clone(),
        memory_mib: gpu.memory_mib,
        mode: mode_out(gpu.mode).into(),
        mig_capable: board.is_some(),
        mig_enabled: gpu.mig_enabled,
        memory_slices: board.map_or(0, |board| i32::from(board.memory_slices)),
        compute_slices: board.map_or(0, |board| i32::from(board.compute_slices)),
        mig_profiles: board.iter().flat_map(|board| &board.profiles).map(profile_out).collect(),
        mig_instances: gpu
            .mig_instances
            .iter()
            .map(|instance| v1::MigInstance {
                profile: instance.profile.clone(),
                start: i32::from(instance.start),
                size: i32::from(instance.size),
            })
            .collect(),
        vgpu_framework: gpu.vgpu_framework.clone(),
        vgpu_types: gpu.vgpu_types.iter().map(vgpu_type_out).collect(),
        heterogeneous_capable: gpu.heterogeneous_capable,
        fabric_partitions: gpu
            .fabric_partitions
            .iter()
            .map(|partition| v1::FabricPartition {
                id: i32::try_from(partition.id).unwrap_or(-1),
                gpus: partition.gpus.iter().map(ToString::to_string).collect(),
            })
            .collect(),
    }
}

fn profile_out(profile: &MigProfile) -> v1::MigProfile {
    v1::MigProfile {
        name: profile.name.clone(),
        memory_slices: i32::from(profile.memory_slices),
        starts: profile.starts.iter().copied().map(i32::from).collect(),
        compute_slices: i32::from(profile.compute_slices),
        memory_mib: profile.memory_mib,
        max_count: i32::try_from(profile.max_count).unwrap_or(i32::MAX),
    }
}

fn vgpu_type_out(vgpu: &VgpuType) -> v1::VgpuType {
    v1::VgpuType {
        name: vgpu.name.clone(),
        framebuffer_mib: vgpu.framebuffer_mib,
        mig_profile: vgpu.mig_profile.clone(),
        max_count: i32::try_from(vgpu.max_count).unwrap_or(i32::MAX),
    }
}

#[cfg(test)]
#[path = "device_tests.rs"]
mod tests;
