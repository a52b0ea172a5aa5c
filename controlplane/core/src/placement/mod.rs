//! Placement: a snapshot of hosts and a request in, a ranked choice or an explanation out. Pure.
//!
//! [`fit`] asks one host and names the first predicate that fails, and the exact piece when none does; [`rank`] orders
//! those that fit. Admission, `validate_only` and `explain` all come through [`place`], so they cannot disagree.

pub mod device;
pub mod fit;
pub mod rank;
pub mod view;

use serde::{Deserialize, Serialize};

use crate::device::Assignment;
use crate::error::{Error, Result};
use crate::id::HostId;
use crate::instance::{Cpu, Instance, Spec};
use crate::maintenance::Parked;
use crate::meta::Labels;

pub use fit::Predicate;
pub use view::HostView;

/// What is asked of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub vcpus: i64,
    pub memory_mib: i64,
    pub disk_gib: i64,
    pub huge_page_kib: i64,
    pub cpu: Cpu,
    pub host_selector: Labels,
    pub policy: Policy,
    pub devices: device::Wishes,
    /// It becomes a node of a cluster: its seed has files.
    pub joins: bool,
    /// It was rebuilt once: its agent must know the count of its disk.
    pub rebuilt: bool,
    /// Any host but this one.
    pub away_from: Option<HostId>,
}

/// Without what its devices refer to: pools and models come from whoever knows them.
impl From<&Spec> for Request {
    fn from(spec: &Spec) -> Self {
        Self {
            vcpus: spec.vcpus,
            memory_mib: spec.memory_mib,
            disk_gib: spec.disk_gib(),
            huge_page_kib: spec.huge_page_kib,
            cpu: spec.cpu,
            host_selector: spec.host_selector.clone(),
            policy: spec.policy,
            devices: device::Wishes { requests: spec.devices.clone(), ..device::Wishes::default() },
            joins: spec.node.is_some(),
            rebuilt: false,
            away_from: None,
        }
    }
}

impl From<&Instance> for Request {
    fn from(instance: &Instance) -> Self {
        let (rebuilt, away_from) = (instance.intent.disk_generation > 0, instance.intent.away_from.clone());
        Self { rebuilt, away_from, ..Self::from(&instance.spec) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Policy {
    #[default]
    Spread,
    Pack,
}

/// The exact piece: an agent refuses a plan that does not match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    pub host: HostId,
    pub pins: Vec<Pin>,
    /// In the order of the requests.
    pub devices: Vec<Assignment>,
    /// It may not run there for the time being.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked: Option<Parked>,
}

/// A share of one NUMA cell. None at all: floats over the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    pub cell: i32,
    pub vcpus: i64,
    /// Logical CPUs held by this instance alone, one per vCPU; empty: any of the cell.
    pub cpus: Vec<i32>,
    pub memory_mib: i64,
}

/// What one host answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub host: HostId,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// From 1: the best.
    Fits {
        rank: usize,
    },
    Fails {
        predicate: Predicate,
        message: String,
        fix: String,
    },
}

/// The best host and the exact piece of it, or per host the first thing that stands in the way.
pub fn place<'a>(hosts: impl IntoIterator<Item = &'a HostView>, request: &Request) -> Result<Placement> {
    let hosts: Vec<&HostView> = hosts.into_iter().collect();
    let effort = device::Effort::among(hosts.len());
    place_within(hosts, request, &effort)
}

/// As [`place`]; what is asked several times for one request shares the `effort`.
pub fn place_within<'a>(
    hosts: impl IntoIterator<Item = &'a HostView>,
    request: &Request,
    effort: &device::Effort,
) -> Result<Placement> {
    let mut best: Option<(rank::Score, Placement)> = None;
    let mut failures = Vec::new();
    // The most promising first: what cannot be better than what was found is not looked at.
    let mut hosts: Vec<_> = hosts.into_iter().map(|host| (rank::at_best(host, request), host)).collect();
    hosts.sort_by(|(a, _), (b, _)| b.cmp(a));
    for (at_best, host) in hosts {
        if best.as_ref().is_some_and(|(found, _)| *found >= at_best) {
            break;
        }
        match fit::fit(host, request, effort) {
            Ok(placement) => {
                let score = rank::score(host, request, &placement);
                if best.as_ref().is_none_or(|(other, _)| score > *other) {
                    best = Some((score, placement));
                }
            }
            Err(failure) => failures.push((host, failure)),
        }
    }
    match best {
        Some((_, placement)) => Ok(placement),
        None => {
            failures.sort_by(|(a, _), (b, _)| a.id.cmp(&b.id));
            Err(refusal(&failures))
        }
    }
}

/// More devices for an instance that `host` holds already, or what stands in the way there.
pub fn extend(host: &HostView, wishes: &device::Wishes, pins: &[Pin]) -> Result<Vec<Assignment>> {
    fit::extend(host, wishes, pins).map_err(|failure| Error::NoCapacity {
        message: format!("hosts/{}, which has the instance: {}; {}", host.id, failure.message, failure.fix),
        verdicts: vec![verdict(host, &failure)],
    })
}

/// Every host's answer, the best first, then those that do not fit.
#[must_use]
pub fn explain(hosts: &[HostView], request: &Request) -> Vec<Verdict> {
    let (mut fitting, mut failing) = (Vec::new(), Vec::new());
    let effort = device::Effort::among(hosts.len());
    for host in hosts {
        match fit::fit(host, request, &effort) {
            Ok(placement) => fitting.push((rank::score(host, request, &placement), host)),
            Err(failure) => failing.push(verdict(host, &failure)),
        }
    }
    fitting.sort_by(|(a, _), (b, _)| b.cmp(a));
    let ranked = fitting
        .into_iter()
        .enumerate()
        .map(|(at, (_, host))| Verdict { host: host.id.clone(), outcome: Outcome::Fits { rank: at + 1 } });
    ranked.chain(failing).collect()
}

fn verdict(host: &HostView, failure: &fit::Failure) -> Verdict {
    let fit::Failure { predicate, message, fix } = failure.clone();
    Verdict { host: host.id.clone(), outcome: Outcome::Fails { predicate, message, fix } }
}

fn refusal(failures: &[(&HostView, fit::Failure)]) -> Error {
    let unfinished = failures.iter().filter(|(_, failure)| failure.predicate == Predicate::Effort);
    // The host that came furthest explains best.
    let message = match failures.iter().max_by_key(|(_, failure)| failure.predicate) {
        None => "no host is enrolled; enrol one with `croft host enrol-token`".to_owned(),
        // Not that there is none: only that so much searching found none.
        Some((_, failure)) if failure.predicate == Predicate::Effort => format!(
            "no host was found ({} of {} {}); {}",
            unfinished.count(),
            failures.len(),
            failure.message,
            failure.fix
        ),
        Some((host, failure)) => format!(
            "no host fits ({} looked at); closest is hosts/{}: {}; {}",
            failures.len(),
            host.id,
            failure.message,
            failure.fix
        ),
    };
    Error::NoCapacity { message, verdicts: failures.iter().map(|(host, failure)| verdict(host, failure)).collect() }
}
