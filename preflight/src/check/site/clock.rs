//! Does something keep the clock right?

use super::super::{Check, Found};
use crate::facts::{Clock, Facts};
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "clock",
    looks_at: "whether the kernel says that its clock is kept synchronised (adjtimex)",
    why: "certificates are valid between two times, with five minutes to spare: a host whose clock is further off is refused",
    worst: Level::Warn,
    role: None,
    look,
};

fn look(facts: &Facts) -> Found {
    Ok(vec![match &facts.asked.clock {
        Clock::Synchronised => Finding::ok("host", "synchronised"),
        Clock::Free => Finding::warn(
            "host",
            "runs free: nothing keeps it right",
            "apt-get install chrony, or timedatectl set-ntp true",
        ),
        Clock::Unknown(why) => {
            Finding::warn("host", format!("not seen: {why}"), "look with timedatectl or chronyc tracking")
        }
    }])
}
