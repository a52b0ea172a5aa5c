//! Fabric Manager's client library, `libnvfm.so.1`: partitions listed, activated, deactivated.
//!
//! The structures are those of NVIDIA's public `nv_fm_types.h`; Fabric Manager itself refuses one of another size or version.
//! **Never met a real Fabric Manager so far**: written from the header and its documentation.
#![expect(unsafe_code, reason = "a C library that nobody has wrapped")]

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::ptr;

use libloading::Library;
use serde::{Deserialize, Serialize};

use super::FabricAddress;
use crate::error::chain;
use crate::host::FabricPartition;
use crate::hostfs::HostFs;
use crate::pci::PciAddress;

const PATIENCE_MILLISECONDS: c_uint = 5000;

const MAX_GPUS: usize = 16;
const MAX_PARTITIONS: usize = 64;

const NOT_SUPPORTED: c_int = -3;
const UNINITIALIZED: c_int = -4;
const VERSION_MISMATCH: c_int = -6;
const IN_USE: c_int = -7;
const NOT_CONFIGURED: c_int = -8;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum FabricError {
    #[error("Fabric Manager's library is not to be had: {why}")]
    Library { why: String },
    #[error("cannot tell where Fabric Manager listens: {why}")]
    Configuration { why: String },
    #[error("{call}: {} (Fabric Manager {code})", meaning(*code))]
    Refused { call: String, code: i32 },
    #[error("Fabric Manager says {what}, which cannot be")]
    Odd { what: String },
}

fn meaning(code: i32) -> &'static str {
    match code {
        -1 => "an argument is invalid",
        NOT_SUPPORTED => {
            "not supported: this is no machine with NVSwitch, or Fabric Manager is not in shared NVSwitch mode \
             (FABRIC_MODE=1 in fabricmanager.cfg)"
        }
        UNINITIALIZED => "not initialised, or the partition is not active",
        -5 => "timed out",
        VERSION_MISMATCH => "library and Fabric Manager are of different versions",
        IN_USE => "in use: the partition, or a GPU of it, is active already",
        NOT_CONFIGURED => "Fabric Manager is still starting",
        -9 => "Fabric Manager does not run, or closed the connection",
        -10 => "an NVLink failed",
        _ => "an error that Fabric Manager does not explain",
    }
}

type Handle = *mut c_void;

