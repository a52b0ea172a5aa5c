//! Cards that change their slots while the machine is off.

use croft_gpu::HostFs;
use croft_gpu::fabric::FabricSource;
use croft_gpu::nvml::NvmlSource;
use croft_gpu_sim::kernel::SimHost;

use super::*;

/// What each card says of itself; one says nothing, ever.
const SERIALS: [Option<&str>; 4] = [Some("58-a1"), Some("58-a2"), Some("58-a3"), None];
const SLOTS: [&str; 3] = ["0000:21:00.0", "0000:22:00.0", "0000:23:00.0"];

struct Machine {
    /// One of the cards, as a look tells of it.
    card: PciFunction,
    boot: u32,
    /// By its slot: which card it is, and whether it says so in this boot.
    slots: BTreeMap<usize, (usize, bool)>,
    record: Record,
    /// Which card it was, and what the plane knows of it.
    taken: BTreeMap<DeviceId, (usize, String)>,
}

fn card() -> PciFunction {
    let directory = tempfile::tempdir_in(croft_gpu_sim::kernel::scratch()).expect("tempdir");
    let hardware = SimHost::preset("devbox").expect("preset");
    let machine = SimHost::create(directory.path().join("root"), hardware).expect("machine");
    let files: HostFs = machine.fs().expect("files");
    let nvml = NvmlSource::NoDriver { why: "not asked".to_owned() };
    let host = Host::probe(&files, &nvml, &FabricSource::Unavailable { why: "not asked".to_owned() });
    let card = host.pci.devices.into_iter().find(|function| function.address.to_string() == "0000:81:00.0");
    card.expect("a card")
}

impl Machine {
    fn host(&self) -> Host {
        let functions = self.slots.iter().map(|(slot, (card, says))| PciFunction {
            address: SLOTS[*slot].parse().expect("address"),
            slot_path: format!("pci0000:20/0{slot}.0/00.0"),
            serial: SERIALS[*card].filter(|_| *says).map(str::to_owned),
            // Each is in a group of its own, and tells the test which it is.
            iommu_group: Some(u32::try_from(*card).unwrap()),
            ..self.card.clone()
        });
        host(functions.collect(), Vec::new())
    }

    fn boot_id(&self) -> String {
        format!("boot {}", self.boot)
    }

    fn looks(&mut self) {
        let (known, changed) = after(&self.host(), &self.record, &self.boot_id());
        self.record.known = known;
        for (id, message) in changed {
            let mark = Mark { kind: MarkKind::Changed, reason: "DeviceChanged".to_owned(), message, time: 0 };
            self.record.marks.insert(id, mark);
        }
        self.record.boot_id = self.boot_id();
    }

    fn reported(&self) -> BTreeMap<DeviceId, (State, Option<usize>)> {
        let (host, looked) = (self.host(), Looked { host: self.host(), boot_id: self.boot_id() });
        let report = report::of(Some(Ok(&looked)), &self.record);
        let named = report.devices.into_iter().map(|device| {
            let id = device.name.trim_start_matches("hosts/-/devices/").to_owned();
            let found = host.pci.devices.iter().find(|function| function.address.to_string() == id);
            (id, (device.state(), found.and_then(|function| function.iommu_group).map(|card| card as usize)))
        });
        named.collect()
    }

    fn step(&mut self, what: usize, which: usize, slot: usize, says: bool) {
        let id = SLOTS[slot].to_owned();
        match what {
            // Off, a card into another slot or out, and on again.
            0..4 => {
                self.boot += 1;
                self.slots.retain(|_, (card, _)| *card != which);
                self.slots.values_mut().for_each(|(_, says)| *says = true);
                if what != 3 {
                    self.slots.insert(slot, (which, says));
                }
            }
            // Its driver comes, or goes: with its guest it says nothing.
            4 | 5 => {
                if let Some((_, now)) = self.slots.get_mut(&slot) {
                    *now = says;
                }
            }
            6 | 7 => {
                if let Some((State::Available, Some(card))) = self.reported().get(&id) {
                    let address = id.parse().expect("address");
                    let wish = croft_gpu::plan::Wish::Passthrough { address };
                    let pieces = vec![crate::devices::record::Piece::Function(address)];
                    let taken = crate::devices::record::Taken { wish, back: None, pieces };
                    let hold = Hold { device: id.clone(), taken: vec![taken] };
                    let uid = Uuid::from_u128(slot as u128);
                    self.record.holds.entry(uid).or_default().insert("card".to_owned(), hold);
                    let serial = self.record.known.get(&id).map(|known| find::serial(&known.who));
                    self.taken.insert(id, (*card, serial.unwrap_or_default()));
                }
            }
            8 => {
                self.record.holds.remove(&Uuid::from_u128(slot as u128));
                self.taken.remove(&id);
            }
            // Somebody has looked, and takes what is there for the right one.
            _ => {
                if self.record.marks.remove(&id).is_some() {
                    self.record.known.remove(&id);
                    // The instance never runs with it: the one that was placed is gone, by somebody's word.
                    self.taken.entry(id).and_modify(|(_, placed)| placed.clear());
                }
            }
        }
    }

