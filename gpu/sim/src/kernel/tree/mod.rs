//! The files of a simulated machine: a pure function of what its kernel knows, and how the directory is brought to it.
//!
//! Nothing else writes below `sys`, `proc/driver` and `dev`. Each file and link is replaced by a rename, a device's entry in
//! `/sys/bus` and the like comes last and goes first: whoever reads meanwhile sees a device whole, or not.

mod capability;
mod config;
mod fixed;
mod function;
mod moving;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use croft_gpu::Node;
use croft_gpu::pci::PciAddress;

use super::machine::Machine;
use crate::state::directory;

/// Directories that a kernel has with nothing in them.
const PERMANENT: [&str; 10] = [
    "sys/block",
    "sys/bus/pci/devices",
    "sys/bus/platform/devices",
    "sys/bus/usb/devices",
    "sys/bus/usb/drivers",
    "sys/class/net",
    "sys/dev/block",
    "sys/dev/char",
    "sys/kernel/iommu_groups",
    "proc/driver/nvidia/gpus",
];
/// And with mediated devices.
const PERMANENT_MDEV: [&str; 3] = ["sys/bus/mdev/devices", "sys/bus/mdev/drivers", "sys/class/mdev_bus"];

const NVIDIA_MAJOR: u32 = 195;
/// Handed out at boot, from the top.
const CAPABILITY_MAJOR: u32 = 508;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Directory,
    File(Vec<u8>),
    Link(String),
}

/// By path below the root, without a slash before it. A file's directories need no entries of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entries(BTreeMap<String, Entry>);

impl Entries {
    pub fn directory(&mut self, path: impl Into<String>) {
        self.0.insert(path.into(), Entry::Directory);
    }

    /// One value, as sysfs has it: with a newline.
    pub fn value(&mut self, path: impl Into<String>, value: impl std::fmt::Display) {
        self.text(path, format!("{value}\n"));
    }

    pub fn text(&mut self, path: impl Into<String>, text: impl Into<Vec<u8>>) {
        self.0.insert(path.into(), Entry::File(text.into()));
    }

    /// A device file, which anybody may make as text ([`croft_gpu::HostFs::node`]).
    pub fn node(&mut self, path: impl Into<String>, node: Node) {
        self.value(path, node);
    }

    /// A device file, and where in the machine it hangs, by number.
    pub fn node_of(&mut self, path: impl Into<String>, node: Node, directory: &str) {
        self.node(path, node);
        let (kind, number) = (if node.block { "block" } else { "char" }, format!("{}:{}", node.major, node.minor));
        self.value(format!("{directory}/dev"), &number);
        self.link(format!("sys/dev/{kind}/{number}"), directory);
    }

    /// A file that only takes writes.
    pub fn empty(&mut self, path: impl Into<String>) {
        self.text(path, "");
    }

    /// Relative, by the nearest common directory, as the kernel makes them.
    pub fn link(&mut self, path: impl Into<String>, target: &str) {
        let path = path.into();
        let from: Vec<&str> = path.split('/').collect();
        let to: Vec<&str> = target.split('/').collect();
        let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
        let up = "../".repeat(from.len().saturating_sub(common + 1));
        self.0.insert(path, Entry::Link(format!("{up}{}", to[common..].join("/"))));
    }
}

/// Makes the whole tree from nothing, or from whatever is there.
pub(crate) fn make(root: &Path, machine: &Machine) -> io::Result<()> {
    let mut entries = fixed::entries(machine);
    entries.0.extend(moving::entries(machine).0);
    for (address, function) in &machine.functions {
        entries.0.extend(function::entries(machine, *address, function).0);
    }
    for owned in ["sys", "dev", "proc/driver"] {
        let mut there = Vec::new();
        list(&root.join(owned), owned, &mut there)?;
        let strangers = there.into_iter().filter(|path| {
            let below = format!("{path}/");
            let needed = entries.0.range(below.clone()..).next().is_some_and(|(next, _)| next.starts_with(&below));
            !needed && !entries.0.contains_key(path)
        });
        remove(root, strangers.collect())?;
    }
    write(root, &entries.0)
}

/// Changes the tree by what differs between two states of the machine.
pub(crate) fn change(root: &Path, before: &Machine, after: &Machine) -> io::Result<()> {
    let (mut old, mut new) = (moving::entries(before), moving::entries(after));
    let mut addresses: Vec<_> = before.functions.keys().chain(after.functions.keys()).copied().collect();
    addresses.sort_unstable();
    addresses.dedup();
    for address in addresses {
        let then = before.functions.get(&address).map(|function| (function, before.vgpu(address)));
        let now = after.functions.get(&address).map(|function| (function, after.vgpu(address)));
        if then == now {
            continue;
        }
        if let Some((function, _)) = then {
            old.0.extend(function::entries(before, address, function).0);
        }
        if let Some((function, _)) = now {
            new.0.extend(function::entries(after, address, function).0);
        }
    }
    let gone = old.0.keys().filter(|path| !new.0.contains_key(*path));
    remove(root, gone.cloned().collect())?;
    new.0.retain(|path, entry| old.0.get(path) != Some(entry));
    write(root, &new.0)
}

