//! Can the control plane be reached from here?

use super::super::{Check, Found};
use crate::facts::Facts;
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "plane",
    looks_at: "with --server: what its name resolves to, and a TCP connection to it",
    why: "the agent dials the control plane; nothing dials the host",
    worst: Level::Fail,
    role: None,
    look,
};

fn look(facts: &Facts) -> Found {
    let Some(plane) = &facts.asked.plane else {
        return Ok(vec![Finding::info("host", "not tried", "name it: croft host preflight --server HOST:PORT")]);
    };
    Ok(vec![match (&plane.addresses, &plane.reached) {
        (Err(why), _) => {
            let fix = "see the name's spelling, /etc/resolv.conf and /etc/hosts; it is HOST:PORT";
            Finding::fail(&plane.server, format!("does not resolve: {why}"), fix)
        }
        (_, Err(why)) => {
            let fix = "start the control plane, or open its port (7443/tcp unless told otherwise) from this host";
            Finding::fail(&plane.server, format!("cannot be reached: {why}"), fix)
        }
        (_, Ok(address)) => Finding::ok(&plane.server, format!("reached at {address}")),
    }])
}
