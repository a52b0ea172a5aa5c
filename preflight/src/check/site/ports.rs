//! Who listens where the agent and libvirt's dnsmasq will?

use croft_gpu::FsError;

use super::super::{Check, Found};
use crate::facts::Facts;
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "ports",
    looks_at: "who listens on 9644/tcp (the agent's metrics), and on 53 and 67/udp of every address",
    why: "the agent does not start where its port is taken, and dnsmasq of a tenant's network not where all addresses are",
    worst: Level::Fail,
    role: None,
    look,
};

const METRICS: u16 = 9644;

/// A socket in `/proc/net`: its own end, and the number by which its process holds it.
struct Socket {
    port: u16,
    every_address: bool,
    inode: String,
}

fn look(facts: &Facts) -> Found {
    let mut findings = Vec::new();
    if let Some(socket) = sockets(facts, "tcp", LISTEN)?.into_iter().find(|socket| socket.port == METRICS) {
        let owner = owner(facts, &socket.inode)?;
        if owner.as_deref().is_some_and(|owner| owner.starts_with("croft-hostagen")) {
            findings.push(Finding::ok("host", format!("{METRICS}/tcp is the agent's own")));
        } else {
            let who = owner.map_or("somebody else".to_owned(), |owner| format!("process {owner}"));
            let fix = format!("stop it (ss -ltnp 'sport = :{METRICS}'), or --metrics-listen ADDR of the agent");
            findings.push(Finding::fail("host", format!("{METRICS}/tcp is taken by {who}"), fix));
        }
    }
    for port in [53, 67] {
        // An unconnected UDP socket is in state 7.
        let taken = sockets(facts, "udp", "07")?.into_iter().find(|socket| socket.port == port && socket.every_address);
        if let Some(socket) = taken {
            let who = owner(facts, &socket.inode)?.unwrap_or_else(|| "somebody".to_owned());
            let fix =
                "let it listen on its own addresses only (dnsmasq: bind-dynamic; named, unbound: an interface list)";
            findings.push(Finding::warn("host", format!("{who} listens on {port}/udp of every address"), fix));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok("host", format!("{METRICS}/tcp, 53/udp and 67/udp are free")));
    }
    Ok(findings)
}

const LISTEN: &str = "0A";

fn sockets(facts: &Facts, protocol: &str, state: &str) -> Result<Vec<Socket>, FsError> {
    let mut found = Vec::new();
    for file in [format!("/proc/net/{protocol}"), format!("/proc/net/{protocol}6")] {
        let table = facts.attribute(&file)?.unwrap_or_default();
        found.extend(table.lines().skip(1).filter_map(|line| parse(line, state)));
    }
    Ok(found)
}

/// `0: 0100007F:25AC 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 12345 …`
fn parse(line: &str, state: &str) -> Option<Socket> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let (address, port) = fields.get(1)?.split_once(':')?;
    let socket = Socket {
        port: u16::from_str_radix(port, 16).ok()?,
        every_address: address.bytes().all(|digit| digit == b'0'),
        inode: (*fields.get(9)?).to_owned(),
    };
    (*fields.get(3)? == state).then_some(socket)
}

/// `croft-hostagent (pid 812)`; `None`: not seen. The kernel keeps 15 bytes of a name.
fn owner(facts: &Facts, inode: &str) -> Result<Option<String>, FsError> {
    let socket = format!("socket:[{inode}]");
    for pid in facts.names("/proc")?.iter().filter(|name| name.parse::<u32>().is_ok()) {
        // Other people's, and of processes that ended meanwhile, are not shown.
        let open = facts.fs.links(&format!("/proc/{pid}/fd")).unwrap_or_default();
        if open.iter().any(|(_, target)| target.to_string_lossy() == socket) {
            let name = facts.attribute(&format!("/proc/{pid}/comm"))?.unwrap_or_default();
            return Ok(Some(format!("{name} (pid {pid})")));
        }
    }
    Ok(None)
}
