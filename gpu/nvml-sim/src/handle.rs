//! Handles: what the library gives out in place of pointers, and what each stands for.
//!
//! A handle is a number that is never followed. The same thing always has the same one; a GPU instance that was destroyed and
//! made again is the same thing, as its id says.

use std::ptr;
use std::sync::{Mutex, PoisonError};

use croft_gpu::pci::PciAddress;
use croft_gpu_sim::driver::Return;

use crate::c::Out;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thing {
    Gpu(PciAddress),
    /// A compute instance as a device of its own.
    Mig {
        gpu: PciAddress,
        gi: u32,
        ci: u32,
    },
    GpuInstance {
        gpu: PciAddress,
        gi: u32,
    },
    ComputeInstance {
        gpu: PciAddress,
        gi: u32,
        ci: u32,
    },
}

static THINGS: Mutex<Vec<Thing>> = Mutex::new(Vec::new());

/// Far from null, and from anything that a caller may have by mistake.
const FIRST: usize = 0x00c0_0f70_0000;

pub fn give<T>(thing: Thing) -> *mut T {
    let mut things = THINGS.lock().unwrap_or_else(PoisonError::into_inner);
    let at = things.iter().position(|known| *known == thing).unwrap_or_else(|| {
        things.push(thing);
        things.len() - 1
    });
    ptr::without_provenance_mut(FIRST + at * 16)
}

pub fn find<T>(handle: Out<T>) -> Result<Thing, Return> {
    let things = THINGS.lock().unwrap_or_else(PoisonError::into_inner);
    let offset = handle.address().checked_sub(FIRST).filter(|offset| offset % 16 == 0);
    offset.and_then(|offset| things.get(offset / 16)).copied().ok_or(Return::InvalidArgument)
}
