//! Whole functions, GPUs among them: with every companion of their IOMMU group.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::super::fit::{Failure, Predicate};
use super::choice::{Choices, Score, blank, kept, near};
use super::{DeviceView, DeviceViews, Wishes};
use crate::device::{Assignment, Kind, Mode};
use crate::id::PoolId;

pub fn choices(
    views: &DeviceViews,
    wishes: &Wishes,
    cells: &BTreeSet<i32>,
    id: &str,
    model: Option<&str>,
) -> Result<Vec<Assignment>, Failure> {
    let mut choices = Choices::default();
    for view in gpus(views, wishes, id, model) {
        match take(views, view, id, None) {
            Ok(assignment) => choices.add(score(view, cells), assignment),
            Err(failure) => choices.fail(failure.predicate, failure.message, failure.fix),
        }
    }
    choices.finish(|| no_gpu(wishes, id, model))
}

fn gpus<'a>(
    views: &'a DeviceViews,
    wishes: &'a Wishes,
    id: &'a str,
    model: Option<&'a str>,
) -> impl Iterator<Item = &'a DeviceView> + 'a {
    views.0.values().filter(move |view| {
        view.gpu().is_some_and(|gpu| wishes.allows(id, &gpu.model) && model.is_none_or(|wanted| wanted == gpu.model))
    })
}

pub fn no_gpu(wishes: &Wishes, id: &str, model: Option<&str>) -> Failure {
    let message = match (model, wishes.allowed_models.get(id)) {
        (Some(model), _) => format!("it has no {model}"),
        (None, Some(models)) if !models.is_empty() => {
            format!(
                "it has no GPU of a model that quota has room for ({})",
                models.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
            )
        }
        (None, _) => "it has no GPU".to_owned(),
    };
    Failure { predicate: Predicate::DeviceModel, message, fix: "see `croft gpu list`".to_owned() }
}

pub fn score(view: &DeviceView, cells: &BTreeSet<i32>) -> Score {
    Score {
        ready: matches!(view.gpu().map(|gpu| gpu.mode), None | Some(Mode::Passthrough | Mode::Idle)),
        near: near(view, cells),
        loss: Reverse::default(),
        taken: view.taken.len(),
        id: Reverse(view.device.id.clone()),
    }
}

/// The whole of `view` and of its companions.
pub fn take(views: &DeviceViews, view: &DeviceView, id: &str, pool: Option<PoolId>) -> Result<Assignment, Failure> {
    let name = &view.device.id;
    let failure = |predicate, message, fix: &str| Failure { predicate, message, fix: fix.to_owned() };
    if let Some(why) = view.closed() {
        return Err(failure(Predicate::DeviceHealth, why, "`croft device show` tells an operator more"));
    }
    if let Some((message, fix)) = kept(view, Mode::Idle) {
        return Err(failure(Predicate::GpuMode, message, fix));
    }
    if view.device.kind != Kind::Usb && view.device.iommu_group.is_none() {
        let message = format!("{name} has no IOMMU group: nothing would keep a guest's DMA off the host");
        return Err(failure(Predicate::IommuGroup, message, "switch the IOMMU on (`croft host preflight`)"));
    }
    // Of a physical function the taken virtual ones count, too.
    if !view.taken.is_empty() {
        return Err(failure(Predicate::DeviceTaken, format!("{name} is taken"), "wait for one, or add a host"));
    }
    let mut companions = Vec::new();
    for companion in &view.device.companions {
        let free =
            |peer: &&DeviceView| peer.closed().is_none() && peer.taken.is_empty() && kept(peer, Mode::Idle).is_none();
        let peer = views.0.get(companion).filter(free);
        let Some(peer) = peer else {
            let driver =
                views.0.get(companion).map(|peer| peer.device.driver.as_str()).filter(|driver| !driver.is_empty());
            let driver = driver.map(|driver| format!(" (driver {driver})")).unwrap_or_default();
            let message =
                format!("{name} shares its IOMMU group with {companion}{driver}, which cannot be given along");
            return Err(failure(Predicate::IommuGroup, message, "move one of the cards to another slot"));
        };
        // Whoever asked for one is charged for one.
        if peer.gpu().is_some() {
            let message =
                format!("{name} shares its IOMMU group with another GPU, {companion}: one is not given alone");
            return Err(failure(Predicate::IommuGroup, message, "move one of the cards to another slot"));
        }
        companions.push((companion.clone(), peer.whole()));
    }
    let gpu = view.gpu();
    let mut assignment = blank(view, id, pool);
    assignment.atoms = view.whole();
    assignment.companions = companions;
    assignment.charged_memory_mib = gpu.map_or(0, |gpu| gpu.memory_mib);
    Ok(assignment)
}
