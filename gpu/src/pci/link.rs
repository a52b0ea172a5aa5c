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

    pub(crate) fn read(fs: &HostFs, entry: &str) -> Result<Option<Link>, FsError> {
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
    use super::parse_width;

    #[test]
    fn no_width_is_told_apart_from_nonsense() {
        assert_eq!(parse_width("16"), Some(Some(16)));
        assert_eq!([parse_width("0"), parse_width("255")], [Some(None); 2]);
        assert_eq!([parse_width("63"), parse_width("x")], [None; 2]);
    }
}
