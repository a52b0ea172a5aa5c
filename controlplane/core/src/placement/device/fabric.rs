//! NVSwitch boards give whole GPUs only as a partition: so many as are wished for, all free.

use std::collections::BTreeSet;

use super::super::HostView;
use super::super::fit::Failure;
use super::choice::near;
use super::{DeviceView, DeviceViews, Wishes, none, whole};
use crate::device::{Assignment, FabricPartition, Kind, PoolMatch, Wanted};
use crate::id::PoolId;

/// One whole GPU: of a model, of any that quota allows, or out of a pool.
#[derive(Clone, Copy)]
struct Wish<'a> {
    id: &'a str,
    model: Option<&'a str>,
    pool: Option<(&'a PoolId, &'a PoolMatch)>,
}

impl<'a> Wish<'a> {
    fn all(wishes: &'a Wishes) -> Vec<Self> {
        let one = |request: &'a crate::device::Request| {
            let id = request.id.as_str();
            match &request.wanted {
                Wanted::Gpu { model } => Some(Wish { id, model: model.as_deref(), pool: None }),
                Wanted::Pool { pool } => {
                    let (pool, matches) = wishes.pools.get_key_value(pool)?;
                    (matches.kind == Kind::Gpu).then_some(Wish { id, model: None, pool: Some((pool, matches)) })
                }
                Wanted::Mig { .. } | Wanted::Vgpu { .. } => None,
            }
        };
        wishes.requests.iter().filter_map(one).collect()
    }

    fn means(&self, host: &HostView, wishes: &Wishes, view: &DeviceView) -> bool {
        view.gpu().is_some_and(|gpu| match self.pool {
            Some((_, matches)) => matches.holds(&host.id, &host.labels, &view.device),
            None => wishes.allows(self.id, &gpu.model) && self.model.is_none_or(|wanted| wanted == gpu.model),
        })
    }

    fn unmet(&self, wishes: &Wishes) -> Failure {
        match self.pool {
            Some((pool, _)) => super::pool::nothing(pool),
            None => whole::no_gpu(wishes, self.id, self.model),
        }
    }
}

/// Without such boards nothing is given here, and the search goes on one by one.
pub fn give(
    host: &HostView,
    views: &DeviceViews,
    wishes: &Wishes,
    cells: &BTreeSet<i32>,
) -> Result<Vec<Assignment>, Failure> {
    let wanted = Wish::all(wishes);
    let partitions: Vec<&FabricPartition> = partitions(views);
    if wanted.is_empty() || partitions.is_empty() {
        return Ok(Vec::new());
    }
    let mut best: Option<(usize, Vec<Assignment>)> = None;
    let mut first = None;
    for partition in partitions.into_iter().filter(|partition| partition.gpus.len() == wanted.len()) {
        match fill(host, views, wishes, partition, &wanted) {
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
    host: &HostView,
    views: &DeviceViews,
    wishes: &Wishes,
    partition: &FabricPartition,
    wanted: &[Wish<'_>],
) -> Result<Vec<Assignment>, Failure> {
    let mut given = Vec::new();
    // Each beside the earlier ones: a partition may name a GPU twice, or two that hang together.
    let mut views = views.clone();
    for (device, wish) in partition.gpus.iter().zip(wanted) {
        let Some(view) = views.0.get(device).filter(|view| wish.means(host, wishes, view)) else {
            return Err(wish.unmet(wishes));
        };
        let pool = wish.pool.map(|(pool, _)| pool.clone());
        let mut assignment = whole::take(&views, view, wish.id, pool).map_err(|failure| Failure {
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
