//! Where a function is plugged in, said without bus numbers: firmware hands those out anew when a card is added.

use crate::error::FsError;
use crate::hostfs::HostFs;
use crate::pci::PciAddress;

/// `pci0000:40/01.1/00.0` of the function whose entry this is, from where its symlink leads:
/// `…/pci0000:40/0000:40:01.1/0000:41:00.0`. Root complexes keep their whole name, also one behind another (Intel VMD).
pub(super) fn path(fs: &HostFs, entry: &str) -> Result<String, FsError> {
    let target = fs.link(entry)?;
    let target = target.to_string_lossy();
    from_target(&target).ok_or_else(|| fs.garbage(entry, &target, "a link below a PCI root complex"))
}

fn from_target(target: &str) -> Option<String> {
    let is_root = |part: &str| part.strip_prefix("pci").is_some_and(|rest| rest.contains(':'));
    let mut parts = target.split('/').skip_while(|part| !is_root(part));
    let mut path = parts.next()?.to_owned();
    for part in parts {
        path.push('/');
        match part.parse::<PciAddress>() {
            Ok(at) => path.push_str(&format!("{:02x}.{:x}", at.device, at.function)),
            Err(_) if is_root(part) => path.push_str(part),
            Err(_) => return None,
        }
    }
    path.contains('/').then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bus_numbers_are_no_part_of_it() {
        let path = |target: &str| from_target(target);
        let gpu = "../../../devices/pci0000:40/0000:40:01.1/0000:41:00.0";
        assert_eq!(path(gpu).unwrap(), "pci0000:40/01.1/00.0");
        assert_eq!(path(&gpu.replace("0000:41:", "0000:63:")), path(gpu), "another card came in before it");
        let vmd = "../../../devices/pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:06.0/10000:e1:00.0";
        assert_eq!(path(vmd).unwrap(), "pci0000:00/0e.0/pci10000:e0/06.0/00.0");
        let arm = "../../../devices/platform/40000000.pcie/pci0000:00/0000:00:01.0";
        assert_eq!(path(arm).unwrap(), "pci0000:00/01.0");
        for bad in ["", "../../../devices/virtual/x", "../pci0000:00", "../pci0000:00/usb1", "pci0000:00/"] {
            assert_eq!(path(bad), None, "{bad}");
        }
    }
}
