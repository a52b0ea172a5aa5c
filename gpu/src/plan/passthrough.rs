//! A function for a guest, with its whole IOMMU group: all of it goes to vfio-pci, or none of it.
//!
//! Bridges stay where they are: `pcieport` moves no data of its own, and the kernel lets a group with it be used. Companions
//! of the same card (a GPU's audio and USB-C functions) go along. What the host may live on (a disk or network controller on
//! a driver, anything on a driver in another slot) is never taken along: the refusal names it.

use crate::host::Fabric;
use crate::pci::{PciFunction, Sriov};

use super::look::{Look, VFIO_DRIVER, on_driver, on_vfio};
use super::refusal::{Reason, Refusal};
use super::step::Step;
use super::{Home, driver};
use crate::pci::PciAddress;

/// Drivers that a group may have beside a guest (`driver_managed_dma` in the kernel).
const HARMLESS: [&str; 2] = ["pcieport", "pci-stub"];

pub(super) fn plan(look: Look<'_>, address: PciAddress) -> Result<Vec<Step>, Refusal> {
    let function = look.function(address)?;
    suitable(look, function)?;
    look.not_anothers(address)?;
    let group = group(look, function)?;
    let mut going = vec![function];
    for &peer in group.iter().filter(|peer| peer.address != address) {
        if goes_along(function, peer)? {
            look.not_anothers(peer.address)?;
            going.push(peer);
        }
    }
    if going.iter().all(|function| on_vfio(function)) {
        // Nothing to do. If the journal does not give it to the asker, whoever has it open is a stranger.
        let strangers = going.iter().filter(|function| look.owner(&function.address.to_string()).is_none());
        return strangers
            .map(|function| look.not_held(function.address))
            .collect::<Result<(), _>>()
            .map(|()| Vec::new());
    }
    let home =
        Home { driver: Some(VFIO_DRIVER.to_owned()), driver_override: Some(VFIO_DRIVER.to_owned()), persistence: None };
    let mut steps = Vec::new();
    for function in going {
        if on_vfio(function) {
            look.not_held(function.address)?;
            continue;
        }
        steps.extend(driver::leave(look, function)?);
        steps.extend(driver::enter(function, &home));
    }
    Ok(steps)
}

/// The functions that go to a guest together with this one: not its bridges.
pub(super) fn companions(look: Look<'_>, function: &PciFunction) -> Result<Vec<PciAddress>, Refusal> {
    let mut companions = Vec::new();
    for peer in group(look, function)? {
        if peer.address != function.address && goes_along(function, peer)? {
            companions.push(peer.address);
        }
    }
    Ok(companions)
}

fn suitable(look: Look<'_>, function: &PciFunction) -> Result<(), Refusal> {
    let address = function.address;
    let unsuitable = |message: String, fix: &str| Err(Refusal::new(Reason::DeviceUnsuitable, address, message, fix));
    if is_bridge(function) {
        return unsuitable(format!("{address} is a bridge, which no guest can have"), "name the device behind it");
    }
    if let Sriov::Virtual { physical } = function.sriov {
        let is_gpu = match look.function(physical) {
            Ok(physical) => look.gpu(physical)?.is_some(),
            Err(refusal) => return Err(refusal),
        };
        if is_gpu {
            let message = format!("{address} is a virtual function of GPU {physical}: it stays on the host's driver");
            return unsuitable(message, "wish for a vGPU on it");
        }
    }
    let Some(gpu) = look.gpu(function)? else { return Ok(()) };
    look.healthy(gpu)?;
    let fabric =
        |message: String, fix: &str| Err(Refusal::new(Reason::FabricManagerUnavailable, address, message, fix));
    match &look.host.fabric {
        Fabric::None => Ok(()),
        Fabric::Unavailable { why } => fabric(
            format!("whole GPUs of this host share NVSwitches: {why}"),
            "run Fabric Manager in shared NVSwitch mode",
        ),
        Fabric::Shared { partitions } if partitions.iter().any(|partition| partition.gpus.contains(&address)) => Ok(()),
        Fabric::Shared { .. } => fabric(
            format!("{address} is in no partition of Fabric Manager's"),
            "see Fabric Manager's list of partitions",
        ),
    }
}

