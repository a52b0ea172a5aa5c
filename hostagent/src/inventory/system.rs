//! The machine's software: operating system, kernel, this boot, and whose NVIDIA driver it runs.

use croft_gpu::pci::PciFunction;
use croft_gpu::{Flavour, FsError, HostFs, IfPresent, Inventory, chain};

use super::Notes;

pub(super) fn boot_id(fs: &HostFs) -> Result<String, FsError> {
    fs.parse("/proc/sys/kernel/random/boot_id", "a UUID", |text| {
        uuid::Uuid::parse_str(text).ok().map(|_| text.to_owned())
    })
}

pub(super) fn kernel(fs: &HostFs) -> Result<String, FsError> {
    fs.attribute("/proc/sys/kernel/osrelease")
}

/// As os-release(5) has it: `/etc` before `/usr/lib`, and "Linux" for a file that gives itself no name.
pub(super) fn os(fs: &HostFs) -> Result<String, FsError> {
    let text = match fs.read("/etc/os-release").if_present()? {
        Some(text) => text,
        None => fs.read("/usr/lib/os-release")?,
    };
    let value = |key: &str| text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('=')).map(unquote);
    Ok(value("PRETTY_NAME")
        .or_else(|| value("NAME"))
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "Linux".to_owned()))
}

/// A value in shell quotes, with the escapes that os-release(5) allows.
fn unquote(value: &str) -> String {
    let inner = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote)).unwrap_or(value);
    let mut text = String::new();
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => text.extend(characters.next()),
            _ => text.push(character),
        }
    }
    text
}

/// Of a doubt comes `none`: it promises neither vGPUs nor NVML on the host, and whole GPUs pass to guests whichever driver is
/// there.
pub(super) fn driver_flavour(fs: &HostFs, pci: Option<&Inventory<PciFunction>>, notes: &mut Notes) -> &'static str {
    let why = match croft_gpu::flavour(fs, pci.map(|pci| &pci.devices[..])) {
        Ok(Some(flavour)) => return flavour.word(),
        Ok(None) => "the nvidia module is loaded, and whether it is the vGPU host driver cannot be told".to_owned(),
        Err(error) => chain(&error),
    };
    notes.add("driver flavour", &why);
    Flavour::None.word()
}
