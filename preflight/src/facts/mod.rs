//! What checks look at: the machine's files, its devices, and answers to what no file tells.

mod ask;
mod clock;
mod place;
mod program;
mod version;

use std::collections::BTreeMap;

use croft_gpu::fabric::FabricSource;
use croft_gpu::host::{Holder, Host};
use croft_gpu::nvml::NvmlSource;
use croft_gpu::pci::{PciAddress, PciFunction};
use croft_gpu::{FsError, HostFs, IfPresent as _};

pub use ask::{Asked, NvidiaModule, Plane, Question, User};
pub use clock::Clock;
pub use place::Disk;
pub use version::Version;

#[derive(Debug)]
pub struct Facts {
    pub fs: HostFs,
    pub devices: Host,
    pub asked: Asked,
}

impl Facts {
    /// Looks at the devices below the root of `fs`. Blocks: seconds, if a USB device is being reset meanwhile.
    #[must_use]
    pub fn new(fs: HostFs, asked: Asked) -> Facts {
        // NVML starts nvidia-modprobe, which loads the driver: not asked. Neither is Fabric Manager, which may hang.
        let nvml = NvmlSource::NoDriver { why: "not asked".to_owned() };
        let fabric = FabricSource::Unavailable { why: "not asked".to_owned() };
        let mut devices = Host::probe(&fs, &nvml, &fabric);
        // That no driver told of a GPU is our own doing; and which card of a kind it is matters to nobody here.
        devices.gpus.errors.clear();
        devices.pci.errors.retain(|error| error.what != "serial number");
        Facts { fs, devices, asked }
    }

    /// Of the machine that this program runs on. Blocks: each question has a deadline of seconds.
    pub fn here(question: &Question) -> Result<Facts, FsError> {
        let fs = HostFs::at("/")?;
        let asked = Asked::here(&fs, question);
        Ok(Facts::new(fs, asked))
    }

    /// Loaded, or built in with parameters.
    pub(crate) fn has_module(&self, name: &str) -> Result<bool, FsError> {
        self.fs.has(&format!("/sys/module/{name}"))
    }

    /// `None`: there is no such file.
    pub(crate) fn attribute(&self, path: &str) -> Result<Option<String>, FsError> {
        self.fs.attribute(path).if_present()
    }

    /// Of a directory; empty where there is none.
    pub(crate) fn names(&self, path: &str) -> Result<Vec<String>, FsError> {
        Ok(self.fs.entries(path).if_present()?.unwrap_or_default())
    }

    pub(crate) fn kernel_arguments(&self) -> Result<Vec<String>, FsError> {
        let line = self.attribute("/proc/cmdline")?.unwrap_or_default();
        Ok(line.split_whitespace().map(str::to_owned).collect())
    }

    /// `6.12.38+deb13-amd64`
    pub(crate) fn kernel_release(&self) -> Result<String, FsError> {
        self.fs.attribute("/proc/sys/kernel/osrelease")
    }

    /// The flags of the first CPU, on x86.
    pub(crate) fn cpu_flags(&self) -> Result<Vec<String>, FsError> {
        let text = self.fs.read("/proc/cpuinfo")?;
        let line = text.lines().find_map(|line| line.strip_prefix("flags"));
        let words = line.and_then(|line| line.split_once(':')).map(|(_, words)| words).unwrap_or_default();
        Ok(words.split_whitespace().map(str::to_owned).collect())
    }

    pub(crate) fn function(&self, address: PciAddress) -> Option<&PciFunction> {
        self.devices.pci.devices.iter().find(|function| function.address == address)
    }

    pub(crate) fn gpus(&self) -> impl Iterator<Item = &PciFunction> {
        self.devices.gpus.devices.iter().filter_map(|gpu| self.function(gpu.address))
    }

    /// What a tenant could be given: GPUs, and functions that can make virtual ones.
    pub(crate) fn worth_giving(&self) -> impl Iterator<Item = &PciFunction> {
        let physical = |function: &&PciFunction| matches!(function.sriov, croft_gpu::pci::Sriov::Physical { .. });
        let is_gpu = |address| self.devices.gpus.devices.iter().any(|gpu| gpu.address == address);
        self.devices.pci.devices.iter().filter(move |function| physical(function) || is_gpu(function.address))
    }

    pub(crate) fn holders(&self, address: PciAddress) -> &[Holder] {
        self.devices.holders.get(&address.to_string()).map(Vec::as_slice).unwrap_or_default()
    }

    /// Names of processes, as far as the kernel keeps them (15 bytes), with a pid each.
    pub(crate) fn processes(&self) -> Result<BTreeMap<String, u32>, FsError> {
        let mut processes = BTreeMap::new();
        for pid in self.names("/proc")?.iter().filter_map(|name| name.parse::<u32>().ok()) {
            // One that ended meanwhile has no name any more.
            if let Ok(name) = self.fs.attribute(&format!("/proc/{pid}/comm")) {
                processes.entry(name).or_insert(pid);
            }
        }
        Ok(processes)
    }

    /// Of the program, where it is installed.
    pub(crate) fn version_of(&self, program: &str) -> Option<&Result<String, String>> {
        self.asked.programs.get(program)
    }
}

/// Where programs are.
pub(crate) const PROGRAM_DIRECTORIES: [&str; 5] =
    ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin", "/usr/libexec"];

/// `None`: nowhere.
pub(crate) fn program(fs: &HostFs, name: &str) -> Result<Option<String>, FsError> {
    for directory in PROGRAM_DIRECTORIES {
        let path = format!("{directory}/{name}");
        if fs.has(&path).if_present()? == Some(true) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
