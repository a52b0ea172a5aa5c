//! `nvidia/current_vgpu_type` of NVIDIA's virtual functions, where they are VFIO devices themselves.

use croft_gpu::pci::PciAddress;

use super::session::{Outcome, Session};
use crate::driver::{self, Errno};

/// A type's id, or 0 for none. EPERM: it is a vGPU already, or 0 where none is, or a guest has it open. EIO: the driver makes
/// no such vGPU there now. EINVAL: no number.
pub(crate) fn set_type(session: &mut Session, function: PciAddress, value: &str) -> Outcome {
    let text = value.strip_suffix('\n').unwrap_or(value);
    let id: i64 = text.parse().map_err(|_| Errno::INVAL)?;
    // The driver takes the low 32 bits of what it read: -1 is a type that no board has.
    let id = id as u32;
    if id == 0 && session.is_open(&session.machine.files(function)) {
        return Err(Errno::PERM.into());
    }
    let gpu = session.nvidia().parent_mut(function).ok_or(Errno::NODEV)?;
    driver::set_vgpu_type(gpu, function, id)?;
    Ok(())
}
