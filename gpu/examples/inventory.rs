//! Prints the host's PCI functions, GPUs and USB devices, and who has them open:
//! `cargo run -p croft-gpu --example inventory -- [--json] [--nvml LIBRARY] [ROOT]`.
//! What could not be read goes to standard error, and makes the exit status 1.
//!
//! Of a root other than `/` the machine's own driver knows nothing; `--nvml` names a library that does.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use croft_gpu::fabric::{self, FabricSource};
use croft_gpu::gpu::{Gpu, Mig};
use croft_gpu::host::Host;
use croft_gpu::nvml::{self, NvmlSource};
use croft_gpu::pci::PciFunction;
use croft_gpu::usb::UsbDevice;
use croft_gpu::{HostFs, chain};

struct Arguments {
    json: bool,
    nvml: Option<PathBuf>,
    root: PathBuf,
}

fn arguments() -> Option<Arguments> {
    let mut arguments = Arguments { json: false, nvml: None, root: PathBuf::from("/") };
    let mut words = std::env::args().skip(1);
    let mut roots = 0;
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => arguments.json = true,
            "--nvml" => arguments.nvml = Some(words.next()?.into()),
            flag if flag.starts_with('-') => return None,
            root => {
                arguments.root = root.into();
                roots += 1;
            }
        }
    }
    (roots <= 1).then_some(arguments)
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let Some(arguments) = arguments() else {
        return Err("usage: inventory [--json] [--nvml LIBRARY] [ROOT]".into());
    };
    let fs = HostFs::at(&arguments.root)?;
    let here = arguments.root == Path::new("/");
    // A program that must stay alive asks both in a child process that it can kill: they hang when the driver does.
    let nvml = match here || arguments.nvml.is_some() {
        true => NvmlSource::from(nvml::snapshot(arguments.nvml.as_deref())),
        false => NvmlSource::NoLibrary { why: "another root, and no library for it was named".to_owned() },
    };
    let fabric = match here {
        true => fabric::snapshot(None),
        false => FabricSource::Unavailable { why: "another root".to_owned() },
    };
    let host = Host::probe(&fs, &nvml, &fabric);
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&host)?);
    } else {
        host.pci.devices.iter().for_each(pci);
        host.gpus.devices.iter().for_each(gpu);
        host.usb.devices.iter().for_each(usb);
        for (device, holders) in &host.holders {
            for holder in holders {
                let unit = holder.unit.as_deref().unwrap_or("-");
                println!("open {device:12} {} by {} ({}, unit {unit})", holder.file, holder.command, holder.pid);
            }
        }
    }
    let parts = [&host.pci.errors, &host.gpus.errors, &host.usb.errors, &host.errors];
    let errors: Vec<String> = parts.into_iter().flatten().map(|error| chain(error)).collect();
    errors.iter().for_each(|error| eprintln!("{error}"));
    Ok(if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn pci(function: &PciFunction) {
    let group = function.iommu_group.map_or("-".to_owned(), |group| group.to_string());
    println!(
        "pci  {:12} {} {:06x} driver {:16} group {group:4} {} {}",
        function.address.to_string(),
        function.id(),
        function.class,
        function.driver.as_deref().unwrap_or("-"),
        function.vendor_name.as_deref().unwrap_or("?"),
        function.device_name.as_deref().unwrap_or("?"),
    );
}

fn gpu(gpu: &Gpu) {
    let mig = match &gpu.mig {
        Mig::Unsupported => "no MIG".to_owned(),
        Mig::Unknown { why } => format!("MIG unknown: {why}"),
        Mig::Supported(state) => {
            let names: Vec<_> = state.profiles.iter().map(|profile| profile.name.as_str()).collect();
            let mode = if state.current { "on" } else { "off" };
            format!("MIG {mode}, {} instances, profiles {}", state.instances.len(), names.join(" "))
        }
    };
    println!(
        "gpu  {:12} {} {} {} MiB, vGPU {:?}, {mig}",
        gpu.address.to_string(),
        gpu.model.as_deref().unwrap_or(&gpu.pci_id),
        gpu.identity.uuid.as_deref().unwrap_or("-"),
        gpu.memory_mib.map_or("?".to_owned(), |mib| mib.to_string()),
        gpu.vgpu,
    );
    for fault in &gpu.health.faults {
        println!("     {:12} {}: {}", "", fault.reason, fault.message);
    }
}

fn usb(device: &UsbDevice) {
    println!(
        "usb  {:12} {:04x}:{:04x} {:?} serial {} {} {}",
        device.port.to_string(),
        device.vendor,
        device.product,
        device.kind,
        device.serial.as_deref().unwrap_or("-"),
        device.vendor_name.as_deref().unwrap_or("?"),
        device.product_name.as_deref().unwrap_or("?"),
    );
}
