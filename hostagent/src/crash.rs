//! Named places where a test lets the agent die: `CROFT_CRASH_AT=agent.start.after` and the process sends itself SIGKILL
//! when it gets there. Without that variable a point costs one comparison.
//!
//! Every verb that changes the world has a point on each side; the kill tests walk through [`POINTS`].

use std::sync::OnceLock;

pub const VARIABLE: &str = "CROFT_CRASH_AT";

pub const POINTS: &[&str] = &[
    // The desired object is written to the journal.
    "agent.journal.before",
    "agent.journal.after",
    "agent.fetch_seed.before",
    "agent.fetch_seed.after",
    "agent.ensure_image.before",
    "agent.ensure_image.after",
    "agent.ensure_defined.before",
    "agent.ensure_defined.after",
    "agent.start.before",
    "agent.start.after",
    // The guest is asked to stop; the deadline is journaled before.
    "agent.stop.before",
    "agent.stop.after",
    "agent.destroy.before",
    "agent.destroy.after",
    "agent.reboot.before",
    "agent.reboot.after",
    "agent.reset.before",
    "agent.reset.after",
    "agent.remove.before",
    "agent.remove.after",
    // Seen to be gone; that is written to the journal.
    "agent.tombstone.before",
    "agent.tombstone.after",
    // An observation is handed to the stream.
    "agent.report.before",
    "agent.report.after",
    // The host's epoch and revision are written.
    "agent.epoch.before",
    "agent.epoch.after",
];

/// Dies here when told to.
pub fn point(name: &'static str) {
    static AT: OnceLock<Option<String>> = OnceLock::new();
    debug_assert!(POINTS.contains(&name), "{name} is not in POINTS");
    if AT.get_or_init(|| std::env::var(VARIABLE).ok()).as_deref() == Some(name) {
        // Nothing is flushed or dropped on the way out: that is the point.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
