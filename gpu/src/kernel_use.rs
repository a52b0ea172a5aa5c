//! What the kernel itself uses a device for: a disk that is mounted, swapped to or part of another one; a network interface that
//! carries the host's routes or belongs to a bridge; of a PCI function, or of a USB device (and so of its controller). No process has those open, and taking the device away would hurt all the
//! same, so each is a holder without a process.

use std::collections::BTreeMap;

use crate::error::{FsError, IfPresent as _, ProbeError};
use crate::host::Holder;
use crate::hostfs::HostFs;
use crate::nodes::owners;

/// Adds to `holders`. What a VFIO driver or none holds has neither disks nor interfaces.
pub(crate) fn find(fs: &HostFs, holders: &mut BTreeMap<String, Vec<Holder>>, errors: &mut Vec<ProbeError>) {
    let mut ask = |part: Result<Vec<(String, String)>, FsError>, what: &'static str| match part {
        Ok(uses) => {
            for (device, file) in uses {
                let holder = Holder { pid: 0, command: "kernel".to_owned(), unit: None, file };
                holders.entry(device).or_default().push(holder);
            }
        }
        Err(error) => errors.push(ProbeError { device: "holders".to_owned(), what: what.into(), source: error.into() }),
    };
    ask(disks(fs), "disks in use");
    ask(interfaces(fs), "network interfaces in use");
}

/// Every block device that is in use, with each device that it hangs on: `/dev/nvme0n1p2 (mounted on /)`.
fn disks(fs: &HostFs) -> Result<Vec<(String, String)>, FsError> {
    let mounts = mounts(fs)?;
    let swaps = fs.read("/proc/swaps").if_present()?.unwrap_or_default();
    let mut found = Vec::new();
    for disk in fs.entries("/sys/block").if_present()?.unwrap_or_default() {
        let owners = owners(&fs.link(&format!("/sys/block/{disk}"))?);
        if owners.is_empty() {
            continue;
        }
        let entry = format!("/sys/block/{disk}");
        let mut names = vec![(disk.clone(), entry.clone())];
        for part in fs.entries(&entry)?.into_iter().filter(|name| name.starts_with(disk.as_str())) {
            names.push((part.clone(), format!("{entry}/{part}")));
        }
        for (name, entry) in names {
            let number = fs.attribute(&format!("{entry}/dev"))?;
            let mounted = mounts.iter().filter(|(of, _)| *of == number).map(|(_, on)| format!("mounted on {on}"));
            let swap = swaps.lines().any(|line| line.split_whitespace().next() == Some(&format!("/dev/{name}")));
            let above = fs.entries(&format!("{entry}/holders")).if_present()?.unwrap_or_default();
            let uses = mounted.chain(swap.then(|| "swap".to_owned()));
            let uses = uses.chain(above.into_iter().map(|above| format!("part of {above}")));
            let uses = uses.map(|usage| format!("/dev/{name} ({usage})"));
            found.extend(uses.flat_map(|usage| owners.iter().map(move |owner| (owner.clone(), usage.clone()))));
        }
    }
    Ok(found)
}

/// `major:minor` and where: what the host's first process sees, in whichever container we run.
fn mounts(fs: &HostFs) -> Result<Vec<(String, String)>, FsError> {
    let table = fs.read("/proc/1/mountinfo").if_present()?.unwrap_or_default();
    let parse = |line: &str| {
        let mut fields = line.split(' ');
        Some((fields.nth(2)?.to_owned(), fields.nth(1)?.to_owned()))
    };
    Ok(table.lines().filter_map(parse).collect())
}