    fn is_sound(&self, steps: &[String]) {
        let reported = self.reported();
        let known: Vec<_> = self.record.known.iter().map(|(id, known)| (id, &known.who, &known.proven)).collect();
        let why = || format!("{reported:?}, held {:?}, known {known:?}, after {steps:#?}", self.taken);
        let mut free = BTreeSet::new();
        for (id, (state, card)) in &reported {
            let (Some(card), State::Available) = (card, state) else { continue };
            assert!(free.insert(*card), "two names of one card: {}", why());
            assert!(!self.taken.contains_key(id), "{id} is held: {}", why());
            let says = self.slots.values().any(|(there, says)| there == card && *says && SERIALS[*card].is_some());
            let taken = self.taken.values().any(|(taken, placed)| taken == card && !placed.is_empty());
            assert!(!(says && taken), "{id} is held by another name: {}", why());
        }
        // What its instance would be given, were it started now, is the card that it took, as far as anybody can tell.
        let host = self.host();
        for (id, (taken, placed)) in &self.taken {
            let Some((_, Some(card))) = reported.get(id) else { continue };
            let refused = self.record.marks.contains_key(id)
                || find::unproven(&self.record, &self.boot_id(), id).is_some()
                || find::device(&host, &self.record, id).is_err();
            let serial = self.record.known.get(id).map(|known| find::serial(&known.who));
            // One that never said who it is, is known by its slot alone.
            let another = card != taken && !placed.is_empty() && serial.as_ref() == Some(placed);
            assert!(refused || !another, "{id} is another card: {}", why());
        }
    }
}

/// Whatever is put where while the machine is off, and taken and given back while it is on.
#[test]
fn no_card_has_two_owners_and_none_stands_for_another() {
    let card = card();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut any = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % below as u64).unwrap()
    };
    for _ in 0..400 {
        let mut machine = Machine {
            card: card.clone(),
            boot: 0,
            slots: BTreeMap::new(),
            record: Record::default(),
            taken: BTreeMap::new(),
        };
        let mut steps = Vec::new();
        for _ in 0..20 {
            let (what, which, slot, says) = (any(10), any(4), any(3), any(4) > 0);
            steps.push(format!("{what} card {which} slot {slot} says {says}"));
            machine.step(what, which, slot, says);
            machine.looks();
            machine.is_sound(&steps);
        }
    }
}

/// Its driver has not come yet where it sits now. The plane, which may have closed it, knows it by what that said.
#[test]
fn a_gpu_that_sits_elsewhere_is_still_called_what_its_driver_called_it() {
    let card = PciFunction { serial: Some("58-a1".to_owned()), ..card() };
    let at = |slot: usize| {
        host(vec![PciFunction { address: SLOTS[slot].parse().expect("address"), ..card.clone() }], Vec::new())
    };
    let mut record = Record::default();
    record.known = after(&at(0), &record, "boot 1").0;
    let Some(Who::Pci(identity)) = record.known.get_mut(SLOTS[0]).map(|known| &mut known.who) else {
        panic!("{:?}", record.known)
    };
    identity.uuid = Some("GPU-1".to_owned());
    let (known, changed) = after(&at(1), &record, "boot 2");
    assert!(changed.is_empty() && known.len() == 1, "{known:?}");
    assert_eq!(find::serial(&known[SLOTS[1]].who), "GPU-1");
}
