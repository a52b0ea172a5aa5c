//! Another root disk for the same instance, here or on another host. What was on the old one is lost.
//!
//! ```text
//!  rebuild ──► disk_generation + 1 ──► its node leaves its cluster ──► the host: off, another disk, as before
//!  … elsewhere ──► away_from = its host ──► … ──► tombstone ──► "nothing is left" ──► PLACING, on any host but that one
//! ```
//! Here the host sees by itself that the disk it has is not the one that is wanted. Elsewhere nothing is given back before the
//! host has said that nothing is left, as with a delete; from there on it is as after a fence.

use super::{Instance, State};
use crate::error::{Error, Reason, Result};

/// What an agent says of itself that makes another root disk when it is told a higher `disk_generation`.
pub const FEATURE: &str = "disk.rebuild";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// On its host.
    Here,
    /// On any other one.
    Elsewhere,
}

/// Whether it may be rebuilt now; asked before anything is written.
pub fn check(instance: &Instance) -> Result<()> {
    let name = instance.name();
    if instance.status.state == State::Unknown {
        let message = format!(
            "{name}: its host is not heard from, and may yet come back with the disk; wait for it, or fence it if it is off for \
             certain"
        );
        return Err(Error::precondition(Reason::InstanceUnknown, name, message));
    }
    if instance.spec.disks.is_empty() {
        return Err(Error::invalid("name", format!("{name} has no root disk that could be made anew")));
    }
    Ok(())
}

/// Returns the counter that says when it is done.
pub fn ask(instance: &mut Instance, target: Where) -> i64 {
    match (target, instance.host()) {
        (Where::Elsewhere, Some(host)) => instance.intent.away_from = Some(host.clone()),
        // Any host will do again.
        (Where::Here, None) => instance.intent.away_from = None,
        // One that leaves already leaves.
        (Where::Here, Some(_)) | (Where::Elsewhere, None) => {}
    }
    // The host may know of a later one than a plane that was restored from a backup.
    let made = instance.status.observed.as_ref().map_or(0, |seen| seen.disk_generation);
    instance.intent.disk_generation = instance.intent.disk_generation.max(made) + 1;
    instance.intent.disk_generation
}
