//! The simulated kernel against what real ones answered.

mod binding;
mod commit;
mod functions;
mod random;
mod reset;
mod tree;
mod usb;
mod vgpu;

use std::io;

use croft_gpu::HostFs;
use croft_gpu::pci::{self, PciAddress, PciFunction, Sriov};

use super::{Hardware, Process, SimHost, dump};
use crate::driver::Errno;
use crate::state::Nvidia;

/// A machine of its own for each test.
struct Machine {
    host: SimHost,
    fs: HostFs,
    _root: tempfile::TempDir,
}

fn machine(hardware: impl Into<Hardware>) -> Machine {
    let root = tempfile::tempdir_in(super::scratch()).unwrap();
    let host = SimHost::create(root.path(), hardware).unwrap();
    Machine { fs: host.fs().unwrap(), host, _root: root }
}

fn preset(name: &str) -> Machine {
    machine(SimHost::preset(name).unwrap())
}

const GPU: &str = "0000:41:00.0";
const CARD: &str = "0000:61:00.0";
const SOUND: &str = "0000:61:00.1";
const NIC: &str = "0000:81:00.0";
const NVME: &str = "0000:a1:00.0";

fn at(address: &str) -> PciAddress {
    address.parse().unwrap()
}

impl Machine {
    fn write(&self, path: &str, value: &str) -> Result<(), Errno> {
        match self.fs.write(path, value) {
            Ok(()) => Ok(()),
            Err(error) => Err(Errno::from_raw_os_error(error.errno().unwrap_or_else(|| panic!("{error:?}")))),
        }
    }

    /// An attribute of a function.
    fn set(&self, address: &str, file: &str, value: &str) -> Result<(), Errno> {
        self.write(&format!("/sys/bus/pci/devices/{address}/{file}"), value)
    }

    fn get(&self, address: &str, file: &str) -> String {
        self.fs.attribute(&format!("/sys/bus/pci/devices/{address}/{file}")).unwrap()
    }

    fn has(&self, path: &str) -> bool {
        self.fs.has(path).unwrap()
    }

    fn functions(&self) -> Vec<PciFunction> {
        let inventory = pci::probe(&self.fs).unwrap();
        assert!(inventory.errors.is_empty(), "{:?}", inventory.errors);
        inventory.devices
    }

    fn function(&self, address: &str) -> PciFunction {
        let mut functions = self.functions().into_iter();
        functions.find(|function| function.address == at(address)).unwrap_or_else(|| panic!("no {address}"))
    }

    fn driver(&self, address: &str) -> Option<String> {
        self.function(address).driver
    }

    fn virtual_functions(&self, address: &str) -> Vec<String> {
        match self.function(address).sriov {
            Sriov::Physical { functions, .. } => functions.iter().map(|vf| vf.address.to_string()).collect(),
            other => panic!("{address}: {other:?}"),
        }
    }

    fn to_vfio(&self, address: &str) {
        self.set(address, "driver_override", "vfio-pci").unwrap();
        if self.driver(address).is_some() {
            self.set(address, "driver/unbind", address).unwrap();
        }
        self.write("/sys/bus/pci/drivers_probe", address).unwrap();
        assert_eq!(self.driver(address).as_deref(), Some("vfio-pci"));
    }

    fn manage(&self, gpu: &str, enable: bool) {
        self.host.sriov_manage(at(gpu), enable).unwrap().unwrap();
        // It turns persistence of every GPU on, which no test here is about.
        let mut nvidia = Nvidia::open(self.host.root()).unwrap();
        nvidia.gpus.iter_mut().for_each(|gpu| gpu.persistence = false);
        nvidia.save().unwrap();
    }

    fn dump(&self) -> String {
        dump(self.host.root()).unwrap()
    }

    /// Does the write still wait after a while? It goes on once `then` has let it.
    fn waits(&self, path: &str, value: &str, then: impl FnOnce()) {
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                self.write(path, value).unwrap();
                done.store(true, std::sync::atomic::Ordering::SeqCst);
            });
            std::thread::sleep(std::time::Duration::from_millis(60));
            assert!(!done.load(std::sync::atomic::Ordering::SeqCst), "{path} did not wait");
            then();
        });
    }
}

fn guest(pid: u32) -> Process {
    Process::new(pid, "qemu-system-x86_64", &format!("machine-qemu\\x2d{pid}\\x2dcroft.scope"))
}

fn errno(result: io::Result<()>) -> Errno {
    Errno::from_raw_os_error(result.unwrap_err().raw_os_error().unwrap())
}
