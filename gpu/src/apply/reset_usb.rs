//! Resetting a USB device between two tenants: what a token holds unlocked, and what a device has in its memory, goes; what it
//! stores stays.
#![expect(unsafe_code, reason = "a port is reset by an ioctl of its device's file, and by nothing else")]

use std::fs::File;
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use super::access::{Access, Result, UsbPorts};
use super::error::StepError;
use crate::bus::parse_hex;
use crate::error::IfPresent;
use crate::hostfs::HostFs;
use crate::usb::{UsbPort, own_string};

/// Through `/dev/bus/usb` below a root.
#[derive(Debug)]
pub struct HostUsb {
    pub root: PathBuf,
}

impl UsbPorts for HostUsb {
    fn reset(&self, bus: u16, device: u8) -> Result<()> {
        /// `USBDEVFS_RESET`, `_IO('U', 20)`: `<linux/usbdevice_fs.h>`.
        const RESET: rustix::ioctl::Opcode = rustix::ioctl::opcode::none(b'U', 20);
        let path = self.root.join(format!("dev/bus/usb/{bus:03}/{device:03}"));
        let failed = |error: std::io::Error| StepError::from(error).context(path.display());
        let file = File::options().write(true).open(&path).map_err(failed)?;
        // SAFETY: the ioctl takes no argument, and reads and writes nothing of ours.
        let reset = unsafe { rustix::ioctl::ioctl(&file, rustix::ioctl::NoArg::<RESET>::new()) };
        reset.map_err(|errno| failed(errno.into()))
    }
}

/// Resets the port, and sees the same device come back in it.
pub fn run(access: &Access, port: &UsbPort, ids: (u16, u16), serial: Option<&str>) -> Result<()> {
    let fs = &access.fs;
    let number = fs.parse(&format!("{}/devnum", directory(port)), "a number", |text| text.parse().ok())?;
    access.usb.reset(port.bus, number)?;
    // Its interfaces may have to find their drivers again, and a device that starts anew gets another number.
    let deadline = Instant::now() + access.patience;
    loop {
        if plugged_in(fs, port, ids, serial)? {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(StepError::new(format!("what was in USB port {port} did not come back after its reset")));
        }
        thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Is it still this device that is in the port?
pub fn plugged_in(fs: &HostFs, port: &UsbPort, (vendor, product): (u16, u16), serial: Option<&str>) -> Result<bool> {
    let at = |file: &str| format!("{}/{file}", directory(port));
    let id = |file: &str| fs.parse(&at(file), "an id", parse_hex::<u16>).if_present();
    let told = own_string(fs, &at("serial"))?;
    Ok((id("idVendor")?, id("idProduct")?) == (Some(vendor), Some(product)) && told.as_deref() == serial)
}

fn directory(port: &UsbPort) -> String {
    format!("/sys/bus/usb/devices/{port}")
}
