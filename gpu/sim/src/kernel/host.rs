//! A simulated host from the outside: built, plugged, booted, and used by processes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, thread, time};

use croft_gpu::HostFs;
use croft_gpu::pci::PciAddress;

use super::hardware::{Hardware, UsbPlug};
use super::machine::Machine;
use super::processes::{self, Process};
use super::session::{Session, Stop, kernel, write_json};
use super::sriov_manage::{SriovManageError, sriov_manage};
use super::write::SimKernel;
use super::{boot, drivers, reset, tree, usb, view};
use crate::driver::{self, Errno};
use crate::state::{GpuState, Nvidia, directory, uuid_of};

/// A directory that behaves like a host.
#[derive(Clone, Debug)]
pub struct SimHost {
    root: PathBuf,
}

impl SimHost {
    /// Builds the machine below `root`, and boots it.
    pub fn create(root: impl Into<PathBuf>, hardware: impl Into<Hardware>) -> io::Result<SimHost> {
        let (root, hardware) = (root.into(), hardware.into());
        fs::create_dir_all(directory(&root))?;
        fs::create_dir_all(root.join("proc"))?;
        hardware.write(&root)?;
        let mut nvidia = Nvidia::new(hardware.flavour);
        nvidia.gpus = gpus(&hardware, &[])?;
        nvidia.fabric.clone_from(&hardware.fabric);
        start(&root, &hardware, nvidia)?;
        Ok(SimHost { root })
    }

