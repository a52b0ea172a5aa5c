//! A step in words, for messages: "unbind 0000:41:00.0 from nvidia".

use crate::gpu::Span;
use crate::pci::PciAddress;
use crate::plan::Step;

#[must_use]
pub fn of(step: &Step) -> String {
    let switch = |on: &bool| if *on { "on" } else { "off" };
    match step {
        Step::SetDriverOverride { address, to: Some(driver), .. } => format!("reserve {address} for {driver}"),
        Step::SetDriverOverride { address, to: None, .. } => format!("open {address} to any driver"),
        Step::Unbind { address, driver } => format!("unbind {address} from {driver}"),
        Step::Bind { address, driver } => format!("bind {address} to {driver}"),
        Step::SetAutoprobe { physical, to, .. } => format!("turn autoprobe of {physical} {}", switch(to)),
        Step::SetVirtualFunctions { physical, from, to } => {
            format!("change the virtual functions of {physical} from {from} to {to}")
        }
        Step::SriovManage { gpu, enable } => format!("turn virtual functions of {gpu} {}", switch(enable)),
        Step::SetPersistence { gpu, to, .. } => format!("turn persistence of {gpu} {}", switch(to)),
        Step::SetMigMode { gpu, to, .. } => format!("turn MIG mode of {gpu} {}", switch(to)),
        Step::CreateGpuInstance { gpu, profile, placement: Span { start, size } } => {
            format!("create a {profile} at {start}:{size} of {gpu}")
        }
        Step::DestroyGpuInstance { gpu, profile, placement: Span { start, size } } => {
            format!("destroy the {profile} at {start}:{size} of {gpu}")
        }
        Step::CreateMdev { parent, type_id, uuid } => format!("create mdev {uuid} of type {type_id} on {parent}"),
        Step::RemoveMdev { parent, uuid, .. } => format!("remove mdev {uuid} from {parent}"),
        Step::SetVgpuType { function, type_name, .. } => format!("make {function} a {type_name}"),
        Step::ClearVgpuType { function, type_name, .. } => format!("end the {type_name} on {function}"),
        Step::SetHeterogeneous { gpu, placement, to, .. } => {
            let where_ = placement.map(|span| format!(" at {}:{}", span.start, span.size)).unwrap_or_default();
            format!("turn mixed vGPU sizes on {gpu}{where_} {}", switch(to))
        }
        Step::ActivateFabricPartition { id } => format!("activate fabric partition {id}"),
        Step::DeactivateFabricPartition { id } => format!("deactivate fabric partition {id}"),
        Step::Reset { address, .. } => format!("reset {address}"),
        Step::ResetUsb { port, vendor, product, .. } => {
            format!("reset the {vendor:04x}:{product:04x} in USB port {port}")
        }
    }
}

/// The one device whose files a step writes; `None`: the fabric.
#[must_use]
pub fn device(step: &Step) -> Option<String> {
    let address: Option<PciAddress> = match step {
        Step::SetDriverOverride { address, .. }
        | Step::Unbind { address, .. }
        | Step::Bind { address, .. }
        | Step::Reset { address, .. } => Some(*address),
        Step::SetAutoprobe { physical, .. } | Step::SetVirtualFunctions { physical, .. } => Some(*physical),
        Step::SriovManage { gpu, .. }
        | Step::SetPersistence { gpu, .. }
        | Step::SetMigMode { gpu, .. }
        | Step::CreateGpuInstance { gpu, .. }
        | Step::DestroyGpuInstance { gpu, .. }
        | Step::SetHeterogeneous { gpu, .. } => Some(*gpu),
        Step::CreateMdev { parent, .. } | Step::RemoveMdev { parent, .. } => return Some(parent.clone()),
        Step::SetVgpuType { function, .. } | Step::ClearVgpuType { function, .. } => Some(*function),
        Step::ResetUsb { port, .. } => return Some(port.to_string()),
        Step::ActivateFabricPartition { .. } | Step::DeactivateFabricPartition { .. } => None,
    };
    address.map(|address| address.to_string())
}
