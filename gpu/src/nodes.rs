//! Files below `/dev`, and whose they are: the serial line and the disk of a USB device, the card of a display, the drives of
//! a controller. The kernel lists every one of them with its place in the tree, so that no class needs to be known here.

use std::path::Path;

use crate::error::{FsError, IfPresent as _, ProbeError};
use crate::hostfs::HostFs;
use crate::pci::PciAddress;
use crate::usb::UsbPort;

/// `/dev/ttyUSB0`, of the USB device at 1-2 and of the controller that it hangs on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub file: String,
    pub owners: Vec<String>,
}

/// Every file of a device that is a PCI function, or hangs on one.
pub(crate) fn all(fs: &HostFs, errors: &mut Vec<ProbeError>) -> Vec<Node> {
    let mut nodes = Vec::new();
    for index in ["/sys/dev/char", "/sys/dev/block"] {
        let found = fs.entries(index).if_present().map(Option::unwrap_or_default);
        let found = found.and_then(|numbers| {
            let read = numbers.iter().map(|number| node(fs, &format!("{index}/{number}")));
            read.filter_map(Result::transpose).collect::<Result<Vec<_>, _>>()
        });
        match found {
            Ok(found) => nodes.extend(found),
            Err(error) => {
                let (device, what) = ("holders".to_owned(), "files of devices".into());
                errors.push(ProbeError { device, what, source: error.into() });
            }
        }
    }
    nodes
}

/// `None`: it is of no device that could be given away, or has gone meanwhile.
fn node(fs: &HostFs, entry: &str) -> Result<Option<Node>, FsError> {
    let Some(place) = fs.link(entry).if_present()? else { return Ok(None) };
    let owners = owners(&place);
    if owners.is_empty() {
        return Ok(None);
    }
    let about = match fs.read(&format!("{entry}/uevent")) {
        Ok(about) => about,
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let name = about.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    // logind has every keyboard open for its power key, a security key that types among them: nobody misses what leaves.
    let name = name.filter(|name| !name.starts_with("input/"));
    Ok(name.map(|name| Node { file: format!("/dev/{name}"), owners }))
}

fn is_gone(error: &FsError) -> bool {
    const ENODEV: i32 = 19;
    error.is_absent() || error.errno() == Some(ENODEV)
}

/// What could be given away, of all that something hangs on: the innermost function, not the bridges above it, and the
/// innermost USB device, not the hubs.
pub(crate) fn owners(place: &Path) -> Vec<String> {
    let parts = || place.iter().rev().filter_map(|part| part.to_str());
    let function = parts().find_map(|part| part.parse::<PciAddress>().ok()).map(|address| address.to_string());
    let usb = parts().find_map(UsbPort::parse).map(|port| port.to_string());
    function.into_iter().chain(usb).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_is_of_the_usb_device_and_of_its_controller() {
        let root = tempfile::tempdir().unwrap();
        let make = |number: &str, place: &str, name: &str| {
            let place = format!("devices/{place}");
            fs::create_dir_all(root.path().join("sys").join(&place)).unwrap();
            fs::write(root.path().join("sys").join(&place).join("uevent"), format!("MAJOR=1\n{name}")).unwrap();
            let index = root.path().join("sys/dev").join(number);
            fs::create_dir_all(index.parent().unwrap()).unwrap();
            symlink(format!("../../{place}"), index).unwrap();
        };
        const HUB: &str = "pci0000:00/0000:00:01.0/0000:02:00.0/usb1/1-2";
        let port = format!("{HUB}/1-2.3");
        make("char/188:0", &format!("{port}/1-2.3:1.0/ttyUSB0/tty/ttyUSB0"), "DEVNAME=ttyUSB0\n");
        make("char/13:65", &format!("{port}/1-2.3:1.1/input/input7/event1"), "DEVNAME=input/event1\n");
        make("block/8:1", &format!("{HUB}/1-2:1.0/host6/target6:0:0/6:0:0:0/block/sda/sda1"), "DEVNAME=sda1\n");
        make("char/226:0", "pci0000:00/0000:00:02.0/drm/card0", "DEVNAME=dri/card0\n");
        make("char/1:3", "virtual/mem/null", "DEVNAME=null\n");
        make("char/10:1", "pci0000:00/0000:00:02.0/misc/one", "");
        let mut errors = Vec::new();
        let found = all(&HostFs::at(root.path()).unwrap(), &mut errors);
        let node = |file: &str, owners: &[&str]| Node {
            file: format!("/dev/{file}"),
            owners: owners.iter().map(ToString::to_string).collect(),
        };
        let expected = [
            node("ttyUSB0", &["0000:02:00.0", "1-2.3"]),
            node("dri/card0", &["0000:00:02.0"]),
            node("sda1", &["0000:02:00.0", "1-2"]),
        ];
        assert_eq!((found.as_slice(), errors.len()), (expected.as_slice(), 0), "{errors:?}");
    }
}
