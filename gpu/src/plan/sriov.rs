//! Virtual functions of ordinary devices: how many there are.
//!
//! The kernel changes the count only through 0 (EBUSY otherwise), so that a change takes all functions away: it is refused
//! beside one in use. Functions for guests are made with autoprobe off, or the host's own drivers would take them first.

use crate::pci::{PciAddress, PciFunction, Sriov};

use super::driver::functions_away;
use super::look::{Look, on_driver, on_vfio};
use super::refusal::{Reason, Refusal};
use super::step::Step;

pub(super) fn plan(look: Look<'_>, physical: PciAddress, count: u16, autoprobe: bool) -> Result<Vec<Step>, Refusal> {
    let function = look.function(physical)?;
    let refuse = |reason, message: String, fix: &str| Err(Refusal::new(reason, physical, message, fix));
    let Sriov::Physical { total, functions, autoprobe: probes } = &function.sriov else {
        let message = format!("{physical} can have no virtual functions");
        return refuse(Reason::SriovUnsupported, message, "turn SR-IOV on in the firmware, or take another device");
    };
    if look.gpu(function)?.is_some() {
        let message = format!("the virtual functions of GPU {physical} come with its mode");
        return refuse(Reason::DeviceUnsuitable, message, "wish for its mode");
    }
    if count > *total {
        let message = format!("{physical} can have {total} virtual functions, not {count}");
        return refuse(Reason::TooManyVirtualFunctions, message, "wish for fewer");
    }
    let now = u16::try_from(functions.len()).unwrap_or(u16::MAX);
    look.not_anothers(physical)?;
    let mut steps = Vec::new();
    let mut probes = *probes;
    if now != count {
        drivable(function)?;
        steps = functions_away(look, function)?;
        probes = probes && steps.is_empty();
    }
    if probes != autoprobe {
        steps.push(Step::SetAutoprobe { physical, from: probes, to: autoprobe });
    }
    if now != count && count != 0 {
        steps.push(Step::SetVirtualFunctions { physical, from: 0, to: count });
    }
    Ok(steps)
}

/// The count is written to the physical function's driver. Without one the kernel answers ENOENT; vfio-pci refuses unless
/// it was loaded with `enable_sriov`.
fn drivable(function: &PciFunction) -> Result<(), Refusal> {
    if function.driver.is_some() && !on_vfio(function) {
        return Ok(());
    }
    let message = format!("{} is {}, which makes no virtual functions", function.address, on_driver(function));
    Err(Refusal::new(Reason::DriverUnsuitable, function.address, message, "return it to the host's driver first"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Wish;
    use crate::plan::testing::{HostBuilder, at, function, h100, owners};

    const PF: &str = "0000:01:00.0";
    const VFS: [&str; 2] = ["0000:01:10.0", "0000:01:10.2"];

    fn wish(count: u16) -> Wish {
        Wish::VirtualFunctions { physical: at(PF), count, autoprobe: false }
    }

    fn nic(functions: &[&str]) -> HostBuilder {
        let pf = function(PF).driver("igb").group(1).physical(7, functions);
        let host = HostBuilder::new().function(pf);
        functions.iter().fold(host, |host, vf| host.function(function(vf).of(PF)))
    }

    fn count(from: u16, to: u16) -> Step {
        Step::SetVirtualFunctions { physical: at(PF), from, to }
    }

    fn autoprobe(to: bool) -> Step {
        Step::SetAutoprobe { physical: at(PF), from: !to, to }
    }

    #[test]
    fn a_count_goes_through_none() {
        assert_eq!(nic(&[]).plan(wish(3)).unwrap(), [autoprobe(false), count(0, 3)]);
        assert_eq!(nic(&VFS).plan(wish(3)).unwrap(), [autoprobe(false), count(2, 0), count(0, 3)]);
        assert_eq!(nic(&VFS).plan(wish(0)).unwrap(), [autoprobe(false), count(2, 0)]);
        let again = Wish::VirtualFunctions { physical: at(PF), count: 1, autoprobe: true };
        assert_eq!(nic(&VFS).plan(again).unwrap(), [autoprobe(false), count(2, 0), autoprobe(true), count(0, 1)]);
        assert_eq!(nic(&VFS).plan(wish(2)).unwrap(), [autoprobe(false)]);
        let back = Wish::VirtualFunctions { physical: at(PF), count: 2, autoprobe: true };
        assert_eq!(nic(&VFS).plan(back).unwrap(), []);
    }

    #[test]
    fn no_change_beside_a_function_in_use() {
        let refused = |host: HostBuilder, owners| {
            let refusal = host.plan_for(owners, wish(3)).unwrap_err();
            assert_eq!((refusal.reason, refusal.device.as_str()), (Reason::VirtualFunctionsInUse, PF));
            assert!(refusal.message.contains(VFS[1]) && refusal.fix.contains(VFS[1]), "{refusal}");
            refusal.message
        };
        let his = owners("his", &[(VFS[1], "his")]);
        assert!(refused(nic(&VFS), &his).contains("is his's"), "not even the asker's own");
        let nobodys = crate::plan::testing::nobodys();
        assert!(refused(nic(&VFS).holder(VFS[1], "qemu"), &nobodys).contains("qemu"));
        assert!(refused(nic(&VFS).mdev(VFS[1], "mtty-1", "u-1"), &nobodys).contains("u-1"));
        let mut host = nic(&VFS).build();
        host.pci.devices[2].driver = Some("igbvf".to_owned());
        let refusal = crate::plan::plan(&host, &nobodys, &wish(0)).unwrap_err();
        assert!(refusal.message.contains("on igbvf"), "{refusal}");
        host.pci.devices[2].driver = Some("vfio-pci".to_owned());
        host.pci.devices[2].driver_override = Some("vfio-pci".to_owned());
        let address = at(VFS[1]);
        let away = [
            Step::Unbind { address, driver: "vfio-pci".to_owned() },
            Step::SetDriverOverride { address, from: Some("vfio-pci".to_owned()), to: None },
            autoprobe(false),
            count(2, 0),
        ];
        let planned = crate::plan::plan(&host, &nobodys, &wish(0)).unwrap().steps;
        assert_eq!(planned, away, "bound for guests, and none has it");
        assert_eq!(nic(&VFS).pci_error(VFS[0]).plan(wish(3)).unwrap_err().reason, Reason::DeviceNotSeen);
    }

    #[test]
    fn a_count_needs_a_device_and_a_driver_that_take_it() {
        let refused = |host: HostBuilder, count| host.plan(wish(count)).unwrap_err().reason;
        let refusal = nic(&[]).plan(wish(8)).unwrap_err();
        assert_eq!(
            (refusal.reason, refusal.message.contains("7 virtual functions, not 8")),
            (Reason::TooManyVirtualFunctions, true)
        );
        assert_eq!(refused(HostBuilder::new().function(function(PF)), 1), Reason::SriovUnsupported);
        let bare = || function(PF).physical(7, &[]);
        assert_eq!(refused(HostBuilder::new().function(bare()), 1), Reason::DriverUnsuitable);
        assert_eq!(refused(HostBuilder::new().function(bare().driver("vfio-pci")), 1), Reason::DriverUnsuitable);
        assert_eq!(refused(HostBuilder::new().gpu(h100(PF), &[]), 1), Reason::DeviceUnsuitable);
        assert_eq!(refused(HostBuilder::new(), 1), Reason::DeviceNotSeen);
    }
}
