//! What becomes of a node without its cluster: it cannot be spoken to, or it answers and refuses what the node needs.
//!
//! What is wanted waits. What is not goes on where it can: what never had a token leaves, what is to stop is stopped after the
//! time that a drain may take (its Node is deleted when the cluster lets Croft), and what is deleted with force leaves its Node
//! behind.

use super::*;

/// A step that needs no cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Without {
    Enter(Phase),
    /// Its pods were to be told to go, and that is all that can be done for them.
    Drains(Way),
    /// The host may stop it; its Node stays for now.
    Release,
    /// It has left as far as Croft goes: its Node and its token may still be there.
    Abandon,
}

/// `since`: since when nobody could ask.
#[must_use]
pub fn away(node: &Node, guest: Guest, since: Timestamp, now: Timestamp) -> Option<Without> {
    let has_left = node.phase == Phase::Left && node.token.is_none();
    if guest.wanted || has_left {
        return None;
    }
    if guest.forced {
        return Some(Without::Abandon);
    }
    match node.phase {
        Phase::Waiting if node.token.is_none() && !node.lost => Some(Without::Enter(Phase::Left)),
        Phase::Waiting | Phase::Booting | Phase::Missed | Phase::Joined => Some(Without::Enter(Phase::Leaving)),
        Phase::Leaving => {
            let spent = now.since(since.max(node.phase_time));
            // What leaves to be rebuilt is in no hurry: that begins when it can be drained.
            (!guest.rebuilt && !node.released && spent > DRAIN_DEADLINE).then_some(Without::Release)
        }
        Phase::Left => None,
    }
}

/// The cluster answers, and refuses something: the drain counts all the same, and [`next`] tries what is left to try.
#[must_use]
pub fn refused(node: &Node, guest: Guest, now: Timestamp) -> Option<Without> {
    let leaves = node.phase == Phase::Leaving && !guest.wanted && !guest.forced;
    match node.drain {
        None if leaves => Some(Without::Drains(if guest.off { Way::LetGo } else { Way::Evicted })),
        drain => away(node, guest, drain.map_or(node.phase_time, |drain| drain.since), now),
    }
}
