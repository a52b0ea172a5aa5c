//! What one GPU is set up for. Its neighbours feel nothing, and nobody may hold any of it.
//!
//! ```text
//!            instances away   virtual functions off   MIG on or off   virtual functions on   mixed sizes
//!  from any ───────────────► ──────────────────────► ──────────────► ─────────────────────► ────────────► to any
//! ```
//! The order is the hardware's: `sriov-manage` in either direction rebinds the driver and wipes every GPU instance and the flag
//! for mixed sizes, and MIG is not turned off while virtual functions are on. All of these fail while a process has the
//! GPU open, so that persistence is off meanwhile, for this GPU alone.

use crate::gpu::{Gpu, MigState, VgpuSupport};
use crate::pci::{PciAddress, PciFunction, Sriov};

use super::Mode;
use super::look::{Look, mig_state};
use super::refusal::{Reason, Refusal};
use super::step::Step;

/// The three switches that a mode is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Switches {
    functions: bool,
    mig: bool,
    mixed: bool,
}

impl From<Mode> for Switches {
    fn from(mode: Mode) -> Self {
        Switches { functions: mode != Mode::Idle, mig: mode == Mode::MigVgpu, mixed: mode == Mode::VgpuMixed }
    }
}

pub(super) fn plan(look: Look<'_>, gpu: PciAddress, mode: Mode) -> Result<Vec<Step>, Refusal> {
    let (function, gpu) = look.driven_gpu(gpu)?;
    let mig = mig_state(gpu)?;
    let (now, wished) = (switches(function, gpu, mig), possible(function, gpu, mig, mode)?);
    if now == wished {
        return Ok(Vec::new());
    }
    look.healthy(gpu)?;
    look.not_anothers(function.address)?;
    nothing_in_use(look, function, gpu)?;
    look.not_held_but_for_persistence(gpu)?;
    let address = function.address;
    let mut steps = changes(address, mig, now, wished);
    // Mixed sizes alone are a flag, which every client may have open.
    let rebinds = steps.iter().any(|step| !matches!(step, Step::SetHeterogeneous { .. }));
    if gpu.persistence == Some(true) && rebinds {
        steps.insert(0, Step::SetPersistence { gpu: address, from: true, to: false });
        steps.push(Step::SetPersistence { gpu: address, from: false, to: true });
    }
    Ok(steps)
}

/// The mode that the GPU is in; for a plan that leads back here. `None`: it is in none of them, or cannot be told.
pub(super) fn current(function: &PciFunction, gpu: &Gpu) -> Option<Mode> {
    let now = switches(function, gpu, mig_state(gpu).ok()?);
    [Mode::Idle, Mode::Vgpu, Mode::VgpuMixed, Mode::MigVgpu].into_iter().find(|mode| now == Switches::from(*mode))
}

/// As [`Mode::Idle`], for a GPU that is about to leave its driver. The caller has looked at who holds it open.
pub(super) fn to_idle(look: Look<'_>, function: &PciFunction, gpu: &Gpu) -> Result<Vec<Step>, Refusal> {
    let mig = mig_state(gpu)?;
    settled(function.address, mig)?;
    nothing_in_use(look, function, gpu)?;
    Ok(changes(function.address, mig, switches(function, gpu, mig), Mode::Idle.into()))
}

fn switches(function: &PciFunction, gpu: &Gpu, mig: Option<&MigState>) -> Switches {
    let functions = matches!(&function.sriov, Sriov::Physical { functions, .. } if !functions.is_empty());
    Switches { functions, mig: mig.is_some_and(|mig| mig.current), mixed: gpu.heterogeneous == Some(true) }
}

/// The switches of a mode that this GPU can have.
fn possible(function: &PciFunction, gpu: &Gpu, mig: Option<&MigState>, mode: Mode) -> Result<Switches, Refusal> {
    let address = function.address;
    let refuse = |reason, message: String, fix: &str| Err(Refusal::new(reason, address, message, fix));
    settled(address, mig)?;
    if mode == Mode::MigVgpu && mig.is_none() {
        return refuse(Reason::NotMigCapable, format!("{address} has no MIG"), "take a GPU that has");
    }
    if mode != Mode::Idle && gpu.vgpu == VgpuSupport::None {
        let message = format!("the driver of {address} makes no vGPUs");
        return refuse(Reason::VgpuFrameworkMissing, message, "install NVIDIA's vGPU host driver");
    }
    if mode == Mode::VgpuMixed && !gpu.heterogeneous_capable {
        let message = format!("the driver of {address} does not mix framebuffer sizes");
        return refuse(Reason::VgpuFrameworkMissing, message, "wish for mode vgpu");
    }
    let wished = Switches::from(mode);
    // Turing and older make vGPUs on the GPU itself, and have no functions to turn on.
    let functions = wished.functions && matches!(function.sriov, Sriov::Physical { .. });
    Ok(Switches { functions, ..wished })
}

fn settled(gpu: PciAddress, mig: Option<&MigState>) -> Result<(), Refusal> {
    match mig {
        Some(mig) if mig.current != mig.pending => {
            let word = |on| if on { "on" } else { "off" };
            let message =
                format!("MIG of {gpu} is {} and will be {} after a reset", word(mig.current), word(mig.pending));
            Err(Refusal::new(
                Reason::MigPending,
                gpu,
                message,
                "reset the GPU while nobody uses it, or reboot the host",
            ))
        }
        _ => Ok(()),
    }
}

fn nothing_in_use(look: Look<'_>, function: &PciFunction, gpu: &Gpu) -> Result<(), Refusal> {
    let uses = look.pieces_in_use(function, gpu)?;
    if uses.is_empty() {
        return Ok(());
    }
    let message = format!("{} is in use: {}", function.address, uses.join("; "));
    Err(Refusal::new(
        Reason::GpuModeInUse,
        function.address,
        message,
        "wait until they are given back, or take another GPU",
    ))
}

fn changes(gpu: PciAddress, mig: Option<&MigState>, now: Switches, wished: Switches) -> Vec<Step> {
    let mut steps = Vec::new();
    let turn_mig = now.mig != wished.mig;
    let turn_off = now.functions && (turn_mig || !wished.functions);
    let turn_on = wished.functions && (turn_off || !now.functions);
    let wiped = turn_off || turn_on || turn_mig;
    // What would be wiped on the side goes by steps of its own, which can be undone.
    if wiped {
        for instance in mig.into_iter().flat_map(|mig| &mig.instances) {
            let (profile, placement) = (instance.profile.clone(), instance.placement);
            steps.push(Step::DestroyGpuInstance { gpu, profile, placement });
        }
    }
    if now.mixed && (wiped || !wished.mixed) {
        steps.push(Step::SetHeterogeneous { gpu, placement: None, from: true, to: false });
    }
    if turn_off {
        steps.push(Step::SriovManage { gpu, enable: false });
    }
    if turn_mig {
        steps.push(Step::SetMigMode { gpu, from: now.mig, to: wished.mig });
    }
    if turn_on {
        steps.push(Step::SriovManage { gpu, enable: true });
    }
    if wished.mixed && (wiped || !now.mixed) {
        steps.push(Step::SetHeterogeneous { gpu, placement: None, from: false, to: true });
    }
    steps
}

#[cfg(test)]
mod tests {
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
}