    /// One that was created before, perhaps by another process.
    pub fn at(root: impl Into<PathBuf>) -> io::Result<SimHost> {
        let root = root.into();
        Hardware::read(&root)?;
        Ok(SimHost { root })
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its files, with a kernel behind them.
    pub fn fs(&self) -> Result<HostFs, croft_gpu::FsError> {
        HostFs::simulated(&self.root, Arc::new(SimKernel::at(&self.root)))
    }

    /// Power off and on. Gone are virtual functions, bindings, overrides, GPU instances, vGPUs, processes, and from Hopper on
    /// the MIG mode. Cards that were changed meanwhile ([`SimHost::change`]) are found.
    pub fn reboot(&self) -> io::Result<()> {
        let hardware = Hardware::read(&self.root)?;
        let mut nvidia = Nvidia::open(&self.root)?;
        processes::end_all(&self.root)?;
        let mut state = nvidia.clone();
        state.driver.flavour = hardware.flavour;
        state.gpus = gpus(&hardware, &state.gpus)?;
        state.fabric.clone_from(&hardware.fabric);
        driver::reboot(&mut state);
        // A commit that a killed process left half done is lost in the power cycle.
        match fs::remove_file(directory(&self.root).join("redo.json")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let machine = booted(&hardware, &state)?;
        write_json(&kernel(&self.root), &machine)?;
        *nvidia = state;
        nvidia.save()?;
        tree::make(&self.root, &machine)
    }

    /// Changes what is plugged in. Cards and slots show at the next reboot.
    pub fn change(&self, change: impl FnOnce(&mut Hardware)) -> io::Result<()> {
        let _lock = Nvidia::open(&self.root)?;
        let mut hardware = Hardware::read(&self.root)?;
        change(&mut hardware);
        hardware.write(&self.root)
    }

    /// A card leaves the machine that runs: functions and drivers go at once, whoever uses them.
    pub fn surprise_remove(&self, address: PciAddress) -> io::Result<()> {
        let mut session = Session::open(&self.root)?;
        let functions = session.machine.functions.get(&address).map(|function| function.virtual_functions().to_vec());
        let gone: Vec<_> = functions.ok_or(Errno::NODEV)?.into_iter().chain([address]).collect();
        for function in &gone {
            session.machine.mdevs.retain(|_, mdev| mdev.parent != *function);
            session.machine.functions.remove(function);
        }
        for other in session.machine.functions.values_mut().filter_map(|function| function.sriov.as_mut()) {
            other.functions.retain(|function| !gone.contains(function));
        }
        if let Some(gpu) = session.gpu(address) {
            driver::unbound(gpu);
        }
        session.commit()
    }

    /// A USB device comes; one in the same port goes first.
    pub fn usb_plug(&self, plug: UsbPlug) -> io::Result<()> {
        self.usb_unplug(&plug.port)?;
        let mut session = Session::open(&self.root)?;
        let mut hardware = Hardware::read(&self.root)?;
        usb::appear(&mut session.machine, &plug);
        hardware.usb.push(plug);
        hardware.write(&self.root)?;
        session.commit()
    }

    /// A USB device goes, with all that is plugged into it.
    pub fn usb_unplug(&self, port: &str) -> io::Result<()> {
        let mut session = Session::open(&self.root)?;
        let mut hardware = Hardware::read(&self.root)?;
        hardware.usb.retain(|plug| !usb::is_at_or_behind(&plug.port, port));
        hardware.write(&self.root)?;
        usb::vanish(&mut session.machine, port);
        session.commit()
    }

    /// `sriov-manage -e` or `-d` for one GPU.
    pub fn sriov_manage(&self, gpu: PciAddress, enable: bool) -> io::Result<Result<(), SriovManageError>> {
        sriov_manage(&self.root, gpu, enable)
    }

    /// A process of the host opens a file and keeps it open. EBUSY: a GPU's that somebody has the unbindLock of. What else the
    /// kernel would refuse it is not looked at.
    pub fn hold(&self, process: &Process, file: &str) -> io::Result<()> {
        let mut session = Session::open(&self.root)?;
        let locked = |gpu: &GpuState| gpu.unbind_locked && file == format!("/dev/nvidia{}", gpu.minor);
        if session.nvidia().gpus.iter().any(locked) {
            return Err(Errno::BUSY.into());
        }
        processes::open(&self.root, process, file)
    }

    /// A guest's process opens a function, or a mediated device by its UUID, through VFIO.
    ///
    /// EPERM: a driver that is no VFIO driver has another function of the group. ENODEV: nothing there for guests, or one of
    /// NVIDIA's functions that is no vGPU.
    pub fn open_vfio(&self, process: &Process, device: &str) -> io::Result<()> {
        let mut session = Session::open(&self.root)?;
        let file = vfio_file(&session.machine, device)?;
        // vfio-pci resets what is opened: a GPU that remembers nothing without its driver loses its MIG mode here.
        let group = file.rsplit('/').next().and_then(|group| group.parse().ok());
        let members = session.machine.functions.iter().filter(|(_, function)| function.group == group);
        let reset: Vec<_> =
            members.filter(|(_, function)| function.is_on(drivers::VFIO_PCI)).map(|(at, _)| *at).collect();
        for address in reset {
            if let Some(gpu) = session.gpu(address) {
                driver::reset(gpu);
            }
        }
        processes::open(&self.root, process, &file)?;
        session.commit()
    }

    /// A process ends, and lets go of all that it had open.
    pub fn end(&self, pid: u32) -> io::Result<()> {
        processes::end(&self.root, pid)
    }

    /// Removes a function as a write of 1 to its `remove` does.
    pub fn remove(&self, address: PciAddress) -> io::Result<()> {
        loop {
            let mut session = Session::open(&self.root)?;
            match reset::leave(&mut session, address) {
                Ok(()) => return session.commit(),
                Err(Stop::Errno(errno)) => return Err(errno.into()),
                Err(Stop::Waits) => drop(session),
            }
            thread::sleep(time::Duration::from_millis(5));
        }
    }
}

/// Where a simulated host of a test is best put: in memory, where this machine has such a directory. A host with many functions
/// is thousands of small files, of which some file systems make less than a thousand a second.
#[must_use]
pub fn scratch() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

/// What a guest opens of a device: the file of its group.
fn vfio_file(machine: &Machine, device: &str) -> Result<String, Errno> {
    if let Some(mdev) = machine.mdevs.get(device) {
        return Ok(format!("/dev/vfio/{}", mdev.group));
    }
    let address: PciAddress = device.parse().map_err(|_| Errno::NODEV)?;
    let function = machine.functions.get(&address).filter(|function| function.vfio.is_some()).ok_or(Errno::NODEV)?;
    let group = function.group.ok_or(Errno::NODEV)?;
    let viable = machine.members(group).all(|(_, member)| match &member.driver {
        None => true,
        Some(driver) => member.vfio.is_some() || drivers::lets_group_be_used(driver),
    });
    if !viable {
        return Err(Errno::PERM);
    }
    // Opened with type 0, the driver says that it is configured to be nothing.
    if machine.vgpu(address).is_some_and(|(_, view)| view.current == 0) {
        return Err(Errno::NODEV);
    }
    Ok(format!("/dev/vfio/{group}"))
}

fn start(root: &Path, hardware: &Hardware, state: Nvidia) -> io::Result<()> {
    let machine = booted(hardware, &state)?;
    write_json(&kernel(root), &machine)?;
    let _lock = Nvidia::create(root, state)?;
    tree::make(root, &machine)
}

fn booted(hardware: &Hardware, state: &Nvidia) -> io::Result<Machine> {
    let mut machine = boot::boot(hardware, &state.driver.version)?;
    view::look(&mut machine, state);
    Ok(machine)
}

/// The driver's GPUs: those known before, and those whose card is new.
fn gpus(hardware: &Hardware, before: &[GpuState]) -> io::Result<Vec<GpuState>> {
    let mut slots: Vec<_> = hardware.slots.iter().collect();
    slots.sort_by_key(|slot| slot.address());
    let mut gpus = Vec::new();
    for slot in slots {
        let Some(board) = crate::boards::by_name(&slot.board).filter(|board| board.gpu.is_some()) else { continue };
        let minor = gpus.len() as u32;
        // Who it is goes with the card, not with the slot.
        let who = uuid_of(&format!("{}#{}", slot.board, slot.serial));
        let uuid = format!("GPU-{who}");
        let known = before.iter().find(|gpu| gpu.uuid == uuid && gpu.board == slot.board);
        gpus.push(match known {
            Some(gpu) => GpuState { address: slot.address(), minor, ..gpu.clone() },
            None => GpuState {
                uuid,
                serial: format!("16{:011}", who.as_u128() % 100_000_000_000),
                ..GpuState::new(board, slot.address(), minor)
            },
        });
    }
    Ok(gpus)
}
