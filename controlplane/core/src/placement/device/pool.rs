//! A device out of a pool.

use std::collections::BTreeSet;

use super::super::HostView;
use super::super::fit::{Failure, Predicate};
use super::choice::Choices;
use super::{DeviceViews, Wishes, whole};
use crate::device::{Assignment, Atom};
use crate::id::PoolId;

pub fn choices(
    host: &HostView,
    views: &DeviceViews,
    wishes: &Wishes,
    cells: &BTreeSet<i32>,
    id: &str,
    pool: &PoolId,
) -> Result<Vec<Assignment>, Failure> {
    let Some(matches) = wishes.pools.get(pool) else {
        let message = format!("pools/{pool} is not granted, or does not exist");
        return Err(Failure { predicate: Predicate::Pool, message, fix: "see `croft pool list`".to_owned() });
    };
    let mut choices = Choices::default();
    for view in views.0.values().filter(|view| matches.holds(&host.id, &host.labels, &view.device)) {
        let physical = view.device.physical.as_ref().and_then(|(id, _)| views.0.get(id));
        if let Some(gpu) = physical.filter(|physical| physical.gpu().is_some()) {
            let message = format!("{} is part of the GPU {}, which is given in slices", view.device.id, gpu.device.id);
            choices.fail(Predicate::Pool, message, "ask for a vGPU type or a MIG profile");
            continue;
        }
        // Whoever has the physical function whole has this one, too.
        if let Some(physical) = physical.filter(|physical| physical.taken.contains(&Atom::Whole)) {
            let message = format!("{} went with {}, which is taken whole", view.device.id, physical.device.id);
            choices.fail(Predicate::DeviceTaken, message, "wait for one, or add a host");
            continue;
        }
        // The database would refuse it: somebody has a function that says it is the same one.
        let index = view.device.physical.as_ref().map(|(_, index)| Atom::Function(*index));
        if index.is_some_and(|atom| physical.is_some_and(|physical| physical.taken.contains(&atom))) {
            choices.fail(Predicate::DeviceTaken, format!("{} is taken", view.device.id), "wait for one, or add a host");
            continue;
        }
        match whole::take(views, view, id, Some(pool.clone())) {
            Ok(assignment) => choices.add(whole::score(view, cells), assignment),
            Err(failure) => choices.fail(failure.predicate, failure.message, failure.fix),
        }
    }
    choices.finish(|| nothing(pool))
}

pub fn nothing(pool: &PoolId) -> Failure {
    Failure {
        predicate: Predicate::Pool,
        message: format!("it has no device of pools/{pool}"),
        fix: format!("see `croft pool show {pool}`"),
    }
}
