//! `virConnectGetAllDomainStats`: `virt` 0.5 hands out its records as bare pointers that nobody can free.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::ptr;

use uuid::Uuid;
use virt::connect::Connect;
use virt::error::Error as VirtError;
use virt_sys as sys;

const KINDS: sys::virDomainStatsTypes = sys::VIR_DOMAIN_STATS_CPU_TOTAL
    | sys::VIR_DOMAIN_STATS_BALLOON
    | sys::VIR_DOMAIN_STATS_VCPU
    | sys::VIR_DOMAIN_STATS_INTERFACE
    | sys::VIR_DOMAIN_STATS_BLOCK;
const FLAGS: sys::virConnectGetAllDomainStatsFlags =
    sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE | sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT;

/// Of one domain, by libvirt's names (`cpu.time`, `block.0.name`). What is neither a count nor a text is left out.
#[derive(Debug, Default)]
pub struct Stats {
    pub uid: Uuid,
    pub numbers: BTreeMap<String, u64>,
    pub texts: BTreeMap<String, String>,
}

#[expect(unsafe_code, reason = "virt hands out the records without a way to free them")]
pub fn running_domains(connect: &Connect) -> Result<Vec<Stats>, VirtError> {
    let mut records: *mut sys::virDomainStatsRecordPtr = ptr::null_mut();
    // SAFETY: the connection is alive; on success `records` is an array of `count` pointers and a null, and ours to free.
    let count = unsafe { sys::virConnectGetAllDomainStats(connect.as_ptr(), KINDS, &mut records, FLAGS) };
    let count = usize::try_from(count).map_err(|_| VirtError::last_error())?;
    let mut all = Vec::with_capacity(count);
    for at in 0..count {
        // SAFETY: `at` is inside the array, and every record is valid until the list is freed below.
        all.extend(unsafe { read(&**records.add(at)) });
    }
    // SAFETY: as libvirt made it, and freed once; with it go records, domains and parameters.
    unsafe { sys::virDomainStatsRecordListFree(records) };
    Ok(all)
}

/// `None`: libvirt does not say whose they are.
#[expect(unsafe_code, reason = "reads what libvirt wrote")]
unsafe fn read(record: &sys::_virDomainStatsRecord) -> Option<Stats> {
    let mut uid = [0_u8; 16];
    // SAFETY: the record's domain is valid, and a UUID has 16 bytes.
    if unsafe { sys::virDomainGetUUID(record.dom, uid.as_mut_ptr()) } < 0 {
        return None;
    }
    let mut stats = Stats { uid: Uuid::from_bytes(uid), ..Stats::default() };
    for at in 0..usize::try_from(record.nparams).unwrap_or(0) {
        // SAFETY: `at` is inside the record's array; `field` ends with a zero; `type_` says which part of `value` was written.
        unsafe {
            let parameter = &*record.params.add(at);
            let name = CStr::from_ptr(parameter.field.as_ptr()).to_string_lossy().into_owned();
            let number = match parameter.type_ as sys::virTypedParameterType {
                sys::VIR_TYPED_PARAM_INT => u64::try_from(parameter.value.i).ok(),
                sys::VIR_TYPED_PARAM_UINT => Some(parameter.value.ui.into()),
                sys::VIR_TYPED_PARAM_LLONG => u64::try_from(parameter.value.l).ok(),
                sys::VIR_TYPED_PARAM_ULLONG => Some(parameter.value.ul),
                sys::VIR_TYPED_PARAM_STRING if !parameter.value.s.is_null() => {
                    let text = CStr::from_ptr(parameter.value.s).to_string_lossy().into_owned();
                    stats.texts.insert(name.clone(), text);
                    None
                }
                _ => None,
            };
            stats.numbers.extend(number.map(|number| (name, number)));
        }
    }
    Some(stats)
}
