//! How much searching one request is worth. The placer serves everybody in turn: a request that is made to be hard must not
//! keep the others waiting, on however many hosts it is tried.

use std::cell::Cell;

use super::super::fit::{Failure, Predicate};

/// Devices that are looked at, and pieces of them that are weighed, for one request on all hosts: each is about a microsecond.
const LOOKS: usize = 32_000;

/// Hosts that a hard request is tried on in many ways; on the others it is tried in one.
const SHARES: usize = 16;

/// What is left of it. Spent, what was found so far is the answer; without any, nobody says that it is impossible.
#[derive(Debug)]
pub struct Effort {
    left: Cell<usize>,
    shares: usize,
}

impl Default for Effort {
    /// For one host.
    fn default() -> Self {
        Self::among(1)
    }
}

impl Effort {
    /// For so many hosts.
    #[must_use]
    pub fn among(hosts: usize) -> Self {
        Self { left: Cell::new(LOOKS), shares: hosts.clamp(1, SHARES) }
    }

    /// `false`: spent.
    pub(super) fn spend(&self, looks: usize) -> bool {
        let left = self.left.get().checked_sub(looks.max(1));
        self.left.set(left.unwrap_or(0));
        left.is_some()
    }

    pub(super) fn left(&self) -> usize {
        self.left.get()
    }

    /// How little may be left when one host has had its turn: the hard one that comes first leaves something for the easy one
    /// behind it.
    pub(super) fn turn(&self) -> usize {
        self.left() - self.left() / self.shares
    }
}

pub(super) fn spent() -> Failure {
    Failure {
        predicate: Predicate::Effort,
        message: "not searched to the end: so many pieces can be arranged in too many ways".to_owned(),
        fix: "ask for fewer devices in one instance, or for fewer hosts (`--host-selector`)".to_owned(),
    }
}
