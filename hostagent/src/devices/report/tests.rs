use super::*;
use crate::devices::helper::Looked;

#[test]
fn a_look_that_failed_says_nothing_of_any_device() {
    let why = "no answer within 60 s".to_owned();
    let report = of(Some(Err(&why)), &Record::default());
    assert!(!report.seen && report.devices.is_empty() && report.why == why);
    assert_eq!(of(None, &Record::default()), Report::default());
}

#[test]
fn what_was_there_before_is_missing_and_not_forgotten() {
    let directory = tempfile::tempdir_in(croft_gpu_sim::kernel::scratch()).expect("tempdir");
    let hardware = croft_gpu_sim::kernel::SimHost::preset("devbox").expect("preset");
    let machine = croft_gpu_sim::kernel::SimHost::create(directory.path().join("root"), hardware).expect("machine");
    let nvml = croft_gpu::nvml::NvmlSource::NoDriver { why: "not asked".to_owned() };
    let fabric = croft_gpu::fabric::FabricSource::Unavailable { why: "not asked".to_owned() };
    let look = || Host::probe(&machine.fs().expect("files"), &nvml, &fabric);
    let host = look();
    let mut record = Record::default();
    for (id, found) in find::all(&host, &Record::default()) {
        record.known.insert(id.clone(), Known { who: find::who(&host, found), device: lasting(&host, &id, found) });
    }
    machine.usb_unplug("1-1").expect("unplug");
    let report = of(Some(Ok(&Looked { host: look(), boot_id: String::new() })), &record);
    let gone: Vec<_> = report.devices.iter().filter(|device| device.state() == State::Missing).collect();
    let words: Vec<_> = gone.iter().map(|device| (device.name.as_str(), device.serial.as_str())).collect();
    assert_eq!(words, [("hosts/-/devices/usb-0000:00:14.0-1", "DONGLE-0001")]);
    assert_eq!(gone[0].reason, "DeviceMissing");
}

/// Nothing is placed on it meanwhile: neither a slice, nor all of it as it happens to be without a driver.
#[test]
fn a_gpu_whose_change_of_mode_was_cut_short_is_not_to_be_had() {
    let directory = tempfile::tempdir_in(croft_gpu_sim::kernel::scratch()).expect("tempdir");
    let hardware = croft_gpu_sim::kernel::SimHost::preset("devbox").expect("preset");
    let machine = croft_gpu_sim::kernel::SimHost::create(directory.path().join("root"), hardware).expect("machine");
    let (gpu, files) = ("0000:41:00.0", machine.fs().expect("files"));
    files.write(&format!("/sys/bus/pci/devices/{gpu}/driver/unbind"), gpu).expect("unbind");
    let nvml = croft_gpu::nvml::NvmlSource::NoDriver { why: "not asked".to_owned() };
    let fabric = croft_gpu::fabric::FabricSource::Unavailable { why: "not asked".to_owned() };
    let host = Host::probe(&files, &nvml, &fabric);
    let mut record = Record::default();
    let stands = |record: &Record| {
        let report =
            of(Some(Ok(&Looked { host: Host::probe(&files, &nvml, &fabric), boot_id: String::new() })), record);
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
