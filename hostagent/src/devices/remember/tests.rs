use std::collections::BTreeSet;

use croft_gpu::Inventory;
use croft_gpu::host::Fabric;
use croft_gpu::pci::PciFunction;
use croft_gpu::usb::{Kind, UsbDevice, UsbPort};
use croft_proto::v1::device::State;
use uuid::Uuid;

use super::super::find::Found;
use super::super::helper::Looked;
use super::super::record::Hold;
use super::*;

mod cards;

/// Three sticks, two of which say who they are, and three ports.
struct Bench {
    plugged: BTreeMap<u8, usize>,
    record: Record,
    /// Which stick it was when it was taken.
    taken: BTreeMap<DeviceId, usize>,
}

const SERIALS: [Option<&str>; 3] = [Some("ONE"), Some("TWO"), None];

fn stick(number: usize, port: u8) -> UsbDevice {
    UsbDevice {
        port: UsbPort { bus: 1, ports: vec![port] },
        controller: Some("0000:00:14.0".to_owned()),
        // Tells the test which it is.
        device_number: u8::try_from(number).unwrap(),
        vendor: 0x0403,
        product: 0x6001,
        vendor_name: None,
        product_name: None,
        serial: SERIALS[number].map(str::to_owned),
        class: 0,
        class_name: None,
        kind: Kind::Device,
    }
}

fn host(functions: Vec<PciFunction>, sticks: Vec<UsbDevice>) -> Host {
    fn of<T>(devices: Vec<T>) -> Inventory<T> {
        Inventory { devices, errors: Vec::new() }
    }
    Host {
        pci: of(functions),
        usb: of(sticks),
        gpus: of(Vec::new()),
        mdevs: Vec::new(),
        vgpus: BTreeMap::new(),
        mdev_parents: BTreeMap::new(),
        fabric: Fabric::None,
        holders: BTreeMap::new(),
        errors: Vec::new(),
    }
}

impl Bench {
    fn host(&self) -> Host {
        host(Vec::new(), self.plugged.iter().map(|(port, number)| stick(*number, *port)).collect())
    }

    fn looks(&mut self) {
        let (known, changed) = after(&self.host(), &self.record, "");
        assert!(changed.is_empty());
        self.record.known = known;
    }

    /// By their names: how each stands, and which stick it is.
    fn reported(&self) -> BTreeMap<DeviceId, (State, Option<usize>)> {
        let host = self.host();
        let looked = Looked { host: self.host(), boot_id: String::new() };
        let report = report::of(Some(Ok(&looked)), &self.record);
        let named = report.devices.into_iter().map(|device| {
            let id = device.name.trim_start_matches("hosts/-/devices/").to_owned();
            let found = match find::device(&host, &self.record, &id) {
                Ok(Found::Usb(device)) => Some(usize::from(device.device_number)),
                _ => None,
            };
            (id, (device.state(), found))
        });
        named.collect()
    }

    fn step(&mut self, what: usize, which: usize, port: u8) {
        let id = format!("usb-0000:00:14.0-{port}");
        match what {
            0..4 => {
                self.plugged.retain(|_, number| *number != which);
                self.plugged.insert(port, which);
            }
            4 => self.plugged.retain(|_, number| *number != which),
            5..8 => {
                if let Some((State::Available, Some(number))) = self.reported().get(&id) {
                    let hold = Hold { device: id.clone(), taken: Vec::new() };
                    self.record.holds.entry(Uuid::from_u128(port.into())).or_default().insert("hsm".to_owned(), hold);
                    self.taken.insert(id, *number);
                }
            }
            _ => {
                self.record.holds.remove(&Uuid::from_u128(port.into()));
                self.taken.remove(&id);
            }
        }
    }

    fn is_sound(&self) {
        let reported = self.reported();
        let mut named = BTreeSet::new();
        for (id, (state, number)) in &reported {
            assert!(number.is_none_or(|number| named.insert(number)), "two names of one stick: {reported:?}");
            match self.taken.get(id) {
                Some(taken) => {
                    assert!(
                        number.is_none_or(|number| number == *taken),
                        "another one by the name of one that is held"
                    );
                    assert_ne!(*state, State::Available);
                }
                None => {
                    // One that does not say who it is, is another in another port.
                    let tells = number.filter(|number| SERIALS[*number].is_some());
                    let taken = tells.is_some_and(|number| self.taken.values().any(|taken| *taken == number));
                    assert!(!taken, "{id} is held by another name: {reported:?}");
                }
            }
        }
    }
}

/// Whatever is plugged in where, and taken and given back meanwhile.
#[test]
fn no_stick_is_ever_two_and_none_stands_for_another() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut any = |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    for _ in 0..2000 {
        let mut bench = Bench { plugged: BTreeMap::new(), record: Record::default(), taken: BTreeMap::new() };
        for _ in 0..20 {
            let (what, which) = (usize::try_from(any(9)).unwrap(), usize::try_from(any(3)).unwrap());
            bench.step(what, which, u8::try_from(any(3)).unwrap() + 1);
            // The plane hears of it before and after it is remembered.
            bench.is_sound();
            bench.looks();
            bench.is_sound();
        }
    }
}
