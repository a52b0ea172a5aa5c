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
        assert_eq!((reason, text.contains("cannot tell its driver")), (Reason::DeviceNotSeen, true), "{part}: {text}");
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
    // A fault keeps nobody from what he has.
    let mut faulty = HostBuilder::new().gpu(h100(GPU).faulty("XidError"), &[]).build();
    faulty.pci.devices[0].driver = Some("vfio-pci".to_owned());
    assert_eq!(crate::plan::plan(&faulty, &owners("hers", &hers), &wish()).unwrap().steps, []);
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
    let partition = |gpu| vec![FabricPartition { id: 3, gpus: vec![at(gpu)], active: false, unread: None }];
    assert!(host(Fabric::Shared { partitions: partition(GPU) }).plan(wish()).is_ok());
    let other = host(Fabric::Shared { partitions: partition("0000:42:00.0") });
    assert_eq!(refused(other).0, Reason::FabricManagerUnavailable);
    let unread = Some("GPU 7 has no address".to_owned());
    let odd = partition(GPU).into_iter().map(|known| FabricPartition { unread: unread.clone(), ..known }).collect();
    let (reason, text) = refused(host(Fabric::Shared { partitions: odd }));
    assert_eq!(
        (reason, text.contains("of partition 3, GPU 7 has no address")),
        (Reason::FabricManagerUnavailable, true)
    );
}
