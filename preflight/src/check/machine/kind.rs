//! A machine of its own, a virtual one, or only a container?

use super::super::{Check, Found};
use crate::facts::Facts;
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "machine",
    looks_at: "namespaces of process 1 and of this program, the CPU's hypervisor flag, which program process 1 is",
    why: "the agent changes devices, cgroups and the network of the whole machine, and runs as a unit of systemd",
    worst: Level::Fail,
    role: None,
    look,
};

/// The kernel numbers the first namespace of each kind always the same (`PROC_PID_INIT_INO`, `PROC_USER_INIT_INO`).
const FIRST: [(&str, &str); 2] = [("pid", "pid:[4026531836]"), ("user", "user:[4026531837]")];

fn look(facts: &Facts) -> Found {
    for (kind, first) in FIRST {
        let own = facts.fs.link(&format!("/proc/self/ns/{kind}"));
        if own.is_ok_and(|own| own.to_string_lossy() != first) {
            let found = format!("a container: it has a {kind} namespace of its own");
            let fix = "run it on the machine itself, outside the container";
            return Ok(vec![Finding::fail("host", found, fix)]);
        }
    }
    let virtual_ = facts.cpu_flags()?.iter().any(|flag| flag == "hypervisor");
    let mut findings = vec![match virtual_ {
        false => Finding::ok("host", "a machine of its own"),
        true => Finding::info("host", "a virtual machine", "nothing, if that is meant: for trying Croft out it does")
            .because("guests run nested in it, and of devices they get what was passed to it, where its IOMMU is virtual too"),
    }];
    let first = facts.fs.attribute("/proc/1/comm")?;
    if first != "systemd" {
        let found = format!("process 1 is {first}, not systemd");
        findings.push(Finding::warn("host", found, "boot it with systemd, or start croft-hostagent by other means"));
    }
    Ok(findings)
}
