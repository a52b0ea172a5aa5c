//! A GPU's facts, and those of whatever else is cut into mediated devices.

use croft_gpu::gpu::{self, Gpu, Mig, MigState, VgpuSupport};
use croft_gpu::host::{Fabric, Host, MdevType, VgpuFunction};
use croft_gpu::pci::{PciFunction, Sriov};
use croft_proto::v1;
use croft_proto::v1::device::State;
use croft_proto::v1::gpu::Mode;

/// `None`: it is none. With how many it can be cut into, where no virtual functions say so.
pub(super) fn of_function(host: &Host, function: &PciFunction) -> Option<(v1::Gpu, Option<i32>)> {
    let physical = matches!(function.sriov, Sriov::Physical { total: 1.., .. });
    let made = match host.vgpus.get(&function.address) {
        Some(VgpuFunction::Mdev { types }) if !physical && !function.is_virtual() => {
            Some(of_maker(&function.address.to_string(), types, host))
        }
        _ => None,
    };
    let Some(gpu) = host.gpus.devices.iter().find(|gpu| gpu.address == function.address) else {
        return made.map(|(gpu, total)| (gpu, Some(total)));
    };
    let mut facts = of_gpu(host, gpu);
    let mut total = None;
    if let Some((maker, count)) = made {
        if facts.vgpu_types.is_empty() {
            facts.vgpu_types = maker.vgpu_types;
        }
        total = Some(count);
    }
    Some((facts, total))
}

fn of_gpu(host: &Host, gpu: &Gpu) -> v1::Gpu {
    let mig = match &gpu.mig {
        Mig::Supported(mig) => Some(mig),
        Mig::Unsupported | Mig::Unknown { .. } => None,
    };
    let partitions = match &host.fabric {
        Fabric::Shared { partitions } => partitions.as_slice(),
        Fabric::None | Fabric::Unavailable { .. } => &[],
    };
    v1::Gpu {
        model: gpu.model.clone().unwrap_or_default(),
        product_name: gpu.name.clone().unwrap_or_default(),
        uuid: gpu.identity.uuid.clone().unwrap_or_default(),
        memory_mib: signed(gpu.memory_mib.unwrap_or(0)),
        mode: Mode::Unspecified.into(),
        mig_capable: mig.is_some(),
        mig_enabled: false,
        memory_slices: mig.map_or(0, |mig| mig.memory_slices.into()),
        compute_slices: mig.map_or(0, |mig| mig.compute_slices.into()),
        mig_profiles: mig.into_iter().flat_map(|mig| &mig.profiles).map(profile).collect(),
        mig_instances: Vec::new(),
        vgpu_framework: framework(&gpu.vgpu).to_owned(),
        vgpu_types: gpu.vgpu_types.iter().map(vgpu_type).collect(),
        heterogeneous_capable: gpu.heterogeneous_capable,
        fabric_partitions: partitions
            .iter()
            .filter(|partition| partition.unread.is_none() && partition.gpus.contains(&gpu.address))
            .map(|partition| v1::FabricPartition {
                id: partition.id as i32,
                gpus: partition.gpus.iter().map(ToString::to_string).collect(),
            })
            .collect(),
    }
}

/// What changes: what it is set up for, and how it is carved now.
pub(super) fn set_up(facts: &mut v1::Gpu, host: &Host, id: &str, state: State) {
    let gpu = host.gpus.devices.iter().find(|gpu| gpu.address.to_string() == id);
    let function = host.pci.devices.iter().find(|function| function.address.to_string() == id);
    let mig: Option<&MigState> = match gpu.map(|gpu| &gpu.mig) {
        Some(Mig::Supported(mig)) => Some(mig),
        _ => None,
    };
    facts.mig_enabled = mig.is_some_and(|mig| mig.current);
    facts.mig_instances = mig.into_iter().flat_map(|mig| &mig.instances).map(instance).collect();
    if let Some(gpu) = gpu.filter(|gpu| gpu.vgpu != VgpuSupport::None) {
        framework(&gpu.vgpu).clone_into(&mut facts.vgpu_framework);
    }
    facts.mode = match state {
        State::Foreign => Mode::Foreign,
        _ => function.map_or(Mode::Idle, |function| mode(function, facts.mig_enabled)),
    }
    .into();
}

