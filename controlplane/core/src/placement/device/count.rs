//! What counting alone rules out. A host that has fewer free slices than are asked for need not be searched: that costs a look at
//! each device once, where a search may try every arrangement.
//!
//! Only ever too generous: what is counted here may still not fit together.

use std::collections::BTreeMap;

use croft_gpu_geometry::{Atom as MigAtom, Board, Room};

use super::super::HostView;
use super::super::fit::{Failure, Predicate, fails};
use super::{DeviceView, DeviceViews, Wishes};
use crate::device::{self, Mode, Request, Wanted};
use crate::id::PoolId;

const FEWER: &str = "ask for fewer in one instance, wait, or add a host";

/// `requests`: those of `wishes` that the search has before it.
pub fn check(host: &HostView, views: &DeviceViews, wishes: &Wishes, requests: &[&Request]) -> Result<(), Failure> {
    // One alone is told best by the search: it names the device.
    if requests.len() < 2 {
        return Ok(());
    }
    whole(views, requests)?;
    slices(views, requests)?;
    shares(views, requests)?;
    pools(host, views, wishes, requests)
}

fn free(view: &&DeviceView) -> bool {
    view.taken.is_empty() && view.closed().is_none()
}

fn whole(views: &DeviceViews, requests: &[&Request]) -> Result<(), Failure> {
    let asked = requests.iter().filter(|request| matches!(request.wanted, Wanted::Gpu { .. })).count();
    let gpus = views.0.values().filter(|view| view.gpu().is_some());
    let left = if asked < 2 { asked } else { gpus.filter(free).count() };
    if asked > left {
        return fails(Predicate::DeviceTaken, format!("{asked} whole GPUs asked, {left} free"), FEWER);
    }
    Ok(())
}

/// Each profile as if nothing else came, and all of them in slices of memory and of compute.
fn slices(views: &DeviceViews, requests: &[&Request]) -> Result<(), Failure> {
    let usable = |view: &&DeviceView| view.closed().is_none() && matches!(view.mode, Mode::Idle | Mode::MigVgpu);
    let gpus: Vec<Gpu<'_>> = views.0.values().filter(usable).filter_map(Gpu::of).collect();
    let mut asked: BTreeMap<&str, usize> = BTreeMap::new();
    for profile in requests.iter().filter_map(|request| profile(&gpus, &request.wanted)) {
        *asked.entry(profile).or_default() += 1;
    }
    let (mut memory, mut compute) = (0, 0);
    for (profile, count) in asked {
        // The smallest that any of the boards makes of it; unknown to all, it is the search's to say so.
        let sizes = || gpus.iter().filter_map(|gpu| gpu.board.profile(profile));
        let Some(least) = sizes().map(|size| usize::from(size.memory_slices)).min() else { continue };
        memory += count * least;
        compute += count * sizes().map(|size| usize::from(size.compute_slices)).min().unwrap_or(0);
        let room: usize = gpus.iter().filter_map(|gpu| gpu.room.of(gpu.board, profile)).map(usize::from).sum();
        if count > room {
            let message = format!("{count} of {profile} asked, and its GPUs have room for {room}");
            return fails(Predicate::MigGeometry, message, FEWER);
        }
    }
    let left = |free: fn(&Gpu<'_>) -> usize| gpus.iter().map(free).sum::<usize>();
    for (what, asked, left) in
        [("memory", memory, left(|gpu| gpu.free.0)), ("compute", compute, left(|gpu| gpu.free.1))]
    {
        if asked > left {
            let message = format!("its GPUs have {left} free {what} slices, and together this needs {asked}");
            return fails(Predicate::MigGeometry, message, FEWER);
        }
    }
    Ok(())
}

struct Gpu<'a> {
    gpu: &'a device::Gpu,
    board: &'a Board,
    room: Room,
    /// Slices of memory and of compute.
    free: (usize, usize),
}

impl<'a> Gpu<'a> {
    fn of(view: &'a DeviceView) -> Option<Self> {
        let (gpu, board) = (view.gpu()?, view.board.as_deref()?);
        let taken = view.occupancy();
        let held = |is: fn(&MigAtom) -> bool| taken.atoms().filter(is).count();
        let free = (
            usize::from(board.memory_slices()).saturating_sub(held(|atom| matches!(atom, MigAtom::Memory { .. }))),
            usize::from(board.compute_slices()).saturating_sub(held(|atom| matches!(atom, MigAtom::Compute { .. }))),
        );
        Some(Self { gpu, board, room: taken.room(board), free })
    }
}

/// Of a GPU instance; nothing where nothing is cut.
fn profile<'a>(gpus: &[Gpu<'a>], wanted: &'a Wanted) -> Option<&'a str> {
    match wanted {
        Wanted::Mig { profile, .. } => Some(profile),
        Wanted::Vgpu { type_name } => {
            let mut types = gpus.iter().flat_map(|gpu| &gpu.gpu.vgpu_types);
            let found = types.find(|one| one.name == *type_name)?;
            Some(found.mig_profile.as_str()).filter(|profile| !profile.is_empty())
        }
        Wanted::Gpu { .. } | Wanted::Pool { .. } => None,
    }
}

/// Time-sliced vGPUs: each type as if nothing else came.
fn shares(views: &DeviceViews, requests: &[&Request]) -> Result<(), Failure> {
    let mut asked: BTreeMap<&str, i64> = BTreeMap::new();
    for request in requests {
        if let Wanted::Vgpu { type_name } = &request.wanted {
            *asked.entry(type_name).or_default() += 1;
        }
    }
    for (name, asked) in asked.into_iter().filter(|(_, asked)| *asked > 1) {
        let usable = |view: &&DeviceView| view.closed().is_none() && matches!(view.mode, Mode::Idle | Mode::Vgpu);
        let room = |view: &DeviceView| {
            let gpu = view.gpu()?;
            let shared = gpu.vgpu_types.iter().find(|one| one.name == name && one.mig_profile.is_empty())?;
            Some((gpu.shared_framebuffer_mib() - view.framebuffer_used_mib).max(0) / shared.framebuffer_mib.max(1))
        };
        let known = views.0.values().filter_map(DeviceView::gpu).flat_map(|gpu| &gpu.vgpu_types);
        let is_shared = known.filter(|one| one.name == name).all(|one| one.mig_profile.is_empty());
        let room: i64 = views.0.values().filter(usable).filter_map(room).sum();
        if is_shared && asked > room {
            let message = format!("{asked} of {name} asked, and its GPUs have framebuffer for {room}");
            return fails(Predicate::Framebuffer, message, FEWER);
        }
    }
    Ok(())
}

fn pools(host: &HostView, views: &DeviceViews, wishes: &Wishes, requests: &[&Request]) -> Result<(), Failure> {
    let mut asked: BTreeMap<&PoolId, usize> = BTreeMap::new();
    for request in requests {
        if let Wanted::Pool { pool } = &request.wanted {
            *asked.entry(pool).or_default() += 1;
        }
    }
    for (pool, asked) in asked.into_iter().filter(|(_, asked)| *asked > 1) {
        let Some(matches) = wishes.pools.get(pool) else { continue };
        let of_pool = views.0.values().filter(|view| matches.holds(&host.id, &host.labels, &view.device));
        let left = of_pool.filter(free).count();
        if asked > left {
            return fails(Predicate::DeviceTaken, format!("{asked} of pools/{pool} asked, {left} free"), FEWER);
        }
    }
    Ok(())
}
