//! NVSwitch partitions: which GPUs of the board talk to each other. Fabric Manager sets the switches; a whole GPU goes to a
//! guest with a partition that is activated before its start and deactivated after its end.

use crate::host::{Fabric, FabricPartition};
use crate::pci::PciAddress;

use super::look::Look;
use super::refusal::{Reason, Refusal};
use super::step::Step;

pub(super) fn plan(look: Look<'_>, id: u32, active: bool) -> Result<Vec<Step>, Refusal> {
    let name = format!("fabric partition {id}");
    let refuse = |reason, message: String, fix: String| Err(Refusal::new(reason, &name, message, fix));
    let partitions = match &look.host.fabric {
        Fabric::Shared { partitions } => partitions,
        Fabric::None => {
            let fix = "give its GPUs without one".to_owned();
            return refuse(Reason::FabricPartitionUnknown, "this host has no NVSwitch".to_owned(), fix);
        }
        Fabric::Unavailable { why } => {
            let fix = "run Fabric Manager in shared NVSwitch mode".to_owned();
            return refuse(Reason::FabricManagerUnavailable, format!("{name} cannot be set: {why}"), fix);
        }
    };
    let Some(partition) = partitions.iter().find(|partition| partition.id == id) else {
        let known: Vec<_> = partitions.iter().map(|partition| partition.id.to_string()).collect();
        return refuse(
            Reason::FabricPartitionUnknown,
            format!("there is no {name}"),
            format!("there are {}", known.join(", ")),
        );
    };
    if partition.active == active {
        return Ok(Vec::new());
    }
    if let (true, Some(why)) = (active, &partition.unread) {
        let fix = "see Fabric Manager's log, or take another partition".to_owned();
        return refuse(Reason::FabricManagerUnavailable, format!("{name} cannot be activated: {why}"), fix);
    }
    let shared = |other: &FabricPartition| other.gpus.iter().copied().find(|gpu| partition.gpus.contains(gpu));
    let others = || partitions.iter().filter(|other| other.id != id && other.active);
    if active && let Some((other, gpu)) = others().find_map(|other| Some((other.id, shared(other)?))) {
        let message = format!("{name} shares GPU {gpu} with partition {other}, which is active");
        return refuse(Reason::FabricPartitionOverlap, message, format!("deactivate partition {other} first"));
    }
    for &gpu in &partition.gpus {
        untouched(look, gpu)?;
    }
    Ok(vec![if active { Step::ActivateFabricPartition { id } } else { Step::DeactivateFabricPartition { id } }])
}

/// Nobody but the asker may have the GPU, and nobody may be using it: the switches under it are set anew.
fn untouched(look: Look<'_>, gpu: PciAddress) -> Result<(), Refusal> {
    look.function(gpu)?;
    look.not_anothers(gpu)?;
    look.not_held(gpu)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Wish;
    use crate::plan::testing::{HostBuilder, at, h100, nobodys, owners};

    const GPUS: [&str; 2] = ["0000:41:00.0", "0000:42:00.0"];

    /// 0: both; 1 and 2: one each.
    fn host(active: &[u32]) -> HostBuilder {
        let of: [(u32, &[&str]); 3] = [(0, &GPUS), (1, &GPUS[..1]), (2, &GPUS[1..])];
        let partitions = of.map(|(id, gpus)| FabricPartition {
            id,
            gpus: gpus.iter().map(|gpu| at(gpu)).collect(),
            active: active.contains(&id),
            unread: None,
        });
        let host = HostBuilder::new().gpu(h100(GPUS[0]), &[]).gpu(h100(GPUS[1]), &[]);
        host.fabric(Fabric::Shared { partitions: partitions.into() })
    }

    fn wish(id: u32, active: bool) -> Wish {
        Wish::FabricPartition { id, active }
    }

    #[test]
    fn a_partition_is_set_once_and_shares_no_gpu_with_an_active_one() {
        assert_eq!(host(&[]).plan(wish(1, true)).unwrap(), [Step::ActivateFabricPartition { id: 1 }]);
        assert_eq!(host(&[1]).plan(wish(1, true)).unwrap(), []);
        assert_eq!(host(&[1]).plan(wish(2, true)).unwrap(), [Step::ActivateFabricPartition { id: 2 }]);
        assert_eq!(host(&[1]).plan(wish(1, false)).unwrap(), [Step::DeactivateFabricPartition { id: 1 }]);
        assert_eq!(host(&[]).plan(wish(1, false)).unwrap(), []);
        let refusal = host(&[2]).plan(wish(0, true)).unwrap_err();
        assert_eq!(refusal.reason, Reason::FabricPartitionOverlap);
        assert!(refusal.message.contains(GPUS[1]) && refusal.fix.contains("partition 2"), "{refusal}");
    }

    #[test]
    fn a_partition_is_not_set_under_anyone() {
        let hers = owners("his", &[(GPUS[1], "hers")]);
        assert_eq!(host(&[]).plan_for(&hers, wish(0, true)).unwrap_err().reason, Reason::DeviceOwned);
        assert!(host(&[]).plan_for(&hers, wish(1, true)).is_ok());
        let held = host(&[0]).holder(GPUS[0], "qemu").plan_for(&nobodys(), wish(0, false)).unwrap_err();
        assert_eq!((held.reason, held.message.contains("qemu")), (Reason::DeviceHeldOpen, true));
        assert_eq!(host(&[]).pci_error(GPUS[0]).plan(wish(0, true)).unwrap_err().reason, Reason::DeviceNotSeen);
    }

    /// Whose GPUs are not all known is given to nobody, and taken back all the same; the others are as they are.
    #[test]
    fn one_unreadable_partition_keeps_nobody_from_the_others() {
        let odd = |active: &[u32]| {
            let Fabric::Shared { mut partitions } = host(active).build().fabric else { panic!() };
            partitions[0].unread = Some("GPU 7 of it has no address".to_owned());
            partitions[0].gpus.pop();
            HostBuilder::new().gpu(h100(GPUS[0]), &[]).gpu(h100(GPUS[1]), &[]).fabric(Fabric::Shared { partitions })
        };
        let refusal = odd(&[]).plan(wish(0, true)).unwrap_err();
        assert_eq!(refusal.reason, Reason::FabricManagerUnavailable);
        assert!(refusal.message.contains("GPU 7 of it has no address"), "{refusal}");
        assert_eq!(odd(&[]).plan(wish(2, true)).unwrap(), [Step::ActivateFabricPartition { id: 2 }]);
        assert_eq!(odd(&[0]).plan(wish(0, false)).unwrap(), [Step::DeactivateFabricPartition { id: 0 }]);
    }

    #[test]
    fn without_its_manager_nothing_is_set() {
        let unavailable = Fabric::Unavailable { why: "it does not run".to_owned() };
        let refusal = HostBuilder::new().fabric(unavailable).plan(wish(1, true)).unwrap_err();
        assert_eq!(
            (refusal.reason, refusal.message.contains("does not run")),
            (Reason::FabricManagerUnavailable, true)
        );
        assert_eq!(HostBuilder::new().plan(wish(1, true)).unwrap_err().reason, Reason::FabricPartitionUnknown);
        let refusal = host(&[]).plan(wish(7, true)).unwrap_err();
        assert_eq!((refusal.reason, refusal.fix.as_str()), (Reason::FabricPartitionUnknown, "there are 0, 1, 2"));
    }
}
