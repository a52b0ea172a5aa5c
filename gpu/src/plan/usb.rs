//! Which USB device is meant. Two that are alike are never told apart by guessing: the answer lists their ports and serial
//! numbers instead.
//!
//! Bus and device numbers change with every plug and are no part of a selection: a device is meant by where it is plugged in
//! (controller and ports), by what it says of itself, or by its kind if there is only one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::look::Look;
use super::refusal::{Reason, Refusal};
use super::step::Step;
use crate::usb::{Kind, UsbDevice};

/// Written `usb-0000:00:14.0-2.3`, `0403:6001/A50285BI`, `0403:6001`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selector {
    /// Whatever is plugged in there. `ports`: from the root hub outwards.
    Port {
        controller: String,
        ports: Vec<u8>,
    },
    Serial {
        vendor: u16,
        product: u16,
        serial: String,
    },
    Ids {
        vendor: u16,
        product: u16,
    },
}

/// Which device it was when it was given to a guest, so that it is known again when it is plugged in again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsbIdentity {
    pub vendor: u16,
    pub product: u16,
    pub serial: Option<String>,
    /// The selector of its port.
    pub port: Option<String>,
}

/// The one device that is meant.
pub fn resolve<'a>(devices: &'a [UsbDevice], selector: &Selector) -> Result<&'a UsbDevice, Refusal> {
    one(devices.iter().filter(|device| selector.means(device)).collect(), selector)
}

/// The device that was remembered: one with a serial number wherever it is plugged in now, another one only where it was.
pub fn find<'a>(devices: &'a [UsbDevice], remembered: &UsbIdentity) -> Result<&'a UsbDevice, Refusal> {
    let (vendor, product) = (remembered.vendor, remembered.product);
    let alike: Vec<_> = match (&remembered.serial, &remembered.port) {
        (Some(serial), _) => {
            return resolve(devices, &Selector::Serial { vendor, product, serial: serial.clone() });
        }
        // Of one without a serial number the port is all there is, and it must be of the same kind: another that says who it is
        // is another.
        (None, Some(port)) => devices
            .iter()
            .filter(|device| port_of(device).as_ref() == Some(port))
            .filter(|device| (device.vendor, device.product, &device.serial) == (vendor, product, &None))
            .collect(),
        (None, None) => devices.iter().filter(|device| Selector::Ids { vendor, product }.means(device)).collect(),
    };
    let place = remembered.port.as_deref().map(|port| format!(" at {port}")).unwrap_or_default();
    one(alike, format!("{vendor:04x}:{product:04x}{place}"))
}

/// Nothing is to be done for a device that is there and that nobody else has. QEMU opens it by itself, and takes it from whoever
/// uses it: from a file system, too.
pub(super) fn plan(look: Look<'_>, device: &UsbIdentity) -> Result<Vec<Step>, Refusal> {
    let found = find(&look.host.usb.devices, device)?;
    look.not_anothers(&found.port)?;
    look.not_held_but_by_guest(&found.port).map(|()| Vec::new())
}

/// A reset of its port, unless it was unplugged meanwhile.
pub(super) fn plan_none(look: Look<'_>, device: &UsbIdentity) -> Result<Vec<Step>, Refusal> {
    let found = match find(&look.host.usb.devices, device) {
        Ok(found) => found,
        Err(refusal) if refusal.reason == Reason::UsbNotFound => {
            let Some(error) = look.host.usb.errors.first() else { return Ok(Vec::new()) };
            let message = format!("{} could not be looked for: {}", refusal.device, crate::chain(error));
            let fix = "nothing is planned on it until it can be read";
            return Err(Refusal::new(Reason::DeviceNotSeen, refusal.device, message, fix));
        }
        Err(refusal) => return Err(refusal),
    };
    look.not_held(&found.port)?;
    let UsbDevice { port, vendor, product, serial, .. } = found.clone();
    Ok(vec![Step::ResetUsb { port, vendor, product, serial }])
}

impl UsbIdentity {
    #[must_use]
    pub fn of(device: &UsbDevice) -> UsbIdentity {
        let UsbDevice { vendor, product, serial, .. } = device.clone();
        UsbIdentity { vendor, product, serial, port: port_of(device) }
    }

