//! Raw images: a disk is a disk, whatever its first bytes look like.
//!
//! A raw file has no header, so nothing in it is read. Its format is declared and goes with it everywhere (overlay,
//! domain definition): a raw file that begins with the qcow2 magic stays raw, and nobody ever opens it as qcow2.

use super::{Error, reasons};

const SECTOR: u64 = 512;

/// Checks the length of a raw image called `name`; gives the size of the disk.
pub fn check(name: &str, file_len: u64, max_virtual: u64) -> Result<u64, Error> {
    if file_len == 0 || !file_len.is_multiple_of(SECTOR) {
        return Err(Error::refused(
            reasons::IMAGE_NOT_A_DISK,
            format!(
                "{name} is refused: {file_len} bytes are not a whole number of {SECTOR}-byte sectors, so it is no raw disk; \
                 register it with its real format"
            ),
        ));
    }
    if file_len > max_virtual {
        return Err(Error::refused(
            reasons::IMAGE_TOO_LARGE,
            format!(
                "{name} is refused: its disk of {file_len} bytes is larger than the {max_virtual} bytes that this host \
                 allows (--max-virtual-gib)"
            ),
        ));
    }
    Ok(file_len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_sectors_up_to_the_limit() {
        assert_eq!(check("x", 4096, 4096), Ok(4096));
        assert_eq!(check("x", 0, 4096).unwrap_err().reason, "ImageNotADisk");
        assert_eq!(check("x", 513, 4096).unwrap_err().reason, "ImageNotADisk");
        assert_eq!(check("x", 4608, 4096).unwrap_err().reason, "ImageTooLarge");
    }
}
