//! Prints the host's PCI functions and USB devices: `cargo run -p croft-gpu --example inventory -- [--json] [ROOT]`.
//! What could not be read goes to standard error, and makes the exit status 1.

use std::error::Error;
use std::process::ExitCode;

use croft_gpu::{HostFs, ProbeError, chain, pci, usb};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let (flags, roots): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|argument| argument.starts_with('-'));
    let json = match flags.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--json"] => true,
        _ => return Err("usage: inventory [--json] [ROOT]".into()),
    };
    let fs = HostFs::at(roots.first().map_or("/", String::as_str))?;
    let (functions, devices) = (pci::probe(&fs)?, usb::probe(&fs)?);
    if json {
        println!("{}", serde_json::to_string_pretty(&serde_json::json!({ "pci": functions, "usb": devices }))?);
    } else {
        let dash = || "-".to_owned();
        for function in &functions.devices {
            let group = function.iommu_group.map_or_else(dash, |group| group.to_string());
            println!(
                "pci {:12} {:04x}:{:04x} {:06x} driver {:16} group {group:4} {} {}",
                function.address.to_string(),
                function.vendor,
                function.device,
                function.class,
                function.driver.clone().unwrap_or_else(dash),
                function.vendor_name.as_deref().unwrap_or("?"),
                function.device_name.as_deref().unwrap_or("?"),
            );
        }
        for device in &devices.devices {
            println!(
                "usb {:12} {:04x}:{:04x} {:?} serial {} {} {}",
                device.port.to_string(),
                device.vendor,
                device.product,
                device.kind,
                device.serial.clone().unwrap_or_else(dash),
                device.vendor_name.as_deref().unwrap_or("?"),
                device.product_name.as_deref().unwrap_or("?"),
            );
        }
    }
    let errors: Vec<&ProbeError> = functions.errors.iter().chain(&devices.errors).collect();
    for error in &errors {
        eprintln!("{}", chain(*error));
    }
    Ok(if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
