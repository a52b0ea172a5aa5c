//! What is written down of denied requests: the first few of a kind one by one, then one row an hour, however many there are.
//!
//! Audit log and events are kept for a year, and whoever may send requests, or owns the API server, invents any number of them,
//! and of names for who asks. A request that is denied again (the cluster did not take the answer) is the same one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use croft_core::Timestamp;
use croft_store::Denied;

const AGAIN: Duration = Duration::from_secs(60 * 60);
/// Of a kind, until there was none of it for that long: somebody who tries this and that is told of each.
const FEW: usize = 5;
/// A pass, of all kinds together; what is not written down yet is not answered yet.
const ROWS: usize = 10;

/// Whoever is not known is one.
type Kind = (Option<String>, &'static str);

#[derive(Debug, Default)]
pub(super) struct Denials {
    /// Of requests that were counted.
    counted: BTreeSet<String>,
    kinds: BTreeMap<Kind, Told>,
}

#[derive(Debug, Default)]
struct Told {
    at: Option<Timestamp>,
    rows: usize,
    /// To be told one by one.
    each: Vec<Denied>,
    /// What came on top of these, as one.
    rest: Option<Denied>,
}

impl Told {
    fn note(&mut self, denied: Denied) {
        match &mut self.rest {
            _ if self.rows + self.each.len() < FEW => self.each.push(denied),
            Some(rest) => rest.more += 1,
            none => *none = Some(denied),
        }
    }

    fn due(&self, now: Timestamp) -> impl Iterator<Item = &Denied> {
        let again = self.at.is_none_or(|at| now.since(at) >= AGAIN);
        self.each.iter().chain(self.rest.iter().filter(move |_| again))
    }

    fn wrote(&mut self, row: &Denied, now: Timestamp) {
        match self.each.iter().position(|one| one.request == row.request) {
            Some(at) => drop(self.each.remove(at)),
            None => self.rest = None,
        }
        (self.at, self.rows) = (Some(now), self.rows + 1);
    }
}

fn kind(denied: &Denied) -> Kind {
    (denied.instance.as_ref().map(|_| denied.requester.clone()), denied.reason)
}

impl Denials {
    /// `uid`: of the request.
    pub fn note(&mut self, uid: &str, denied: Denied) {
        if !self.counted.insert(uid.to_owned()) {
            return;
        }
        self.kinds.entry(kind(&denied)).or_default().note(denied);
    }

    /// To be written now: machines that are known first.
    pub fn due(&self, now: Timestamp) -> Vec<Denied> {
        let (known, others): (Vec<_>, Vec<_>) = self.kinds.iter().partition(|((requester, _), _)| requester.is_some());
        known.into_iter().chain(others).flat_map(|(_, told)| told.due(now)).take(ROWS).cloned().collect()
    }

    pub fn wrote(&mut self, rows: &[Denied], now: Timestamp) {
        for row in rows {
            self.kinds.entry(kind(row)).or_default().wrote(row, now);
        }
    }

    /// Whether one like this has to be written down before it is answered.
    pub fn owes(&self, denied: &Denied, now: Timestamp) -> bool {
        self.kinds.get(&kind(denied)).is_some_and(|told| told.due(now).next().is_some())
    }

    /// `listed`: the requests that the cluster still keeps.
    pub fn forget(&mut self, listed: &BTreeSet<&str>, now: Timestamp) {
        self.counted.retain(|uid| listed.contains(uid.as_str()));
        let rests = |told: &Told| told.each.is_empty() && told.rest.is_none();
        self.kinds.retain(|_, told| !rests(told) || told.at.is_some_and(|at| now.since(at) < AGAIN));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

    fn denied(known: bool, requester: &str, reason: &'static str) -> Denied {
        Denied {
            instance: known.then(|| ("acme".into(), "vm".to_owned())),
            cluster: "clusters/prod".to_owned(),
            requester: requester.to_owned(),
            request: "csr-1".to_owned(),
            more: 0,
            reason,
            message: String::new(),
        }
    }

    fn pass(denials: &mut Denials, now: Timestamp) -> Vec<Denied> {
        let rows = denials.due(now);
        denials.wrote(&rows, now);
        rows
    }

    #[test]
    fn of_an_invented_crowd_the_first_few_have_rows_and_the_rest_one_an_hour() {
        let mut denials = Denials::default();
        let crowd = |denials: &mut Denials, name: &str| {
            for n in 0..500 {
                let request = format!("{name}{n}");
                let one = denied(false, &format!("system:bootstrap:{n}"), "InstanceGone");
                denials.note(&request.clone(), Denied { request, ..one });
            }
        };
        crowd(&mut denials, "a");
        let rows = pass(&mut denials, NOW);
        assert_eq!(rows.iter().map(|row| row.more).collect::<Vec<_>>(), [0, 0, 0, 0, 0, 494]);
        let soon = NOW.plus(Duration::from_secs(600));
        crowd(&mut denials, "b");
        assert_eq!(pass(&mut denials, soon), []);
        assert!(!denials.owes(&denied(false, "x", "InstanceGone"), soon), "it is answered all the same");
        let rows = pass(&mut denials, NOW.plus(AGAIN));
        assert_eq!((rows.len(), rows[0].more), (1, 499), "what was not told is counted");
    }

    #[test]
    fn a_request_that_cannot_be_answered_is_counted_once() {
        let mut denials = Denials::default();
        for _ in 0..5 {
            denials.note("a", denied(true, "system:node:vm", "WrongSan"));
        }
        // Asked twice, since the store may not have taken it: nothing is lost.
        assert_eq!(denials.due(NOW).len(), 1);
        assert_eq!(pass(&mut denials, NOW).len(), 1);
        denials.forget(&["a"].into(), NOW);
        denials.note("a", denied(true, "system:node:vm", "WrongSan"));
        assert_eq!(pass(&mut denials, NOW.plus(AGAIN)), []);
    }

    #[test]
    fn each_machine_and_reason_has_its_row_before_it_is_answered() {
        let mut denials = Denials::default();
        denials.note("z", denied(false, "system:bootstrap:x", "InstanceGone"));
        for n in 0..15 {
            denials.note(&format!("{n}"), denied(true, &format!("system:node:vm-{n:02}"), "WrongName"));
        }
        let first = pass(&mut denials, NOW);
        assert_eq!((first.len(), first.iter().all(|row| row.instance.is_some())), (ROWS, true));
        assert!(denials.owes(&denied(true, "system:node:vm-14", "WrongName"), NOW), "not answered yet");
        assert!(!denials.owes(&denied(true, "system:node:vm-00", "WrongName"), NOW));
        assert_eq!(pass(&mut denials, NOW).len(), 6);
    }

    #[test]
    fn nothing_is_remembered_for_ever() {
        let mut denials = Denials::default();
        denials.note("a", denied(true, "system:node:vm", "WrongName"));
        pass(&mut denials, NOW);
        denials.forget(&BTreeSet::new(), NOW.plus(AGAIN));
        assert!(denials.counted.is_empty() && denials.kinds.is_empty());
    }
}
