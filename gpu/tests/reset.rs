//! Resets against a small tree whose device answers as the test wants it to.
#![expect(clippy::unwrap_used, reason = "a test stops where something is missing")]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use croft_gpu::apply::{Access, Carried, Ending, Executor, InProcess, Work};
use croft_gpu::plan::Step;
use croft_gpu::{HostFs, Kernel};
use rustix::io::Errno;

const DEVICE: &str = "sys/bus/pci/devices/0000:41:00.0";
/// Of what is above the device: its directory is no link in this tree.
const BRIDGE: &str = "sys/bus/pci/devices/reset_subordinate";
const ALIVE: [u8; 8] = [0xde, 0x10, 0x30, 0x23, 0x06, 0x00, 0x10, 0x00];

/// What the device becomes when it is reset by a method.
type Behaviour = fn(method: &str, device: &Path) -> io::Result<()>;

#[derive(Debug)]
struct Board {
    root: PathBuf,
    behaviour: Behaviour,
    tried: Arc<Mutex<Vec<String>>>,
}

impl Kernel for Board {
    fn write(&self, path: &str, value: &str) -> io::Result<()> {
        let file = self.root.join(path.trim_start_matches('/'));
        if path.ends_with("/reset_subordinate") {
            self.tried.lock().unwrap().push("bridge".to_owned());
            return Ok(());
        }
        if !path.ends_with("/reset") {
            return fs::write(file, value);
        }
        let device = file.parent().unwrap();
        let method = fs::read_to_string(device.join("reset_method")).unwrap_or_else(|_| "default".to_owned());
        self.tried.lock().unwrap().push(method.clone());
        (self.behaviour)(&method, device)
    }
}

struct Bench {
    root: tempfile::TempDir,
    tried: Arc<Mutex<Vec<String>>>,
}

