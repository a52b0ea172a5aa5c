//! What a function says of itself: the Device Serial Number capability in its extended configuration space.

use crate::error::{FsError, IfPresent as _};
use crate::hostfs::HostFs;
use crate::pci::PciAddress;

/// Where extended configuration space begins, and where it ends.
const EXTENDED: usize = 0x100;
const END: usize = 0x1000;
/// <linux/pci_regs.h>: PCI_EXT_CAP_ID_DSN
const DEVICE_SERIAL_NUMBER: u32 = 0x0003;

/// `58-a2-e1-ff-ff-00-3c-08`, as lspci writes it; `None`: the hardware has none.
///
/// The kernel holds back readers of configuration space while the device is being reset, for up to a minute: not for devices
/// that a guest may be resetting. Needs root: others are given the first 64 bytes, and that is an error here.
pub fn serial_number(fs: &HostFs, address: PciAddress) -> Result<Option<String>, FsError> {
    let path = format!("/sys/bus/pci/devices/{address}/config");
    let Some(config) = fs.read_bytes(&path).if_present()? else { return Ok(None) };
    match config.len() {
        // Conventional PCI ends here.
        EXTENDED => Ok(None),
        END => Ok(find(&config).map(text)),
        length => Err(fs.garbage(&path, &format!("{length} bytes"), "the whole configuration space (are you root?)")),
    }
}

/// The capabilities are a list: id in the low 16 bits, offset of the next one in the high 12.
fn find(config: &[u8]) -> Option<[u8; 8]> {
    let word = |at: usize| -> Option<u32> { Some(u32::from_le_bytes(config.get(at..at + 4)?.try_into().ok()?)) };
    let mut at = EXTENDED;
    // No more capabilities fit than this: a list that goes in circles ends too.
    for _ in 0..(END - EXTENDED) / 8 {
        let header = word(at)?;
        // All ones: nobody answers. Zero: no capability here.
        if header == 0 || header == u32::MAX {
            return None;
        }
        if header & 0xffff == DEVICE_SERIAL_NUMBER {
            let number: [u8; 8] = config.get(at + 4..at + 12)?.try_into().ok()?;
            // Blank on boards whose maker did not write any.
            return (number != [0; 8] && number != [0xff; 8]).then_some(number);
        }
        at = (header >> 20) as usize & !3;
        if at < EXTENDED {
            return None;
        }
    }
    None
}

/// The register is little-endian; people read it from its high end.
fn text(number: [u8; 8]) -> String {
    let bytes: Vec<_> = number.iter().rev().map(|byte| format!("{byte:02x}")).collect();
    bytes.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(capabilities: &[(usize, u32)], number: Option<(usize, [u8; 8])>) -> Vec<u8> {
        let mut config = vec![0; END];
        for (at, header) in capabilities {
            config[*at..at + 4].copy_from_slice(&header.to_le_bytes());
        }
        if let Some((at, number)) = number {
            config[at + 4..at + 12].copy_from_slice(&number);
        }
        config
    }

    #[test]
    fn the_number_is_found_behind_other_capabilities() {
        let number = [0x08, 0x3c, 0x00, 0xff, 0xff, 0xe1, 0xa2, 0x58];
        let behind_aer = config(&[(0x100, 0x1401_0001 | 0x0001_0000), (0x140, 0x0001_0003)], Some((0x140, number)));
        assert_eq!(find(&behind_aer).map(text).unwrap(), "58-a2-e1-ff-ff-00-3c-08");
    }

    #[test]
    fn what_is_no_number_is_none() {
        assert_eq!(find(&config(&[], None)), None, "no extended capability");
        assert_eq!(find(&vec![0xff; END]), None, "a device that fell off the bus");
        assert_eq!(find(&config(&[(0x100, 0x0001_0003)], Some((0x100, [0; 8])))), None, "a blank number");
        assert_eq!(find(&config(&[(0x100, 0x1001_0001)], None)), None, "a list that goes in circles");
        assert_eq!(find(&config(&[(0x100, 0x0401_0001)], None)), None, "a list that leads out");
        assert_eq!(find(&config(&[(0x100, 0xffc1_0001), (0xffc, 0x0001_0003)], None)), None, "a number beyond the end");
    }
}
