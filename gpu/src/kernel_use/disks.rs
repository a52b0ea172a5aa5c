//! Disks in use, and with them the controllers that they hang on.
//!
//! Whatever stands on a disk keeps it: LVM, dm-crypt, RAID and bcache are its `holders`, mounted or not. Loop devices and targets
//! (iSCSI, NVMe over fabrics) say on what they stand themselves.

use super::Use;
use super::mounts::{self, Mount};
use crate::error::{FsError, IfThere as _};
use crate::hostfs::{HostFs, Node};
use crate::seat::{self, Disk, Part};

pub(super) fn uses(fs: &HostFs) -> Result<Vec<Use>, FsError> {
    let tables = Tables::read(fs)?;
    let mut found = Vec::new();
    for Disk { seats, parts } in seat::disks(fs)? {
        for part in parts {
            for usage in tables.uses(fs, &part)? {
                let words = format!("/dev/{} ({usage})", part.name);
                found.extend(seats.iter().flat_map(seat::Seat::keys).map(|key| (key, words.clone())));
            }
        }
    }
    Ok(found)
}

struct Tables {
    mounts: Vec<Mount>,
    swaps: String,
    /// Names of devices that mounted file systems of several are made of.
    btrfs: Vec<String>,
    /// Is there a pool that was imported? ZFS says of none on which disks it lies.
    zfs: bool,
    /// What else stands on a disk, and the path of that.
    above: Vec<(String, String)>,
}

impl Tables {
    fn read(fs: &HostFs) -> Result<Tables, FsError> {
        let mut btrfs = Vec::new();
        for known in fs.entries("/sys/fs/btrfs").if_there()?.unwrap_or_default() {
            btrfs.extend(fs.entries(&format!("/sys/fs/btrfs/{known}/devices")).if_there()?.unwrap_or_default());
        }
        // Beside its pools there are files of ZFS's own.
        let zfs = fs.entries("/proc/spl/kstat/zfs").if_there()?.unwrap_or_default();
        let is_pool = |name: &String| fs.has(&format!("/proc/spl/kstat/zfs/{name}/state"));
        Ok(Tables {
            mounts: mounts::all(fs)?,
            above: above(fs)?,
            swaps: fs.read("/proc/swaps").if_there()?.unwrap_or_default(),
            btrfs,
            zfs: zfs.iter().map(is_pool).collect::<Result<Vec<_>, _>>()?.contains(&true),
        })
    }

    fn uses(&self, fs: &HostFs, part: &Part) -> Result<Vec<String>, FsError> {
        // It goes while it is looked at.
        let Some(number) = fs.attribute(&format!("{}/dev", part.entry)).if_there()? else { return Ok(Vec::new()) };
        let node = format!("/dev/{}", part.name);
        let is = |mount: &&Mount| mount.number == number || mount.source == node;
        let mut uses: Vec<_> = self.mounts.iter().filter(is).map(|mount| format!("mounted on {}", mount.on)).collect();
        if self.swaps.lines().any(|line| line.split_whitespace().next() == Some(node.as_str())) {
            uses.push("swap".to_owned());
        }
        let above = fs.entries(&format!("{}/holders", part.entry)).if_there()?.unwrap_or_default();
        uses.extend(above.into_iter().map(|above| format!("part of {above}")));
        let block = Node::numbered(true, &number);
        for (name, path) in &self.above {
            // Any name that udev gives it leads to it.
            if *path == node || (path.starts_with("/dev/") && fs.node(path).if_there()?.flatten() == block) {
                uses.push(format!("part of {name}"));
            }
        }
        if uses.is_empty() && self.btrfs.contains(&part.name) {
            uses.push("part of a btrfs file system".to_owned());
        }
        if self.zfs {
            let known = fs.read(&format!("/run/udev/data/b{number}")).if_there()?.unwrap_or_default();
            if known.lines().any(|line| line == "E:ID_FS_TYPE=zfs_member") {
                uses.push("part of a ZFS pool".to_owned());
            }
        }
        Ok(uses)
    }
}