/// Every function of the group, with the function itself. Fails where one that may be of it could not be read.
fn group<'a>(look: Look<'a>, function: &PciFunction) -> Result<Vec<&'a PciFunction>, Refusal> {
    let address = function.address;
    let Some(group) = function.iommu_group else {
        let message = format!("no IOMMU isolates {address}");
        let fix = "turn VT-d or AMD-Vi on in the firmware, and intel_iommu=on on the kernel's command line";
        return Err(Refusal::new(Reason::NoIommuGroup, address, message, fix));
    };
    let members: Vec<_> = look.host.pci.devices.iter().filter(|peer| peer.iommu_group == Some(group)).collect();
    // A function that is not listed has told nobody its group. Groups reach over buses only above a bridge without ACS, and
    // there the bus of each member is looked at.
    for error in &look.host.pci.errors {
        let Some(unread) = error.device.split_whitespace().find_map(|word| word.parse::<PciAddress>().ok()) else {
            continue;
        };
        let listed = members.iter().any(|member| member.address == unread);
        let near = members.iter().any(|peer| (peer.address.domain, peer.address.bus) == (unread.domain, unread.bus));
        if near && (listed || !look.host.pci.devices.iter().any(|other| other.address == unread)) {
            look.function(unread)?;
        }
    }
    Ok(members)
}

fn is_bridge(function: &PciFunction) -> bool {
    function.class >> 16 == 0x06
}

