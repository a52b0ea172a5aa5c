//! Which of a cluster's requests for certificates a pass deals with.
//!
//! Whoever has a token or a certificate sends any number of requests under any names. So each machine has its share of the
//! answers, machines that are no more come last, and what one owner sends beyond all reason goes without an answer.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use croft_core::id::InstanceUid;
use croft_core::instance::Instance;
use croft_core::join::cluster::{Signing, Stage};

/// A pass; the others wait for the next one.
const ANSWERS: usize = 200;
/// Of those, one owner's.
const SHARE: usize = 5;
/// Of one owner's that wait. A kubelet has one or two, and after each loss of power another one.
const WAITING: usize = 20;
/// Of one owner's, for people who look with kubectl.
const DENIED: usize = 3;

/// With whose it is; `None`: of a machine that is no more.
pub(super) type Owned<'a> = (Option<&'a Instance>, Signing);

#[derive(Debug, Default)]
pub(super) struct Queue<'a> {
    /// In this order.
    pub answer: Vec<Owned<'a>>,
    /// Goes without an answer.
    pub surplus: Vec<Owned<'a>>,
    /// Was answered, and stays for a while.
    pub answered: Vec<Owned<'a>>,
    /// Was denied, and there are enough of these.
    pub stale: Vec<Signing>,
}

/// Nothing of others: all of these are Croft's to answer.
pub(super) fn plan(all: Vec<Owned<'_>>) -> Queue<'_> {
    let mut owners: BTreeMap<(bool, Option<InstanceUid>), Vec<Owned<'_>>> = BTreeMap::new();
    for one in all {
        let uid = one.0.map(|instance| instance.uid);
        owners.entry((uid.is_none(), uid)).or_default().push(one);
    }
    let mut queue = Queue::default();
    let mut shares = Vec::new();
    for mut of_one in owners.into_values() {
        // The newest is the one that its kubelet waits for.
        of_one.sort_by_key(|(_, signing)| Reverse(signing.created));
        let (open, answered): (Vec<_>, Vec<_>) =
            of_one.into_iter().partition(|(_, signing)| signing.stage == Stage::Open);
        let mut open = open.into_iter();
        shares.push(open.by_ref().take(SHARE).collect::<Vec<_>>().into_iter());
        queue.surplus.extend(open.skip(WAITING - SHARE));
        let mut denied = 0;
        for one in answered {
            denied += usize::from(one.1.stage == Stage::Denied);
            if one.1.stage == Stage::Denied && denied > DENIED {
                queue.stale.push(one.1);
            } else {
                queue.answered.push(one);
            }
        }
    }
    // One of each, then the next of each.
    for _ in 0..SHARE {
        queue.answer.extend(shares.iter_mut().filter_map(Iterator::next));
    }
    queue.answer.truncate(ANSWERS);
    queue
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use croft_core::Timestamp;
    use croft_core::join::csr::Request;

    use super::*;
    use crate::bed::joining;

    fn signing(name: &str, stage: Stage, at: i64) -> Signing {
        let words = BTreeSet::new;
        let (signer, username) = (String::new(), String::new());
        Signing {
            name: name.to_owned(),
            uid: name.to_owned(),
            resource_version: String::new(),
            created: Some(Timestamp(at)),
            stage,
            request: Request { signer, username, groups: words(), usages: words(), subject: None },
        }
    }

    fn many<'a>(of: Option<&'a Instance>, name: &str, stage: Stage, count: i64) -> Vec<Owned<'a>> {
        (0..count).map(|n| (of, signing(&format!("{name}-{n}"), stage, n))).collect()
    }

    fn names(of: &[Owned<'_>]) -> Vec<String> {
        of.iter().map(|(_, signing)| signing.name.clone()).collect()
    }

    #[test]
    fn who_sends_thousands_takes_nobodys_turn() {
        let (loud, honest) = (joining("loud"), joining("honest"));
        let mut all = many(None, "0-nobody", Stage::Open, 1000);
        all.extend(many(Some(&loud), "a-loud", Stage::Open, 1000));
        all.extend(many(Some(&honest), "z-honest", Stage::Open, 1));
        let queue = plan(all);
        let answered = names(&queue.answer);
        assert_eq!(answered.len(), 11);
        assert!(answered[..2].contains(&"z-honest-0".to_owned()), "{answered:?}");
        assert_eq!(answered[2], "0-nobody-999", "the newest, after those of machines");
        assert_eq!(queue.surplus.len(), 2 * 980);
        assert!(names(&queue.surplus).contains(&"a-loud-979".to_owned()), "the older ones");
    }

    #[test]
    fn many_machines_at_once_have_one_answer_each_before_any_has_two() {
        let fleet: Vec<Instance> = (0..ANSWERS).map(|n| joining(&format!("vm-{n}"))).collect();
        let all = fleet.iter().flat_map(|vm| many(Some(vm), &vm.id, Stage::Open, 3)).collect();
        let queue = plan(all);
        let served: BTreeSet<_> = queue.answer.iter().map(|(vm, _)| vm.unwrap().uid).collect();
        assert_eq!((queue.answer.len(), served.len()), (ANSWERS, ANSWERS));
        assert_eq!(queue.surplus.len(), 0);
    }

    #[test]
    fn a_few_that_were_denied_stay_to_be_looked_at() {
        let vm = joining("vm");
        let mut all = many(Some(&vm), "denied", Stage::Denied, 10);
        all.extend(many(Some(&vm), "issued", Stage::Issued, 10));
        let queue = plan(all);
        assert_eq!((queue.stale.len(), queue.answered.len()), (7, 13));
        assert!(names(&queue.answered).contains(&"denied-9".to_owned()), "the newest");
    }
}
