//! How much going back one request is worth. The placer serves everybody in turn: a request that is made to be hard must not
//! keep the others waiting, on however many hosts it is tried.

use std::cell::Cell;

/// Looks at devices, each some microseconds, that one request may cost beyond the first way down on each host.
const LOOKS: usize = 4_000;

/// What is left of it. Spent, the answer is the honest "no" of what was tried.
#[derive(Debug)]
pub struct Effort {
    left: Cell<usize>,
}

impl Default for Effort {
    fn default() -> Self {
        Self { left: Cell::new(LOOKS) }
    }
}

impl Effort {
    /// `false`: spent.
    pub(super) fn spend(&self, looks: usize) -> bool {
        let left = self.left.get().checked_sub(looks.max(1));
        self.left.set(left.unwrap_or(0));
        left.is_some()
    }
}