/// Does the peer go to the guest, too? `false`: it may stay as it is.
fn goes_along(function: &PciFunction, peer: &PciFunction) -> Result<bool, Refusal> {
    let shared = |why: &str, fix: String| {
        let what = peer.class_name.clone().unwrap_or_else(|| format!("class {:06x}", peer.class));
        let message = format!(
            "{} shares IOMMU group {} with {} ({what}, {}), {why}",
            function.address,
            function.iommu_group.unwrap_or_default(),
            peer.address,
            on_driver(peer)
        );
        Err(Refusal::new(Reason::IommuGroupShared, function.address, message, fix))
    };
    let move_it = "move the card to a slot whose root port isolates it (ACS)";
    let Some(driver) = peer.driver.as_deref().filter(|_| !on_vfio(peer)) else { return Ok(!is_bridge(peer)) };
    if is_bridge(peer) {
        return if HARMLESS.contains(&driver) {
            Ok(false)
        } else {
            shared("whose driver moves data of its own", move_it.to_owned())
        };
    }
    let unbind = || format!("unbind {} from {driver} if the host can do without it, or {move_it}", peer.address);
    let slot = |of: &PciFunction| (of.address.domain, of.address.bus, of.address.device);
    match peer.class >> 16 {
        _ if slot(peer) != slot(function) => shared("which the host uses and which is another card", unbind()),
        0x01 | 0x02 => shared("which the host may live on", unbind()),
        _ => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::FabricPartition;
    use crate::plan::testing::{HostBuilder, at, function, h100, nobodys, owners};
    use crate::plan::{MigPiece, Wish};

    const GPU: &str = "0000:41:00.0";

    fn wish() -> Wish {
        Wish::Passthrough { address: at(GPU) }
    }

    fn refused(host: HostBuilder) -> (Reason, String) {
        let refusal = host.plan(wish()).unwrap_err();
        assert_eq!(refusal.device, GPU);
        (refusal.reason, refusal.to_string())
    }

    fn to_vfio(address: &str, from: Option<&str>) -> Vec<Step> {
        let (address, vfio) = (at(address), || VFIO_DRIVER.to_owned());
        let unbind = from.map(|driver| Step::Unbind { address, driver: driver.to_owned() });
        let rest =
            [Step::SetDriverOverride { address, from: None, to: Some(vfio()) }, Step::Bind { address, driver: vfio() }];
        unbind.into_iter().chain(rest).collect()
    }

    /// A plain display function, of nobody we know.
    fn card() -> PciFunction {
        function(GPU).class(0x03_0000).group(7)
    }

    #[test]
    fn the_whole_group_goes_and_its_bridges_stay() {
        let host = || {
            let port = function("0000:40:01.0").class(0x06_0400).driver("pcieport").group(7);
            let audio = function("0000:41:00.1").class(0x04_0300).driver("snd_hda_intel").group(7);
            let other = function("0000:42:00.0").class(0x01_0802).driver("nvme").group(8);
            HostBuilder::new().function(port).function(audio).function(other)
        };
        let expected = [to_vfio(GPU, Some("amdgpu")), to_vfio("0000:41:00.1", Some("snd_hda_intel"))].concat();
        assert_eq!(host().function(card().driver("amdgpu")).plan(wish()).unwrap(), expected);
        let expected = [to_vfio(GPU, None), to_vfio("0000:41:00.1", Some("snd_hda_intel"))].concat();
        assert_eq!(host().function(card()).plan(wish()).unwrap(), expected);
        // The variant drivers of vendors are VFIO, too; the companion alone is missing.
        let expected = to_vfio("0000:41:00.1", Some("snd_hda_intel"));
        assert_eq!(host().function(card().driver("nvgrace_gpu_vfio_pci")).plan(wish()).unwrap(), expected);
    }

    #[test]
    fn a_refusal_names_the_peer_its_driver_and_what_would_help() {
        let with = |peer| refused(HostBuilder::new().function(card()).function(peer));
        let ahci = function("0000:00:1f.2").class(0x01_0601).group(7);
        let (reason, text) = with(ahci.clone().driver("ahci"));
        assert_eq!(reason, Reason::IommuGroupShared);
        for part in [GPU, "group 7", "0000:00:1f.2", "on ahci", "another card", "unbind 0000:00:1f.2 from ahci"] {
            assert!(text.contains(part), "{text:?} lacks {part:?}");
        }
        let (reason, text) = with(function("0000:41:00.1").driver("igb").group(7));
        assert_eq!(reason, Reason::IommuGroupShared);
        assert!(text.contains("0000:41:00.1") && text.contains("on igb") && text.contains("may live on"), "{text}");
        let (reason, text) = with(function("0000:00:1f.0").class(0x06_0100).driver("lpc_ich").group(7));
        assert_eq!(reason, Reason::IommuGroupShared);
        assert!(text.contains("lpc_ich") && text.contains("move the card"), "{text}");
        // Unbound, it is in nobody's way, and goes along.
        let host = HostBuilder::new().function(card()).function(ahci);
        assert_eq!(host.plan(wish()).unwrap(), [to_vfio(GPU, None), to_vfio("0000:00:1f.2", None)].concat());
    }

    #[test]
    fn what_cannot_be_given_is_refused_by_name() {
        assert_eq!(refused(HostBuilder::new()).0, Reason::DeviceNotSeen);
        let (reason, text) = refused(HostBuilder::new().function(function(GPU)));
        assert_eq!(reason, Reason::NoIommuGroup);
        assert!(text.contains("intel_iommu=on"), "{text}");
        let bridge = function(GPU).class(0x06_0400).group(7);
        assert_eq!(refused(HostBuilder::new().function(bridge)).0, Reason::DeviceUnsuitable);
        let (reason, text) = refused(HostBuilder::new().function(card()).holder(GPU, "Xorg").pci_error("0000:99:00.0"));
        assert_eq!((reason, text.contains("Xorg")), (Reason::DeviceHeldOpen, true), "{text}");
    }

    #[test]
    fn what_was_not_read_is_not_free() {
        assert_eq!(refused(HostBuilder::new().function(card()).pci_error(GPU)).0, Reason::DeviceNotSeen);
        // Its group is not known, and could be this one.
        let near = HostBuilder::new().function(card()).pci_error("0000:41:00.1").plan(wish()).unwrap_err();
        assert_eq!((near.reason, near.device.as_str()), (Reason::DeviceNotSeen, "0000:41:00.1"));
        assert!(HostBuilder::new().function(card()).pci_error("0000:99:00.0").plan(wish()).is_ok());
        let unknown = function(GPU).nvidia().group(7);
        assert_eq!(refused(HostBuilder::new().function(unknown)).0, Reason::GpuModeUnknown);
        assert_eq!(refused(HostBuilder::new().gpu(h100(GPU), &[]).gpu_error(GPU)).0, Reason::DeviceNotSeen);
        // Without the list of processes nobody is known not to have it open.
        for part in ["holders", "pci 0000:41:00.0"] {
            let (reason, text) = refused(HostBuilder::new().function(card()).error(part));
            assert_eq!(
                (reason, text.contains("cannot tell its driver")),
                (Reason::DeviceNotSeen, true),
                "{part}: {text}"
            );
        }
    }

    #[test]
    fn what_is_there_already_needs_no_step_and_is_nobody_elses() {
        let host = || HostBuilder::new().function(card().driver("vfio-pci").overridden("vfio-pci"));
        let hers = [(GPU, "hers")];
        assert_eq!(host().plan(wish()).unwrap(), []);
        assert_eq!(host().holder(GPU, "qemu").plan_for(&owners("hers", &hers), wish()).unwrap(), []);
        let his = host().plan_for(&owners("his", &hers), wish()).unwrap_err();
        assert_eq!((his.reason, his.message.contains("hers")), (Reason::DeviceOwned, true));
        // A guest that the journal does not know has it.
        assert_eq!(host().holder(GPU, "qemu").plan(wish()).unwrap_err().reason, Reason::DeviceHeldOpen);
    }

    #[test]
    fn a_gpu_is_made_idle_before_it_leaves_its_driver() {
        let gpu = at(GPU);
        let host =
            || HostBuilder::new().gpu(h100(GPU).mig_on().persistent().instance(3, "2g.20gb", 4, 2), &["0000:41:00.4"]);
        let piece = crate::plan::testing::piece("2g.20gb", 4, 2);
        let MigPiece { profile, placement } = piece.clone();
        let first = [
            Step::SetPersistence { gpu, from: true, to: false },
            Step::DestroyGpuInstance { gpu, profile, placement },
            Step::SriovManage { gpu, enable: false },
            Step::SetMigMode { gpu, from: true, to: false },
        ];
        let expected = [first.to_vec(), to_vfio(GPU, Some("nvidia"))].concat();
        assert_eq!(host().plan(wish()).unwrap(), expected);
        assert_eq!(host().holder(GPU, "nvidia-persistenced").plan(wish()).unwrap(), expected);

        let (reason, text) = refused(host().holder(GPU, "nvidia-persistenced").holder(GPU, "dcgm"));
        assert_eq!(reason, Reason::DeviceHeldOpen);
        assert!(text.contains("dcgm (pid 4711, some.service)") && !text.contains("persistenced"), "{text}");
        let (reason, text) = refused(host().carries("0000:41:00.4", 7, "H100XM-2-20C", Some(3)));
        assert_eq!((reason, text.contains("0000:41:00.4 (vGPU H100XM-2-20C)")), (Reason::GpuModeInUse, true), "{text}");
        let owned = nobodys().instance(GPU, piece, "acme-1");
        let refusal = host().plan_for(&owned, wish()).unwrap_err();
        assert_eq!((refusal.reason, refusal.message.contains("acme-1")), (Reason::GpuModeInUse, true));
        assert_eq!(refused(HostBuilder::new().gpu(h100(GPU).faulty("XidError"), &[])).0, Reason::GpuUnhealthy);
    }

    #[test]
    fn virtual_functions_of_gpus_stay_and_others_go() {
        let vf = Wish::Passthrough { address: at("0000:41:00.4") };
        let refusal = HostBuilder::new().gpu(h100(GPU), &["0000:41:00.4"]).plan(vf).unwrap_err();
        assert_eq!((refusal.reason, refusal.fix.contains("vGPU")), (Reason::DeviceUnsuitable, true));
        let nic = || {
            let pf = function("0000:01:00.0").driver("igb").group(1).physical(7, &["0000:01:10.0"]);
            HostBuilder::new().function(pf).function(function("0000:01:10.0").group(2).of("0000:01:00.0"))
        };
        let vf = Wish::Passthrough { address: at("0000:01:10.0") };
        assert_eq!(nic().plan(vf).unwrap(), to_vfio("0000:01:10.0", None));
        // The physical function takes its virtual ones down with it, so these must be free.
        let pf = Wish::Passthrough { address: at("0000:01:00.0") };
        let physical = at("0000:01:00.0");
        let down = [
            Step::SetAutoprobe { physical, from: true, to: false },
            Step::SetVirtualFunctions { physical, from: 1, to: 0 },
            Step::SetAutoprobe { physical, from: false, to: true },
        ];
        let expected = [down.to_vec(), to_vfio("0000:01:00.0", Some("igb"))].concat();
        assert_eq!(nic().plan(pf.clone()).unwrap(), expected);
        let refusal = nic().holder("0000:01:10.0", "qemu").plan(pf).unwrap_err();
        assert_eq!((refusal.reason, refusal.message.contains("qemu")), (Reason::VirtualFunctionsInUse, true));
    }

    #[test]
    fn a_whole_gpu_behind_nvswitches_needs_their_manager() {
        let host = |fabric| HostBuilder::new().gpu(h100(GPU), &[]).fabric(fabric);
        let (reason, text) = refused(host(Fabric::Unavailable { why: "Fabric Manager does not run".to_owned() }));
        assert_eq!((reason, text.contains("does not run")), (Reason::FabricManagerUnavailable, true));
        let partition = |gpu| vec![FabricPartition { id: 3, gpus: vec![at(gpu)], active: false }];
        assert!(host(Fabric::Shared { partitions: partition(GPU) }).plan(wish()).is_ok());
        let other = host(Fabric::Shared { partitions: partition("0000:42:00.0") });
        assert_eq!(refused(other).0, Reason::FabricManagerUnavailable);
    }
}
