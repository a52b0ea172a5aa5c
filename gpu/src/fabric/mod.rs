//! NVSwitch: GPUs of one baseboard reach each other through switches that Fabric Manager programs. A guest that gets a whole
//! GPU of such a board gets it with a *partition*, which is activated before it starts and deactivated after it ended.
//!
//! Where Fabric Manager is absent, silent or in another mode, whole GPUs of the host are not to be given away: their links
//! would not come up, or lead to somebody else's GPU.

mod address;
mod library;
mod manager;

use serde::{Deserialize, Serialize};

use crate::bus::Inventory;
use crate::host::{Fabric, FabricPartition};
use crate::pci::PciFunction;

pub use address::FabricAddress;
pub use library::{FabricError, FabricLibrary};
pub use manager::Manager;

/// What Fabric Manager told, or why it told nothing. Asked by [`snapshot`], in a process that may hang.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FabricSource {
    Partitions(Vec<FabricPartition>),
    Unavailable { why: String },
}

impl From<Result<Vec<FabricPartition>, FabricError>> for FabricSource {
    fn from(result: Result<Vec<FabricPartition>, FabricError>) -> Self {
        match result {
            Ok(partitions) => FabricSource::Partitions(partitions),
            Err(error) => FabricSource::Unavailable { why: error.to_string() },
        }
    }
}

/// Asks Fabric Manager on this machine for its partitions, where its configuration says that it listens. Cheap where there is
/// none.
pub fn snapshot(library: Option<&std::path::Path>) -> FabricSource {
    FabricLibrary::open(library, None).and_then(|manager| manager.partitions()).into()
}

/// Puts together what the bus shows and what Fabric Manager said.
pub(crate) fn read(functions: &Inventory<PciFunction>, source: &FabricSource) -> Fabric {
    let switched = functions.devices.iter().any(|function| is_switch(function) || needs_fabric(function));
    match source {
        // Partitions without a switch that shows: newer switches are no functions of the host.
        FabricSource::Partitions(partitions) if switched || !partitions.is_empty() => {
            Fabric::Shared { partitions: partitions.clone() }
        }
        FabricSource::Unavailable { why } if switched => Fabric::Unavailable { why: why.clone() },
        FabricSource::Partitions(_) | FabricSource::Unavailable { .. } => Fabric::None,
    }
}

/// NVSwitches up to the third generation: 1af1 on A100 boards, 22a3 on H100 ones.
fn is_switch(function: &PciFunction) -> bool {
    /// "Bridge, other".
    const CLASS: u32 = 0x0680;
    function.vendor == 0x10de && (function.class >> 8 == CLASS || matches!(function.device, 0x1af1 | 0x22a3))
}

fn needs_fabric(function: &PciFunction) -> bool {
    crate::model::lookup(function.vendor, function.device).is_some_and(|model| model.needs_fabric)
}