/// Loop devices, and what the kernel serves to other machines.
fn above(fs: &HostFs) -> Result<Vec<(String, String)>, FsError> {
    const LIO: &str = "/sys/kernel/config/target/core";
    const NVMET: &str = "/sys/kernel/config/nvmet/subsystems";
    let names = |directory: &str| Ok::<_, FsError>(fs.entries(directory).if_there()?.unwrap_or_default());
    let mut files = Vec::new();
    for disk in names("/sys/block")?.into_iter().filter(|name| name.starts_with("loop")) {
        files.push((format!("/sys/block/{disk}/loop/backing_file"), disk));
    }
    for backend in names(LIO)? {
        for object in names(&format!("{LIO}/{backend}"))? {
            files.push((format!("{LIO}/{backend}/{object}/udev_path"), format!("the target {object}")));
        }
    }
    for subsystem in names(NVMET)? {
        for namespace in names(&format!("{NVMET}/{subsystem}/namespaces"))? {
            let file = format!("{NVMET}/{subsystem}/namespaces/{namespace}/device_path");
            files.push((file, format!("the target {subsystem}/{namespace}")));
        }
    }
    let mut above = Vec::new();
    for (file, name) in files {
        above.extend(fs.attribute(&file).if_there()?.map(|path| (name, path)));
    }
    Ok(above)
}

#[cfg(test)]
mod tests {
    use super::super::testing::Tree;

    const DRIVE: &str = "pci0000:00/0000:00:01.0/0000:01:00.0/nvme/nvme0/nvme0n1";
    const STICK: &str = "pci0000:00/0000:00:14.0/usb1/1-2/1-2:1.0/host4/target4:0:0/4:0:0:0/block/sda";

    fn host() -> Tree {
        let tree = Tree::new();
        tree.disk("nvme0n1", DRIVE, "259:0");
        tree.write(&format!("sys/devices/{DRIVE}/nvme0n1p1/dev"), "259:1\n");
        tree.disk("sda", STICK, "8:0");
        // A loop device hangs on nothing.
        tree.disk("loop0", "virtual/block/loop0", "7:0");
        tree.write("proc/1/mountinfo", "25 1 0:22 / /proc rw - proc proc rw\n");
        tree
    }

    fn uses(tree: &Tree) -> Vec<(String, String)> {
        super::uses(&tree.fs()).unwrap()
    }

    fn drive(usage: &str) -> (String, String) {
        ("0000:01:00.0".to_owned(), usage.to_owned())
    }

    #[test]
    fn a_disk_is_in_use_when_it_is_mounted_swapped_to_or_part_of_another() {
        let tree = host();
        assert_eq!(uses(&tree), [], "drives that lie idle");
        tree.write("proc/1/mountinfo", "25 1 259:1 / /srv/data rw,relatime shared:1 - ext4 /dev/nvme0n1p1 rw\n");
        assert_eq!(uses(&tree), [drive("/dev/nvme0n1p1 (mounted on /srv/data)")]);
        tree.write("proc/1/mountinfo", "");
        tree.write("proc/swaps", "Filename Type Size Used Priority\n/dev/nvme0n1p1 partition 1 0 -2\n");
        assert_eq!(uses(&tree), [drive("/dev/nvme0n1p1 (swap)")]);
        tree.write("proc/swaps", "Filename Type Size Used Priority\n");
        for above in ["dm-0", "md127"] {
            tree.directory(&format!("sys/devices/{DRIVE}/nvme0n1p1/holders/{above}"));
        }
        let both = [drive("/dev/nvme0n1p1 (part of dm-0)"), drive("/dev/nvme0n1p1 (part of md127)")];
        assert_eq!(uses(&tree), both);
    }

