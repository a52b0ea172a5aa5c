//! The machine's place in the world: time, names, the network, room on its disks.

pub(super) mod boot;
pub(super) mod clock;
pub(super) mod disk;
pub(super) mod names;
pub(super) mod plane;
pub(super) mod ports;
