//! Enrolment asks for no credential, and each refusal is a row in the audit log: whoever guesses tokens must not fill
//! the disk. An address that was refused often waits; one whose tokens are good never does.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use croft_core::{Error, Reason, Result};
use tokio::time::Instant;

const BURST: u32 = 10;
const FORGIVE_EVERY: Duration = Duration::from_secs(10);
/// Addresses are cheap to an attacker with IPv6; beyond this many all share one record.
const ADDRESSES_MAX: usize = 4096;

/// Refused enrolments, by address.
#[derive(Debug, Default)]
pub struct Refused(Mutex<HashMap<String, (u32, Instant)>>);

impl Refused {
    pub fn check(&self, peer: &str) -> Result<()> {
        self.check_at(peer, Instant::now())
    }

    pub fn note(&self, peer: &str) {
        self.note_at(peer, Instant::now());
    }

    fn check_at(&self, peer: &str, now: Instant) -> Result<()> {
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = |key: &str| records.get(key).map_or(0, |record| left(record, now));
        let count = match records.contains_key(address(peer)) || records.len() < ADDRESSES_MAX {
            true => refused(address(peer)),
            false => refused(""),
        };
        if count < BURST {
            return Ok(());
        }
        let message = format!("too many refused enrolments from here; try again in {} s", FORGIVE_EVERY.as_secs());
        Err(Error::Unavailable { reason: Reason::Unavailable, message })
    }

    fn note_at(&self, peer: &str, now: Instant) {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if records.len() >= ADDRESSES_MAX {
            records.retain(|_, record| left(record, now) > 0);
        }
        let full = records.len() >= ADDRESSES_MAX && !records.contains_key(address(peer));
        let record = records.entry(if full { String::new() } else { address(peer).to_owned() }).or_insert((0, now));
        *record = (left(record, now).saturating_add(1).min(BURST), now);
    }
}

/// Refusals that are not forgiven yet.
fn left((count, since): &(u32, Instant), now: Instant) -> u32 {
    let forgiven = now.saturating_duration_since(*since).as_secs() / FORGIVE_EVERY.as_secs();
    count.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX))
}

/// Without the port, which is another one each time.
fn address(peer: &str) -> &str {
    peer.rsplit_once(':').map_or(peer, |(address, _)| address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_refused_often_waits_and_nobody_else_does() {
        let refused = Refused::default();
        let start = Instant::now();
        for port in 0..BURST {
            assert!(refused.check_at("[2001:db8::1]:1", start).is_ok());
            refused.note_at(&format!("[2001:db8::1]:{port}"), start);
        }
        assert!(refused.check_at("[2001:db8::1]:9", start).is_err());
        assert!(refused.check_at("192.0.2.1:9", start).is_ok());
        assert!(refused.check_at("[2001:db8::1]:9", start + FORGIVE_EVERY).is_ok());
    }

    #[test]
    fn many_addresses_do_not_fill_the_memory() {
        let refused = Refused::default();
        let start = Instant::now();
        for n in 0..3 * ADDRESSES_MAX {
            refused.note_at(&format!("10.{n}.0.0:1"), start);
        }
        assert!(refused.0.lock().unwrap().len() <= ADDRESSES_MAX + 1);
        assert!(refused.check_at("never seen:1", start).is_err());
        assert!(refused.check_at("never seen:1", start + FORGIVE_EVERY * BURST).is_ok());
    }
}
