//! Random cuts and returns by the whole path (look through the library, plan, steps through the library and the simulated
//! kernel), on boards that are nearly full all the while: nothing else is touched, and each refusal is true by brute force over
//! what the library tells then.
//!
//! The library takes its host from the environment, so each board is a process of its own. With CROFT_TEST_FULL ten thousand
//! steps on each.
#![expect(clippy::unwrap_used, reason = "a test stops where something is missing")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use croft_gpu::apply::{Access, Applier, InProcess, Library, Outcome};
use croft_gpu::fabric::FabricSource;
use croft_gpu::gpu::{Mig, Span};
use croft_gpu::host::Host;
use croft_gpu::nvml::{NvmlSource, snapshot};
use croft_gpu::pci::{PciAddress, Sriov};
use croft_gpu::plan::{MigPiece, Mode, Owners, Plan, Reason, Wish, give_back, plan};
use croft_gpu_sim::access::access;
use croft_gpu_sim::boards::{
    self, A30_PCIE_24GB, A100_SXM_80GB, Board, H100_SXM_80GB, MigShape, RTX_PRO_6000_96GB, VgpuKind,
};
use croft_gpu_sim::kernel::{Hardware, SimHost, Slot};

const CARD: &str = "0000:41:00.0";
const BOARDS: [&Board; 4] = [&A30_PCIE_24GB, &A100_SXM_80GB, &H100_SXM_80GB, &RTX_PRO_6000_96GB];

#[test]
fn no_board_is_cut_in_a_way_that_cannot_be() {
    std::thread::scope(|scope| {
        for boards in BOARDS.chunks(2) {
            scope.spawn(|| boards.iter().for_each(|board| in_a_process(board)));
        }
    });
}

fn in_a_process(board: &Board) {
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let root = directory.path().join("root");
    SimHost::create(&root, Hardware::new(vec![Slot::new(board, 0x41)])).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "trace", "--ignored", "--nocapture"])
        .env("CROFT_SIM_ROOT", &root)
        .env("BOARD", board.name)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && text.contains("refused"), "{}: {text}", board.name);
}

