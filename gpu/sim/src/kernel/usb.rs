//! USB: devices come, go and are authorized. Each time one comes it has another number.

use std::io;
use std::path::Path;

use super::boot::USB_CONTROLLER;
use super::drivers;
use super::hardware::{Hardware, UsbPlug};
use super::machine::{Machine, UsbState};
use super::session::{Outcome, Session};
use crate::driver::Errno;

/// `authorized`: 0 takes the configuration away, and with it the interfaces and their drivers.
pub(crate) fn authorize(session: &mut Session, port: &str, value: &str) -> Outcome {
    // sscanf("%u\n"): the number that it begins with.
    let digits: String = value.chars().take_while(char::is_ascii_digit).collect();
    let number: u32 = digits.parse().map_err(|_| Errno::INVAL)?;
    let device = session.machine.usb.get_mut(port).ok_or(Errno::NODEV)?;
    device.authorized = number != 0;
    Ok(())
}

/// `USBDEVFS_RESET` of `/dev/bus/usb/BBB/DDD`. The device keeps its number. ENODEV: there is none.
pub fn reset(root: &Path, bus: u16, number: u8) -> io::Result<()> {
    let session = Session::open(root)?;
    let is = |device: &UsbState| device.number == number && device.plug.port.starts_with(&format!("{bus}-"));
    if session.machine.usb.values().any(is) { Ok(()) } else { Err(Errno::NODEV.into()) }
}

/// All that is plugged in, behind a controller whose driver has come.
pub(crate) fn enumerate(machine: &mut Machine, plugs: &[UsbPlug]) {
    if !machine.functions.get(&USB_CONTROLLER).is_some_and(|function| function.is_on(drivers::XHCI_HCD)) {
        return;
    }
    // Port by port.
    let mut plugs: Vec<_> = plugs.iter().collect();
    plugs.sort_by(|a, b| a.port.cmp(&b.port));
    for plug in plugs {
        appear(machine, plug);
    }
}

pub(crate) fn return_to_bus(session: &mut Session) {
    // A machine whose hardware file cannot be read has shown that by failing before.
    if let Ok(hardware) = Hardware::read(session.root()) {
        enumerate(&mut session.machine, &hardware.usb);
    }
}

pub(crate) fn appear(machine: &mut Machine, plug: &UsbPlug) {
    let number = machine.next_usb_number;
    // Numbers of a bus run up to 127, and then begin again at 2: 1 is the root hub.
    let used = |number: &u8| machine.usb.values().all(|device| device.number != *number);
    machine.next_usb_number = (number + 1..=127).chain(2..=127).find(used).unwrap_or(127);
    let state = UsbState { plug: plug.clone(), number, authorized: true };
    machine.usb.insert(plug.port.clone(), state);
}

/// With all that hangs on it, if it is a hub.
pub(crate) fn vanish(machine: &mut Machine, port: &str) {
    machine.usb.retain(|other, _| !is_at_or_behind(other, port));
}

/// `1-2.3` is behind `1-2`.
pub(crate) fn is_at_or_behind(port: &str, hub: &str) -> bool {
    port.strip_prefix(hub).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
