//! A host's life by chance: instances ask for whatever there is and give it back, processes open and close devices. Every
//! plan on the way is tried on the model of what steps do.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::model::Model;
use super::testing::{HostBuilder, at, function, h100, piece};
use super::{Mode, OwnedInstance, Owners, Plan, Step, Wish, give_back, plan};
use crate::gpu::{Gpu, Mig};
use crate::host::{Fabric, FabricPartition, Holder, Host, VgpuFunction};
use crate::pci::PciAddress;

const GPUS: [&str; 2] = ["0000:41:00.0", "0000:42:00.0"];
const NIC: &str = "0000:01:00.0";
const CARD: &str = "0000:05:00.0";
const ASKERS: [&str; 3] = ["ann", "bob", "cy"];

fn fresh() -> Model {
    let partition = |id, gpus: &[&str]| FabricPartition {
        id,
        gpus: gpus.iter().map(|gpu| at(gpu)).collect(),
        active: false,
        unread: None,
    };
    let partitions = vec![partition(0, &GPUS), partition(1, &GPUS[..1]), partition(2, &GPUS[1..])];
    let host = HostBuilder::new()
        .gpu(h100(GPUS[0]), &[])
        .gpu(Gpu { persistence: Some(true), ..h100(GPUS[1]) }, &[])
        .fabric(Fabric::Shared { partitions })
        .function(function(NIC).driver("igb").group(1).physical(3, &[]))
        .function(function("0000:04:00.0").class(0x06_0400).driver("pcieport").group(5))
        .function(function(CARD).class(0x03_0000).driver("amdgpu").group(5).resets(&["flr", "bus"]))
        .function(function("0000:05:00.1").class(0x04_0300).driver("snd_hda_intel").group(5).resets(&[]))
        .function(function("0000:06:00.0").class(0x01_0802).driver("nvme").group(6))
        .mdev_types(NIC, &[("mtty-1", "Dual", 2)])
        .build();
    Model::new(host)
}

/// Everything that could be wished of the host as it is, and some that could not.
fn wishes(host: &Host) -> Vec<Wish> {
    let mut wishes = Vec::new();
    wishes.extend(host.pci.devices.iter().map(|function| Wish::Passthrough { address: function.address }));
    for gpu in &host.gpus.devices {
        let modes = [Mode::Idle, Mode::Vgpu, Mode::VgpuMixed, Mode::MigVgpu];
        // More often than not a GPU is to be cut in pieces.
        let modes = modes.into_iter().chain([Mode::MigVgpu; 3]);
        wishes.extend(modes.map(|mode| Wish::Mode { gpu: gpu.address, mode }));
        let functions = host
            .vgpus
            .iter()
            .filter(|(vf, vgpu)| vf.bus == gpu.address.bus && matches!(vgpu, VgpuFunction::Vendor { .. }));
        for (&function, _) in functions {
            for kind in &gpu.vgpu_types {
                let starts: &[(u8, u8)] = match kind.mig_profile.as_deref() {
                    None => &[],
                    Some("1g.10gb" | "1g.10gb+me") => &[(0, 1), (3, 1), (6, 1)],
                    Some("3g.40gb") => &[(0, 4), (4, 4)],
                    Some("4g.40gb") => &[(0, 4)],
                    Some("7g.80gb") => &[(0, 8)],
                    Some(_) => &[(0, 2), (2, 2), (4, 2), (6, 2)],
                };
                let pieces =
                    starts.iter().map(|&(start, size)| piece(kind.mig_profile.as_deref().unwrap(), start, size));
                let pieces: Vec<_> = if starts.is_empty() { vec![None] } else { pieces.map(Some).collect() };
                let vgpu = |gpu_instance| Wish::Vgpu { function, type_name: kind.name.clone(), gpu_instance };
                wishes.extend(pieces.into_iter().map(vgpu));
            }
        }
    }
    for (count, autoprobe) in [(0, true), (1, false), (2, true), (3, false), (4, false)] {
        wishes.push(Wish::VirtualFunctions { physical: at(NIC), count, autoprobe });
    }
    for n in 0..3 {
        let uuid = format!("83b8f4f2-509f-382f-3c1e-e6bfe0fa100{n}");
        wishes.push(Wish::Mdev { parent: NIC.to_owned(), type_name: "mtty-1".to_owned(), uuid, gpu_instance: None });
    }
    wishes.extend((0..4).flat_map(|id| [true, false].map(|active| Wish::FabricPartition { id, active })));
    wishes
}

