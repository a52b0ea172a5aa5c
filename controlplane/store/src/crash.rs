//! Named points at which a test may have this process killed: `CROFT_CRASH_AT=plane.running.before`.
//!
//! A point per state and side of the commit that enters it, as listed in the state table of
//! [`croft_core::instance::machine`], and the same for the steps of a host's maintenance.

use std::sync::OnceLock;

pub const DRAIN: &[&str] = &["plane.drain.before", "plane.drain.after"];
pub const DRAINED: &[&str] = &["plane.drained.before", "plane.drained.after"];
pub const UNDRAIN: &[&str] = &["plane.undrain.before", "plane.undrain.after"];

/// Of instances.
pub const POINTS: &[&str] = &[
    "plane.pending.before",
    "plane.pending.after",
    "plane.placing.before",
    "plane.placing.after",
    "plane.preparing.before",
    "plane.preparing.after",
    "plane.starting.before",
    "plane.starting.after",
    "plane.running.before",
    "plane.running.after",
    "plane.stopping.before",
    "plane.stopping.after",
    "plane.stopped.before",
    "plane.stopped.after",
    "plane.deleting.before",
    "plane.deleting.after",
    "plane.failed.before",
    "plane.failed.after",
    "plane.unknown.before",
    "plane.unknown.after",
];

/// Kills this process, as kill -9 would, when it was told to die here.
pub fn point(name: &str) {
    static AT: OnceLock<Option<String>> = OnceLock::new();
    let at = AT.get_or_init(|| std::env::var("CROFT_CRASH_AT").ok());
    if at.as_deref() == Some(name) {
        // Fails only for a process that does not exist.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use croft_core::instance::State;

    #[test]
    fn every_state_of_the_table_has_its_points() {
        let table: Vec<_> = State::TABLE.iter().flat_map(|row| row.crash_points).copied().collect();
        assert_eq!(table, super::POINTS);
    }
}
