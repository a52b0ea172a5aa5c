//! Where a PCI function sits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `0000:41:00.0`. Has one spelling, which is how sysfs and libvirt write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    /// Beyond 16 bits on machines whose NVMe drives sit behind Intel VMD.
    pub domain: u32,
    pub bus: u8,
    pub device: u8,
    pub function: u8,
}

/// Not a PCI address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no PCI address: expected dddd:bb:dd.f in lower-case hexadecimal, such as 0000:41:00.0")]
pub struct ParsePciAddressError(String);

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.device, self.function)
    }
}

impl FromStr for PciAddress {
    type Err = ParsePciAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (domain, rest) = text.split_once(':')?;
            let (bus, rest) = rest.split_once(':')?;
            let (device, function) = rest.split_once('.')?;
            let number = |digits: &str| u32::from_str_radix(digits, 16).ok();
            let byte = |digits: &str| number(digits).and_then(|number| u8::try_from(number).ok());
            Some(PciAddress {
                domain: number(domain)?,
                bus: byte(bus)?,
                device: byte(device).filter(|device| *device < 32)?,
                function: byte(function).filter(|function| *function < 8)?,
            })
        };
        // Written back it must be the same text: that settles case, padding and signs.
        parse().filter(|address| address.to_string() == text).ok_or_else(|| ParsePciAddressError(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for PciAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for PciAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_spelling() {
        for good in ["0000:41:00.0", "0000:00:1f.7", "10000:e1:00.0", "ffffffff:ff:1f.7"] {
            assert_eq!(good.parse::<PciAddress>().unwrap().to_string(), good);
        }
        let bad =
            ["", "41:00.0", "0000:41:00", "0:41:00.0", "0000:41:20.0", "0000:41:00.8", "0000:4A:00.0", "00000:41:00.0"];
        for bad in bad.into_iter().chain(["+000:41:00.0", "0000:41:00.0 ", "0000:141:00.0", "1ffffffff:00:00.0"]) {
            assert!(bad.parse::<PciAddress>().is_err(), "{bad:?} was taken for an address");
        }
    }
}