fn interfaces(fs: &HostFs) -> Result<Vec<(String, String)>, FsError> {
    let routes = fs.read("/proc/1/net/route").if_present()?.unwrap_or_default();
    let routes6 = fs.read("/proc/1/net/ipv6_route").if_present()?.unwrap_or_default();
    let mut found = Vec::new();
    for place in fs.links("/sys/class/net").if_present()?.unwrap_or_default() {
        let owners = owners(&place);
        let Some(name) = place.file_name().and_then(|name| name.to_str()).filter(|_| !owners.is_empty()) else {
            continue;
        };
        let routed = routes.lines().any(|line| line.split_whitespace().next() == Some(name));
        // IPv6 gives every interface that is up a link-local route: a gateway that is not all zeros is what counts.
        let gateway = |line: &&str| line.split_whitespace().nth(4).is_some_and(|next| next.bytes().any(|b| b != b'0'));
        let of_it = |line: &&str| line.split_whitespace().next_back() == Some(name);
        let routed6 = routes6.lines().filter(of_it).any(|line| gateway(&line));
        let master = fs.link_name(&format!("/sys/class/net/{name}/master")).if_present()?;
        let uses = (routed || routed6).then(|| "the host's routes".to_owned()).into_iter();
        let uses = uses.chain(master.map(|master| format!("part of {master}")));
        let uses = uses.map(|usage| format!("{name} ({usage})"));
        found.extend(uses.flat_map(|usage| owners.iter().map(move |owner| (owner.clone(), usage.clone()))));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    const DRIVE: &str = "sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0/nvme/nvme0/nvme0n1";
    const CARD: &str = "sys/devices/pci0000:00/0000:00:02.0";

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn host() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        write(root, &format!("{DRIVE}/dev"), "259:0\n");
        write(root, &format!("{DRIVE}/nvme0n1p1/dev"), "259:1\n");
        fs::create_dir_all(root.join("sys/block")).unwrap();
        symlink(format!("../../{DRIVE}"), root.join("sys/block/nvme0n1")).unwrap();
        // A loop device hangs on no PCI function.
        fs::create_dir_all(root.join("sys/devices/virtual/block/loop0")).unwrap();
        symlink("../devices/virtual/block/loop0", root.join("sys/block/loop0")).unwrap();
        fs::create_dir_all(root.join(CARD).join("net/eth0")).unwrap();
        fs::create_dir_all(root.join("sys/class/net")).unwrap();
        symlink("../../devices/pci0000:00/0000:00:02.0/net/eth0", root.join("sys/class/net/eth0")).unwrap();
        // No interface, though it lies among them.
        write(root, "sys/class/net/bonding_masters", "\n");
        write(root, "proc/1/mountinfo", "25 1 0:22 / /proc rw - proc proc rw\n");
        directory
    }

    fn disk_uses(root: &Path) -> Vec<(String, String)> {
        disks(&HostFs::at(root).unwrap()).unwrap()
    }

    #[test]
    fn a_disk_is_in_use_when_it_is_mounted_swapped_to_or_part_of_another() {
        let host = host();
        let root = host.path();
        assert_eq!(disk_uses(root), [], "a drive that lies idle");
        write(root, "proc/1/mountinfo", "25 1 259:1 / /srv/data rw,relatime shared:1 - ext4 /dev/nvme0n1p1 rw\n");
        let drive = |usage: &str| ("0000:01:00.0".to_owned(), usage.to_owned());
        assert_eq!(disk_uses(root), [drive("/dev/nvme0n1p1 (mounted on /srv/data)")]);
        write(root, "proc/1/mountinfo", "");
        write(root, "proc/swaps", "Filename Type Size Used Priority\n/dev/nvme0n1p1 partition 1 0 -2\n");
        assert_eq!(disk_uses(root), [drive("/dev/nvme0n1p1 (swap)")]);
        write(root, "proc/swaps", "Filename Type Size Used Priority\n");
        fs::create_dir_all(root.join(DRIVE).join("holders/dm-0")).unwrap();
        assert_eq!(disk_uses(root), [drive("/dev/nvme0n1 (part of dm-0)")]);
    }

    #[test]
    fn a_mounted_usb_stick_is_in_use_and_so_is_its_controller() {
        const STICK: &str = "devices/pci0000:00/0000:00:14.0/usb1/1-2/1-2:1.0/host6/target6:0:0/6:0:0:0/block/sda";
        let host = host();
        let root = host.path();
        write(root, &format!("sys/{STICK}/dev"), "8:0\n");
        symlink(format!("../{STICK}"), root.join("sys/block/sda")).unwrap();
        assert_eq!(disk_uses(root), []);
        write(root, "proc/1/mountinfo", "25 1 8:0 / /mnt rw - vfat /dev/sda rw\n");
        let mounted = |device: &str| (device.to_owned(), "/dev/sda (mounted on /mnt)".to_owned());
        assert_eq!(disk_uses(root), [mounted("0000:00:14.0"), mounted("1-2")]);
    }

    #[test]
    fn a_network_card_is_in_use_when_it_carries_routes_or_belongs_to_a_bridge() {
        let host = host();
        let root = host.path();
        let uses = || interfaces(&HostFs::at(root).unwrap()).unwrap();
        assert!(uses().is_empty());
        write(root, "proc/1/net/route", "Iface Destination Gateway\neth0 00000000 0101A8C0 0003\n");
        assert_eq!(uses(), [("0000:00:02.0".to_owned(), "eth0 (the host's routes)".to_owned())]);
        let zeros = "0".repeat(32);
        write(root, "proc/1/net/route", "Iface Destination Gateway\n");
        let link_local = format!("fe80{} 40 {zeros} 00 {zeros} 00000100 1 0 00000001 eth0\n", "0".repeat(28));
        write(root, "proc/1/net/ipv6_route", &link_local);
        assert!(uses().is_empty(), "every interface that is up has such a route");
        let default = format!("{zeros} 00 {zeros} 00 fe80{}1 00000400 1 0 00000003 eth0\n", "0".repeat(27));
        write(root, "proc/1/net/ipv6_route", &default);
        assert_eq!(uses().len(), 1);
        write(root, "proc/1/net/ipv6_route", "");
        symlink("../../../../virtual/net/br0", root.join(CARD).join("net/eth0/master")).unwrap();
        assert_eq!(uses()[0].1, "eth0 (part of br0)");
    }
}