#[derive(Clone, Debug)]
enum Event {
    Ask { asker: usize, which: usize, stop: Stop },
    GiveBack { which: usize, stop: Stop },
    Open { which: usize },
    Close { which: usize },
}

/// A crash before this step of a plan; afterwards it is taken up again, or never.
#[derive(Clone, Copy, Debug)]
struct Stop {
    after: usize,
    for_good: bool,
}

const NEVER: Stop = Stop { after: usize::MAX, for_good: false };

fn events() -> impl Strategy<Value = Vec<Event>> {
    let number = any::<usize>();
    let stop = (0_usize..8, prop::bool::weighted(0.3)).prop_map(|(after, for_good)| Stop { after, for_good });
    prop::collection::vec(
        prop_oneof![
            6 => (0_usize..4, number, stop.clone()).prop_map(|(asker, which, stop)| Event::Ask { asker, which, stop }),
            3 => (number, stop).prop_map(|(which, stop)| Event::GiveBack { which, stop }),
            1 => number.prop_map(|which| Event::Open { which }),
            2 => number.prop_map(|which| Event::Close { which }),
        ],
        1..60,
    )
}

/// A host, the journal, and what is to be given back by whom.
struct Life {
    model: Model,
    journal: Owners,
    held: Vec<(Option<String>, Wish)>,
}

impl Life {
    fn owners(&self, asker: Option<String>) -> Owners {
        Owners { asker, ..self.journal.clone() }
    }

    fn ask(&mut self, asker: Option<String>, wish: &Wish, stop: Stop) -> Result<usize, TestCaseError> {
        let owners = self.owners(asker.clone());
        let Ok(Plan { steps }) = plan(&self.model.host, &owners, wish) else { return Ok(0) };
        let way_back = give_back(&self.model.host, wish).map_err(|refusal| TestCaseError::fail(refusal.to_string()))?;
        let same = |held: &(Option<String>, Wish)| match (&held.1, &way_back) {
            (Wish::Return { homes: held }, Some(Wish::Return { homes })) => held.keys().eq(homes.keys()),
            _ => false,
        };
        let mut first = !self.held.iter().any(|held| held.0 == asker && same(held));
        if let Some(asker) = &asker {
            first &= self.claim(asker, wish, way_back.as_ref());
            let claimed = plan(&self.model.host, &self.owners(Some(asker.clone())), wish);
            prop_assert_eq!(claimed.map(|plan| plan.steps), Ok(steps.clone()), "the asker's own claim changes nothing");
        }
        self.carry_out(&self.owners(asker.clone()), wish, &steps, stop)?;
        // Who has it already remembers where it was before that.
        self.held.extend(way_back.filter(|_| first).map(|wish| (asker, wish)));
        Ok(steps.len())
    }

    /// Is it the asker's first claim on these devices?
    fn claim(&mut self, asker: &str, wish: &Wish, way_back: Option<&Wish>) -> bool {
        let devices: Vec<String> = match (wish, way_back) {
            (Wish::Passthrough { .. }, Some(Wish::Return { homes })) => {
                homes.keys().map(PciAddress::to_string).collect()
            }
            (Wish::Mdev { uuid, .. }, _) => vec![uuid.clone()],
            (Wish::Vgpu { function, .. }, _) => vec![function.to_string()],
            _ => return true,
        };
        let mut first = true;
        for device in devices {
            first &= self.journal.functions.insert(device, asker.to_owned()).is_none();
        }
        if let (true, Wish::Vgpu { function, gpu_instance: Some(piece), .. }) = (first, wish) {
            let owned = OwnedInstance { gpu: self.gpu_of(*function), piece: piece.clone(), owner: asker.to_owned() };
            self.journal.gpu_instances.push(owned);
        }
        first
    }

    fn gpu_of(&self, function: PciAddress) -> PciAddress {
        PciAddress { device: 0, function: 0, ..function }
    }

