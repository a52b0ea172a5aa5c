//! Which exact pieces of a host's devices an instance gets, or the first thing that keeps it from them.
//!
//! Each kind of wish lists the pieces it could take, the best first ([`whole`], [`slice`], [`pool`]); the search here takes
//! them in turn, the hardest wish first, and goes back when a later one finds nothing: two slices that fit beside each other
//! are found whatever was tried before.

mod catalogue;
mod choice;
mod count;
mod effort;
mod fabric;
mod pool;
mod same;
mod slice;
mod view;
mod whole;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::fit::{Failure, Predicate, fails};
use super::{HostView, Pin};
use crate::device::{Assignment, PoolMatch, Request, Wanted};
use crate::id::PoolId;

pub use catalogue::Catalogue;
pub use effort::Effort;
pub use view::{DeviceClaim, DeviceView, DeviceViews};

/// The devices of one placement request, with what they refer to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    pub requests: Vec<Request>,
    /// Of every pool that a request names.
    pub pools: Arc<BTreeMap<PoolId, PoolMatch>>,
    /// By request: the GPU models that quota leaves room for. One that is not listed may be any.
    pub allowed_models: BTreeMap<String, BTreeSet<String>>,
}

impl Wishes {
    /// A model without a name is in no table: nobody could be charged for it.
    fn allows(&self, id: &str, model: &str) -> bool {
        !model.is_empty() && self.allowed_models.get(id).is_none_or(|models| models.contains(model))
    }
}

/// In the order of the requests. Searches as long as a request may that is alone on one host.
pub fn assign(host: &HostView, wishes: &Wishes, pins: &[Pin]) -> Result<Vec<Assignment>, Failure> {
    assign_within(host, wishes, pins, &Effort::default())
}

/// As [`assign`]; several hosts that are looked at for one request share the `effort`.
pub fn assign_within(
    host: &HostView,
    wishes: &Wishes,
    pins: &[Pin],
    effort: &Effort,
) -> Result<Vec<Assignment>, Failure> {
    if wishes.requests.is_empty() {
        return Ok(Vec::new());
    }
    if !host.devices_seen {
        let message = "the host has not told of its devices since it started".to_owned();
        return fails(Predicate::DeviceHealth, message, "wait, or see what its agent logs");
    }
    let cells: BTreeSet<i32> = pins.iter().map(|pin| pin.cell).collect();
    if effort.left() == 0 {
        return Err(effort::spent());
    }
    let mut views = host.devices.meant(wishes);
    let mut given = fabric::give(host, &views, wishes, &cells)?;
    for assignment in &given {
        let claims = views.claims(assignment);
        views.take(&claims);
    }
    let mut rest: Vec<&Request> =
        wishes.requests.iter().filter(|request| given.iter().all(|one| one.id != request.id)).collect();
    count::check(host, &views, wishes, &rest)?;
    rest.sort_by_cached_key(|request| hardness(&views, request));
    let mut search = Search { host, wishes, cells, effort, least: effort.turn(), spent: false, failure: None };
    if !search.run(&mut views, &rest, &mut given) {
        if search.spent {
            return Err(effort::spent());
        }
        let nothing = || Failure {
            predicate: Predicate::DeviceTaken,
            message: "its devices do not fit together".to_owned(),
            fix: "ask for fewer, or add a host".to_owned(),
        };
        return Err(search.failure.unwrap_or_else(nothing));
    }
    let place = |id: &str| wishes.requests.iter().position(|request| request.id == id);
    given.sort_by_key(|assignment| place(&assignment.id));
    Ok(given)
}

/// Small is hard: whole GPUs, then slices from the largest down, then what any device of a pool can be.
fn hardness(views: &DeviceViews, request: &Request) -> (u8, u8) {
    let slices = |profile: &str| {
        let boards = views.0.values().filter_map(|view| view.board.as_ref());
        boards.filter_map(|board| board.profile(profile)).map(|profile| profile.memory_slices).max().unwrap_or(0)
    };
    match &request.wanted {
        Wanted::Gpu { .. } => (0, 0),
        Wanted::Mig { profile, .. } => (1, u8::MAX - slices(profile)),
        Wanted::Vgpu { .. } => (2, 0),
        Wanted::Pool { .. } => (3, 0),
    }
}

struct Search<'a> {
    host: &'a HostView,
    wishes: &'a Wishes,
    cells: BTreeSet<i32>,
    effort: &'a Effort,
    /// What this host has to leave of it.
    least: usize,
    /// It ended before everything was tried.
    spent: bool,
    /// The one that came furthest explains best.
    failure: Option<Failure>,
}

impl Search<'_> {
    fn run(&mut self, views: &mut DeviceViews, rest: &[&Request], given: &mut Vec<Assignment>) -> bool {
        let Some((request, later)) = rest.split_first() else { return true };
        let choices = self.choices(views, request);
        if !self.effort.spend(views.0.len() + choices.as_ref().map_or(0, Vec::len)) {
            self.spent = true;
            return false;
        }
        let choices = match choices {
            Ok(choices) => choices,
            Err(failure) => {
                if self.failure.as_ref().is_none_or(|other| failure.predicate > other.predicate) {
                    self.failure = Some(failure);
                }
                return false;
            }
        };
        for (at, assignment) in choices.iter().enumerate() {
            if choices[..at].iter().any(|earlier| same::leads_nowhere_else(views, earlier, assignment)) {
                continue;
            }
            // The first way down is always gone.
            if at > 0 && self.effort.left() < self.least {
                self.spent = true;
                return false;
            }
            let claims = views.claims(assignment);
            let before = views.only(&claims);
            views.take(&claims);
            given.push(assignment.clone());
            if self.run(views, later, given) {
                return true;
            }
            given.pop();
            views.0.extend(before);
            if self.spent {
                return false;
            }
        }
        false
    }

    fn choices(&self, views: &DeviceViews, request: &Request) -> Result<Vec<Assignment>, Failure> {
        match &request.wanted {
            Wanted::Gpu { model } => whole::choices(views, self.wishes, &self.cells, &request.id, model.as_deref()),
            Wanted::Mig { profile, model } => {
                slice::mig(views, self.wishes, &self.cells, &request.id, profile, model.as_deref())
            }
            Wanted::Vgpu { type_name } => slice::vgpu(views, self.wishes, &self.cells, &request.id, type_name),
            Wanted::Pool { pool } => pool::choices(self.host, views, self.wishes, &self.cells, &request.id, pool),
        }
    }
}

fn none<T>(message: impl Into<String>, fix: impl Into<String>) -> Result<T, Failure> {
    fails(Predicate::DeviceModel, message.into(), fix)
}
