//! The machine itself, whatever is plugged in.

pub(super) mod cgroup;
pub(super) mod huge_pages;
pub(super) mod kind;
pub(super) mod kvm;
pub(super) mod lockdown;
pub(super) mod nested;
pub(super) mod privilege;
pub(super) mod secure_boot;
