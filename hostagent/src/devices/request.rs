//! What an instance asks for by one request, in the device library's words; and whether the piece is the one that was placed.

use croft_gpu::gpu::Span;
use croft_gpu::host::{Host, VgpuFunction};
use croft_gpu::pci::{PciAddress, PciFunction, Sriov};
use croft_gpu::plan::{self, MigPiece, Mode, Wish};
use croft_proto::agent::v1::DesiredDevice;
use croft_proto::agent::v1::desired_device::Piece;
use uuid::Uuid;

use super::find::{self, Found};
use super::obstacle::{self, Obstacle};
use super::record::{LayoutMode, Mark, MarkKind, Record, Who};
use crate::reasons;

/// One request, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    /// A whole function and its companions.
    Function {
        address: PciAddress,
        companions: Vec<PciAddress>,
        partition: Option<u32>,
        mac: Option<String>,
    },
    /// A vGPU on a virtual function of a GPU.
    Slice {
        gpu: PciAddress,
        index: u16,
        type_name: String,
        piece: Option<MigPiece>,
    },
    /// A mediated device of a parent that has no virtual functions.
    Mediated {
        parent: String,
        type_name: String,
    },
    Usb,
}

impl Request {
    /// Refuses what is not there, is not who it was, or is marked.
    pub fn check(host: &Host, record: &Record, desired: &DesiredDevice) -> Result<Request, Obstacle> {
        let id = &desired.device;
        if let Some(message) = &record.corrupt {
            return Err(Obstacle::new(reasons::JOURNAL_CORRUPT, message.clone()));
        }
        // A virtual function is of its card: what is another card has other functions. A card in quarantine takes nothing from
        // anybody.
        let stays = |of: &String, mark: &Mark| of != id && mark.kind == MarkKind::Quarantined && record.is_held(id);
        if let Some((of, mark)) = find::marks(host, record, id).find(|(of, mark)| !stays(of, mark)) {
            return Err(obstacle::of_mark(of, mark));
        }
        let found = find::device(host, record, id)?;
        is_the_one(host, record, desired, found)?;
        if let Some(obstacle) = find::unproven(record, &record.boot_id, id) {
            return Err(obstacle);
        }
        let request = Self::read(host, desired, found)?;
        match (&request, found) {
            (Self::Function { mac: Some(_), .. }, Found::Function(function)) => {
                find::card_down(host, function).map_or(Ok(request), Err)
            }
            _ => Ok(request),
        }
    }

