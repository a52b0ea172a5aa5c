//! Keeping nodes well: what is done about a machine because its node is not well, and when that would do more harm than good.
//! Pure; looks at all nodes of a cluster at once, since what many of them have is no machine's fault.
//!
//! ```text
//!  Ready ──► not Ready, and its VM runs ── 10 min ──► restarted ── 20 min ──► rebuilt ── 40 min ──► elsewhere ──► … six times in a day
//!  no Node in time (MISSED) ── 10 min ──┘   └─ at most a tenth of the cluster at once, nobody while more than 40 % are not well
//! ```
//! The ladder ends where its user says; the rungs that lose the disk are gone twice in a day at the most, and after that it is
//! restarted. *Not seen* is never *not well*: time counts only while the cluster answered for the node ([`Sight`]) and the host
//! said that the guest runs. A silent host, a guest that is off, a Node that somebody deleted: nothing is done about them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::machine::{Guest, JOIN_DEADLINE, Node, Phase, told, wanted};
use crate::Timestamp;
use crate::id::InstanceUid;
use crate::instance::rebuild::{self, Where};
use crate::instance::{Instance, Phase as GuestPhase, State};

/// A reboot of the guest's own, with all that a large machine tests at its start, is over by then.
pub const UNWELL_AFTER: Duration = Duration::from_secs(600);
/// What a restarted machine gets to be Ready again; doubled with each restart of the last day.
pub const PATIENCE: Duration = JOIN_DEADLINE;
pub const PER_DAY: usize = 6;
/// Of these, those that lose the disk.
pub const DISKS_PER_DAY: usize = 2;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Of a cluster's nodes: how many may be in a remedy at once, and how many may be not well before nothing is done. One is
/// always allowed, or a small cluster would never be looked after.
const AT_ONCE_PERCENT: usize = 10;
const UNWELL_PERCENT: usize = 40;

/// The highest remedy that a user allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Repair {
    #[default]
    None,
    Restart,
    Rebuild,
    Replace,
}

/// A rung of the ladder, the lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remedy {
    /// The reset button: the guest boots again from its disk.
    Restart,
    /// Another root disk.
    Rebuild,
    /// The same on another host.
    Replace,
}

impl Repair {
    fn highest(self) -> Option<Remedy> {
        match self {
            Self::None => None,
            Self::Restart => Some(Remedy::Restart),
            Self::Rebuild => Some(Remedy::Rebuild),
            Self::Replace => Some(Remedy::Replace),
        }
    }
}

/// Since when the cluster has answered for each node without a gap. One that is not here is not seen.
pub type Sight = BTreeMap<InstanceUid, Timestamp>;

/// What is done about a node that is not well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Do(Remedy),
    HeldBack(HeldBack),
}

/// Why nothing is done about a node that is not well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum HeldBack {
    /// Too many nodes of the cluster are not well.
    Storm,
    /// Others have their turn.
    Turn,
    /// It had all remedies of a day.
    Spent,
}

impl HeldBack {
    #[must_use]
    pub fn words(self) -> String {
        match self {
            Self::Storm => format!(
                "nothing is done about it: more than {UNWELL_PERCENT} % of the nodes that Croft has in this cluster are not well, so \
                 something else is wrong"
            ),
            Self::Turn => "nothing is done about it yet: it waits until others of its cluster are back".to_owned(),
            Self::Spent => format!("nothing is done about it any more: {PER_DAY} times within a day did not help"),
        }
    }
}

/// Of a node and its machine, what matters here.
#[derive(Debug, Clone, Copy)]
pub struct Kept<'a> {
    pub uid: InstanceUid,
    pub node: &'a Node,
    pub repair: Repair,
    /// It should run.
    pub wanted: bool,
    /// Its host is heard from and says that the guest runs, and that everything it was told is done.
    pub runs: bool,
    /// It is off, and nobody is about to start it.
    pub off: bool,
    /// Since when `runs` is as it is, and nothing was asked of it by its user.
    pub since: Timestamp,
}

