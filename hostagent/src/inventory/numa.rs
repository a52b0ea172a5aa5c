//! NUMA cells: which CPUs are near which memory.

use std::collections::BTreeSet;

use croft_gpu::{FsError, HostFs};
use croft_proto::v1::NumaCell;

use super::memory::{self, Memory};
use super::{Notes, cpu};

const NODES: &str = "/sys/devices/system/node";

/// The cells with any CPU or memory. A machine whose kernel knows no NUMA is one cell.
///
/// A cell that cannot be read is left out, with a note.
pub(super) fn cells(fs: &HostFs, online: &BTreeSet<i32>, memory: Option<&Memory>, notes: &mut Notes) -> Vec<NumaCell> {
    match knows_numa(fs) {
        Ok(true) => {
            let nodes = fs.parse(&format!("{NODES}/online"), "a list of nodes", cpu::parse_list);
            let nodes = notes.keep("NUMA cells", nodes).unwrap_or_default();
            let cells = nodes.into_iter().filter_map(|node| cell(fs, node, online, notes));
            // A placeholder that a GPU's driver may fill with the GPU's own memory: nothing to run on.
            cells.filter(|cell| !cell.cores.is_empty() || cell.memory_mib > 0).collect()
        }
        Ok(false) => vec![NumaCell {
            id: 0,
            cores: cpu::cores(fs, online, notes),
            memory_mib: memory.map_or(0, |memory| memory.total_kib / 1024),
            huge_pages: memory::huge_pages(fs, "/sys/kernel/mm/hugepages", notes),
        }],
        Err(error) => {
            notes.keep::<(), _>("NUMA cells", Err(error));
            Vec::new()
        }
    }
}

/// No directory of nodes beside a directory of CPUs is a kernel without NUMA; neither is a machine without sysfs.
fn knows_numa(fs: &HostFs) -> Result<bool, FsError> {
    if fs.has(NODES)? {
        return Ok(true);
    }
    fs.entries("/sys/devices/system/cpu").map(|_| false)
}

fn cell(fs: &HostFs, node: i32, online: &BTreeSet<i32>, notes: &mut Notes) -> Option<NumaCell> {
    let what = format!("NUMA cell {node}");
    let path = format!("{NODES}/node{node}");
    let cpus = fs.parse(&format!("{path}/cpulist"), "a list of CPUs", cpu::parse_list);
    // Offline CPUs are already missing from the node's list; twice is safe.
    let cpus = notes.keep(&what, cpus)?.intersection(online).copied().collect();
    let memory_kib = notes.keep(&what, memory::of_node(fs, node))?;
    Some(NumaCell {
        id: node,
        cores: cpu::cores(fs, &cpus, notes),
        memory_mib: memory_kib / 1024,
        huge_pages: memory::huge_pages(fs, &format!("{path}/hugepages"), notes),
    })
}
