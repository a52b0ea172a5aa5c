//! Memory, and the huge pages that were set apart from it.

use croft_gpu::{FsError, HostFs, IfPresent};
use croft_proto::v1::{HugePages, NumaCell};

use super::Notes;

const MEMINFO: &str = "/proc/meminfo";

/// Of the whole machine, in KiB.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Memory {
    pub total_kib: i64,
    /// In huge pages of every size, used or not.
    pub huge_kib: i64,
}

pub(super) fn read(fs: &HostFs) -> Result<Memory, FsError> {
    let text = fs.read(MEMINFO)?;
    let total_kib = line_kib(&text, "MemTotal:").ok_or_else(|| fs.garbage(MEMINFO, &text, "a table with MemTotal"))?;
    // A kernel without hugetlbfs has no such line.
    Ok(Memory { total_kib, huge_kib: line_kib(&text, "Hugetlb:").unwrap_or(0) })
}

/// What a NUMA node has; `Node 0 MemTotal:  12341234 kB`.
pub(super) fn of_node(fs: &HostFs, node: i32) -> Result<i64, FsError> {
    let path = format!("/sys/devices/system/node/node{node}/meminfo");
    let text = fs.read(&path)?;
    line_kib(&text, "MemTotal:").ok_or_else(|| fs.garbage(&path, &text, "a table with MemTotal"))
}

fn line_kib(text: &str, key: &str) -> Option<i64> {
    text.lines().find_map(|line| {
        let value = line.split_once(key).map(|(_, value)| value)?;
        value.trim().strip_suffix("kB")?.trim_end().parse().ok().filter(|kib| *kib >= 0)
    })
}

/// What the host may promise, huge pages included: a cell that lists its pages says which part is not ordinary memory.
/// Pages that no cell could tell of are nobody's to promise, and would look ordinary.
pub(super) fn placeable_mib(memory: &Memory, cells: &[NumaCell], notes: &mut Notes) -> i64 {
    let told: i64 = cells.iter().flat_map(|cell| &cell.huge_pages).map(|pages| pages.size_kib * pages.total).sum();
    // The two are not read at one instant, but pages are set apart at boot or by hand.
    let untold = (memory.huge_kib - told).max(0);
    if untold > 0 {
        notes.add("memory", &format!("{} MiB of huge pages belong to no cell and are left out", untold / 1024));
    }
    (memory.total_kib - untold).max(0) / 1024
}

/// The pools in a directory of `hugepages-<size>kB`, by size. A pool that cannot be read is left out, with a note.
pub(super) fn huge_pages(fs: &HostFs, directory: &str, notes: &mut Notes) -> Vec<HugePages> {
    let names = notes.keep("huge pages", fs.entries(directory).if_present()).flatten().unwrap_or_default();
    let mut pools: Vec<_> =
        names.iter().filter_map(|name| notes.keep("huge pages", pool(fs, directory, name))).collect();
    pools.sort_by_key(|pool| pool.size_kib);
    pools
}

fn pool(fs: &HostFs, directory: &str, name: &str) -> Result<HugePages, FsError> {
    let path = format!("{directory}/{name}");
    let digits = name.strip_prefix("hugepages-").and_then(|rest| rest.strip_suffix("kB"));
    // Bounded, so that a size times a number cannot overflow.
    let size_kib = digits.and_then(|digits| digits.parse().ok()).filter(|kib: &i64| (1..=1 << 30).contains(kib));
    let count = |file: &str| {
        let within = |text: &str| text.parse::<i64>().ok().filter(|pages| (0..1 << 32).contains(pages));
        fs.parse(&format!("{path}/{file}"), "a number of pages", within)
    };
    Ok(HugePages {
        size_kib: size_kib.ok_or_else(|| fs.garbage(&path, name, "a pool of huge pages"))?,
        total: count("nr_hugepages")?,
        free: count("free_hugepages")?,
    })
}
