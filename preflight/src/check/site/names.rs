//! Does the host's own name lead to an address?

use super::super::{Check, Found};
use crate::facts::Facts;
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "names",
    looks_at: "what the host's own name resolves to",
    why: "libvirt, sudo and others ask for it, and wait for a resolver's deadline each time when nobody answers",
    worst: Level::Warn,
    role: None,
    look,
};

fn look(facts: &Facts) -> Found {
    let name = &facts.asked.hostname;
    Ok(vec![match &facts.asked.own_addresses {
        Ok(addresses) => {
            let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            Finding::ok("host", format!("{name} is {}", addresses.join(", ")))
        }
        Err(why) => {
            let fix = format!("a line `127.0.1.1 {name}` in /etc/hosts, or libnss-myhostname");
            Finding::warn("host", format!("{name} does not resolve: {why}"), fix)
        }
    }])
}
