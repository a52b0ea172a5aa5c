//! Disks that somebody has for himself alone, and says so nowhere: DRBD, targets and file systems from outside the kernel's own
//! tree. Whoever needs a disk to himself claims it, and then a second claim is refused: so one is tried, and let go at once.
//!
//! Not in every look: an open wakes a disk that sleeps, and whoever comes to mount it in that moment is refused. It is asked just
//! before the device is taken from the host, of its own disks, by the process that would take it and can be given up.

use std::collections::BTreeSet;

use super::Use;
use crate::error::{FsError, IfThere as _};
use crate::hostfs::{HostFs, Node};
use crate::seat::{self, Disk, Seat};

/// Of the devices, by address or port, those with a disk that is claimed.
pub(crate) fn uses(fs: &HostFs, devices: &BTreeSet<String>) -> Result<Vec<Use>, FsError> {
    // In a directory that stands for a host a disk is a file.
    if !fs.is_this_machine()? {
        return Ok(Vec::new());
    }
    tried(fs, devices, |node| fs.is_claimed(node))
}

fn tried(
    fs: &HostFs,
    devices: &BTreeSet<String>,
    is_claimed: impl Fn(&str) -> Result<bool, FsError>,
) -> Result<Vec<Use>, FsError> {
    let mut found = Vec::new();
    for Disk { seats, parts } in seat::disks(fs)? {
        let keys: Vec<String> = seats.iter().flat_map(Seat::keys).filter(|key| devices.contains(key)).collect();
        // Who has a part of it keeps others from claiming the whole.
        let Some(whole) = parts.first().filter(|_| !keys.is_empty()) else { continue };
        // One path of several to a disk has no file of its own.
        let Some(number) = fs.attribute(&format!("{}/dev", whole.entry)).if_there()? else { continue };
        // Where sysfs has a `!` the file is in a directory.
        let node = format!("/dev/{}", whole.name.replace('!', "/"));
        let is_its = fs.node(&node).if_there()?.flatten() == Node::numbered(true, &number);
        if is_its && is_claimed(&node)? {
            let words = format!("{node} (claimed by a part of the kernel that does not say which it is)");
            found.extend(keys.into_iter().map(|key| (key, words.clone())));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::super::testing::Tree;
    use super::*;

    #[test]
    fn only_the_disks_of_the_device_are_tried() {
        let tree = Tree::new();
        tree.disk("nvme0n1", "pci0000:00/0000:01:00.0/nvme/nvme0/nvme0n1", "259:0");
        tree.disk("nvme1n1", "pci0000:00/0000:02:00.0/nvme/nvme1/nvme1n1", "259:1");
        tree.disk("cciss!c0d0", "pci0000:00/0000:03:00.0/cciss!c0d0", "104:0");
        for (node, number) in [("nvme0n1", "259:0"), ("nvme1n1", "259:7"), ("cciss/c0d0", "104:0")] {
            tree.write(&format!("dev/{node}"), &format!("block {number}"));
        }
        let ask = |address: &str| {
            let asked = RefCell::new(Vec::new());
            let found = tried(&tree.fs(), &[address.to_owned()].into(), |node| {
                asked.borrow_mut().push(node.to_owned());
                Ok(node == "/dev/nvme0n1")
            });
            (found.unwrap(), asked.into_inner())
        };
        let (found, asked) = ask("0000:01:00.0");
        let [(device, words)] = &found[..] else { panic!("{found:?}") };
        assert_eq!((device.as_str(), words.contains("/dev/nvme0n1 (claimed")), ("0000:01:00.0", true));
        assert_eq!(asked, ["/dev/nvme0n1"], "and no other's disk is opened");
        assert_eq!(ask("0000:02:00.0"), (vec![], vec![]), "what has its name is another disk");
        assert_eq!(ask("0000:03:00.0"), (vec![], vec!["/dev/cciss/c0d0".to_owned()]));
    }
}
