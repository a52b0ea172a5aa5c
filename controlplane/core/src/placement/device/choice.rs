//! Pieces that could be taken, and what was in the way of the others.

use std::cmp::Reverse;

use croft_gpu_geometry::Loss;

use super::super::fit::{Failure, Predicate};
use super::DeviceView;
use crate::device::{Assignment, Mode};
use crate::id::{DeviceId, PoolId};

/// Greater is better; the order of the fields is the policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score {
    /// Nothing has to be set up anew for it.
    pub ready: bool,
    /// On a NUMA cell that the guest is pinned to.
    pub near: bool,
    /// What can no longer be cut afterwards, as geometry counts it; nothing where nothing is cut.
    pub loss: Reverse<Loss>,
    /// The fullest first: an empty GPU is left for whoever wants all of it.
    pub taken: usize,
    pub id: Reverse<DeviceId>,
}

/// Looks at devices one by one, keeps what fits, and remembers the most telling reason of what does not.
#[derive(Debug, Default)]
pub struct Choices {
    fitting: Vec<(Score, Assignment)>,
    failure: Option<Failure>,
}

impl Choices {
    pub fn add(&mut self, score: Score, assignment: Assignment) {
        self.fitting.push((score, assignment));
    }

    pub fn fail(&mut self, predicate: Predicate, message: String, fix: impl Into<String>) {
        if self.failure.as_ref().is_none_or(|other| predicate > other.predicate) {
            self.failure = Some(Failure { predicate, message, fix: fix.into() });
        }
    }

    /// The best first; without any, the reason that came furthest, else `nothing`.
    pub fn finish(mut self, nothing: impl FnOnce() -> Failure) -> Result<Vec<Assignment>, Failure> {
        if self.fitting.is_empty() {
            return Err(self.failure.unwrap_or_else(nothing));
        }
        self.fitting.sort_by(|(a, _), (b, _)| b.cmp(a));
        Ok(self.fitting.into_iter().map(|(_, assignment)| assignment).collect())
    }
}

/// All of nothing of `view`, to be filled in.
pub fn blank(view: &DeviceView, id: &str, pool: Option<PoolId>) -> Assignment {
    let device = &view.device;
    Assignment {
        id: id.to_owned(),
        device: device.id.clone(),
        kind: device.kind,
        class: device.class.clone(),
        serial: device.serial.clone(),
        pci_id: device.pci_id.clone(),
        slot_path: device.slot_path.clone(),
        pool,
        model: view.gpu().map(|gpu| gpu.model.clone()).unwrap_or_default(),
        atoms: Vec::new(),
        companions: Vec::new(),
        mig_profile: String::new(),
        mig_start: 0,
        mig_size: 0,
        vgpu_type: String::new(),
        function_index: None,
        framebuffer_mib: 0,
        charged_memory_mib: 0,
        fabric_partition: None,
    }
}

pub fn near(view: &DeviceView, cells: &std::collections::BTreeSet<i32>) -> bool {
    cells.is_empty() || view.device.numa_node.is_some_and(|node| cells.contains(&node))
}

/// Why a GPU may not be made into this (IDLE: given whole), with what would help: the host or an operator keeps it for
/// something else.
pub fn kept(view: &DeviceView, mode: Mode) -> Option<(String, &'static str)> {
    let id = &view.device.id;
    if view.gpu().is_some_and(|gpu| gpu.mode == Mode::Foreign) {
        return Some((format!("{id} is left to others"), "ask for another GPU"));
    }
    let kept = view.kept_for.filter(|kept| *kept != mode)?;
    let message = format!("{id} is kept for {} by the host's layout", kept.as_str());
    Some((message, "an operator can change it (`croft host layout`)"))
}
