//! Ten thousand random cuts and returns on each board, nine of ten steps on one into which nothing more fits: no state that
//! hardware could not be in, and each refusal true. The judge is written apart from the rules: it lays every instance out
//! anew, each time.
#![expect(clippy::unwrap_used, reason = "the helpers of a test are part of the test")]

use std::collections::BTreeSet;

use croft_gpu::geometry::{self, Media, Occupancy};
use croft_gpu::gpu::Span;
use croft_gpu_sim::boards::{
    A30_PCIE_24GB, A100_SXM_40GB, A100_SXM_80GB, B200_SXM_180GB, Board, H100_SXM_80GB, H200_SXM_141GB, MigProfile,
    MigShape, RTX_PRO_6000_96GB,
};
use croft_gpu_sim::driver::{Return, create_gpu_instance, destroy_gpu_instance, mig_shape, remaining_capacity};
use croft_gpu_sim::state::{GpuState, MigMode};

const STEPS: usize = 10_000;

/// All that can be cut.
const BOARDS: [&Board; 7] = [
    &A30_PCIE_24GB,
    &A100_SXM_40GB,
    &A100_SXM_80GB,
    &H100_SXM_80GB,
    &H200_SXM_141GB,
    &B200_SXM_180GB,
    &RTX_PRO_6000_96GB,
];

type Layout = Vec<(&'static MigProfile, u8)>;

/// Can these pieces be on the board at once?
fn possible(shape: &MigShape, layout: &Layout) -> bool {
    let each_slice_once = (0..shape.memory_slices).all(|slice| {
        let on_it = layout.iter().filter(|(profile, start)| (*start..start + profile.memory_slices).contains(&slice));
        on_it.count() <= 1
    });
    let within = layout.iter().all(|(profile, start)| start + profile.memory_slices <= shape.memory_slices);
    let sum = |of: fn(&MigProfile) -> u32| layout.iter().map(|(profile, _)| of(profile)).sum::<u32>();
    let counts = layout.iter().all(|(profile, _)| {
        let alike = layout.iter().filter(|(other, _)| other.name == profile.name).count();
        alike <= profile.max as usize
    });
    each_slice_once
        && within
        && counts
        && sum(|profile| profile.compute_slices.into()) <= shape.compute_slices.into()
        && sum(|profile| profile.engines.decoders) <= shape.engines.decoders
        && sum(|profile| profile.engines.jpeg) <= shape.engines.jpeg
        && sum(|profile| profile.engines.ofa) <= shape.engines.ofa
}

fn layout(gpu: &GpuState) -> Layout {
    let shape = mig_shape(gpu).unwrap();
    gpu.instances.iter().map(|gi| (shape.profile(gi.profile).unwrap(), gi.placement.start)).collect()
}

fn with(layout: &Layout, profile: &'static MigProfile, start: u8) -> Layout {
    layout.iter().copied().chain([(profile, start)]).collect()
}

/// By trying every set of starts.
fn most_more(shape: &MigShape, layout: &Layout, profile: &'static MigProfile, from: usize) -> u32 {
    let starts = profile.starts.iter().enumerate().skip(from);
    let fitting =
        starts.map(|(at, &start)| (at, with(layout, profile, start))).filter(|(_, more)| possible(shape, more));
    fitting.map(|(at, more)| 1 + most_more(shape, &more, profile, at + 1)).max().unwrap_or(0)
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }
}

