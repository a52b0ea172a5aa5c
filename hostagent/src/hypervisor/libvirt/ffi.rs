//! Calls that the `virt` crate lacks, or does not make well enough.
//!
//! Each is one C call with its arguments and its clean-up. `virt` 0.5 has no disk errors and no agent timeout, its
//! `state` swallows the error of the call, and its `interface_addresses` never frees what it was given.

use std::ffi::{CStr, c_char, c_int};
use std::ptr;

use virt::domain::{
    Domain, DomainPausedReasonEnum, DomainShutoffReasonEnum, DomainState, DomainStateEnum, DomainStateReason,
    DomainStateReasonEnum,
};
use virt::enumutil::Enum;
use virt::error::Error as VirtError;
use virt_sys as sys;

/// The state and, for the states where it matters, the reason.
#[expect(unsafe_code, reason = "virt's Domain::state ignores the error of the call")]
pub fn state(domain: &Domain) -> Result<(DomainStateEnum, DomainStateReasonEnum), VirtError> {
    let (mut state, mut reason): (c_int, c_int) = (-1, -1);
    // SAFETY: the domain is alive, both pointers are valid for the call.
    let done = unsafe { sys::virDomainGetState(domain.as_ptr(), &mut state, &mut reason, 0) };
    if done < 0 {
        return Err(VirtError::last_error());
    }
    let state = DomainStateEnum::from_raw(state as sys::virDomainState);
    let reason = match state {
        Enum::Known(DomainState::Paused) => Enum::Known(DomainStateReason::Paused(DomainPausedReasonEnum::from_raw(
            reason as sys::virDomainPausedReason,
        ))),
        Enum::Known(DomainState::Shutoff) => Enum::Known(DomainStateReason::Shutoff(
            DomainShutoffReasonEnum::from_raw(reason as sys::virDomainShutoffReason),
        )),
        _ => DomainStateReasonEnum::Unknown(reason),
    };
    Ok((state, reason))
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskError {
    /// `vda`
    pub disk: String,
    pub kind: DiskErrorKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskErrorKind {
    NoSpace,
    Other,
}

/// Disks on which the guest's I/O failed.
#[expect(unsafe_code, reason = "virt has no disk errors")]
pub fn disk_errors(domain: &Domain) -> Result<Vec<DiskError>, VirtError> {
    const MOST: usize = 64;
    let mut raw = [const { sys::_virDomainDiskError { disk: ptr::null_mut(), error: 0 } }; MOST];
    // SAFETY: the array holds as many entries as is said; libvirt fills the first `count` with strings of its own making.
    let count = unsafe { sys::virDomainGetDiskErrors(domain.as_ptr(), raw.as_mut_ptr(), MOST as u32, 0) };
    let count = usize::try_from(count).map_err(|_| VirtError::last_error())?;
    let errors = raw.iter().take(count).map(|entry| {
        let kind = match entry.error as sys::virDomainDiskErrorCode {
            sys::VIR_DOMAIN_DISK_ERROR_NO_SPACE => DiskErrorKind::NoSpace,
            _ => DiskErrorKind::Other,
        };
        // SAFETY: a string that libvirt allocated with malloc and gave to us.
        DiskError { disk: unsafe { take_string(entry.disk) }, kind }
    });
    Ok(errors.collect())
}

/// How long calls that ask the guest agent wait for it.
#[expect(unsafe_code, reason = "virt has no agent timeout")]
pub fn set_agent_timeout(domain: &Domain, seconds: i32) -> Result<(), VirtError> {
    // SAFETY: the domain is alive.
    match unsafe { sys::virDomainAgentSetResponseTimeout(domain.as_ptr(), seconds, 0) } {
        done if done < 0 => Err(VirtError::last_error()),
        _ => Ok(()),
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestAddress {
    pub mac: String,
    pub ip: String,
}

/// Addresses of the guest's interfaces, as `source` knows them.
#[expect(unsafe_code, reason = "virt's interface_addresses leaks on every call, and this is called all the time")]
pub fn interface_addresses(
    domain: &Domain,
    source: sys::virDomainInterfaceAddressesSource,
) -> Result<Vec<GuestAddress>, VirtError> {
    let mut interfaces: *mut sys::virDomainInterfacePtr = ptr::null_mut();
    // SAFETY: the domain is alive; on success `interfaces` is an array of `count` pointers that we own.
    let count = unsafe { sys::virDomainInterfaceAddresses(domain.as_ptr(), &mut interfaces, source, 0) };
    let count = usize::try_from(count).map_err(|_| VirtError::last_error())?;
    let mut found = Vec::new();
    for at in 0..count {
        // SAFETY: `at` is inside the array; every interface and its `naddrs` addresses are valid until they are freed
        // below, once each; strings are copied before.
        unsafe {
            let interface = *interfaces.add(at);
            let mac = copy_string((*interface).hwaddr);
            for nth in 0..(*interface).naddrs as usize {
                found.push(GuestAddress { mac: mac.clone(), ip: copy_string((*(*interface).addrs.add(nth)).addr) });
            }
            sys::virDomainInterfaceFree(interface);
        }
    }
    // SAFETY: the array itself was allocated by libvirt with malloc; null is fine.
    unsafe { free(interfaces.cast()) };
    Ok(found)
}

#[expect(unsafe_code, reason = "libvirt hands out memory of C's allocator")]
unsafe extern "C" {
    fn free(pointer: *mut std::ffi::c_void);
}

#[expect(unsafe_code, reason = "copies a C string")]
unsafe fn copy_string(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, and by the caller's promise a C string.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

#[expect(unsafe_code, reason = "takes over a C string")]
unsafe fn take_string(text: *mut c_char) -> String {
    // SAFETY: by the caller's promise a C string of malloc's that nobody else frees.
    unsafe {
        let copy = copy_string(text);
        free(text.cast());
        copy
    }
}
