//! One look at one bus: who is on it, read device by device.

use serde::{Deserialize, Serialize};

use crate::error::{FsError, IfPresent, ProbeError};
use crate::hostfs::HostFs;

/// What one look found. A device that an error names and `devices` does not list *is there*, and nothing is known of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Inventory<T> {
    /// In the order of their addresses.
    pub devices: Vec<T>,
    pub errors: Vec<ProbeError>,
}

/// Everything on a bus that `read` takes for a device (`None`: no device of its own, such as a USB interface).
///
/// An empty inventory means that the kernel says so, and so does a kernel that has no such bus (no PCI, or `usbcore` never
/// loaded). That is only believed of a sysfs that is really there: every kernel has the platform bus.
pub(crate) fn probe<T>(
    fs: &HostFs,
    bus: &'static str,
    read: impl Fn(Device<'_>) -> Option<Result<T, ProbeError>>,
) -> Result<Inventory<T>, ProbeError> {
    let whole = |source: FsError| ProbeError { device: bus.to_owned(), what: "devices".into(), source: source.into() };
    let devices = format!("/sys/bus/{bus}/devices");
    let names = match fs.entries(&devices) {
        Ok(names) => names,
        Err(error) if error.is_absent() => {
            fs.entries("/sys/bus/platform").map_err(whole)?;
            if fs.has(&format!("/sys/bus/{bus}")).map_err(whole)? {
                return Err(whole(error));
            }
            Vec::new()
        }
        Err(error) => return Err(whole(error)),
    };
    let mut inventory = Inventory { devices: Vec::new(), errors: Vec::new() };
    for name in names {
        let entry = format!("{devices}/{name}");
        let mut errors = Vec::new();
        let Some(result) = read(Device { fs, bus, name: &name, entry: &entry, errors: &mut errors }) else { continue };
        match still_there(fs, &entry, result) {
            Ok(Some(device)) => inventory.devices.push(device),
            Ok(None) => errors.clear(),
            Err(error) => errors.push(error),
        }
        inventory.errors.append(&mut errors);
    }
    Ok(inventory)
}

/// What was read of a device counts only if the device is there afterwards; otherwise it left the bus while it was read.
/// (An absent `driver` link means "unbound" on a device that stayed, and nothing on one that went.)
fn still_there<T>(fs: &HostFs, entry: &str, result: Result<T, ProbeError>) -> Result<Option<T>, ProbeError> {
    match fs.has(entry) {
        Ok(false) => Ok(None),
        // Where the entry itself cannot be looked at, reading below it has failed with a better error.
        Ok(true) | Err(_) => result.map(Some),
    }
}

/// A device under the probe's hand, and the errors that it survives.
pub(crate) struct Device<'a> {
    fs: &'a HostFs,
    bus: &'static str,
    pub name: &'a str,
    entry: &'a str,
    errors: &'a mut Vec<ProbeError>,
}

impl Device<'_> {
    pub fn path(&self, file: &str) -> String {
        format!("{}/{file}", self.entry)
    }

    fn error(&self, what: &'static str, source: FsError) -> ProbeError {
        ProbeError { device: format!("{} {}", self.bus, self.name), what: what.into(), source: source.into() }
    }

    /// A fact without which nothing may be said of the device.
    pub fn need<T>(&self, what: &'static str, read: impl FnOnce() -> Result<T, FsError>) -> Result<T, ProbeError> {
        read().map_err(|source| self.error(what, source))
    }

    /// A fact that only describes: `None`, and an error on the device, where it could not be read.
    pub fn want<T>(&mut self, what: &'static str, read: impl FnOnce() -> Result<T, FsError>) -> Option<T> {
        read().map_err(|source| self.errors.push(self.error(what, source))).ok()
    }

    /// As `want`, of a file that a healthy device may lack.
    pub fn want_if_present<T>(&mut self, what: &'static str, read: impl FnOnce() -> Result<T, FsError>) -> Option<T> {
        self.want(what, || read().if_present()).flatten()
    }

    pub fn hex<T>(&self, file: &str) -> Result<T, FsError>
    where
        T: TryFrom<u64>,
    {
        self.fs.parse(&self.path(file), "a hexadecimal number of its size", parse_hex)
    }
}

/// `0x10de` as PCI writes it, `046d` as USB does. No sign and no blank, which `from_str_radix` would let through.
pub(crate) fn parse_hex<T: TryFrom<u64>>(text: &str) -> Option<T> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok().and_then(|number| T::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_left_during_the_look_is_neither_device_nor_error() {
        let root = tempfile::tempdir().unwrap();
        let entry = root.path().join("device");
        let fs = HostFs::at(root.path()).unwrap();
        let failed = || {
            Err(ProbeError {
                device: "d".into(),
                what: "driver".into(),
                source: fs.read("device/x").unwrap_err().into(),
            })
        };
        std::fs::create_dir(&entry).unwrap();
        assert_eq!(still_there(&fs, "device", Ok(1)).unwrap(), Some(1));
        assert!(still_there::<i32>(&fs, "device", failed()).is_err());
        std::fs::remove_dir(&entry).unwrap();
        assert_eq!(still_there(&fs, "device", Ok(1)).unwrap(), None);
        assert_eq!(still_there::<i32>(&fs, "device", failed()).unwrap(), None);
    }

    #[test]
    fn hexadecimal_is_read_strictly() {
        assert_eq!(parse_hex::<u16>("0x10de"), Some(0x10de));
        assert_eq!(parse_hex::<u16>("046d"), Some(0x046d));
        for bad in ["", "0x", "+1", "-1", " 1", "10de\0", "0x10000", "(null)"] {
            assert_eq!(parse_hex::<u16>(bad), None, "{bad:?}");
        }
    }
}