impl Bench {
    fn new() -> Bench {
        let bench = Bench { root: tempfile::tempdir().unwrap(), tried: Arc::default() };
        for file in
            [("vendor", "0x10de"), ("device", "0x2330"), ("reset_method", "flr bus"), ("current_link_width", "16")]
        {
            bench.write(&format!("{DEVICE}/{}", file.0), format!("{}\n", file.1));
        }
        bench.write(&format!("{DEVICE}/max_link_width"), "16\n");
        bench.write(&format!("{DEVICE}/config"), ALIVE);
        fs::create_dir_all(bench.root.path().join("proc")).unwrap();
        bench.group("0000:41:00.0", 7);
        bench
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn group(&self, function: &str, group: u32) {
        let directory = self.root.path().join("sys/bus/pci/devices").join(function);
        fs::create_dir_all(&directory).unwrap();
        std::os::unix::fs::symlink(format!("../../groups/{group}"), directory.join("iommu_group")).unwrap();
    }

    fn reset(&self, methods: &[&str], behaviour: Behaviour) -> Result<String, String> {
        let root = self.root.path().to_owned();
        let kernel = Board { root: root.clone(), behaviour, tried: self.tried.clone() };
        let fs = HostFs::simulated(root, Arc::new(kernel)).unwrap();
        let access = Access { patience: Duration::from_millis(30), ..Access::without_nvidia(fs) };
        let methods = methods.iter().map(|&method| method.to_owned()).collect();
        let step = Step::Reset { address: "0000:41:00.0".parse().unwrap(), methods };
        match InProcess::new(access).carry_out(&Work::Do { step }, Duration::MAX) {
            Carried { ending: Ending::Done(done), .. } => Ok(done.reset_method.unwrap()),
            Carried { ending: Ending::Failed(error), .. } => Err(error.message),
            other => panic!("{other:?}"),
        }
    }

    fn tried(&self) -> Vec<String> {
        self.tried.lock().unwrap().clone()
    }

    fn order(&self) -> String {
        fs::read_to_string(self.root.path().join(DEVICE).join("reset_method")).unwrap().trim().to_owned()
    }
}

/// A companion got its driver back, or somebody opened it, after the plan was made.
#[test]
fn a_bus_is_not_reset_under_a_neighbour_that_came_into_use() {
    const COMPANION: &str = "0000:41:00.1";
    let bench = Bench::new();
    bench.group(COMPANION, 7);
    let device = bench.root.path().join("sys/bus/pci/devices").join(COMPANION);
    let on = |driver: &str| {
        let link = device.join("driver");
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(format!("../../drivers/{driver}"), link).unwrap();
    };
    on("snd_hda_intel");
    let error = bench.reset(&["bus"], fine).unwrap_err();
    assert!(error.contains("0000:41:00.1, on the same bus, is on snd_hda_intel"), "{error}");
    assert!(bench.tried().is_empty());
    on("vfio-pci");
    bench.write(BRIDGE, "");
    assert_eq!(bench.reset(&["bus"], fine).unwrap(), "bus");
    assert_eq!(bench.tried(), ["bridge"]);
}

fn fine(_: &str, _: &Path) -> io::Result<()> {
    Ok(())
}

fn refuse_flr(method: &str, _: &Path) -> io::Result<()> {
    if method == "flr" { Err(Errno::NOTTY.into()) } else { Ok(()) }
}

/// Falls off the bus by FLR, and a bus reset brings it back.
fn die_of_flr(method: &str, device: &Path) -> io::Result<()> {
    fs::write(device.join("config"), if method == "flr" { [0xff; 8] } else { ALIVE })
}

#[test]
fn the_first_method_that_works_is_taken_and_the_order_put_back() {
    let bench = Bench::new();
    assert_eq!(bench.reset(&["flr", "bus"], fine).unwrap(), "flr");
    assert_eq!((bench.tried(), bench.order()), (vec!["flr".to_owned()], "flr bus".to_owned()));

    for behaviour in [refuse_flr as Behaviour, die_of_flr] {
        let bench = Bench::new();
        assert_eq!(bench.reset(&["flr", "bus"], behaviour).unwrap(), "bus");
        assert_eq!((bench.tried(), bench.order()), (vec!["flr".to_owned(), "bus".to_owned()], "flr bus".to_owned()));
    }
}

#[test]
fn old_kernels_choose_the_method_themselves() {
    let bench = Bench::new();
    fs::remove_file(bench.root.path().join(DEVICE).join("reset_method")).unwrap();
    assert_eq!(bench.reset(&["flr"], fine).unwrap(), "default");
}

#[test]
fn a_device_that_does_not_come_back_as_it_was_is_doubted() {
    let dead: Behaviour = |_, device| fs::write(device.join("config"), [0xff; 8]);
    let other: Behaviour = |_, device| fs::write(device.join("config"), [0xde, 0x10, 0x31, 0x23, 6, 0, 16, 0]);
    let narrow: Behaviour = |_, device| fs::write(device.join("current_link_width"), "8\n");
    let mute: Behaviour = |_, device| fs::write(device.join("config"), []);
    for (behaviour, said) in
        [(dead, "0xffffffff"), (other, "answers as 10de:2331"), (narrow, "8 of 16 lanes"), (mute, "0 bytes")]
    {
        let bench = Bench::new();
        let error = bench.reset(&["flr"], behaviour).unwrap_err();
        assert!(error.contains("flr") && error.contains(said), "{error}");
        assert_eq!(bench.order(), "flr bus");
    }
    // A link that says nothing sensible beforehand is the guest's work; afterwards it is doubt.
    let bench = Bench::new();
    bench.write(&format!("{DEVICE}/current_link_width"), "63\n");
    let error = bench.reset(&["flr"], fine).unwrap_err();
    assert!(error.contains("current_link_width"), "{error}");
    let mended: Behaviour = |_, device| fs::write(device.join("current_link_width"), "16\n");
    assert_eq!(bench.reset(&["flr"], mended).unwrap(), "flr");
    let error = Bench::new().reset(&[], fine).unwrap_err();
    assert!(error.contains("no method"), "{error}");
    let error = Bench::new().reset(&["pm"], fine).unwrap_err();
    assert!(error.contains("does not offer"), "{error}");
}

/// Its ids read as 0xffff on every virtual function; the command register does not.
#[test]
fn a_virtual_function_is_known_by_its_command_register() {
    let bench = Bench::new();
    bench.write(&format!("{DEVICE}/config"), [0xff, 0xff, 0xff, 0xff, 6, 0, 16, 0]);
    let error = bench.reset(&["flr"], fine).unwrap_err();
    assert!(error.contains("ffff:ffff"), "{error}");
    std::os::unix::fs::symlink("../0000:41:00.1", bench.root.path().join(DEVICE).join("physfn")).unwrap();
    assert_eq!(bench.reset(&["flr"], fine).unwrap(), "flr");
}

#[test]
fn a_bus_is_reset_only_when_all_of_it_is_the_devices_own() {
    let bench = Bench::new();
    bench.group("0000:42:00.0", 9);
    assert_eq!(bench.reset(&["bus"], fine).unwrap(), "bus");
    assert_eq!(bench.tried(), ["bus"]);
    // An audio function of the same card: only the bridge above can reset the two together.
    bench.group("0000:41:00.1", 7);
    let error = bench.reset(&["bus"], fine).unwrap_err();
    assert!(error.contains("this kernel cannot reset those together"), "{error}");
    bench.write(BRIDGE, "");
    assert_eq!(bench.reset(&["bus"], fine).unwrap(), "bus");
    assert_eq!(bench.tried(), ["bus", "bridge"]);
    // Somebody else's.
    bench.group("0000:41:01.0", 8);
    let error = bench.reset(&["bus"], fine).unwrap_err();
    assert!(error.contains("0000:41:01.0 is on the same bus"), "{error}");
    assert_eq!(bench.tried().len(), 2, "the last was not even tried");
}
