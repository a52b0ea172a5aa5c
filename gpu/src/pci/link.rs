//! The width of a PCI Express link, and how wide it could be in this slot.

use serde::{Deserialize, Serialize};

use crate::error::{FsError, IfPresent as _};
use crate::hostfs::HostFs;

/// Speed is left out: GPUs lower it whenever they idle. Width stays, and a narrower one means a bad contact or a dying card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub width: u8,
    /// Of the card and the port above it, the lesser: a wide card in a narrow slot is not degraded.
    pub max_width: u8,
}

impl Link {
    #[must_use]
    pub fn is_degraded(self) -> bool {
        self.width < self.max_width
    }

    /// `None`: it has none of its own, or sleeps. Kernels read the width without waking the device.
    pub(crate) fn read(fs: &HostFs, entry: &str) -> Result<Option<Link>, FsError> {
        if asleep(fs, entry)? || asleep(fs, &format!("{entry}/.."))? {
            return Ok(None);
        }
        let width = |path: String| fs.parse(&path, "a number of lanes", parse_width).if_present();
        // 0: no link of its own (a virtual function, a device inside the root complex).
        let (Some(Some(now)), Some(Some(max))) =
            (width(format!("{entry}/current_link_width"))?, width(format!("{entry}/max_link_width"))?)
        else {
            return Ok(None);
        };
        // A function that is the first of its root complex has a `pci0000:40` above it, which has no such file.
        let above = match fs.has(&format!("{entry}/../max_link_width"))? {
            true => width(format!("{entry}/../max_link_width"))?.flatten(),
            false => None,
        };
        Ok(Some(Link { width: now, max_width: above.map_or(max, |above| above.min(max)) }))
    }
}

/// An idle function under vfio-pci is suspended, and the port above it follows.
fn asleep(fs: &HostFs, entry: &str) -> Result<bool, FsError> {
    let path = format!("{entry}/power/runtime_status");
    // A `..` of what is no PCI function has the file, or has not; the kernel's word is the same.
    Ok(fs.has(&path).if_present()? == Some(true) && fs.attribute(&path)?.starts_with("suspend"))
}

/// `Some(None)`: none. A device that does not answer reads as all ones, of which the width has six bits.
fn parse_width(text: &str) -> Option<Option<u8>> {
    match text.parse().ok()? {
        // 255 is the kernel's word for a capability without a width (PCIE_LNK_WIDTH_UNKNOWN): an endpoint of the root complex.
        0 | 255 => Some(None),
        width @ 1..=32 => Some(Some(width)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel reads the width of a sleeping device as all ones, or not at all.
    #[test]
    fn who_sleeps_is_not_asked_for_its_link() {
        let root = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let path = root.path().join("port/card").join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("current_link_width", "63\n");
        write("max_link_width", "16\n");
        let read = || Link::read(&HostFs::at(root.path()).unwrap(), "/port/card");
        assert!(read().is_err(), "awake it would be one that does not answer");
        write("power/runtime_status", "suspended\n");
        assert_eq!(read().unwrap(), None);
        write("power/runtime_status", "active\n");
        assert!(read().is_err());
        write("../power/runtime_status", "suspended\n");
        assert_eq!(read().unwrap(), None, "the port above sleeps");
        write("../power/runtime_status", "unsupported\n");
        write("current_link_width", "8\n");
        assert_eq!(read().unwrap(), Some(Link { width: 8, max_width: 16 }));
    }

    #[test]
    fn no_width_is_told_apart_from_nonsense() {
        assert_eq!(parse_width("16"), Some(Some(16)));
        assert_eq!([parse_width("0"), parse_width("255")], [Some(None); 2]);
        assert_eq!([parse_width("63"), parse_width("x")], [None; 2]);
    }
}