fn mode(function: &PciFunction, mig: bool) -> Mode {
    let cut = matches!(&function.sriov, Sriov::Physical { functions, .. } if !functions.is_empty());
    match function.driver.as_deref() {
        Some(driver) if driver.replace('_', "-").ends_with("vfio-pci") => Mode::Passthrough,
        _ if cut && mig => Mode::MigVgpu,
        _ if cut => Mode::Vgpu,
        _ => Mode::Idle,
    }
}

/// A parent of mediated devices: what it can make, and how many there can be at the most.
pub(super) fn of_maker(parent: &str, types: &[MdevType], host: &Host) -> (v1::Gpu, i32) {
    let made = |id: Option<&str>| {
        let of_it = host.mdevs.iter().filter(|mdev| mdev.parent == parent);
        of_it.filter(|mdev| id.is_none_or(|id| mdev.type_id == id)).count()
    };
    let small = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let kinds = types.iter().map(|kind| v1::VgpuType {
        name: type_name(kind),
        framebuffer_mib: 0,
        mig_profile: String::new(),
        max_count: small(kind.available as usize + made(Some(&kind.id))),
    });
    let most = types.iter().map(|kind| kind.available as usize).max().unwrap_or(0);
    // Its name is its model, so that quota has a word for it.
    let is_word = parent.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    let model = if is_word { parent.to_owned() } else { String::new() };
    let vgpu_framework = "mdev".to_owned();
    let gpu = v1::Gpu { model, vgpu_framework, vgpu_types: kinds.collect(), ..v1::Gpu::default() };
    (gpu, small(most + made(None)))
}

/// By what an instance asks for it: the driver's name without its brand, or the id where there is no name of one word.
fn type_name(kind: &MdevType) -> String {
    let name = kind.name.as_deref().unwrap_or_default();
    let bare = ["GRID ", "NVIDIA "].iter().find_map(|brand| name.strip_prefix(brand)).unwrap_or(name);
    if bare.is_empty() || bare.contains(char::is_whitespace) { kind.id.clone() } else { bare.to_owned() }
}

fn framework(support: &VgpuSupport) -> &'static str {
    match support {
        VgpuSupport::None => "none",
        VgpuSupport::Dormant => "dormant",
        VgpuSupport::Mdev => "mdev",
        VgpuSupport::Vendor => "vendor",
    }
}

fn profile(profile: &gpu::GpuInstanceProfile) -> v1::MigProfile {
    v1::MigProfile {
        name: profile.name.clone(),
        memory_slices: profile.placements.first().map_or(0, |span| span.size.into()),
        starts: profile.placements.iter().map(|span| span.start.into()).collect(),
        compute_slices: profile.compute_slices.into(),
        memory_mib: signed(profile.memory_mib),
        max_count: i32::try_from(profile.max_count).unwrap_or(i32::MAX),
    }
}

fn instance(instance: &gpu::GpuInstance) -> v1::MigInstance {
    let gpu::Span { start, size } = instance.placement;
    v1::MigInstance { profile: instance.profile.clone(), start: start.into(), size: size.into() }
}

fn vgpu_type(kind: &gpu::SupportedVgpu) -> v1::VgpuType {
    v1::VgpuType {
        name: kind.name.clone(),
        framebuffer_mib: signed(kind.framebuffer_mib),
        mig_profile: kind.mig_profile.clone().unwrap_or_default(),
        max_count: kind.max_count.and_then(|count| i32::try_from(count).ok()).unwrap_or(0),
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
