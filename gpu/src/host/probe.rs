//! The look itself: sysfs, what NVML and Fabric Manager told, and who has what open, put together device by device.

use std::collections::BTreeMap;

use super::Host;
use crate::bus::Inventory;
use crate::error::{ProbeCause, ProbeError};
use crate::fabric::{self, FabricSource};
use crate::gpu::{Gpu, Health, Mig, VgpuSupport, faults};
use crate::host::VgpuFunction;
use crate::hostfs::HostFs;
use crate::identity::Identity;
use crate::nvml::{NvmlGpu, NvmlSource};
use crate::pci::{self, PciAddress, PciFunction, Sriov};
use crate::{holders, kernel_use, model, usb, vgpu};

const NVIDIA: u16 = 0x10de;

impl Host {
    /// Never fails as a whole: what could not be read is an error on its device or on its part.
    ///
    /// Blocks for as long as USB devices are being reset. Functions with a stuck lock cost a second or two, once.
    #[must_use]
    pub fn probe(fs: &HostFs, nvml: &NvmlSource, fabric: &FabricSource) -> Host {
        let mut pci = whole(pci::probe(fs));
        let usb = whole(usb::probe(fs));
        let mut errors = Vec::new();
        let mdevs = vgpu::mdevs(fs, &mut errors);
        let mdev_parents = vgpu::other_parents(fs, &mut errors);
        let minors = holders::nvidia_minors(fs, &mut errors);
        let files = holders::Files::read(fs, &minors, &mut errors);
        let mut holders = holders::find(fs, &files, &mut errors);
        kernel_use::find(fs, &mut holders, &mut errors);
        for function in &mut pci.devices {
            let held = holders.contains_key(&function.address.to_string());
            if let Err(error) = ask_serial(fs, function, held) {
                pci.errors.push(error);
            }
        }

        let told = |address| match nvml {
            NvmlSource::Answered(snapshot) => snapshot.gpus.iter().find(|gpu| gpu.address == address),
            NvmlSource::NoLibrary { .. } | NvmlSource::NoDriver { .. } | NvmlSource::Failed { .. } => None,
        };
        // A virtual function is made of its physical one's board.
        let types = |function: &PciFunction| {
            let board = match function.sriov {
                Sriov::Virtual { physical } => physical,
                Sriov::None | Sriov::Physical { .. } => function.address,
            };
            (function.address, told(board).map(|gpu| gpu.vgpu_types.clone()).unwrap_or_default())
        };
        let vgpus = vgpu::functions(fs, pci.devices.iter().map(types), &mut errors);

        let mut gpus = Inventory { devices: Vec::new(), errors: Vec::new() };
        for function in pci.devices.iter().filter(|function| is_gpu(function)) {
            let gpu = match told(function.address) {
                Some(told) => with_driver(function, told, &vgpus, &mut gpus.errors),
                None => without_driver(function, nvml, &minors, &vgpus, &mut gpus.errors),
            };
            gpus.devices.push(gpu);
        }
        Host { fabric: fabric::read(&pci, fabric), pci, usb, gpus, mdevs, vgpus, mdev_parents, holders, errors }
    }
}

/// A bus that could not be looked at: nothing of it is known, and the error says so.
fn whole<T>(result: Result<Inventory<T>, ProbeError>) -> Inventory<T> {
    result.unwrap_or_else(|error| Inventory { devices: Vec::new(), errors: vec![error] })
}

/// Not of bridges and virtual functions, which nobody mistakes for another; and not of what a guest has, which may be
/// resetting it at this moment (readers of its configuration space would wait).
fn ask_serial(fs: &HostFs, function: &mut PciFunction, held: bool) -> Result<(), ProbeError> {
    const BRIDGE: u32 = 0x06;
    let with_a_guest = held && function.driver.as_deref().is_some_and(|driver| driver.contains("vfio"));
    if function.class >> 16 == BRIDGE || function.is_virtual() || with_a_guest {
        return Ok(());
    }
    let failed = |source: crate::FsError| ProbeError {
        device: format!("pci {}", function.address),
        what: "serial number".into(),
        source: source.into(),
    };
    function.serial = pci::serial_number(fs, function.address).map_err(failed)?;
    Ok(())
}

/// Display controllers of NVIDIA's, and what the table of models knows: a server's own small graphics chip is no GPU.
fn is_gpu(function: &PciFunction) -> bool {
    /// VGA and 3D controllers.
    const DISPLAY: [u32; 2] = [0x0300, 0x0302];
    let nvidia = function.vendor == NVIDIA && DISPLAY.contains(&(function.class >> 8));
    !function.is_virtual() && (nvidia || model::lookup(function.vendor, function.device).is_some())
}

