//! The exact pieces of devices that an instance was given, as its agent reads them: enough to find each one, to know it again,
//! and to refuse another.

use agent::desired_device::{Piece, Usb, Vgpu, Whole};
use croft_core::device::{Assignment, Kind};
use croft_core::instance::Instance;
use croft_proto::agent::v1 as agent;

use super::desired::local_mac;

#[must_use]
pub fn out(instance: &Instance) -> Vec<agent::DesiredDevice> {
    let given = instance.placement.iter().flat_map(|placement| &placement.devices);
    given.map(|assignment| one(instance, assignment)).collect()
}

fn one(instance: &Instance, assignment: &Assignment) -> agent::DesiredDevice {
    agent::DesiredDevice {
        id: assignment.id.clone(),
        device: assignment.device.to_string(),
        serial: assignment.serial.clone(),
        pci_id: assignment.pci_id.clone(),
        slot_path: assignment.slot_path.clone(),
        detach: instance.intent.detaching.contains_key(&assignment.id),
        piece: Some(piece(instance, assignment)),
    }
}

fn piece(instance: &Instance, assignment: &Assignment) -> Piece {
    if assignment.kind == Kind::Usb {
        return Piece::Usb(Usb {});
    }
    if !assignment.vgpu_type.is_empty() {
        return Piece::Vgpu(Vgpu {
            r#type: assignment.vgpu_type.clone(),
            function_index: assignment.function_index.map_or(-1, i32::from),
            mig_profile: assignment.mig_profile.clone(),
            mig_start: i32::from(assignment.mig_start),
            mig_size: i32::from(assignment.mig_size),
        });
    }
    let is_network = assignment.is_network_function();
    Piece::Whole(Whole {
        companions: assignment.companions.iter().map(|(device, _)| device.to_string()).collect(),
        fabric_partition: assignment.fabric_partition.and_then(|id| i32::try_from(id).ok()).unwrap_or(-1),
        // By the request, not by the slot: a guest keeps its address when it is placed again.
        mac: if is_network { local_mac(&format!("{}/{}", instance.uid, assignment.id)) } else { String::new() },
    })
}