    fn give_back(&mut self, which: usize, stop: Stop) -> Result<usize, TestCaseError> {
        if self.held.is_empty() {
            return Ok(0);
        }
        let (asker, wish) = self.held[which % self.held.len()].clone();
        let owners = self.owners(asker.clone());
        let Ok(Plan { steps }) = plan(&self.model.host, &owners, &wish) else { return Ok(0) };
        if !self.carry_out(&owners, &wish, &steps, stop)? {
            return Ok(steps.len());
        }
        self.held.retain(|held| *held != (asker.clone(), wish.clone()));
        let Some(asker) = asker else { return Ok(steps.len()) };
        let mut gone = |device: String| self.journal.functions.retain(|key, owner| *key != device || *owner != asker);
        match &wish {
            Wish::Return { homes } => homes.keys().for_each(|address| gone(address.to_string())),
            Wish::NoMdev { uuid, .. } => gone(uuid.clone()),
            Wish::NoVgpu { function, gpu_instance } => {
                gone(function.to_string());
                let gpu = self.gpu_of(*function);
                let his = |owned: &OwnedInstance| owned.gpu == gpu && Some(&owned.piece) == gpu_instance.as_ref();
                self.journal.gpu_instances.retain(|owned| !his(owned));
            }
            _ => {}
        }
        Ok(steps.len())
    }

    /// Tries the plan out: undone from wherever it stops it leads back, taken up again from there it leads on, it disturbs
    /// nobody, and once carried out there is nothing left to do. `false`: it was left in the middle.
    fn carry_out(&mut self, owners: &Owners, wish: &Wish, steps: &[Step], stop: Stop) -> Result<bool, TestCaseError> {
        let (before, others) = (self.model.text(), self.of_others(owners));
        let Stop { after, for_good } = stop;
        let stop = after.min(steps.len());
        for step in &steps[..stop] {
            self.apply(step, wish)?;
            prop_assert_eq!(&self.of_others(owners), &others, "{:?} disturbs somebody, for {:?}", step, wish);
        }
        let mut undone = Life { model: self.model.copy(), journal: self.journal.clone(), held: Vec::new() };
        for undo in steps[..stop].iter().rev().filter_map(Step::undo) {
            undone.apply(&undo, wish)?;
        }
        let (undone, before) = (undone.model.text(), before);
        let other = undone.lines().zip(before.lines()).find(|(now, then)| now != then);
        prop_assert!(undone == before, "{:?} undone of {:?}: {:?}", &steps[..stop], wish, other);

        if for_good && stop < steps.len() {
            return Ok(false);
        }
        let rest = plan(&self.model.host, owners, wish);
        let rest =
            rest.map_err(|refusal| TestCaseError::fail(format!("{wish:?} after {stop} of {steps:?}: {refusal}")))?;
        for step in &rest.steps {
            self.apply(step, wish)?;
            prop_assert_eq!(&self.of_others(owners), &others, "{:?} disturbs somebody, for {:?}", step, wish);
        }
        let mut again = plan(&self.model.host, owners, wish).map(|plan| plan.steps);
        // Only on its driver does a GPU say what else there is to be done.
        if let (Wish::Mode { .. }, [Step::Bind { .. }], Ok(more)) = (wish, steps, &again) {
            for step in more {
                self.apply(step, wish)?;
                prop_assert_eq!(&self.of_others(owners), &others, "{:?} disturbs somebody, for {:?}", step, wish);
            }
            again = plan(&self.model.host, owners, wish).map(|plan| plan.steps);
        }
        prop_assert_eq!(again, Ok(Vec::new()), "{:?} is carried out", wish);
        Ok(true)
    }

    fn apply(&mut self, step: &Step, wish: &Wish) -> Result<(), TestCaseError> {
        self.model.apply(step).map_err(|error| TestCaseError::fail(format!("{step:?} for {wish:?}: {error}")))
    }

    /// Everything that somebody else owns, or that is held open, as text.
    fn of_others(&self, owners: &Owners) -> BTreeMap<String, String> {
        let host = &self.model.host;
        let others = |device: &str| {
            let owner = owners.functions.get(device);
            owner.is_some() && owner != owners.asker.as_ref() || host.holders.contains_key(device)
        };
        let mut kept = BTreeMap::new();
        for function in &host.pci.devices {
            let address = function.address.to_string();
            if others(&address) {
                let vgpu = match host.vgpus.get(&function.address) {
                    Some(VgpuFunction::Vendor { current, gpu_instance, .. }) => format!("{current:?} {gpu_instance:?}"),
                    _ => String::new(),
                };
                kept.insert(address, format!("{:?} {:?} {vgpu}", function.driver, function.driver_override));
            }
        }
        kept.extend(
            host.mdevs.iter().filter(|mdev| others(&mdev.uuid)).map(|mdev| (mdev.uuid.clone(), mdev.type_id.clone())),
        );
        for owned in owners.gpu_instances.iter().filter(|owned| owners.asker.as_ref() != Some(&owned.owner)) {
            let gpu = host.gpus.devices.iter().find(|gpu| gpu.address == owned.gpu);
            let Some(Mig::Supported(mig)) = gpu.map(|gpu| &gpu.mig) else { continue };
            let is = |of: &&crate::gpu::GpuInstance| {
                of.profile == owned.piece.profile && of.placement == owned.piece.placement
            };
            kept.insert(format!("{owned:?}"), format!("{:?}", mig.instances.iter().find(is)));
        }
        kept
    }

