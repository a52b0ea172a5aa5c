//! What keeps one guest's devices out of another's memory.

pub(super) mod acs;
pub(super) mod group;
pub(super) mod mode;
pub(super) mod on;
pub(super) mod remapping;
