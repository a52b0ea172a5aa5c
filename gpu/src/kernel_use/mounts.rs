//! What is mounted, in every mount namespace: a container, a pod, a unit with `PrivateMounts` has mounts that nobody else sees.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{FsError, IfThere as _};
use crate::hostfs::HostFs;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// `major:minor`; made up by file systems that have several devices.
    pub number: String,
    /// `/srv/data`; where the host itself does not see it: with whom.
    pub on: String,
    pub source: String,
}

/// The host's own, and those of others that it has not.
pub(super) fn all(fs: &HostFs) -> Result<Vec<Mount>, FsError> {
    let mut mounts = Vec::new();
    for (pid, processes) in namespaces(fs)? {
        // The first of them that is still there.
        let mut table = None;
        for process in processes {
            table = fs.read(&format!("/proc/{process}/mountinfo")).if_there()?;
            if table.is_some() {
                break;
            }
        }
        let known: BTreeSet<(String, String)> =
            mounts.iter().map(|mount: &Mount| (mount.number.clone(), mount.source.clone())).collect();
        for mount in table.iter().flat_map(|table| table.lines()).filter_map(parse) {
            if pid == 1 {
                mounts.push(mount);
            } else if !known.contains(&(mount.number.clone(), mount.source.clone())) {
                let on = format!("{} in the mount namespace of process {pid}", mount.on);
                mounts.push(Mount { on, ..mount });
            }
        }
    }
    Ok(mounts)
}

/// The processes of each, by the first of them.
fn namespaces(fs: &HostFs) -> Result<BTreeMap<u32, Vec<u32>>, FsError> {
    const EPERM: i32 = 1;
    const EACCES: i32 = 13;
    let mut pids: Vec<u32> = fs.entries("/proc")?.iter().filter_map(|name| name.parse().ok()).collect();
    pids.sort_unstable();
    let mut by_name: BTreeMap<_, Vec<u32>> = BTreeMap::new();
    for pid in pids {
        match fs.link(&format!("/proc/{pid}/ns/mnt")).if_there() {
            Ok(Some(name)) => by_name.entry(name).or_default().push(pid),
            Ok(None) => {}
            // Whoever may not look at others' processes is told so when he looks at what they have open.
            Err(error) if matches!(error.errno(), Some(EPERM | EACCES)) => {}
            Err(error) => return Err(error),
        }
    }
    let mut all: BTreeMap<_, _> = by_name.into_values().map(|pids| (pids[0], pids)).collect();
    // Everybody may read it.
    all.entry(1).or_insert_with(|| vec![1]);
    Ok(all)
}

/// `25 1 259:1 / /srv/data rw,relatime shared:1 - ext4 /dev/nvme0n1p1 rw`
fn parse(line: &str) -> Option<Mount> {
    let (front, back) = line.split_once(" - ")?;
    let mut fields = front.split(' ').map(str::to_owned);
    let (number, on) = (fields.nth(2)?, fields.nth(1)?);
    Some(Mount { number, on, source: back.split(' ').nth(1)?.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::super::testing::Tree;
    use super::*;

    #[test]
    fn mounts_that_only_a_container_has_count() {
        let tree = Tree::new();
        let root = "20 1 8:0 / / rw - ext4 /dev/sda rw\n";
        let process = |pid: u32, namespace: &str, table: &str| {
            tree.link(&format!("proc/{pid}/ns/mnt"), &format!("mnt:[{namespace}]"));
            tree.write(&format!("proc/{pid}/mountinfo"), table);
        };
        process(1, "4026531841", root);
        process(2, "4026531841", "not looked at");
        // The first of this namespace has ended.
        tree.link("proc/70/ns/mnt", "mnt:[4026532001]");
        process(71, "4026532001", &format!("{root}40 39 259:1 / /data rw - xfs /dev/nvme0n1p1 rw\n"));
        tree.directory("proc/80/fd");
        let found: Vec<_> = all(&tree.fs()).unwrap().into_iter().map(|mount| (mount.number, mount.on)).collect();
        let pair = |number: &str, on: &str| (number.to_owned(), on.to_owned());
        assert_eq!(found, [pair("8:0", "/"), pair("259:1", "/data in the mount namespace of process 70")]);
    }
}