impl<'a> Kept<'a> {
    /// `None`: it is to be no node.
    #[must_use]
    pub fn of(instance: &'a Instance) -> Option<Self> {
        let (node, wish) = (instance.node.as_ref()?, instance.spec.node.as_ref()?);
        let (status, intent) = (&instance.status, &instance.intent);
        let caught_up = |seen: &crate::instance::Observed| {
            seen.phase == GuestPhase::Running
                && seen.power_generation >= intent.power_generation
                && seen.reboot_generation >= intent.reboot_generation
                && seen.reset_generation >= intent.reset_generation
                && seen.disk_generation >= intent.disk_generation
        };
        let guest = Guest::of(instance);
        Some(Self {
            uid: instance.uid,
            node,
            repair: wish.repair,
            wanted: wanted(instance),
            runs: status.state == State::Running && status.observed.as_ref().is_some_and(caught_up),
            off: guest.off,
            since: status.state_time.max(instance.meta.update_time),
        })
    }

    /// Whether it is one of the cluster's nodes, well or not. A Node that somebody deleted is his matter, a guest that powered
    /// itself off is off.
    fn counts(&self, now: Timestamp) -> bool {
        let there = match self.node.phase {
            Phase::Joined => self.node.reason != told::NODE_MISSING && !self.off,
            Phase::Missed => !self.off,
            // It was restarted because it had missed it.
            Phase::Booting => is_in_repair(self.node, now) && !self.off,
            // It leaves, and is off, to be rebuilt.
            Phase::Waiting | Phase::Leaving | Phase::Left => is_in_repair(self.node, now),
        };
        self.wanted && there
    }

    /// Since when; whether for long enough or not. One that is new has the time that a join may take.
    fn unwell_since(&self, now: Timestamp) -> Option<Timestamp> {
        let node = self.node;
        match node.phase {
            Phase::Joined if node.ready => None,
            Phase::Joined if was_ready(node) => Some(node.ready_time),
            Phase::Joined => (now.since(node.phase_time) > JOIN_DEADLINE).then_some(node.phase_time),
            Phase::Missed | Phase::Booting | Phase::Waiting | Phase::Leaving | Phase::Left => Some(node.phase_time),
        }
    }

    /// The lowest rung that was not tried in the last day, and none that is not allowed. One that needs another disk than it may have
    /// is a restart.
    fn remedy(&self, now: Timestamp) -> Option<Remedy> {
        let highest = self.repair.highest()?;
        let next = match (recent(&self.node.repairs, now), recent(&self.node.rebuilds, now)) {
            (0, _) | (_, DISKS_PER_DAY..) => Remedy::Restart,
            (1, _) => Remedy::Rebuild,
            _ => Remedy::Replace,
        };
        Some(next.min(highest))
    }

    /// Since when something could have been done, if that is long enough.
    fn due_since(&self, sight: &Sight, now: Timestamp) -> Option<Timestamp> {
        let seen = *sight.get(&self.uid)?;
        let said = match self.node.phase {
            Phase::Joined => {
                [told::NODE_NOT_READY, told::NODE_SILENT, told::NODE_NEVER_READY].contains(&self.node.reason.as_str())
            }
            phase => phase == Phase::Missed,
        };
        if !self.counts(now) || !self.runs || !said {
            return None;
        }
        let since = self.unwell_since(now)?.max(seen).max(self.since);
        (now.since(since) >= UNWELL_AFTER).then_some(since)
    }
}

