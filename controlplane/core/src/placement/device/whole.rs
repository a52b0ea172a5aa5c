//! Whole functions, GPUs among them: with every companion of their IOMMU group, and, on NVSwitch boards, with a partition.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::super::fit::{Failure, Predicate};
use super::choice::{Choices, Score, blank, kept, near};
use super::{DeviceView, DeviceViews, Wishes, none};
use crate::device::{Assignment, FabricPartition, Kind, Mode, Wanted};
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

fn no_gpu(wishes: &Wishes, id: &str, model: Option<&str>) -> Failure {
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

/// NVSwitch boards give whole GPUs only as a partition: so many as are wished for, all free. Without such boards nothing is
/// given here, and the search goes on one by one.
pub fn by_fabric(views: &DeviceViews, wishes: &Wishes, cells: &BTreeSet<i32>) -> Result<Vec<Assignment>, Failure> {
    let wanted: Vec<(&str, Option<&str>)> = wishes
        .requests
        .iter()
        .filter_map(|request| match &request.wanted {
            Wanted::Gpu { model } => Some((request.id.as_str(), model.as_deref())),
            Wanted::Mig { .. } | Wanted::Vgpu { .. } | Wanted::Pool { .. } => None,
        })
        .collect();
    let partitions: Vec<&FabricPartition> = partitions(views);
    if wanted.is_empty() || partitions.is_empty() {
        return Ok(Vec::new());
    }
    let mut best: Option<(usize, Vec<Assignment>)> = None;
    let mut first = None;
    for partition in partitions.into_iter().filter(|partition| partition.gpus.len() == wanted.len()) {
        match fill(views, wishes, partition, &wanted) {
            Ok(given) => {
                let local = given.iter().filter(|one| views.0.get(&one.device).is_some_and(|v| near(v, cells))).count();
                if best.as_ref().is_none_or(|(other, _)| local > *other) {
                    best = Some((local, given));
                }
            }
            Err(failure) => first = first.or(Some(failure)),
        }
    }
    match (best, first) {
        (Some((_, given)), _) => Ok(given),
        (None, Some(failure)) => Err(failure),
        (None, None) => none(
            format!("its NVSwitch has no partition of {} GPUs", wanted.len()),
            "ask for as many GPUs as a partition has (`croft gpu show`)",
        ),
    }
}

fn partitions(views: &DeviceViews) -> Vec<&FabricPartition> {
    let mut all: Vec<&FabricPartition> =
        views.0.values().filter_map(DeviceView::gpu).flat_map(|gpu| &gpu.fabric_partitions).collect();
    all.sort_by_key(|partition| partition.id);
    all.dedup_by_key(|partition| partition.id);
    all
}

fn fill(
    views: &DeviceViews,
    wishes: &Wishes,
    partition: &FabricPartition,
    wanted: &[(&str, Option<&str>)],
) -> Result<Vec<Assignment>, Failure> {
    let mut given = Vec::new();
    // Each beside the earlier ones: a partition may name a GPU twice, or two that hang together.
    let mut views = views.clone();
    for (device, (id, model)) in partition.gpus.iter().zip(wanted) {
        let fits = |view: &&DeviceView| gpus(&views, wishes, id, *model).any(|gpu| gpu.device.id == view.device.id);
        let Some(view) = views.0.get(device).filter(fits) else { return Err(no_gpu(wishes, id, *model)) };
        let mut assignment = take(&views, view, id, None).map_err(|failure| Failure {
            message: format!("NVSwitch partition {}: {}", partition.id, failure.message),
            ..failure
        })?;
        assignment.fabric_partition = Some(partition.id);
        let claims = views.claims(&assignment);
        views.take(&claims);
        given.push(assignment);
    }
    Ok(given)
}
