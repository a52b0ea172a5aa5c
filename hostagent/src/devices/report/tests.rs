use croft_gpu::HostFs;
use croft_gpu::fabric::FabricSource;
use croft_gpu::host::Fabric;
use croft_gpu::nvml::NvmlSource;
use croft_gpu_sim::kernel::SimHost;

use super::*;
use crate::devices::helper::Looked;

const CARD: &str = "0000:81:00.0";

fn devbox() -> (tempfile::TempDir, SimHost) {
    let directory = tempfile::tempdir_in(croft_gpu_sim::kernel::scratch()).expect("tempdir");
    let hardware = SimHost::preset("devbox").expect("preset");
    let machine = SimHost::create(directory.path().join("root"), hardware).expect("machine");
    (directory, machine)
}

fn look(files: &HostFs) -> Host {
    let nvml = NvmlSource::NoDriver { why: "not asked".to_owned() };
    Host::probe(files, &nvml, &FabricSource::Unavailable { why: "not asked".to_owned() })
}

#[test]
fn a_look_that_failed_says_nothing_of_any_device() {
    let why = "no answer within 60 s".to_owned();
    let report = of(Some(Err(&why)), &Record::default());
    assert!(!report.seen && report.devices.is_empty() && report.why == why);
    assert_eq!(of(None, &Record::default()), Report::default());
}

#[test]
fn what_was_there_before_is_missing_and_not_forgotten() {
    let (_directory, machine) = devbox();
    let look = || look(&machine.fs().expect("files"));
    let host = look();
    let mut record = Record::default();
    for (id, found) in find::all(&host, &Record::default()) {
        record.known.insert(
            id.clone(),
            Known { who: find::who(&host, found), proven: String::new(), device: lasting(&host, &id, found) },
        );
    }
    machine.usb_unplug("1-1").expect("unplug");
    let report = of(Some(Ok(&Looked { host: look(), boot_id: String::new() })), &record);
    let gone: Vec<_> = report.devices.iter().filter(|device| device.state() == State::Missing).collect();
    let words: Vec<_> = gone.iter().map(|device| (device.name.as_str(), device.serial.as_str())).collect();
    assert_eq!(words, [("hosts/-/devices/usb-0000:00:14.0-1", "DONGLE-0001")]);
    assert_eq!(gone[0].reason, "DeviceMissing");
}

#[test]
fn a_function_of_a_network_card_that_is_down_is_not_placed_on() {
    let (_directory, machine) = devbox();
    let mut host = look(&machine.fs().expect("files"));
    let mut states = Vec::new();
    for up in [false, true] {
        let card = host.pci.devices.iter_mut().find(|function| function.address.to_string() == CARD).expect("a card");
        card.interfaces = vec![croft_gpu::pci::Interface { name: "eth1".to_owned(), up }];
        let of = card.address;
        let function = PciFunction { address: "0000:7f:00.1".parse().expect("address"), ..card.clone() };
        let function = PciFunction { sriov: Sriov::Virtual { physical: of }, iommu_group: Some(4711), ..function };
        host.pci.devices.push(function.clone());
        let found = Found::Function(&function);
        let (state, obstacle) = state::of(&host, &Record::default(), "0000:7f:00.1", found);
        states.push((state, obstacle.map(|obstacle| (obstacle.reason, obstacle.message.contains("eth1")))));
        host.pci.devices.pop();
    }
    assert_eq!(states, [(State::Unusable, Some(("DeviceCardDown", true))), (State::Available, None)]);
}

/// Nothing is placed on it meanwhile: neither a slice, nor all of it as it happens to be without a driver.
#[test]
fn a_gpu_whose_change_of_mode_was_cut_short_is_not_to_be_had() {
    let (_directory, machine) = devbox();
    let (gpu, files) = ("0000:41:00.0", machine.fs().expect("files"));
    files.write(&format!("/sys/bus/pci/devices/{gpu}/driver/unbind"), gpu).expect("unbind");
    let host = look(&files);
    let mut record = Record::default();
    let stands = |record: &Record| {
        let report = of(Some(Ok(&Looked { host: look(&files), boot_id: String::new() })), record);
        let device = report.devices.into_iter().find(|device| device.name.ends_with(gpu)).expect("reported");
        (device.state(), device.message)
    };
    assert!(host.errors.is_empty(), "{:?}", host.errors);
    let bare = stands(&record);
    record.modes.insert(gpu.parse().expect("address"), croft_gpu::plan::Mode::Idle);
    let (state, message) = stands(&record);
    assert_eq!((state, message.contains("cut short")), (State::Unusable, true), "{message}");
    assert_ne!(bare.1, message, "a GPU that nobody has set up may be without a driver");
}

/// What the operator is to mend first is told, not hidden behind what follows from it.
#[test]
fn a_card_that_is_silent_after_a_boot_says_what_the_look_found() {
    let (_directory, machine) = devbox();
    let (gpu, files) = ("0000:41:00.0", machine.fs().expect("files"));
    files.write(&format!("/sys/bus/pci/devices/{gpu}/driver/unbind"), gpu).expect("unbind");
    let mut host = look(&files);
    host.fabric = Fabric::Unavailable { why: "Fabric Manager does not answer".to_owned() };
    let found = || find::all(&host, &Record::default()).find(|(id, _)| id == gpu).expect("a GPU").1;
    let known =
        Known { who: find::who(&host, found()), proven: "boot-1".to_owned(), device: lasting(&host, gpu, found()) };
    let mut record = Record { boot_id: "boot-2".to_owned(), ..Record::default() };
    record.known.insert(gpu.to_owned(), known);
    let (state, obstacle) = state::of(&host, &record, gpu, found());
    let Obstacle { reason, message } = obstacle.expect("an obstacle");
    assert_eq!((state, reason), (State::Unusable, "DeviceUnproven"));
    for cause in ["no driver holds it", "Fabric Manager does not answer"] {
        assert!(message.contains(cause), "{message}");
    }
}
