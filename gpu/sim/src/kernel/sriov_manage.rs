//! `sriov-manage`: NVIDIA's tool, part by part, as its script goes through them.
//!
//! ```text
//!  -d: functions off ─┐
//!  -e: ───────────────┴► unbindLock ─► stub: off nvidia, on pci-pf-stub ─► count ─► back: on nvidia, all persistent ─► -e: functions on
//! ```
//! It asks for an answer of the lock alone, and goes on when another part fails. Each part is an operation of its own for faults
//! (`sriov-manage: count`), so that it can fail, hang and be killed between any two.

use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use croft_gpu::pci::PciAddress;

use super::drivers::{NVIDIA, VFIO_PCI};
use super::session::{Outcome, Session, Stop};
use super::{bind, sriov};
use crate::driver::Errno;
use crate::faults::{self, Answer};

const STUB: &str = "pci-pf-stub";

/// What it says when it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SriovManageError {
    #[error("{0} is no GPU that the nvidia driver holds")]
    NoGpu(PciAddress),
    #[error("{0} has no virtual functions, or this driver is not the vGPU host driver")]
    Unsupported(PciAddress),
    #[error("Cannot obtain unbindLock for {0}")]
    UnbindLock(PciAddress),
    #[error("the driver answered with errno {0}")]
    Errno(i32),
}

/// Every virtual function of one of NVIDIA's GPUs, or none. The outer error is one of the simulation itself, the inner one what
/// the tool says.
pub fn sriov_manage(root: &Path, gpu: PciAddress, enable: bool) -> io::Result<Result<(), SriovManageError>> {
    if let Some(answer) = faults::strike(root, "sriov-manage", Some(gpu))? {
        return Ok(Err(match answer {
            Answer::Errno(errno) => SriovManageError::Errno(errno),
            Answer::Nvml(_) => SriovManageError::UnbindLock(gpu),
        }));
    }
    let (total, functions) = match able(&Session::open(root)?, gpu) {
        Ok(able) => able,
        Err(error) => return Ok(Err(error)),
    };
    // Run again, it finds the number right, whatever else is not.
    if functions.is_empty() != enable {
        return Ok(Ok(()));
    }
    if !enable {
        part(root, "functions off", gpu, |session| {
            functions.iter().try_for_each(|function| off(session, *function, &[NVIDIA, VFIO_PCI]))
        })?;
    }
    part(root, "unbindLock", gpu, |session| bind::unbind_lock(session, &gpu.to_string(), "1"))?;
    if Session::open(root)?.gpu(gpu).is_some_and(|gpu| !gpu.unbind_locked) {
        part(root, "persistence", gpu, all_persistent)?;
        return Ok(Err(SriovManageError::UnbindLock(gpu)));
    }
    part(root, "stub", gpu, |session| on_stub(session, gpu))?;
    let count = if enable { total } else { 0 };
    part(root, "count", gpu, |session| sriov::set_count(session, gpu, &count.to_string()))?;
    part(root, "back", gpu, |session| back(session, gpu))?;
    if enable {
        part(root, "functions on", gpu, |session| {
            let functions = session.machine.functions[&gpu].virtual_functions().to_vec();
            functions.into_iter().try_for_each(|function| {
                off(session, function, &[STUB, VFIO_PCI])?;
                forgiven(bind::bind(session, NVIDIA, &function.to_string()))
            })
        })?;
    }
    Ok(Ok(()))
}

/// How many functions the GPU can have, and those that it has.
fn able(session: &Session, gpu: PciAddress) -> Result<(u16, Vec<PciAddress>), SriovManageError> {
    let function = session.machine.functions.get(&gpu).filter(|function| !function.is_virtual());
    let left_by_it = |driver: &String| [NVIDIA, STUB].contains(&driver.as_str());
    let function = function.filter(|function| function.driver.as_ref().is_none_or(left_by_it));
    let function = function.filter(|_| session.is_gpu(gpu));
    let function = function.ok_or(SriovManageError::NoGpu(gpu))?;
    let total = function.total_functions();
    if !session.machine.flavour.makes_vgpus() || total == 0 {
        return Err(SriovManageError::Unsupported(gpu));
    }
    Ok((total, function.virtual_functions().to_vec()))
}

/// One part: what it changed before a refusal stays, and the next one follows.
fn part(root: &Path, name: &str, gpu: PciAddress, rule: impl Fn(&mut Session) -> Outcome) -> io::Result<()> {
    if faults::strike(root, &format!("sriov-manage: {name}"), Some(gpu))?.is_some() {
        return Ok(());
    }
    loop {
        let mut session = Session::open(root)?;
        match rule(&mut session) {
            Ok(()) | Err(Stop::Errno(_)) => return session.commit(),
            Err(Stop::Waits) => drop(session),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn forgiven(outcome: Outcome) -> Outcome {
    match outcome {
        Err(Stop::Errno(_)) => Ok(()),
        outcome => outcome,
    }
}

/// Off these drivers; on any other it stays.
fn off(session: &mut Session, function: PciAddress, drivers: &[&str]) -> Outcome {
    let on = session.machine.functions.get(&function).and_then(|function| function.driver.clone());
    match on {
        Some(driver) if drivers.contains(&driver.as_str()) => bind::detach(session, function),
        _ => Ok(()),
    }
}

fn ids(session: &Session, gpu: PciAddress) -> Result<String, Errno> {
    let facts = session.machine.facts(gpu).ok_or(Errno::NODEV)?;
    Ok(format!("{:04x} {:04x}", facts.vendor, facts.device))
}

/// By its id, as which the stub takes whatever of its kind is on no driver, new functions too.
fn on_stub(session: &mut Session, gpu: PciAddress) -> Outcome {
    off(session, gpu, &[NVIDIA])?;
    let ids = ids(session, gpu)?;
    forgiven(bind::new_id(session, STUB, &ids))?;
    forgiven(bind::bind(session, STUB, &gpu.to_string()))
}

fn back(session: &mut Session, gpu: PciAddress) -> Outcome {
    off(session, gpu, &[STUB])?;
    let ids = ids(session, gpu)?;
    forgiven(bind::remove_id(session, STUB, &ids))?;
    forgiven(bind::bind(session, NVIDIA, &gpu.to_string()))?;
    all_persistent(session)
}

/// `nvidia-smi -pm 1`, which names no GPU.
fn all_persistent(session: &mut Session) -> Outcome {
    for gpu in session.nvidia().gpus.iter_mut().filter(|gpu| gpu.driver_loaded) {
        gpu.persistence = true;
    }
    Ok(())
}
