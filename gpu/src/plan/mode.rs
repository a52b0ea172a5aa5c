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
use super::look::{Look, NVIDIA_DRIVER, mig_state};
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
    if let Some(step) = unfinished(look, gpu)? {
        return Ok(vec![step]);
    }
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
    let mut steps = changes(function, mig, now, wished);
    // Mixed sizes alone are a flag, which every client may have open.
    let rebinds = steps.iter().any(|step| !matches!(step, Step::SetHeterogeneous { .. }));
    if gpu.persistence == Some(true) && rebinds {
        steps.insert(0, Step::SetPersistence { gpu: address, from: true, to: false });
        steps.push(Step::SetPersistence { gpu: address, from: false, to: true });
    }
    Ok(steps)
}

/// What `sriov-manage` leaves when it is killed: the GPU or functions of it on no driver, or on the one under which it changes
/// their number. Nothing else is known of such a GPU, so that this is all of the plan: it is to be looked at again afterwards.
pub(super) fn unfinished(look: Look<'_>, gpu: PciAddress) -> Result<Option<Step>, Refusal> {
    let function = look.function(gpu)?;
    if look.gpu(function)?.is_none() {
        return Ok(None);
    }
    let functions = look.virtual_functions(function)?;
    let on_its_driver = function.driver.as_deref() == Some(NVIDIA_DRIVER);
    let unfinished = off_drivers(function) || on_its_driver && functions.iter().any(|vf| off_drivers(vf));
    if !unfinished {
        return Ok(None);
    }
    look.not_anothers(gpu)?;
    look.not_held(gpu)?;
    Ok(Some(match &function.driver {
        None if functions.is_empty() => Step::Bind { address: gpu, driver: NVIDIA_DRIVER.to_owned() },
        _ => Step::SriovManage { gpu, enable: !functions.is_empty() },
    }))
}

fn off_drivers(function: &PciFunction) -> bool {
    function.driver.as_deref().is_none_or(|driver| driver == "pci-pf-stub")
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
    Ok(changes(function, mig, switches(function, gpu, mig), Mode::Idle.into()))
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

fn changes(function: &PciFunction, mig: Option<&MigState>, now: Switches, wished: Switches) -> Vec<Step> {
    let gpu = function.address;
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
        // The driver binds none of its functions else, whoever asks for it; and it stays so, for whoever binds one again.
        if let Sriov::Physical { autoprobe: false, .. } = function.sriov {
            steps.push(Step::SetAutoprobe { physical: gpu, from: false, to: true });
        }
        steps.push(Step::SriovManage { gpu, enable: true });
    }
    if wished.mixed && (wiped || !now.mixed) {
        steps.push(Step::SetHeterogeneous { gpu, placement: None, from: false, to: true });
    }
    steps
}

#[cfg(test)]
mod tests;