fn write(root: &Path, entries: &BTreeMap<String, Entry>) -> io::Result<()> {
    let (last, first): (Vec<_>, Vec<_>) = entries.iter().partition(|(path, _)| is_index(path));
    let unfinished = directory(root).join("entry.new");
    let mut unseen = Unseen::default();
    for (path, entry) in first.into_iter().chain(last) {
        let at = root.join(path);
        let Some(parent) = at.parent() else { continue };
        match entry {
            Entry::Directory => {
                unseen.make(&at)?;
            }
            Entry::File(text) if unseen.make(parent)?.has(parent) => fs::write(&at, text)?,
            Entry::Link(target) if unseen.make(parent)?.has(parent) => symlink(target, &at)?,
            Entry::File(text) if fs::read(&at).is_ok_and(|there| there == *text) => {}
            Entry::Link(target) if fs::read_link(&at).is_ok_and(|there| there == Path::new(target)) => {}
            Entry::File(text) => {
                fs::write(&unfinished, text)?;
                fs::rename(&unfinished, &at)?;
            }
            Entry::Link(target) => {
                forgive_absence(fs::remove_file(&unfinished))?;
                symlink(target, &unfinished)?;
                fs::rename(&unfinished, &at)?;
            }
        }
    }
    Ok(())
}

/// Directories of functions that were made a moment ago. No reader comes there before the link in `/sys/bus`, which is made last,
/// so that files need no rename: thirty-two functions have a thousand of them.
#[derive(Debug, Default)]
struct Unseen {
    unseen: BTreeSet<PathBuf>,
    /// Looked at before.
    known: BTreeSet<PathBuf>,
}

impl Unseen {
    fn make(&mut self, directory: &Path) -> io::Result<&Unseen> {
        if self.known.insert(directory.to_owned()) && !directory.is_dir() {
            if let Some(parent) = directory.parent() {
                self.make(parent)?;
            }
            fs::create_dir(directory)?;
            let is_function =
                directory.file_name().and_then(|name| name.to_str()?.parse::<PciAddress>().ok()).is_some();
            if is_function || directory.parent().is_some_and(|parent| self.has(parent)) {
                self.unseen.insert(directory.to_owned());
            }
        }
        Ok(self)
    }

    fn has(&self, directory: &Path) -> bool {
        self.unseen.contains(directory)
    }
}

/// And the directories that are empty then.
fn remove(root: &Path, paths: Vec<String>) -> io::Result<()> {
    let (first, last): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| is_index(path));
    for path in first.into_iter().rev().chain(last.into_iter().rev()) {
        let at = root.join(&path);
        match fs::symlink_metadata(&at) {
            Ok(what) if what.is_dir() => prune(&at, root),
            Ok(_) => {
                fs::remove_file(&at)?;
                if let Some(parent) = at.parent() {
                    prune(parent, root);
                }
            }
            Err(error) => forgive_absence(Err(error))?,
        }
    }
    Ok(())
}

/// A directory that still has something in it stays, which is no failure; so does one that is there when it is empty, too.
fn prune(directory: &Path, root: &Path) {
    let mut at = directory.to_owned();
    let stays = |at: &Path| {
        at.strip_prefix(root)
            .is_ok_and(|path| PERMANENT.iter().chain(&PERMANENT_MDEV).any(|kept| Path::new(kept) == path))
    };
    while at.starts_with(root) && at != root && !stays(&at) && fs::remove_dir(&at).is_ok() {
        at.pop();
    }
}

/// Where readers begin: an entry there must not be seen before what it leads to, nor after it.
fn is_index(path: &str) -> bool {
    ["sys/bus/", "sys/block/", "sys/class/", "sys/dev/"].iter().any(|index| path.starts_with(index))
}

/// Everything below a directory, the deepest last.
pub(crate) fn list(directory: &Path, name: &str, all: &mut Vec<String>) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries.collect::<io::Result<Vec<_>>>()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut entries: Vec<(String, PathBuf)> =
        entries.into_iter().map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path())).collect();
    entries.sort();
    for (file, path) in entries {
        let name = format!("{name}/{file}");
        all.push(name.clone());
        if fs::symlink_metadata(&path)?.is_dir() {
            list(&path, &name, all)?;
        }
    }
    Ok(())
}

fn forgive_absence(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_relative_as_the_kernels() {
        let mut entries = Entries::default();
        entries.link("sys/bus/pci/devices/0000:41:00.0", "sys/devices/pci0000:40/0000:40:01.1/0000:41:00.0");
        entries.link(
            "sys/devices/pci0000:40/0000:40:01.1/0000:41:00.4/physfn",
            "sys/devices/pci0000:40/0000:40:01.1/0000:41:00.0",
        );
        let targets: Vec<_> = entries.0.values().collect();
        let link = |target: &str| Entry::Link(target.to_owned());
        assert_eq!(targets[0], &link("../../../devices/pci0000:40/0000:40:01.1/0000:41:00.0"));
        assert_eq!(targets[1], &link("../0000:41:00.0"));
    }

    #[test]
    fn a_directory_goes_with_the_last_file_in_it() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory(root.path())).unwrap();
        let mut entries = Entries::default();
        entries.value("sys/kernel/iommu_groups/7/type", "DMA");
        entries.link("sys/kernel/iommu_groups/7/devices/a", "sys/devices/a");
        write(root.path(), &entries.0).unwrap();
        remove(root.path(), vec!["sys/kernel/iommu_groups/7/devices/a".to_owned()]).unwrap();
        assert!(root.path().join("sys/kernel/iommu_groups/7/type").exists());
        assert!(!root.path().join("sys/kernel/iommu_groups/7/devices").exists());
        remove(root.path(), vec!["sys/kernel/iommu_groups/7/type".to_owned()]).unwrap();
        assert!(!root.path().join("sys/kernel/iommu_groups/7").exists());
        assert!(root.path().join("sys/kernel/iommu_groups").exists(), "the kernel has it empty, too");
    }
}
