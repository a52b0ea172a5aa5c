//! Which version of control groups?

use super::super::{Check, Found};
use crate::facts::Facts;
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "cgroup",
    looks_at: "where the control groups of version 2 are mounted",
    why: "the agent puts what works on a device into a cgroup of its own, so that nothing of it gets away; that needs version 2",
    worst: Level::Warn,
    role: None,
    look,
};

fn look(facts: &Facts) -> Found {
    let mounts = facts.fs.read("/proc/self/mounts")?;
    let mut points = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let point = fields.next()?;
        (fields.next()? == "cgroup2").then_some(point)
    });
    let fix = "boot with systemd.unified_cgroup_hierarchy=1 (Debian's and Ubuntu's default)";
    Ok(vec![match points.next() {
        Some("/sys/fs/cgroup") => Finding::ok("host", "version 2"),
        Some(point) => Finding::info("host", format!("version 1, and version 2 beside it at {point}"), fix),
        None => Finding::warn("host", "version 1 alone", fix),
    }])
}