    /// The same device? One that does not say who it is, only where it was.
    #[must_use]
    pub fn is_same(&self, other: &UsbIdentity) -> bool {
        let says = |of: &UsbIdentity| (of.vendor, of.product, of.serial.clone());
        says(self) == says(other) && (self.serial.is_some() || self.port == other.port)
    }
}

/// The selector of the port that a device is plugged into. `None`: nobody could tell its controller.
#[must_use]
pub fn port_of(device: &UsbDevice) -> Option<String> {
    let (controller, ports) = (device.controller.clone()?, device.port.ports.clone());
    Some(Selector::Port { controller, ports }.to_string())
}

fn one(mut meant: Vec<&UsbDevice>, words: impl fmt::Display) -> Result<&UsbDevice, Refusal> {
    meant.sort_by(|a, b| a.port.cmp(&b.port));
    match meant[..] {
        [device] if device.kind == Kind::Hub => {
            let message = format!("{words} is a hub, which no guest can have");
            Err(Refusal::new(Reason::DeviceUnsuitable, words, message, "name a device behind it"))
        }
        [device] => Ok(device),
        [] => {
            let message = format!("no USB device {words} is plugged in");
            Err(Refusal::new(Reason::UsbNotFound, words, message, "plug it in, or see the list of devices"))
        }
        _ => {
            let each: Vec<_> = meant.iter().map(|device| describe(device)).collect();
            let message = format!("{} USB devices are {words}: {}", each.len(), each.join(", "));
            Err(Refusal::new(Reason::UsbAmbiguous, words, message, "name a port or a serial number"))
        }
    }
}

fn describe(device: &UsbDevice) -> String {
    let port = port_of(device).unwrap_or_else(|| format!("port {}", device.port));
    let serial =
        device.serial.as_ref().map_or_else(|| "no serial number".to_owned(), |serial| format!("serial {serial}"));
    format!("{port} ({:04x}:{:04x}, {serial})", device.vendor, device.product)
}

impl Selector {
    fn means(&self, device: &UsbDevice) -> bool {
        let kind = (device.vendor, device.product);
        match self {
            Selector::Port { controller, ports } => {
                device.controller.as_ref() == Some(controller) && device.port.ports == *ports
            }
            Selector::Serial { vendor, product, serial } => {
                kind == (*vendor, *product) && device.serial.as_ref() == Some(serial)
            }
            Selector::Ids { vendor, product } => kind == (*vendor, *product),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::Port { controller, ports } => {
                let ports: Vec<_> = ports.iter().map(u8::to_string).collect();
                write!(f, "usb-{controller}-{}", ports.join("."))
            }
            Selector::Serial { vendor, product, serial } => write!(f, "{vendor:04x}:{product:04x}/{serial}"),
            Selector::Ids { vendor, product } => write!(f, "{vendor:04x}:{product:04x}"),
        }
    }
}

/// Not a way to name a USB device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no USB device: expected usb-0000:00:14.0-2.3 (a port), 0403:6001/SERIAL or 0403:6001")]
pub struct ParseSelectorError(String);

impl FromStr for Selector {
    type Err = ParseSelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let port = || {
            let (controller, ports) = text.strip_prefix("usb-")?.rsplit_once('-')?;
            let ports = ports.split('.').map(|port| port.parse().ok()).collect::<Option<_>>()?;
            (!controller.is_empty()).then(|| Selector::Port { controller: controller.to_owned(), ports })
        };
        let kind = || {
            let (ids, serial) = text.split_once('/').map_or((text, None), |(ids, serial)| (ids, Some(serial)));
            let (vendor, product) = ids.split_once(':')?;
            let number = |digits| u16::from_str_radix(digits, 16).ok();
            let (vendor, product) = (number(vendor)?, number(product)?);
            Some(match serial {
                Some("") => return None,
                Some(serial) => Selector::Serial { vendor, product, serial: serial.to_owned() },
                None => Selector::Ids { vendor, product },
            })
        };
        // Written back it must be the same text: that settles case, padding and signs.
        let parsed = port().or_else(kind).filter(|selector| selector.to_string() == text);
        parsed.ok_or_else(|| ParseSelectorError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests;