/// What holds without asking any driver.
fn bare(function: &PciFunction, vgpus: &BTreeMap<PciAddress, VgpuFunction>) -> Gpu {
    let model = model::lookup(function.vendor, function.device);
    Gpu {
        address: function.address,
        pci_id: function.id(),
        model: model.map(|model| model.word.to_owned()),
        name: None,
        identity: Identity::of(function),
        board_serial: None,
        memory_mib: model.map(|model| model.memory_mib),
        minor: None,
        mig: Mig::Unknown { why: String::new() },
        vgpu: vgpu_support(function, vgpus),
        vgpu_types: Vec::new(),
        heterogeneous: None,
        heterogeneous_capable: false,
        persistence: None,
        health: Health { faults: function.link.and_then(faults::link).into_iter().collect() },
    }
}

/// By the files of the function itself, or of the first of its virtual ones.
fn vgpu_support(function: &PciFunction, vgpus: &BTreeMap<PciAddress, VgpuFunction>) -> VgpuSupport {
    let mut own = vec![function.address];
    if let Sriov::Physical { functions, .. } = &function.sriov {
        own.extend(functions.iter().map(|virtual_function| virtual_function.address));
    }
    match own.iter().find_map(|address| vgpus.get(address)) {
        Some(VgpuFunction::Mdev { .. }) => VgpuSupport::Mdev,
        Some(VgpuFunction::Vendor { .. }) => VgpuSupport::Vendor,
        None => VgpuSupport::None,
    }
}

fn with_driver(
    function: &PciFunction,
    told: &NvmlGpu,
    vgpus: &BTreeMap<PciAddress, VgpuFunction>,
    errors: &mut Vec<ProbeError>,
) -> Gpu {
    for error in &told.errors {
        errors.push(unread(function.address, ProbeCause::Nvml(error.clone())));
    }
    let bare = bare(function, vgpus);
    // The driver knows the slot better than the bus does: where it speaks, its word on the link counts.
    let mut faults = told.faults.clone();
    faults.sort();
    let vgpu = match bare.vgpu {
        VgpuSupport::None if told.makes_vgpus => VgpuSupport::Dormant,
        seen => seen,
    };
    Gpu {
        name: told.name.clone(),
        identity: Identity { uuid: told.uuid.clone(), ..bare.identity },
        board_serial: told.board_serial.clone(),
        // The nominal size is what is charged, on each board of a model the same.
        memory_mib: bare.memory_mib.or(told.memory_mib),
        minor: told.minor,
        mig: told.mig.clone(),
        vgpu,
        vgpu_types: told.vgpu_types.clone(),
        heterogeneous: told.heterogeneous,
        heterogeneous_capable: told.heterogeneous_capable,
        persistence: told.persistence,
        health: Health { faults },
        ..bare
    }
}

/// Nothing was told of it. Fine while no NVIDIA driver holds it; otherwise the silence is the fault.
fn without_driver(
    function: &PciFunction,
    nvml: &NvmlSource,
    minors: &[(u32, PciAddress)],
    vgpus: &BTreeMap<PciAddress, VgpuFunction>,
    errors: &mut Vec<ProbeError>,
) -> Gpu {
    let mut gpu = bare(function, vgpus);
    gpu.minor = minors.iter().find(|(_, address)| *address == function.address).map(|(minor, _)| *minor);
    let why = match function.driver.as_deref() {
        None => "no driver holds it".to_owned(),
        Some("nvidia") => {
            let why = silence(nvml);
            errors.push(unread(function.address, ProbeCause::Part(why.clone())));
            gpu.health.faults.push(faults::Fault::new(faults::DRIVER_SILENT, why.clone()));
            why
        }
        Some(driver) => format!("{driver} holds it"),
    };
    gpu.mig = match function.vendor {
        NVIDIA => Mig::Unknown { why },
        _ => Mig::Unsupported,
    };
    gpu
}

/// Why the driver of a GPU that it holds said nothing of it.
fn silence(nvml: &NvmlSource) -> String {
    match nvml {
        NvmlSource::Answered(snapshot) if snapshot.errors.is_empty() => {
            "its driver does not list it: it did not come up, or fell off the bus".to_owned()
        }
        NvmlSource::Answered(snapshot) => {
            let errors: Vec<_> = snapshot.errors.iter().map(ToString::to_string).collect();
            format!("its driver does not list it, and says of GPUs that it cannot name: {}", errors.join("; "))
        }
        NvmlSource::NoLibrary { why } => format!("its driver has no NVML library on this host: {why}"),
        NvmlSource::NoDriver { why } | NvmlSource::Failed { why } => format!("its driver does not answer: {why}"),
    }
}

fn unread(address: PciAddress, source: ProbeCause) -> ProbeError {
    ProbeError { device: format!("gpu {address}"), what: "state".into(), source }
}
