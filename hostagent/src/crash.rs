//! Named places where a test lets the agent die: `CROFT_CRASH_AT=agent.start.after` and the process sends itself SIGKILL
//! when it gets there. Without that variable a point costs one comparison.
//!
//! `CROFT_CRASH_AT=agent.device_step.before#3`: the third time.
//!
//! Every verb that changes the world has a point on each side; the kill tests walk through the lists here.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

pub const VARIABLE: &str = "CROFT_CRASH_AT";

pub const POINTS: &[&str] = &[
    // The desired object is written to the journal.
    "agent.journal.before",
    "agent.journal.after",
    "agent.fetch_seed.before",
    "agent.fetch_seed.after",
    // A root disk is made in the place of the old one.
    "agent.disk_replace.before",
    "agent.disk_replace.after",
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

/// Of instances that join a cluster: nobody else's seed changes. The agent's own kill test walks through them, with a plane
/// that changes one.
pub const SEED_POINTS: &[&str] = &[
    // Another seed is written to the volume, under a guest that runs; its journal follows.
    "agent.seed_replace.before",
    "agent.seed_replace.after",
];

/// Of instances with devices.
pub const DEVICE_POINTS: &[&str] = &[
    // The hold of a device is journaled with its way back, before the first step.
    "agent.hold.before",
    "agent.hold.after",
    // Each step of a plan, and its undo; the whole of a plan.
    "agent.device_step.before",
    "agent.device_plan.after",
    "agent.attach.before",
    "agent.attach.after",
    "agent.detach.before",
    "agent.detach.after",
    "agent.give_back.before",
    "agent.give_back.after",
    // After a reboot.
    "agent.replay.before",
    "agent.replay.after",
];

/// Dies here when told to.
pub fn point(name: &'static str) {
    static AT: OnceLock<Option<(String, usize)>> = OnceLock::new();
    static PASSED: AtomicUsize = AtomicUsize::new(0);
    debug_assert!([POINTS, SEED_POINTS, DEVICE_POINTS].concat().contains(&name), "{name} is in no list of points");
    let at = AT.get_or_init(|| {
        let text = std::env::var(VARIABLE).ok()?;
        let (name, nth) = text.split_once('#').unwrap_or((&text, "1"));
        Some((name.to_owned(), nth.parse().unwrap_or(1)))
    });
    let Some((_, nth)) = at.as_ref().filter(|(at, _)| at == name) else { return };
    if PASSED.fetch_add(1, Ordering::SeqCst) + 1 == *nth {
        // Nothing is flushed or dropped on the way out: that is the point.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