    #[test]
    fn what_stands_on_a_disk_without_being_its_holder_keeps_it() {
        let config = "sys/kernel/config";
        for (file, name) in [
            ("sys/devices/virtual/block/loop0/loop/backing_file".to_owned(), "loop0"),
            (format!("{config}/target/core/iblock_0/backup/udev_path"), "the target backup"),
            (format!("{config}/nvmet/subsystems/nqn.x/namespaces/1/device_path"), "the target nqn.x/1"),
        ] {
            let tree = host();
            tree.write("dev/nvme0n1p1", "block 259:1");
            tree.link("dev/disk/by-id/mine", "../../nvme0n1p1");
            for path in ["/dev/nvme0n1p1", "/dev/disk/by-id/mine"] {
                tree.write(&file, &format!("{path}\n"));
                assert_eq!(uses(&tree), [drive(&format!("/dev/nvme0n1p1 (part of {name})"))]);
            }
            tree.write(&file, "/srv/image.qcow2\n");
            assert_eq!(uses(&tree), []);
        }
    }

    #[test]
    fn a_mounted_stick_is_the_usb_devices_and_its_controllers() {
        let tree = host();
        tree.write("proc/1/mountinfo", "25 1 8:0 / /media/backup rw - vfat /dev/sda rw\n");
        let words = "/dev/sda (mounted on /media/backup)".to_owned();
        assert_eq!(uses(&tree), [("0000:00:14.0".to_owned(), words.clone()), ("1-2".to_owned(), words)]);
    }

    /// btrfs makes up a device number, and lies on several disks.
    #[test]
    fn file_systems_of_several_disks_keep_them_all() {
        let tree = host();
        tree.write("proc/1/mountinfo", "25 1 0:30 /@ / rw - btrfs /dev/nvme0n1p1 rw,subvol=/@\n");
        assert_eq!(uses(&tree), [drive("/dev/nvme0n1p1 (mounted on /)")]);
        tree.write("proc/1/mountinfo", "25 1 0:30 /@ / rw - btrfs /dev/sdz rw,subvol=/@\n");
        tree.directory("sys/fs/btrfs/8c2a6f0e/devices/nvme0n1p1");
        assert_eq!(uses(&tree), [drive("/dev/nvme0n1p1 (part of a btrfs file system)")]);
        std::fs::remove_dir_all(tree.path("sys/fs")).unwrap();
        tree.write("run/udev/data/b259:1", "S:disk/by-id/x\nE:ID_FS_TYPE=zfs_member\n");
        assert_eq!(uses(&tree), [], "of a pool that is not imported");
        tree.write("proc/spl/kstat/zfs/rpool/state", "ONLINE\n");
        assert_eq!(uses(&tree), [drive("/dev/nvme0n1p1 (part of a ZFS pool)")]);
    }

    /// A namespace of a subsystem that may have several controllers hangs on none of them.
    #[test]
    fn a_shared_namespace_is_every_controllers() {
        let tree = Tree::new();
        let subsystem = "virtual/nvme-subsystem/nvme-subsys0";
        tree.disk("nvme0n1", &format!("{subsystem}/nvme0n1"), "259:0");
        tree.link("sys/class/nvme-subsystem/nvme-subsys0", &format!("../../devices/{subsystem}"));
        for (name, address) in [("nvme0", "0000:01:00.0"), ("nvme1", "0000:02:00.0")] {
            tree.link(
                &format!("sys/devices/{subsystem}/{name}"),
                &format!("../../../pci0000:00/{address}/nvme/{name}"),
            );
        }
        tree.write("proc/1/mountinfo", "25 1 259:0 / / rw - xfs /dev/nvme0n1 rw\n");
        let mut devices: Vec<_> = uses(&tree).into_iter().map(|(device, _)| device).collect();
        devices.sort();
        assert_eq!(devices, ["0000:01:00.0", "0000:02:00.0"]);
    }
}