#[repr(C)]
struct ConnectParams {
    version: c_uint,
    address: [c_char; 256],
    timeout_ms: c_uint,
    is_unix_socket: c_uint,
    /// From version 2 on.
    address_type: c_uint,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct GpuInfo {
    physical_id: c_uint,
    uuid: [c_char; 80],
    pci_bus_id: [c_char; 32],
    links_available: c_uint,
    links_max: c_uint,
    link_rate_mbps: c_uint,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct PartitionInfo {
    id: c_uint,
    is_active: c_uint,
    gpu_count: c_uint,
    gpus: [GpuInfo; MAX_GPUS],
}

#[repr(C)]
struct PartitionList {
    version: c_uint,
    count: c_uint,
    max_count: c_uint,
    partitions: [PartitionInfo; MAX_PARTITIONS],
}

/// MAKE_FM_PARAM_VERSION of the header.
fn version(size: usize, number: c_uint) -> c_uint {
    c_uint::try_from(size).unwrap_or(c_uint::MAX) | number << 24
}

/// A connection. The library has one state for the whole process, so there must be one of these at a time.
#[derive(Debug)]
pub struct FabricLibrary {
    library: Library,
    handle: Handle,
}

impl FabricLibrary {
    /// `library`: or `libnvfm.so.1`, where the system keeps its libraries. `address`: or as Fabric Manager's own configuration
    /// says.
    pub fn open(library: Option<&Path>, address: Option<&FabricAddress>) -> Result<FabricLibrary, FabricError> {
        let name = library.unwrap_or(Path::new("libnvfm.so.1"));
        // SAFETY: NVIDIA's library does nothing when it is loaded; another one is the operator's choice.
        let library = unsafe { Library::new(name) }.map_err(|error| FabricError::Library { why: error.to_string() })?;
        let mut manager = FabricLibrary { library, handle: ptr::null_mut() };
        // SAFETY: fmReturn_t fmLibInit(void)
        let code = unsafe { manager.get::<unsafe extern "C" fn() -> c_int>("fmLibInit")?() };
        match code {
            IN_USE => {}
            other => check("fmLibInit", other)?,
        }
        manager.handle = match address {
            Some(address) => manager.connect(address),
            None => manager.connect(&FabricAddress::configured(&this_machine()?)?),
        }?;
        Ok(manager)
    }

    /// All of them. One that says something odd of a GPU keeps nobody from the others.
    pub fn partitions(&self) -> Result<Vec<FabricPartition>, FabricError> {
        Ok(self.list()?.iter().map(read).collect())
    }

    /// Is the partition active? `None`: there is none.
    pub fn active(&self, id: u32) -> Result<Option<bool>, FabricError> {
        let list = self.list()?;
        Ok(list.iter().find(|partition| partition.id == id).map(|partition| partition.is_active != 0))
    }

    fn list(&self) -> Result<Vec<PartitionInfo>, FabricError> {
        const CALL: &str = "fmGetSupportedFabricPartitions";
        // SAFETY: numbers and arrays of numbers, for all of which zero is a value.
        let mut list: Box<PartitionList> = Box::new(unsafe { std::mem::zeroed() });
        // Version 1, though the header calls the type `…_v2`.
        list.version = version(size_of::<PartitionList>(), 1);
        // SAFETY: fmReturn_t fmGetSupportedFabricPartitions(fmHandle_t, fmFabricPartitionList_t *), and the list is one.
        let code = unsafe {
            self.get::<unsafe extern "C" fn(Handle, *mut PartitionList) -> c_int>(CALL)?(self.handle, &raw mut *list)
        };
        check(CALL, code)?;
        let odd = |what: String| FabricError::Odd { what };
        let partitions = list.partitions.get(..list.count as usize);
        partitions.map(<[_]>::to_vec).ok_or_else(|| odd(format!("that it has {} partitions", list.count)))
    }

    /// Fine if it is active already.
    pub fn activate(&self, id: u32) -> Result<(), FabricError> {
        if self.is_active(id)? { Ok(()) } else { self.switch("fmActivateFabricPartition", id) }
    }

    /// Fine if it is not active.
    pub fn deactivate(&self, id: u32) -> Result<(), FabricError> {
        if self.is_active(id)? { self.switch("fmDeactivateFabricPartition", id) } else { Ok(()) }
    }

    fn is_active(&self, id: u32) -> Result<bool, FabricError> {
        self.active(id)?.ok_or_else(|| FabricError::Odd { what: format!("nothing of a partition {id}") })
    }

    fn switch(&self, call: &str, id: u32) -> Result<(), FabricError> {
        // SAFETY: both are fmReturn_t f(fmHandle_t, fmFabricPartitionId_t).
        let code = unsafe { self.get::<unsafe extern "C" fn(Handle, c_uint) -> c_int>(call)?(self.handle, id) };
        check(call, code)
    }

    fn connect(&self, address: &FabricAddress) -> Result<Handle, FabricError> {
        const CALL: &str = "fmConnect";
        let (address, is_unix_socket, address_type) = address.parameters()?;
        let mut handle: Handle = ptr::null_mut();
        let mut params = ConnectParams {
            version: version(size_of::<ConnectParams>(), 2),
            address,
            timeout_ms: PATIENCE_MILLISECONDS,
            is_unix_socket,
            address_type,
        };
        let connect = self.get::<unsafe extern "C" fn(*mut ConnectParams, *mut Handle) -> c_int>(CALL)?;
        // SAFETY: fmReturn_t fmConnect(fmConnectParams_t *, fmHandle_t *)
        let mut code = unsafe { connect(&raw mut params, &raw mut handle) };
        if code == VERSION_MISMATCH {
            // Version 1 is the same without its last field.
            params.version = version(size_of::<ConnectParams>() - size_of::<c_uint>(), 1);
            // SAFETY: as above.
            code = unsafe { connect(&raw mut params, &raw mut handle) };
        }
        check(CALL, code)?;
        Ok(handle)
    }

    /// `F` must be the function's type in the header: it stands beside each call.
    fn get<F: Copy>(&self, name: &str) -> Result<F, FabricError> {
        // SAFETY: a symbol is only copied here; whoever calls it answers for its type.
        let symbol = unsafe { self.library.get::<F>(name.as_bytes()) };
        symbol.map(|symbol| *symbol).map_err(|error| FabricError::Library { why: error.to_string() })
    }
}

impl Drop for FabricLibrary {
    fn drop(&mut self) {
        if !self.handle.is_null()
            && let Ok(disconnect) = self.get::<unsafe extern "C" fn(Handle) -> c_int>("fmDisconnect")
        {
            // SAFETY: fmReturn_t fmDisconnect(fmHandle_t), of a connection that is open.
            unsafe { disconnect(self.handle) };
        }
        if let Ok(shutdown) = self.get::<unsafe extern "C" fn() -> c_int>("fmLibShutdown") {
            // SAFETY: fmReturn_t fmLibShutdown(void)
            unsafe { shutdown() };
        }
    }
}

fn check(call: &str, code: c_int) -> Result<(), FabricError> {
    if code == 0 { Ok(()) } else { Err(FabricError::Refused { call: call.to_owned(), code }) }
}

fn read(partition: &PartitionInfo) -> FabricPartition {
    let count = partition.gpu_count as usize;
    let mut unread = (count > MAX_GPUS).then(|| format!("Fabric Manager says that it has {count} GPUs"));
    let mut gpus = Vec::new();
    for gpu in partition.gpus.iter().take(count) {
        let text = text(&gpu.pci_bus_id);
        match address(&text) {
            Some(address) => gpus.push(address),
            None => drop(unread.get_or_insert_with(|| {
                format!("Fabric Manager gives GPU {} of it the address {text:?}", gpu.physical_id)
            })),
        }
    }
    FabricPartition { id: partition.id, gpus, active: partition.is_active != 0, unread }
}

fn this_machine() -> Result<HostFs, FabricError> {
    HostFs::at("/").map_err(|error| FabricError::Configuration { why: chain(&error) })
}

/// `00000000:1B:00.0`, in capitals and with a long domain.
fn address(text: &str) -> Option<PciAddress> {
    let (domain, rest) = text.split_once(':')?;
    let domain = u32::from_str_radix(domain, 16).ok()?;
    format!("{domain:04x}:{}", rest.to_ascii_lowercase()).parse().ok()
}

fn text(buffer: &[c_char]) -> String {
    let bytes: Vec<u8> = buffer.iter().map(|c| c.cast_unsigned()).take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sizes that the header's structures have with a C compiler: part of the version that Fabric Manager checks.
    #[test]
    fn structures_are_as_large_as_the_headers() {
        assert_eq!(size_of::<ConnectParams>(), 4 + 256 + 4 + 4 + 4);
        assert_eq!(size_of::<GpuInfo>(), 4 + 80 + 32 + 12);
        assert_eq!(size_of::<PartitionInfo>(), 12 + 16 * 128);
        assert_eq!(size_of::<PartitionList>(), 12 + 64 * 2060);
        assert_eq!(version(size_of::<PartitionList>(), 1), 131_852 | 1 << 24);
    }

    #[test]
    fn addresses_are_read_as_fabric_manager_writes_them() {
        assert_eq!(address("00000000:1B:00.0").unwrap().to_string(), "0000:1b:00.0");
        assert_eq!(address("0000:c1:00.0").unwrap().to_string(), "0000:c1:00.0");
        for bad in ["", "1B:00.0", "00000000:1B:00", "N/A"] {
            assert_eq!(address(bad), None, "{bad}");
        }
    }

    /// A GPU that fell off its bus, or whose address is that of nothing.
    #[test]
    fn an_odd_address_is_its_own_partitions_trouble() {
        // SAFETY: numbers and arrays of numbers, for all of which zero is a value.
        let mut info: PartitionInfo = unsafe { std::mem::zeroed() };
        (info.id, info.is_active, info.gpu_count) = (3, 1, 2);
        let mut name = |n: usize, text: &[u8]| {
            info.gpus[n].physical_id = 40 + n as c_uint;
            for (to, from) in info.gpus[n].pci_bus_id.iter_mut().zip(text) {
                *to = from.cast_signed();
            }
        };
        name(0, b"00000000:1B:00.0");
        name(1, b"N/A");
        let partition = read(&info);
        let gpus: Vec<_> = partition.gpus.iter().map(ToString::to_string).collect();
        assert_eq!((partition.id, partition.active, gpus), (3, true, vec!["0000:1b:00.0".to_owned()]));
        assert_eq!(partition.unread.unwrap(), "Fabric Manager gives GPU 41 of it the address \"N/A\"");
        (info.gpu_count, info.gpus[1]) = (17, info.gpus[0]);
        assert!(read(&info).unread.is_some_and(|why| why.contains("17 GPUs")));
        info.gpu_count = 1;
        assert_eq!(read(&info).unread, None);
    }

    #[test]
    fn without_the_library_it_says_so() {
        let error = FabricLibrary::open(Some(Path::new("/nonexistent/libnvfm.so.1")), None).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/libnvfm.so.1"), "{error}");
    }
}
