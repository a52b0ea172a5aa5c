use super::*;
use crate::gpu::Mig;
use crate::host::VgpuFunction;
use crate::plan::Wish;
use crate::plan::testing::{HostBuilder, at, function, h100, nobodys, owners, piece};

const GPU: &str = "0000:41:00.0";
const VF: &str = "0000:41:00.4";

fn mode(mode: Mode) -> Wish {
    Wish::Mode { gpu: at(GPU), mode }
}

fn words(steps: &[Step]) -> Vec<String> {
    let word = |on: &bool| if *on { "on" } else { "off" };
    steps
        .iter()
        .map(|step| match step {
            Step::SriovManage { enable, .. } => format!("functions {}", word(enable)),
            Step::SetMigMode { to, .. } => format!("mig {}", word(to)),
            Step::SetHeterogeneous { to, .. } => format!("mixed {}", word(to)),
            Step::SetPersistence { to, .. } => format!("persistence {}", word(to)),
            Step::DestroyGpuInstance { profile, .. } => format!("destroy {profile}"),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn planned(gpu: Gpu, functions: &[&str], to: Mode) -> String {
    words(&HostBuilder::new().gpu(gpu, functions).plan(mode(to)).unwrap()).join(", ")
}

fn mixed(gpu: Gpu) -> Gpu {
    Gpu { heterogeneous: Some(true), ..gpu }
}

#[test]
fn every_mode_is_reached_from_every_other_in_the_hardwares_order() {
    let gpu = || h100(GPU);
    let (off, on): (&[&str], &[&str]) = (&[], &[VF]);
    let cases = [
        (gpu(), off, Mode::Idle, ""),
        (gpu(), off, Mode::Vgpu, "functions on"),
        (gpu(), off, Mode::VgpuMixed, "functions on, mixed on"),
        (gpu(), off, Mode::MigVgpu, "mig on, functions on"),
        (gpu(), on, Mode::Idle, "functions off"),
        (gpu(), on, Mode::Vgpu, ""),
        (gpu(), on, Mode::VgpuMixed, "mixed on"),
        (gpu(), on, Mode::MigVgpu, "functions off, mig on, functions on"),
        (mixed(gpu()), on, Mode::Idle, "mixed off, functions off"),
        (mixed(gpu()), on, Mode::Vgpu, "mixed off"),
        (mixed(gpu()), on, Mode::VgpuMixed, ""),
        (mixed(gpu()), on, Mode::MigVgpu, "mixed off, functions off, mig on, functions on"),
        (gpu().mig_on(), on, Mode::Idle, "functions off, mig off"),
        (gpu().mig_on(), on, Mode::Vgpu, "functions off, mig off, functions on"),
        (gpu().mig_on(), on, Mode::MigVgpu, ""),
        (gpu().mig_on(), off, Mode::Idle, "mig off"),
        (gpu().mig_on(), off, Mode::MigVgpu, "functions on"),
    ];
    for (gpu, functions, to, expected) in cases {
        assert_eq!(planned(gpu.clone(), functions, to), expected, "{gpu:?} with {functions:?} to {to:?}");
    }
}

#[test]
fn what_a_step_would_wipe_goes_first_and_persistence_is_off_meanwhile() {
    let carved = || h100(GPU).mig_on().instance(13, "1g.10gb", 6, 1).instance(11, "3g.40gb", 0, 4);
    assert_eq!(planned(carved(), &[], Mode::MigVgpu), "destroy 1g.10gb, destroy 3g.40gb, functions on");
    assert_eq!(planned(carved(), &[VF], Mode::MigVgpu), "", "beside idle instances nothing is to be done");
    assert_eq!(planned(h100(GPU).persistent(), &[], Mode::Vgpu), "persistence off, functions on, persistence on");
    assert_eq!(planned(h100(GPU).persistent(), &[VF], Mode::VgpuMixed), "mixed on");
}

#[test]
fn nothing_changes_while_any_piece_is_in_use() {
    let host = || HostBuilder::new().gpu(h100(GPU).mig_on().instance(5, "1g.10gb", 6, 1), &[VF]);
    let refused = |host: HostBuilder, owners: &crate::plan::Owners| {
        let refusal = host.plan_for(owners, mode(Mode::Idle)).unwrap_err();
        assert_eq!(refusal.device, GPU);
        (refusal.reason, refusal.message)
    };
    let carried = || host().carries(VF, 9, "H100XM-1-10C", None);
    let cases = [
        (carried(), nobodys(), "0000:41:00.4 (vGPU H100XM-1-10C)"),
        (carried().holder(VF, "qemu"), nobodys(), "open in qemu (pid 4711"),
        (host(), owners("me", &[(VF, "me")]), "of me"),
        (host(), nobodys().instance(GPU, piece("1g.10gb", 6, 1), "you"), "GPU instance 1g.10gb at 6 of you"),
        (host().mdev(VF, "nvidia-699", "u-1"), nobodys(), "u-1 (mediated device of 0000:41:00.4)"),
    ];
    for (host, owners, expected) in cases {
        let (reason, message) = refused(host, &owners);
        assert_eq!((reason, message.contains(expected)), (Reason::GpuModeInUse, true), "{message}");
    }
    let (reason, message) = refused(host().holder(GPU, "dcgm"), &nobodys());
    assert_eq!((reason, message.contains("dcgm")), (Reason::DeviceHeldOpen, true), "{message}");
    // The mode that it has already is no change.
    assert_eq!(carried().holder(VF, "qemu").plan(mode(Mode::MigVgpu)).unwrap(), []);
}

#[test]
fn what_is_not_known_is_not_changed() {
    let refused = |host: HostBuilder, to| host.plan(mode(to)).unwrap_err().reason;
    let with = |gpu| HostBuilder::new().gpu(gpu, &[]);
    let unknown = Gpu { mig: Mig::Unknown { why: "NVML did not answer".to_owned() }, ..h100(GPU) };
    assert_eq!(refused(with(unknown), Mode::Idle), Reason::GpuModeUnknown);
    let mut pending = h100(GPU);
    pending.mig_mut().pending = true;
    assert_eq!(refused(with(pending), Mode::MigVgpu), Reason::MigPending);
    let hidden = HostBuilder::new().gpu(h100(GPU), &[VF]).pci_error(VF);
    assert_eq!(refused(hidden, Mode::Idle), Reason::DeviceNotSeen);
    let mut mute = HostBuilder::new().gpu(h100(GPU), &[VF]).build();
    mute.vgpus.remove(&at(VF));
    let refusal = crate::plan::plan(&mute, &nobodys(), &mode(Mode::Idle)).unwrap_err();
    assert_eq!(refusal.reason, Reason::GpuModeUnknown);
    assert!(refusal.message.contains(VF));
}

#[test]
fn a_mode_needs_hardware_and_driver() {
    let refused = |host: HostBuilder, to| host.plan(mode(to)).unwrap_err().reason;
    let with = |gpu| HostBuilder::new().gpu(gpu, &[]);
    let no_mig = || Gpu { mig: Mig::Unsupported, ..h100(GPU) };
    assert_eq!(refused(with(no_mig()), Mode::MigVgpu), Reason::NotMigCapable);
    assert_eq!(planned(no_mig(), &[], Mode::Vgpu), "functions on");
    let no_vgpu = || Gpu { vgpu: VgpuSupport::None, ..h100(GPU) };
    assert_eq!(refused(with(no_vgpu()), Mode::Vgpu), Reason::VgpuFrameworkMissing);
    assert_eq!(planned(no_vgpu().mig_on(), &[], Mode::Idle), "mig off");
    assert_eq!(refused(with(h100(GPU).faulty("XidError")), Mode::Vgpu), Reason::GpuUnhealthy);
    let mut taken = HostBuilder::new().gpu(h100(GPU), &[]).build();
    taken.pci.devices[0].driver = Some("vfio-pci".to_owned());
    let refusal = crate::plan::plan(&taken, &nobodys(), &mode(Mode::Vgpu)).unwrap_err();
    assert_eq!(refusal.reason, Reason::DriverUnsuitable);
    assert_eq!(refused(HostBuilder::new().function(function(GPU)), Mode::Vgpu), Reason::DeviceUnsuitable);
    // Turing: no functions to turn on; its vGPUs are mediated devices of the GPU itself.
    let mut turing = HostBuilder::new().gpu(Gpu { vgpu: VgpuSupport::Mdev, ..no_mig() }, &[]).build();
    turing.pci.devices[0].sriov = Sriov::None;
    turing.vgpus.insert(at(GPU), VgpuFunction::Mdev { types: Vec::new() });
    assert_eq!(crate::plan::plan(&turing, &nobodys(), &mode(Mode::Vgpu)).unwrap().steps, []);
}

#[test]
fn functions_are_made_where_a_driver_may_take_them() {
    let mut host = HostBuilder::new().gpu(h100(GPU), &[]).build();
    let Sriov::Physical { autoprobe, .. } = &mut host.pci.devices[0].sriov else { panic!("no SR-IOV") };
    *autoprobe = false;
    let steps = crate::plan::plan(&host, &nobodys(), &mode(Mode::Vgpu)).unwrap().steps;
    let opened = Step::SetAutoprobe { physical: at(GPU), from: false, to: true };
    assert_eq!(steps, [opened, Step::SriovManage { gpu: at(GPU), enable: true }]);
    assert_eq!(crate::plan::plan(&host, &nobodys(), &mode(Mode::Idle)).unwrap().steps, []);
}

/// An agent that was killed takes the tool along, wherever that is.
#[test]
fn what_the_tool_left_half_done_is_brought_back_first() {
    let planned = |functions: &[&str], gpu_on: Option<&str>, function_on: Option<&str>| {
        let mut host = HostBuilder::new().gpu(h100(GPU), functions).build();
        for device in &mut host.pci.devices {
            let driver = if device.address == at(GPU) { gpu_on } else { function_on };
            device.driver = driver.map(str::to_owned);
        }
        crate::plan::plan(&host, &nobodys(), &mode(Mode::Vgpu)).map(|plan| plan.steps)
    };
    let back = |enable| Ok(vec![Step::SriovManage { gpu: at(GPU), enable }]);
    let (nvidia, stub) = (Some("nvidia"), Some("pci-pf-stub"));
    let bound = Step::Bind { address: at(GPU), driver: "nvidia".to_owned() };
    assert_eq!(planned(&[], None, None), Ok(vec![bound]));
    assert_eq!(planned(&[VF], None, None), back(true));
    assert_eq!(planned(&[], stub, None), back(false));
    assert_eq!(planned(&[VF], stub, stub), back(true));
    assert_eq!(planned(&[VF], nvidia, None), back(true));
    assert_eq!(planned(&[VF], nvidia, stub), back(true));
    assert_eq!(planned(&[VF], nvidia, nvidia), Ok(vec![]));
    assert_eq!(planned(&[VF], Some("vfio-pci"), None).unwrap_err().reason, Reason::DriverUnsuitable);
}