/// A profile, and where its piece starts.
type Piece = (&'static str, u8);

/// Can these pieces be on the board at once?
fn possible(shape: &MigShape, pieces: &[Piece]) -> bool {
    let profiles: Vec<_> = pieces.iter().map(|(name, _)| shape.profile_named(name).unwrap()).collect();
    let slices = |n: usize| pieces[n].1..pieces[n].1 + profiles[n].memory_slices;
    let apart = (0..pieces.len()).all(|n| (0..n).all(|other| slices(n).all(|slice| !slices(other).contains(&slice))));
    let sum = |of: fn(&boards::MigProfile) -> u32| profiles.iter().map(|profile| of(profile)).sum::<u32>();
    apart
        && sum(|profile| profile.compute_slices.into()) <= shape.compute_slices.into()
        && sum(|profile| profile.engines.decoders) <= shape.engines.decoders
        && sum(|profile| profile.engines.jpeg) <= shape.engines.jpeg
        && sum(|profile| profile.engines.ofa) <= shape.engines.ofa
}

/// One board, on the host of the environment.
#[test]
#[ignore = "run by the other, each in a process of its own"]
fn trace() {
    let Some(board) = std::env::var("BOARD").ok().and_then(|name| boards::by_name(&name)) else { return };
    let bench = Bench { root: std::env::var_os("CROFT_SIM_ROOT").unwrap().into() };
    let steps = if std::env::var_os("CROFT_TEST_FULL").is_some() { 10_000 } else { 120 };
    let shape = board.gpu.as_ref().unwrap().mig.as_ref().unwrap();
    let kinds = kinds(board, shape);
    let all: Vec<(&str, Piece)> = kinds
        .iter()
        .flat_map(|(kind, profile)| {
            shape.profile_named(profile).unwrap().starts.iter().map(move |at| (*kind, (*profile, *at)))
        })
        .collect();
    bench.fulfil(&Wish::Mode { gpu: CARD.parse().unwrap(), mode: Mode::MigVgpu });
    let mut host = bench.look();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut held: Vec<(PciAddress, Piece, Wish)> = Vec::new();
    let (mut asked, mut refused, mut full, mut made) = (0, 0, 0, BTreeSet::new());
    for step in 0..steps {
        let pieces: Vec<Piece> = held.iter().map(|(_, piece, _)| *piece).collect();
        assert_eq!(told(&host), pieces.iter().copied().collect(), "{} {step}", board.name);
        let fits = |piece: Piece| possible(shape, &pieces.iter().copied().chain([piece]).collect::<Vec<_>>());
        let fitting: Vec<_> = all.iter().filter(|(_, piece)| fits(*piece)).copied().collect();
        full += usize::from(fitting.is_empty());
        if fitting.is_empty() && random.below(40) == 0 {
            for _ in 0..=random.below(held.len()) {
                let (_, _, back) = held.swap_remove(random.below(held.len()));
                bench.fulfil(&back);
            }
            host = bench.look();
            continue;
        }
        let among = if fitting.is_empty() { &all } else { &fitting };
        let (kind, piece) = among[random.below(among.len())];
        let function = functions(&host).find(|function| held.iter().all(|(taken, ..)| taken != function)).unwrap();
        let (profile, start) = piece;
        let placement = Span { start, size: shape.profile_named(profile).unwrap().memory_slices };
        let gpu_instance = Some(MigPiece { profile: profile.to_owned(), placement });
        let wish = Wish::Vgpu { function, type_name: kind.to_owned(), gpu_instance };
        asked += 1;
        match plan(&host, &Owners::default(), &wish) {
            Ok(_) => {
                assert!(fits(piece), "{} {step}: {piece:?} into {pieces:?}", board.name);
                let back = give_back(&host, &wish).unwrap().unwrap();
                bench.fulfil(&wish);
                host = bench.look();
                made.insert(profile);
                held.push((function, piece, back));
            }
            Err(refusal) => {
                refused += 1;
                // Of a piece that is there already, the type is what cannot be had once more.
                let reasons = [Reason::PlacementTaken, Reason::VgpuTypeNotCreatable];
                assert!(reasons.contains(&refusal.reason), "{refusal}");
                assert!(!fits(piece), "{} {step}: {piece:?} beside {pieces:?}: {refusal}", board.name);
            }
        }
    }
    println!("{}: {refused} of {asked} refused, full at {full} of {steps}, made {made:?}", board.name);
    assert!(refused * 5 >= asked && full * 10 >= steps * 7, "{refused} of {asked} refused, full at {full} of {steps}");
    if steps >= 10_000 {
        assert!(full * 10 >= steps * 9, "full at {full} of {steps}");
        assert_eq!(made.len(), kinds.len(), "only {made:?} were ever made");
    }
}

/// The vGPU type that fills an instance, for each profile that carries vGPUs.
fn kinds(board: &'static Board, shape: &'static MigShape) -> Vec<(&'static str, &'static str)> {
    let types = board.gpu.as_ref().unwrap().vgpu_types.iter();
    let mut kinds: Vec<_> = types
        .filter_map(|known| match &known.kind {
            VgpuKind::MigBacked { profile } => {
                let profile = shape.profile_named(profile)?;
                (known.max == profile.max).then_some((known.name.as_str(), profile.name))
            }
            VgpuKind::TimeSliced { .. } => None,
        })
        .collect();
    kinds.sort_by_key(|(_, profile)| *profile);
    kinds.dedup_by_key(|(_, profile)| *profile);
    kinds
}

fn functions(host: &Host) -> impl Iterator<Item = PciAddress> + '_ {
    host.pci.devices.iter().filter(|function| matches!(function.sriov, Sriov::Virtual { .. })).map(|vf| vf.address)
}

/// What the library tells of the board's instances.
fn told(host: &Host) -> BTreeSet<(&str, u8)> {
    let Mig::Supported(mig) = &host.gpus.devices[0].mig else { panic!("{:?}", host.gpus.devices[0].mig) };
    mig.instances.iter().map(|instance| (instance.profile.as_str(), instance.placement.start)).collect()
}

struct Bench {
    root: PathBuf,
}

impl Bench {
    /// Built beside the tests.
    fn library() -> PathBuf {
        std::env::current_exe().unwrap().with_file_name("libcroft_nvml_sim.so")
    }

    fn look(&self) -> Host {
        let nvml = NvmlSource::from(snapshot(Some(&Self::library())));
        let fabric = FabricSource::Unavailable { why: "there is none".to_owned() };
        Host::probe(&SimHost::at(&self.root).unwrap().fs().unwrap(), &nvml, &fabric)
    }

    fn fulfil(&self, wish: &Wish) {
        let plan: Plan = plan(&self.look(), &Owners::default(), wish).unwrap();
        let nvml = Box::new(Library { path: Some(Self::library()) });
        let access = Access { nvml, patience: Duration::ZERO, ..access(&self.root).unwrap() };
        let outcome = Applier::new(InProcess::new(access), || 0).apply(&plan, &mut |_| {});
        assert!(matches!(outcome, Outcome::Applied { .. }), "{wish:?}: {outcome:?}");
    }
}

/// A xorshift: the same trace on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }
}