    /// Somebody opens a device that can be opened, or a monitor a GPU.
    fn open(&mut self, which: usize) {
        let host = &mut self.model.host;
        let functions = host.pci.devices.iter().map(|function| function.address.to_string());
        let devices: Vec<_> = functions.chain(host.mdevs.iter().map(|mdev| mdev.uuid.clone())).collect();
        let device = devices[which % devices.len()].clone();
        let holder = Holder { pid: 7, command: "qemu".to_owned(), unit: None, file: "/dev/vfio/1".to_owned() };
        host.holders.insert(device, vec![holder]);
    }

    fn close(&mut self, which: usize) {
        let holders = &mut self.model.host.holders;
        if let Some(device) = holders.keys().nth(which.checked_rem(holders.len()).unwrap_or(0)).cloned() {
            holders.remove(&device);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]
    #[test]
    fn plans_hold_through_a_hosts_life(events in events()) {
        let mut life = Life { model: fresh(), journal: Owners::default(), held: Vec::new() };
        for event in events {
            match event {
                Event::Ask { asker, which, stop } => {
                    let wishes = wishes(&life.model.host);
                    let asker = ASKERS.get(asker).map(|&asker| asker.to_owned());
                    life.ask(asker, &wishes[which % wishes.len()].clone(), stop)?;
                }
                Event::GiveBack { which, stop } => drop(life.give_back(which, stop)?),
                Event::Open { which } => life.open(which),
                Event::Close { which } => life.close(which),
            }
        }
        // In the end everybody lets go of everything, and the host is as it was.
        life.model.host.holders.clear();
        for _ in 0..3 * life.held.len() {
            for which in (0..life.held.len()).rev() {
                life.give_back(which, NEVER)?;
            }
        }
        prop_assert_eq!(&life.journal.functions, &BTreeMap::new());
        prop_assert!(life.journal.gpu_instances.is_empty(), "{:?}", life.journal.gpu_instances);
        let host = &life.model.host;
        let left = host.pci.devices.iter().find(|function| function.driver.as_deref() == Some("vfio-pci"));
        prop_assert!(left.is_none(), "{:?}, and {:?} remain", left, life.held);
        let carried = host.vgpus.values().filter(|vgpu| matches!(vgpu, VgpuFunction::Vendor { current: Some(_), .. }));
        prop_assert_eq!((carried.count(), host.mdevs.len()), (0, 0));
    }
}

/// The life above is not one of refusals only: each kind of step is taken in it.
#[test]
fn every_kind_of_step_is_planned_by_chance() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen = BTreeMap::<String, usize>::new();
    for _ in 0..200 {
        let mut life = Life { model: fresh(), journal: Owners::default(), held: Vec::new() };
        for event in events().new_tree(&mut runner).unwrap().current() {
            let wish = match event {
                Event::Ask { asker, which, .. } => {
                    let wishes = wishes(&life.model.host);
                    let wish = wishes[which % wishes.len()].clone();
                    let asker = ASKERS.get(asker).map(|&asker| asker.to_owned());
                    let planned = plan(&life.model.host, &life.owners(asker.clone()), &wish);
                    life.ask(asker, &wish, NEVER).unwrap();
                    planned
                }
                Event::GiveBack { which, .. } if !life.held.is_empty() => {
                    let (asker, wish) = life.held[which % life.held.len()].clone();
                    let planned = plan(&life.model.host, &life.owners(asker), &wish);
                    life.give_back(which, NEVER).unwrap();
                    planned
                }
                _ => continue,
            };
            for step in wish.map(|plan| plan.steps).unwrap_or_default() {
                let word = format!("{step:?}");
                *seen.entry(word[..word.find(' ').unwrap()].to_owned()).or_default() += 1;
            }
        }
    }
    assert_eq!(seen.len(), 18, "{seen:?}");
}
