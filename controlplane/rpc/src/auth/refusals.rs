//! Audit rows for callers that nobody knows. Each refused call leaves one; a flood of them must not fill the disk.
//!
//! The first [`BURST`] have a row each, and from then on one a minute; what comes between is counted, and a row a minute
//! says how many there were. So a year of flood is a million rows at most, and a quiet night shows every attempt.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use croft_core::audit::AuditEntry;
use tokio::time::Instant;
use tonic::Code;

use crate::api::Api;
use crate::caller::Caller;
use crate::mutation;

const BURST: u32 = 60;
const REFILL: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub struct Refusals(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Rows taken from the bucket and not yet given back by time.
    spent: u32,
    refilled: Option<Instant>,
    /// Calls without a row of their own.
    counted: u64,
    summary_due: bool,
}

/// What becomes of one refused call.
#[derive(Debug, PartialEq, Eq)]
enum Row {
    Own,
    /// Counted; the caller schedules the summary.
    First,
    Counted,
}

impl Refusals {
    fn take(&self, now: Instant) -> Row {
        let mut state = self.lock();
        let since = now.saturating_duration_since(*state.refilled.get_or_insert(now));
        let back = u32::try_from(since.as_secs() / REFILL.as_secs()).unwrap_or(u32::MAX);
        if back > 0 {
            state.spent = state.spent.saturating_sub(back);
            state.refilled = Some(now);
        }
        if state.spent < BURST {
            state.spent += 1;
            return Row::Own;
        }
        state.counted += 1;
        if std::mem::replace(&mut state.summary_due, true) { Row::Counted } else { Row::First }
    }

    fn summary(&self) -> u64 {
        let mut state = self.lock();
        state.summary_due = false;
        std::mem::take(&mut state.counted)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does not keep the refused caller waiting for the disk, nor the disk busy for him.
pub fn note(api: &Api, caller: Caller, message: String) {
    let row = api.refusals.take(Instant::now());
    if row == Row::Counted {
        return;
    }
    let api = api.clone();
    tokio::spawn(async move {
        let entry = mutation::audit_entry(&api, &caller, Code::Unauthenticated, &message);
        if row == Row::Own {
            return mutation::append(&api, entry).await;
        }
        tokio::select! {
            () = tokio::time::sleep(REFILL) => {}
            () = api.deps.shutdown.cancelled() => {}
        }
        let message = format!("{} more calls without a good credential", api.refusals.summary());
        let summary = AuditEntry { message, method: "*".to_owned(), peer: String::new(), ..entry };
        mutation::append(&api, summary).await;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_a_quiet_night_is_told_in_full() {
        let refusals = Refusals::default();
        let start = Instant::now();
        let own = (0..1000).filter(|_| refusals.take(start) == Row::Own).count();
        assert_eq!(own, 60);
        assert_eq!(refusals.summary(), 940);
        assert_eq!(refusals.take(start + REFILL), Row::Own);
        assert_eq!(refusals.take(start + REFILL), Row::First);
        assert_eq!(refusals.take(start + REFILL), Row::Counted);
        assert_eq!(refusals.summary(), 2);
        let quiet = Refusals::default();
        let all = (0..600).all(|n| quiet.take(start + n * REFILL) == Row::Own);
        assert!(all);
    }
}