fn trace(board: &Board) {
    let mut gpu = GpuState::new(board, "0000:41:00.0".parse().unwrap(), 0);
    gpu.mig = MigMode { current: true, pending: true };
    let shape = mig_shape(&gpu).unwrap();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut refused, mut asked, mut full) = (0, 0, 0);
    let mut made = BTreeSet::new();
    for step in 0..STEPS {
        let before = layout(&gpu);
        let all = shape.profiles.iter().flat_map(|profile| profile.starts.iter().map(move |&start| (profile, start)));
        let all: Vec<_> = all.collect();
        let fitting = all.iter().filter(|(profile, start)| possible(shape, &with(&before, profile, *start)));
        let fitting: Vec<_> = fitting.copied().collect();
        full += usize::from(fitting.is_empty());
        // Only where nothing more fits is something given back, and not often, so that the board stays nearly full; but then one
        // or several, or soon there would be nothing but the smallest pieces.
        if fitting.is_empty() && random.below(80) == 0 {
            for _ in 0..=random.below(gpu.instances.len()) {
                let id = gpu.instances[random.below(gpu.instances.len())].id;
                destroy_gpu_instance(&mut gpu, id).unwrap();
            }
            continue;
        }
        let largest = fitting.iter().max_by_key(|(profile, _)| profile.memory_slices);
        let (profile, start) = match (random.below(4), largest) {
            (0, _) | (_, None) => all[random.below(all.len())],
            (1, Some(largest)) => *largest,
            _ => fitting[random.below(fitting.len())],
        };
        asked += 1;
        let fits = possible(shape, &with(&before, profile, start));
        match create_gpu_instance(&mut gpu, profile.id, Some(Span { start, size: profile.memory_slices })) {
            Ok(_) => {
                made.insert(profile.name);
                assert!(fits, "{} {step}: {} at {start} into {:?}", board.name, profile.name, names(&before));
            }
            Err(Return::InsufficientResources) => {
                refused += 1;
                assert!(!fits, "{} {step}: {} at {start} beside {:?}", board.name, profile.name, names(&before));
                assert_eq!(names(&layout(&gpu)), names(&before), "a refusal changes nothing");
            }
            Err(other) => panic!("{}: {other}", board.name),
        }
        let now = layout(&gpu);
        assert!(possible(shape, &now), "{}: {:?}", board.name, names(&now));
        for profile in shape.profiles {
            let told = remaining_capacity(&gpu, profile.id).unwrap();
            assert_eq!(told, most_more(shape, &now, profile, 0), "{} of {:?}", profile.name, names(&now));
        }
        let mut ids: Vec<_> = gpu.instances.iter().map(|instance| instance.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), gpu.instances.len(), "two instances of one id");
    }
    assert_eq!(made.len(), shape.profiles.len(), "{}: only {made:?} were ever made", board.name);
    assert!(refused * 5 >= asked, "{}: {refused} of {asked} refused", board.name);
    assert!(full * 10 >= STEPS * 9, "{}: nothing more fitted at {full} of {STEPS} steps only", board.name);
}

fn names(layout: &Layout) -> Vec<String> {
    layout.iter().map(|(profile, start)| format!("{}@{start}", profile.name)).collect()
}

#[test]
fn no_board_is_ever_cut_in_a_way_that_cannot_be() {
    BOARDS.into_iter().for_each(trace);
}

/// The arithmetic that the control plane places by, which knows profiles' names and no numbers of engines, against the driver's:
/// the two say the same of every layout that the driver allows.
#[test]
fn the_planes_arithmetic_agrees_with_the_driver() {
    for board in BOARDS {
        let mut gpu = GpuState::new(board, "0000:41:00.0".parse().unwrap(), 0);
        gpu.mig = MigMode { current: true, pending: true };
        let shape = mig_shape(&gpu).unwrap();
        let profiles = shape.profiles.iter().map(|profile| geometry::Profile {
            name: profile.name.to_owned(),
            memory_slices: profile.memory_slices,
            starts: profile.starts.to_vec(),
            compute_slices: profile.compute_slices,
            media: Media::of(profile.name),
        });
        let plane = geometry::Board::new(shape.memory_slices, shape.compute_slices, profiles.collect()).unwrap();
        let mut random = Random(0x2545_f491_4f6c_dd1d);
        let mut held: Vec<(u32, Occupancy)> = Vec::new();
        for _ in 0..STEPS {
            let taken = held.iter().fold(Occupancy::EMPTY, |taken, (_, atoms)| taken.union(*atoms));
            if !held.is_empty() && random.below(3) == 0 {
                let (id, _) = held.swap_remove(random.below(held.len()));
                destroy_gpu_instance(&mut gpu, id).unwrap();
                continue;
            }
            let profile = &shape.profiles[random.below(shape.profiles.len())];
            let start = profile.starts[random.below(profile.starts.len())];
            let claim = taken.fits(&plane, plane.profile(profile.name).unwrap(), start);
            let made = create_gpu_instance(&mut gpu, profile.id, Some(Span { start, size: profile.memory_slices }));
            match (claim, made) {
                (Ok(claim), Ok(id)) => held.push((id, claim.atoms)),
                (Err(_), Err(Return::InsufficientResources)) => {}
                (claim, made) => panic!("{}: {} at {start}: {claim:?}, {made:?}", board.name, profile.name),
            }
        }
    }
}
