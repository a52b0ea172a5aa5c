use std::path::Path;

use croft_proto::agent::v1::HostObservation;

/// Everything that can be read of the machine below `root`.
pub fn observe(_root: &Path) -> HostObservation {
    HostObservation::default()
}
