//! Where in the machine something hangs that the kernel has made of a device: a disk, a network interface, a terminal.
//!
//! sysfs says it by the path: `…/0000:00:14.0/usb1/1-2/1-2.3/1-2.3:1.0/host4/…/block/sda` is behind the controller 00:14.0, in
//! port 1-2.3. Whoever uses the thing uses both.

use std::path::Path;

use crate::error::{FsError, IfThere as _};
use crate::hostfs::HostFs;
use crate::pci::PciAddress;
use crate::usb::UsbPort;

/// The innermost PCI function above it, and the USB port behind that, if it is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    pub function: PciAddress,
    pub port: Option<UsbPort>,
}

impl Seat {
    /// `None`: it hangs on nothing that could be given away.
    pub fn of(target: &Path) -> Option<Seat> {
        let parts: Vec<&str> = target.iter().filter_map(|part| part.to_str()).collect();
        let at = parts.iter().rposition(|part| part.parse::<PciAddress>().is_ok())?;
        let port = parts[at..].iter().rev().find_map(|part| UsbPort::parse(part));
        Some(Seat { function: parts[at].parse().ok()?, port })
    }

    /// As holders are listed: by address, and by port.
    pub fn keys(&self) -> impl Iterator<Item = String> {
        let port = self.port.as_ref().map(ToString::to_string);
        [self.function.to_string()].into_iter().chain(port)
    }
}

/// Disks, with what they are divided into.
#[derive(Debug)]
pub(crate) struct Disk {
    /// More than one where several controllers lead to one namespace.
    pub seats: Vec<Seat>,
    /// The disk itself, then its partitions.
    pub parts: Vec<Part>,
}

#[derive(Debug)]
pub(crate) struct Part {
    /// `nvme0n1p2`
    pub name: String,
    /// Its directory below `/sys`.
    pub entry: String,
}

/// Every disk of a device; those without (loop, device mapper, RAID) are parts of others.
pub(crate) fn disks(fs: &HostFs) -> Result<Vec<Disk>, FsError> {
    let mut disks = Vec::new();
    for name in fs.entries("/sys/block").if_there()?.unwrap_or_default() {
        let entry = format!("/sys/block/{name}");
        let Some(target) = fs.link(&entry).if_there()? else { continue };
        let seats = seats(fs, &target)?;
        if seats.is_empty() {
            continue;
        }
        let below = fs.entries(&entry).if_there()?.unwrap_or_default();
        let partitions = below.into_iter().filter(|part| part.starts_with(name.as_str()));
        let partitions = partitions.map(|part| Part { entry: format!("{entry}/{part}"), name: part });
        let parts = [Part { name: name.clone(), entry: entry.clone() }].into_iter().chain(partitions).collect();
        disks.push(Disk { seats, parts });
    }
    Ok(disks)
}

fn seats(fs: &HostFs, target: &Path) -> Result<Vec<Seat>, FsError> {
    let is_subsystem = |part: &&str| part.starts_with("nvme-subsys") && *part != "nvme-subsystem";
    let subsystem = || target.iter().filter_map(|part| part.to_str()).find(is_subsystem);
    match Seat::of(target) {
        Some(seat) => Ok(vec![seat]),
        // A namespace that several controllers may lead to hangs on none of them.
        None => subsystem().map_or(Ok(Vec::new()), |subsystem| controllers(fs, subsystem)),
    }
}

/// `nvme-subsys0/nvme0 -> ../../../pci0000:00/0000:01:00.0/nvme/nvme0`
fn controllers(fs: &HostFs, subsystem: &str) -> Result<Vec<Seat>, FsError> {
    let links = fs.links(&format!("/sys/class/nvme-subsystem/{subsystem}")).if_there()?.unwrap_or_default();
    Ok(links.iter().filter_map(|(_, link)| Seat::of(link)).collect())
}

/// Keys of the devices that a device file stands for: files are known by number, and `/sys/dev` says by each where in the machine
/// it hangs.
pub(crate) fn of_node(fs: &HostFs, target: &Path) -> Result<Vec<String>, FsError> {
    let parts: Vec<&str> = target.iter().filter_map(|part| part.to_str()).collect();
    match parts[..] {
        // A group is opened as a whole: on behalf of every device in it. `noiommu-12` is one without an IOMMU.
        [.., "virtual", "vfio", group] => {
            let group = group.trim_start_matches("noiommu-");
            Ok(fs.entries(&format!("/sys/kernel/iommu_groups/{group}/devices")).if_there()?.unwrap_or_default())
        }
        // VFIO's newer way, without the group: of a function or of a mediated device, and not of what that is a part of.
        [.., device, "vfio-dev", _] => Ok(vec![device.to_owned()]),
        // Who listens to keys (logind, acpid: to all of them) lets go by himself when they go.
        _ if parts.contains(&"input") => Ok(Vec::new()),
        _ => Ok(seats(fs, target)?.iter().flat_map(Seat::keys).collect()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seat_is_the_innermost_function_and_the_port_behind_it() {
        let disk = "../devices/pci0000:00/0000:00:01.0/0000:01:00.0/usb3/3-1/3-1.2/3-1.2:1.0/host6/target6:0:0/6:0:0:0/block/sda";
        let seat = Seat::of(Path::new(disk)).unwrap();
        assert_eq!(seat.keys().collect::<BTreeSet<_>>(), ["0000:01:00.0", "3-1.2"].map(str::to_owned).into());
        let nic = Seat::of(Path::new("../../devices/pci0000:00/0000:00:03.0/virtio0/net/eth0")).unwrap();
        assert_eq!(nic.keys().collect::<Vec<_>>(), ["0000:00:03.0"]);
        assert_eq!(Seat::of(Path::new("../devices/virtual/block/loop0")), None);
    }
}
