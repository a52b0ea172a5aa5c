//! Fabric Manager's partitions of GPUs behind NVSwitch: only GPUs of an active one reach each other in guests.

use croft_gpu::pci::PciAddress;

use crate::state::{Fabric, FabricManager, FabricPartition, Nvidia};

/// Fabric Manager's refusals, by the numbers of its library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[repr(i32)]
pub enum FabricError {
    #[error("no such partition")]
    BadParameter = -1,
    #[error("Fabric Manager does not run in shared NVSwitch mode")]
    NotSupported = -3,
    #[error("one of its GPUs belongs to an active partition")]
    InUse = -7,
    #[error("Fabric Manager does not answer")]
    NotConnected = -9,
}

/// The partitions of a tray of eight: all, halves, pairs, singles, numbered as on HGX boards.
#[must_use]
pub fn tray(manager: FabricManager, gpus: &[PciAddress]) -> Fabric {
    let sizes = [8, 4, 2, 1].into_iter().filter(|size| *size <= gpus.len());
    let groups = sizes.flat_map(|size| gpus.chunks_exact(size));
    let partitions = (0..).zip(groups).map(|(id, gpus)| FabricPartition { id, gpus: gpus.to_vec(), active: false });
    Fabric { manager, partitions: partitions.collect() }
}

/// The partitions, if there is somebody to ask.
pub fn fabric_partitions(nvidia: &Nvidia) -> Result<&[FabricPartition], FabricError> {
    match nvidia.fabric.as_ref() {
        None | Some(Fabric { manager: FabricManager::NotRunning, .. }) => Err(FabricError::NotConnected),
        Some(Fabric { manager: FabricManager::BareMetal, .. }) => Err(FabricError::NotSupported),
        Some(fabric) => Ok(&fabric.partitions),
    }
}

/// Active already: nothing happens.
pub fn activate_partition(nvidia: &mut Nvidia, id: u32) -> Result<(), FabricError> {
    let partitions = fabric_partitions(nvidia)?;
    let wanted = partitions.iter().find(|partition| partition.id == id).ok_or(FabricError::BadParameter)?;
    let overlaps = |other: &FabricPartition| other.gpus.iter().any(|gpu| wanted.gpus.contains(gpu));
    if partitions.iter().any(|other| other.active && other.id != id && overlaps(other)) {
        return Err(FabricError::InUse);
    }
    set(nvidia, id, true);
    Ok(())
}

/// Inactive already: nothing happens.
pub fn deactivate_partition(nvidia: &mut Nvidia, id: u32) -> Result<(), FabricError> {
    if !fabric_partitions(nvidia)?.iter().any(|partition| partition.id == id) {
        return Err(FabricError::BadParameter);
    }
    set(nvidia, id, false);
    Ok(())
}

fn set(nvidia: &mut Nvidia, id: u32, active: bool) {
    let partitions = nvidia.fabric.iter_mut().flat_map(|fabric| &mut fabric.partitions);
    for partition in partitions.filter(|partition| partition.id == id) {
        partition.active = active;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Flavour;

    fn host(manager: FabricManager) -> Nvidia {
        let gpus: Vec<_> = (0..8).map(|bus| PciAddress { domain: 0, bus, device: 0, function: 0 }).collect();
        Nvidia { fabric: Some(tray(manager, &gpus)), ..Nvidia::new(Flavour::VgpuVendor) }
    }

    #[test]
    fn no_gpu_is_in_two_active_partitions() {
        let mut host = host(FabricManager::SharedNvswitch);
        assert_eq!(fabric_partitions(&host).unwrap().len(), 15);
        activate_partition(&mut host, 3).unwrap();
        activate_partition(&mut host, 3).unwrap();
        for overlapping in [0, 1, 7, 8] {
            assert_eq!(activate_partition(&mut host, overlapping), Err(FabricError::InUse));
        }
        activate_partition(&mut host, 2).unwrap();
        deactivate_partition(&mut host, 3).unwrap();
        activate_partition(&mut host, 1).unwrap();
        assert_eq!(activate_partition(&mut host, 15), Err(FabricError::BadParameter));
    }

    #[test]
    fn a_manager_in_another_mode_refuses() {
        for (manager, error) in [
            (FabricManager::NotRunning, FabricError::NotConnected),
            (FabricManager::BareMetal, FabricError::NotSupported),
        ] {
            let mut host = host(manager);
            assert_eq!(activate_partition(&mut host, 0), Err(error));
            assert_eq!(deactivate_partition(&mut host, 0), Err(error));
        }
    }
}