    fn read(host: &Host, desired: &DesiredDevice, found: Found<'_>) -> Result<Request, Obstacle> {
        let id = &desired.device;
        let wrong = |why: &str| Obstacle::new(reasons::DEVICE_CHANGED, format!("{id} {why}"));
        match (&desired.piece, found) {
            (Some(Piece::Whole(whole)), Found::Function(function)) => {
                let parse =
                    |text: &String| text.parse().map_err(|error| wrong(&format!("has a companion that {error}")));
                let companions = whole.companions.iter().map(parse).collect::<Result<_, _>>()?;
                let partition = u32::try_from(whole.fabric_partition).ok();
                let mac = Some(whole.mac.clone()).filter(|mac| !mac.is_empty());
                Ok(Self::Function { address: function.address, companions, partition, mac })
            }
            (Some(Piece::Vgpu(vgpu)), Found::Function(function)) if cuts_functions(host, function) => {
                let slice = |number: i32| u8::try_from(number).map_err(|_| wrong("has no such slice"));
                let piece = match vgpu.mig_profile.as_str() {
                    "" => None,
                    profile => {
                        let placement = Span { start: slice(vgpu.mig_start)?, size: slice(vgpu.mig_size)? };
                        Some(MigPiece { profile: profile.to_owned(), placement })
                    }
                };
                let index = u16::try_from(vgpu.function_index).map_err(|_| wrong("needs the index of a function"))?;
                Ok(Self::Slice { gpu: function.address, index, type_name: vgpu.r#type.clone(), piece })
            }
            (Some(Piece::Vgpu(vgpu)), Found::Function(_) | Found::Maker) => {
                Ok(Self::Mediated { parent: id.clone(), type_name: vgpu.r#type.clone() })
            }
            (Some(Piece::Usb(_)), Found::Usb(_)) => Ok(Self::Usb),
            (None, _) => {
                let message = "the request names a piece that this agent does not know: upgrade it";
                Err(Obstacle::new(reasons::FEATURE_MISSING, message))
            }
            (Some(_), _) => Err(wrong("is no device of the kind that was placed")),
        }
    }

    /// May a running guest be given it?
    pub fn is_hot_pluggable(&self, host: &Host) -> bool {
        match self {
            Self::Function { address, .. } => !find::is_gpu(host, *address),
            Self::Usb => true,
            Self::Slice { .. } | Self::Mediated { .. } => false,
        }
    }
}

/// Does this GPU make its vGPUs on virtual functions?
fn cuts_functions(host: &Host, function: &PciFunction) -> bool {
    find::is_gpu(host, function.address) && matches!(function.sriov, Sriov::Physical { total: 1.., .. })
}

/// The plane placed the instance on a certain piece of hardware: it gets that or nothing.
fn is_the_one(host: &Host, record: &Record, desired: &DesiredDevice, found: Found<'_>) -> Result<(), Obstacle> {
    let id = &desired.device;
    let changed = |why: String| Err(Obstacle::new(reasons::DEVICE_CHANGED, format!("{id}: {why}")));
    let now = find::who(host, found);
    let known = record.known.get(id);
    if let Some(difference) = known.and_then(|known| find::differs(known, &now)) {
        return changed(difference);
    }
    let remembered = known.map_or_else(|| now.clone(), |known| find::updated(&known.who, now.clone()));
    let serial = find::serial(&remembered);
    if !desired.serial.is_empty() && desired.serial != serial {
        let there = if serial.is_empty() { "one that does not say who it is" } else { serial.as_str() };
        return changed(format!("{} was placed, and {there} is here", desired.serial));
    }
    let (pci_id, slot_path) = match &now {
        Who::Pci(identity) => (identity.pci_id.clone(), identity.slot_path.clone()),
        Who::Usb(identity) => (format!("{:04x}:{:04x}", identity.vendor, identity.product), String::new()),
        Who::Named => return Ok(()),
    };
    if !desired.pci_id.is_empty() && desired.pci_id != pci_id {
        return changed(format!("a {} was placed, and a {pci_id} is here", desired.pci_id));
    }
    if !desired.slot_path.is_empty() && !slot_path.is_empty() && desired.slot_path != slot_path {
        return changed(format!("it was placed at {}, and sits at {slot_path}", desired.slot_path));
    }
    Ok(())
}

/// The mode that a slice needs its GPU to be in. One that fits already is kept, since others may be in it.
pub(super) fn mode(host: &Host, record: &Record, gpu: PciAddress, piece: Option<&MigPiece>) -> Result<Mode, Obstacle> {
    if record.layout.modes.get(&gpu) == Some(&LayoutMode::Foreign) {
        let message = format!("{gpu} is left to others by the layout of this host");
        return Err(Obstacle::new(reasons::DEVICE_FOREIGN, message));
    }
    if piece.is_some() {
        return Ok(Mode::MigVgpu);
    }
    match current_mode(host, gpu)? {
        mode @ (Mode::Vgpu | Mode::VgpuMixed) => Ok(mode),
        Mode::Idle | Mode::MigVgpu => {
            let capable = |gpu: &croft_gpu::gpu::Gpu| gpu.heterogeneous_capable;
            let mixed = host.gpus.devices.iter().find(|other| other.address == gpu).is_some_and(capable);
            Ok(if mixed { Mode::VgpuMixed } else { Mode::Vgpu })
        }
    }
}

/// By the wish that would lead back to it.
pub(super) fn current_mode(host: &Host, gpu: PciAddress) -> Result<Mode, Obstacle> {
    match plan::give_back(host, &Wish::Mode { gpu, mode: Mode::Idle })? {
        Some(Wish::Mode { mode, .. }) => Ok(mode),
        _ => Ok(Mode::Idle),
    }
}

/// The wish for a slice, once its GPU is in the right mode: only then there are functions.
pub(super) fn slice(
    host: &Host,
    (uid, request): (Uuid, &str),
    gpu: PciAddress,
    index: u16,
    type_name: &str,
    piece: Option<&MigPiece>,
) -> Result<Wish, Obstacle> {
    let physical = host.pci.devices.iter().find(|function| function.address == gpu);
    let functions = match physical.map(|physical| &physical.sriov) {
        Some(Sriov::Physical { functions, .. }) => functions.as_slice(),
        _ => &[],
    };
    let function = functions.iter().find(|function| function.index == index).map(|function| function.address);
    let function = function.ok_or_else(|| {
        let message = format!("{gpu} has {} virtual functions, and none with index {index}", functions.len());
        Obstacle::new(reasons::DEVICE_MISSING, message)
    })?;
    let gpu_instance = piece.cloned();
    Ok(match host.vgpus.get(&function) {
        Some(VgpuFunction::Mdev { .. }) => {
            let (parent, type_name) = (function.to_string(), type_name.to_owned());
            Wish::Mdev { parent, type_name, uuid: mdev_uuid(uid, request), gpu_instance }
        }
        Some(VgpuFunction::Vendor { .. }) | None => {
            Wish::Vgpu { function, type_name: type_name.to_owned(), gpu_instance }
        }
    })
}

/// The same for the same request, so that making it twice is seen, after a reboot too.
pub(super) fn mdev_uuid(uid: Uuid, request: &str) -> String {
    Uuid::new_v5(&uid, request.as_bytes()).to_string()
}