/// What is done about each that is not well; nothing is said of the others, and of those who have their time still.
#[must_use]
pub fn look<'a>(fleet: &'a [Kept<'a>], sight: &Sight, now: Timestamp) -> BTreeMap<InstanceUid, Verdict> {
    let nodes: Vec<&'a Kept<'a>> = fleet.iter().filter(|one| one.counts(now)).collect();
    let share = |percent: usize| (nodes.len() * percent / 100).max(1);
    let unwell = nodes.iter().filter(|one| one.unwell_since(now).is_some()).count();
    let mut in_repair = nodes.iter().filter(|one| is_in_repair(one.node, now)).count();
    let times = |one: &Kept<'_>| recent(&one.node.repairs, now);
    let due = |one: &&'a Kept<'a>| Some((times(one), one.due_since(sight, now)?, one.remedy(now)?, one.uid, one.node));
    let mut due: Vec<_> = nodes.iter().filter_map(due).collect();
    // One whom nothing helps does not take the turns of others.
    due.sort_unstable_by_key(|(times, since, _, uid, _)| (*times, *since, *uid));
    let mut verdicts = BTreeMap::new();
    for (times, _, remedy, uid, node) in due {
        let verdict = match times {
            PER_DAY.. => Verdict::HeldBack(HeldBack::Spent),
            _ if has_time(node, times, now) => continue,
            _ if unwell > share(UNWELL_PERCENT) => Verdict::HeldBack(HeldBack::Storm),
            _ if in_repair >= share(AT_ONCE_PERCENT) => Verdict::HeldBack(HeldBack::Turn),
            _ => {
                in_repair += 1;
                Verdict::Do(remedy)
            }
        };
        verdicts.insert(uid, verdict);
    }
    verdicts
}

/// Writes it into the intent. One that missed its join gets another go, with a token.
pub fn apply(instance: &mut Instance, remedy: Remedy, now: Timestamp) {
    let Some(node) = &mut instance.node else { return };
    note(node, remedy, now);
    match remedy {
        Remedy::Restart => instance.intent.reset_generation += 1,
        Remedy::Rebuild => drop(rebuild::ask(instance, Where::Here)),
        Remedy::Replace => drop(rebuild::ask(instance, Where::Elsewhere)),
    }
    instance.meta.generation += 1;
}

fn note(node: &mut Node, remedy: Remedy, now: Timestamp) {
    for times in [&mut node.repairs, &mut node.rebuilds] {
        times.retain(|time| now.since(*time) < DAY);
    }
    node.repairs.push(now);
    node.held_back = None;
    if remedy > Remedy::Restart {
        node.rebuilds.push(now);
    } else if node.phase == Phase::Missed {
        node.enter(Phase::Booting, now);
        (node.reason, node.message) = (String::new(), String::new());
    }
}

/// For people, of a node about which this is about to be done.
#[must_use]
pub fn words(node: &Node, remedy: Remedy, now: Timestamp) -> String {
    let (name, times) = (&node.name, recent(&node.repairs, now) + 1);
    let what = match remedy {
        Remedy::Restart => "restarted in place",
        Remedy::Rebuild => "rebuilt with a new root disk, when its node has left",
        Remedy::Replace => "rebuilt on another host, when its node has left",
    };
    let since = match node.phase {
        Phase::Joined if was_ready(node) => node.ready_time,
        _ => node.phase_time,
    };
    let minutes = now.since(since).as_secs() / 60;
    let why = match (node.reason.as_str(), node.message.as_str()) {
        (reason, "") => reason.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    };
    format!(
        "node {name} has not been well for {minutes} min ({why}), and its VM runs: it is {what}; time {times} of {PER_DAY} \
         in a day"
    )
}

/// Something was done about it, and it has its time to come back; with another disk also the time that it takes to leave.
#[must_use]
pub fn is_in_repair(node: &Node, now: Timestamp) -> bool {
    let patience = if was_rebuilt(node) { 2 * PATIENCE } else { PATIENCE };
    !node.ready && node.repairs.last().is_some_and(|last| now.since(*last) < patience)
}

/// The last that was done about it lost its disk.
#[must_use]
pub fn was_rebuilt(node: &Node) -> bool {
    node.repairs.last().is_some_and(|last| node.rebuilds.last() == Some(last))
}

/// It was Ready since it registered.
fn was_ready(node: &Node) -> bool {
    node.ready_time > node.phase_time
}

fn recent(times: &[Timestamp], now: Timestamp) -> usize {
    times.iter().filter(|time| now.since(**time) < DAY).count()
}

fn has_time(node: &Node, times: usize, now: Timestamp) -> bool {
    let doublings = u32::try_from(times.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    node.repairs.last().is_some_and(|last| times > 0 && now.since(*last) < PATIENCE.saturating_mul(1 << doublings))
}

#[cfg(test)]
mod tests;
