//! May this look see everything?

use super::super::{Check, Found};
use crate::facts::{Facts, User};
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "privilege",
    looks_at: "whether this ran as root",
    why: "only root sees who has devices open, the ports' ACS, and other guests; without it some dangers stay unseen",
    worst: Level::Warn,
    role: None,
    look,
};

fn look(facts: &Facts) -> Found {
    Ok(vec![match facts.asked.user {
        User::Root => Finding::ok("host", "root: everything could be looked at"),
        User::Other => {
            Finding::warn("host", "not root: some things were not seen", "run it as root: sudo croft host preflight")
        }
    }])
}
