//! Whether a guest that ended may stay off, though its instance is to run. Agents decide by the same rule.

use super::{Exit, ExitKind, Instance, Observed, Phase, Restart};

/// It is off by the answer to that start, and nobody starts it again.
#[must_use]
pub fn stays_off(instance: &Instance, seen: &Observed, power_generation: i64) -> bool {
    seen.phase == Phase::Off
        && seen.power_generation >= power_generation
        && rests(instance.intent.restart, seen.exit.as_ref())
}

fn rests(restart: Restart, exit: Option<&Exit>) -> bool {
    match (restart, exit.map(|exit| exit.kind)) {
        // A host's shutdown is not the guest's wish, and neither is what Croft itself ended and wants again.
        (_, None | Some(ExitKind::HostShutdown | ExitKind::Stopped | ExitKind::Killed)) | (Restart::Always, _) => false,
        (Restart::OnFailure, Some(kind)) => kind == ExitKind::GuestPoweroff,
        (Restart::Never, Some(_)) => true,
    }
}
