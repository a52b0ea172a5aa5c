//! Processes of the simulated host that have device files open: links in its own `/proc/PID/fd`.
//!
//! That is where the inventory looks for holders, and what makes the simulated kernel refuse or wait.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use croft_gpu::{HostFs, Node};

/// Who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    /// `qemu-system-x86_64`
    pub command: String,
    /// Its cgroup's unit: `nvidia-persistenced.service`.
    pub unit: String,
}

impl Process {
    #[must_use]
    pub fn new(pid: u32, command: &str, unit: &str) -> Process {
        Process { pid, command: command.to_owned(), unit: unit.to_owned() }
    }
}

/// The process is there, and has this file open besides what it had.
pub(crate) fn open(root: &Path, process: &Process, file: &str) -> io::Result<()> {
    let directory = directory(root, process.pid);
    let descriptors = directory.join("fd");
    fs::create_dir_all(&descriptors)?;
    // The kernel cuts a name off at 15 bytes.
    let name: String = process.command.chars().take(15).collect();
    fs::write(directory.join("comm"), format!("{name}\n"))?;
    fs::write(directory.join("cmdline"), format!("{}\0", process.command))?;
    fs::write(directory.join("cgroup"), format!("0::/{}\n", cgroup(&process.unit)))?;
    let taken = fs::read_dir(&descriptors)?.count();
    // 0 to 2 are the terminal's.
    symlink(file, descriptors.join((taken + 3).to_string()))
}

/// The process is gone, and with it all that it had open.
pub(crate) fn end(root: &Path, pid: u32) -> io::Result<()> {
    match fs::remove_dir_all(directory(root, pid)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

pub(crate) fn end_all(root: &Path) -> io::Result<()> {
    for pid in pids(root)? {
        end(root, pid)?;
    }
    Ok(())
}

/// Processes that have one of these devices open, under whichever name.
pub(crate) fn holders(root: &Path, files: &[String]) -> io::Result<Vec<u32>> {
    let fs = HostFs::at(root).map_err(io::Error::other)?;
    // A file that is gone nobody opens any more.
    let nodes: BTreeSet<Node> = files.iter().filter_map(|file| fs.node(file).ok().flatten()).collect();
    let mut holders = Vec::new();
    for pid in pids(root)? {
        let mut holds = false;
        match fs.open_nodes(&format!("/proc/{pid}/fd"), |_, node| holds |= nodes.contains(&node)) {
            Ok(_) if holds => holders.push(pid),
            Ok(_) => {}
            // It ended meanwhile.
            Err(error) if error.is_absent() => {}
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    Ok(holders)
}

fn pids(root: &Path) -> io::Result<Vec<u32>> {
    let names = match fs::read_dir(root.join("proc")) {
        Ok(names) => names.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?,
        // Of NVIDIA's driver alone, without a machine around it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let mut pids: Vec<u32> = names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    Ok(pids)
}

fn directory(root: &Path, pid: u32) -> PathBuf {
    root.join(format!("proc/{pid}"))
}

fn cgroup(unit: &str) -> String {
    match unit.ends_with(".scope") {
        true => format!("machine.slice/{unit}"),
        false => format!("system.slice/{unit}"),
    }
}
