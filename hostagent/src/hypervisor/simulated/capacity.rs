//! How large the simulated machine is, and what it tells of itself.

use std::str::FromStr;

use croft_proto::agent::v1::HostObservation;
use croft_proto::v1;

/// Written as `vcpus=64,memory-mib=262144,disk-gib=1000,cells=2,bridges=br0+br1`; what is left out has the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    pub vcpus: u64,
    pub memory_mib: u64,
    pub disk_gib: u64,
    /// NUMA cells, of equal size.
    pub cells: u64,
    pub bridges: Vec<String>,
}

impl Default for Capacity {
    fn default() -> Self {
        Self { vcpus: 64, memory_mib: 262_144, disk_gib: 1000, cells: 1, bridges: vec!["br0".to_owned()] }
    }
}

impl FromStr for Capacity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut capacity = Self::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').ok_or_else(|| format!("{part:?} is not KEY=VALUE"))?;
            let number = || match value.parse() {
                Ok(number) if number > 0 => Ok(number),
                _ => Err(format!("{key}: {value:?} is not a number above 0")),
            };
            match key {
                "vcpus" => capacity.vcpus = number()?,
                "memory-mib" => capacity.memory_mib = number()?,
                "disk-gib" => capacity.disk_gib = number()?,
                "cells" => capacity.cells = number()?,
                "bridges" => capacity.bridges = value.split('+').map(str::to_owned).collect(),
                _ => return Err(format!("{key:?} is not one of vcpus, memory-mib, disk-gib, cells, bridges")),
            }
        }
        if !capacity.vcpus.is_multiple_of(capacity.cells) {
            return Err(format!("{} vcpus do not spread evenly over {} cells", capacity.vcpus, capacity.cells));
        }
        Ok(capacity)
    }
}

impl Capacity {
    pub(super) fn has_cell(&self, id: i32) -> bool {
        u64::try_from(id).is_ok_and(|id| id < self.cells)
    }

    pub(super) fn has_cpu(&self, id: i32) -> bool {
        u64::try_from(id).is_ok_and(|id| id < self.vcpus)
    }

    /// The inventory of this machine.
    #[must_use]
    pub fn observation(&self) -> HostObservation {
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let small = |count: u64| i32::try_from(count).unwrap_or(i32::MAX);
        let per_cell = self.vcpus / self.cells;
        let cells = (0..self.cells).map(|id| v1::NumaCell {
            id: small(id),
            cores: (id * per_cell..(id + 1) * per_cell).map(|cpu| v1::CpuCore { cpus: vec![small(cpu)] }).collect(),
            memory_mib: signed(self.memory_mib / self.cells),
            huge_pages: Vec::new(),
        });
        HostObservation {
            capacity: Some(v1::Capacity {
                cells: cells.collect(),
                disk_gib: signed(self.disk_gib),
                disk_free_gib: signed(self.disk_gib),
                vcpus: signed(self.vcpus),
                memory_mib: signed(self.memory_mib),
            }),
            info: Some(v1::HostInfo {
                os: "simulated".to_owned(),
                cpu_model: "simulated".to_owned(),
                driver_flavour: "none".to_owned(),
                ..v1::HostInfo::default()
            }),
            ..HostObservation::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_is_told_and_names_what_it_cannot_read() {
        let capacity: Capacity = "vcpus=8,memory-mib=1024,cells=2,bridges=br0+br7".parse().expect("capacity");
        assert_eq!((capacity.vcpus, capacity.memory_mib, capacity.disk_gib), (8, 1024, 1000));
        assert_eq!(capacity.bridges, ["br0", "br7"]);
        for (wrong, culprit) in
            [("cpus=8", "cpus"), ("vcpus", "vcpus"), ("disk-gib=0", "disk-gib"), ("vcpus=5,cells=2", "5")]
        {
            let error = wrong.parse::<Capacity>().expect_err(wrong);
            assert!(error.contains(culprit), "{wrong}: {error}");
        }
    }

    #[test]
    fn cells_hold_every_cpu_once() {
        let observation = "vcpus=8,cells=2".parse::<Capacity>().expect("capacity").observation();
        let capacity = observation.capacity.expect("capacity");
        let cpus: Vec<i32> =
            capacity.cells.iter().flat_map(|cell| &cell.cores).flat_map(|core| core.cpus.clone()).collect();
        assert_eq!(cpus, (0..8).collect::<Vec<_>>());
    }
}
