//! Who has a device open: every process with one of its files among its open ones.
//!
//! Seen are processes. What the kernel itself holds a device for (a mounted disk, an address on a NIC) is no open file: see
//! [`crate::kernel_use`].

use std::collections::{BTreeMap, BTreeSet};

use crate::bus::Inventory;
use crate::error::{FsError, IfPresent as _, ProbeCause, ProbeError};
use crate::host::{Holder, Mdev};
use crate::hostfs::HostFs;
use crate::nodes;
use crate::pci::{PciAddress, PciFunction};
use crate::usb::UsbDevice;

/// Which devices a file stands for.
#[derive(Debug, Default)]
pub(crate) struct Files(BTreeMap<String, BTreeSet<String>>);

impl Files {
    fn add(&mut self, file: String, device: impl ToString) {
        self.0.entry(file).or_default().insert(device.to_string());
    }

    /// `minors`: of `/dev/nvidia{minor}`.
    pub fn of(
        fs: &HostFs,
        functions: &Inventory<PciFunction>,
        mdevs: &[Mdev],
        usb: &Inventory<UsbDevice>,
        minors: &[(u32, PciAddress)],
        errors: &mut Vec<ProbeError>,
    ) -> Files {
        let mut files = Files::default();
        for function in &functions.devices {
            // A group is opened as a whole: its file is held on behalf of every device in it.
            if let Some(group) = function.iommu_group {
                files.add(format!("/dev/vfio/{group}"), function.address);
            }
            let entry = format!("/sys/bus/pci/devices/{}", function.address);
            let device = format!("pci {}", function.address);
            files.add_cdevs(fs, &entry, &device, &function.address.to_string(), errors);
        }
        for mdev in mdevs {
            if let Some(group) = mdev.iommu_group {
                files.add(format!("/dev/vfio/{group}"), &mdev.uuid);
            }
            let entry = format!("/sys/bus/mdev/devices/{}", mdev.uuid);
            files.add_cdevs(fs, &entry, &format!("mdev {}", mdev.uuid), &mdev.uuid, errors);
        }
        for (minor, gpu) in minors {
            files.add(format!("/dev/nvidia{minor}"), gpu);
        }
        for device in &usb.devices {
            files.add(format!("/dev/bus/usb/{:03}/{:03}", device.port.bus, device.device_number), &device.port);
        }
        files.add_nodes(fs, |_| true, errors);
        files
    }

    /// Of single devices, by address or mdev UUID, without a look at the whole host.
    pub fn of_these(fs: &HostFs, devices: &BTreeSet<String>, errors: &mut Vec<ProbeError>) -> Files {
        let mut files = Files::default();
        let minors = nvidia_minors(fs, errors);
        for name in devices {
            let (bus, address) = if let Ok(address) = name.parse::<PciAddress>() {
                for (minor, _) in minors.iter().filter(|(_, gpu)| *gpu == address) {
                    files.add(format!("/dev/nvidia{minor}"), name);
                }
                ("pci", name)
            } else {
                ("mdev", name)
            };
            let (entry, device) = (format!("/sys/bus/{bus}/devices/{address}"), format!("{bus} {address}"));
            match fs.link_name(&format!("{entry}/iommu_group")).if_present() {
                Ok(group) => group.into_iter().for_each(|group| files.add(format!("/dev/vfio/{group}"), name)),
                Err(error) => {
                    errors.push(ProbeError {
                        device: device.clone(),
                        what: "IOMMU group".into(),
                        source: error.into(),
                    });
                }
            }
            files.add_cdevs(fs, &entry, &device, name, errors);
        }
        files.add_nodes(fs, |owner| devices.contains(owner), errors);
        files
    }

    /// By what its driver, or one further down, lets it be opened: a desktop or a program with a serial line whose driver is
    /// unbound below it is left with a device that is none.
    fn add_nodes(&mut self, fs: &HostFs, is_asked: impl Fn(&str) -> bool, errors: &mut Vec<ProbeError>) {
        for node in nodes::all(fs, errors) {
            for owner in node.owners.iter().filter(|owner| is_asked(owner)) {
                self.add(node.file.clone(), owner);
            }
        }
    }

    /// VFIO's newer way, without the group: `vfio-dev/vfio3` is `/dev/vfio/devices/vfio3`.
    fn add_cdevs(&mut self, fs: &HostFs, entry: &str, device: &str, key: &str, errors: &mut Vec<ProbeError>) {
        match fs.entries(&format!("{entry}/vfio-dev")).if_present() {
            Ok(names) => {
                let names = names.into_iter().flatten().filter(|name| name.starts_with("vfio"));
                names.for_each(|name| self.add(format!("/dev/vfio/devices/{name}"), key));
            }
            Err(error) => {
                let what = "VFIO files".into();
                errors.push(ProbeError { device: device.to_owned(), what, source: error.into() });
            }
        }
    }
}

/// Processes by device: PCI address, mdev UUID or USB port.
pub(crate) fn find(fs: &HostFs, files: &Files, errors: &mut Vec<ProbeError>) -> BTreeMap<String, Vec<Holder>> {
    let mut holders: BTreeMap<String, Vec<Holder>> = BTreeMap::new();
    let mut whole = |source: ProbeCause| {
        errors.push(ProbeError { device: "holders".to_owned(), what: "open files of all processes".into(), source });
    };
    let processes = match fs.entries("/proc") {
        Ok(names) => names,
        Err(error) => {
            whole(error.into());
            return holders;
        }
    };
    let (mut refused, mut first) = (0, None);
    for pid in processes.iter().filter_map(|name| name.parse::<u32>().ok()) {
        let targets = match fs.links(&format!("/proc/{pid}/fd")) {
            Ok(targets) => targets,
            Err(error) if is_gone(&error) => continue,
            Err(error) => {
                refused += 1;
                first.get_or_insert(error);
                continue;
            }
        };
        let mut of_one = BTreeSet::new();
        for target in targets {
            let Some(file) = target.to_str() else { continue };
            if files.0.contains_key(file) {
                of_one.insert(file.to_owned());
            }
        }
        for file in of_one {
            let holder = Holder { pid, command: command(fs, pid), unit: unit(fs, pid), file: file.clone() };
            for device in &files.0[&file] {
                holders.entry(device.clone()).or_default().push(holder.clone());
            }
        }
    }
    if let Some(error) = first {
        // One error, not a thousand: nobody but root may look at other people's processes.
        let others = crate::chain(&error);
        whole(ProbeCause::Part(format!("{refused} processes do not show theirs (are you root?), the first: {others}")));
    }
    for list in holders.values_mut() {
        list.sort();
        list.dedup();
    }
    holders
}

/// It ended between the listing and here.
fn is_gone(error: &FsError) -> bool {
    const ESRCH: i32 = 3;
    error.is_absent() || error.errno() == Some(ESRCH)
}

/// It may have ended by now: it had the file open all the same.
fn command(fs: &HostFs, pid: u32) -> String {
    let printable = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    let name = fs.attribute(&format!("/proc/{pid}/comm")).unwrap_or_default();
    name.chars().map(printable).collect()
}

fn unit(fs: &HostFs, pid: u32) -> Option<String> {
    parse_unit(&fs.read(&format!("/proc/{pid}/cgroup")).ok()?)
}

/// `0::/machine.slice/machine-qemu\x2d1\x2dcroft.scope/libvirt/emulator`: the innermost thing that systemd started. With the
/// first version of cgroups there is a line for each controller, and systemd's own is named so.
fn parse_unit(cgroup: &str) -> Option<String> {
    let path = |line: &str| line.splitn(3, ':').nth(2).map(str::to_owned);
    let line = |tag: &str| cgroup.lines().find(|line| line.contains(tag)).and_then(path);
    let path = line(":name=systemd:").or_else(|| line("0::"))?;
    let is_unit = |name: &&str| [".service", ".scope"].iter().any(|suffix| name.ends_with(suffix));
    path.split('/').rev().find(is_unit).map(str::to_owned)
}

/// Which `/dev/nvidia{minor}` is which GPU, as the driver writes it below `/proc`: NVML is not needed for it.
pub(crate) fn nvidia_minors(fs: &HostFs, errors: &mut Vec<ProbeError>) -> Vec<(u32, PciAddress)> {
    const GPUS: &str = "/proc/driver/nvidia/gpus";
    let failed = |error: FsError| ProbeError {
        device: "holders".to_owned(),
        what: "NVIDIA's files".into(),
        source: error.into(),
    };
    let names = match fs.entries(GPUS).if_present() {
        Ok(names) => names.unwrap_or_default(),
        Err(error) => {
            errors.push(failed(error));
            return Vec::new();
        }
    };
    let mut minors = Vec::new();
    for name in names {
        let path = format!("{GPUS}/{name}/information");
        let minor = fs.parse(&path, "an NVIDIA GPU's information", |text| {
            let line = text.lines().find_map(|line| line.strip_prefix("Device Minor:"))?;
            line.trim().parse().ok()
        });
        match (minor, name.parse()) {
            (Ok(minor), Ok(address)) => minors.push((minor, address)),
            (Err(error), _) if error.is_absent() && matches!(fs.has(&format!("{GPUS}/{name}")), Ok(false)) => {}
            (Err(error), _) => errors.push(failed(error)),
            (_, Err(_)) => errors.push(failed(fs.garbage(GPUS, &name, "a PCI address"))),
        }
    }
    minors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_the_innermost_that_systemd_started() {
        let qemu = "0::/machine.slice/machine-qemu\\x2d1\\x2dcroft.scope/libvirt/emulator\n";
        assert_eq!(parse_unit(qemu).as_deref(), Some("machine-qemu\\x2d1\\x2dcroft.scope"));
        assert_eq!(
            parse_unit("0::/system.slice/nvidia-persistenced.service\n").as_deref(),
            Some("nvidia-persistenced.service")
        );
        let first_version = "12:devices:/docker/abc\n1:name=systemd:/system.slice/docker.service\n0::/x.scope\n";
        assert_eq!(parse_unit(first_version).as_deref(), Some("docker.service"));
        assert_eq!(parse_unit("0::/\n"), None);
        assert_eq!(parse_unit(""), None);
    }

    #[test]
    fn files_of_a_driver_are_files_of_its_device() {
        const DISPLAY: &str = "0000:03:00.0";
        let root = tempfile::tempdir().unwrap();
        for (number, device, file) in [
            ("226:128", DISPLAY, "dri/renderD128"),
            ("116:5", DISPLAY, "snd/pcmC1D0p"),
            ("226:0", "0000:04:00.0", "dri/card0"),
        ] {
            let class = root.path().join(format!("sys/devices/pci0000:00/{device}/{number}"));
            std::fs::create_dir_all(&class).unwrap();
            std::fs::write(class.join("uevent"), format!("DEVNAME={file}\n")).unwrap();
            let index = root.path().join("sys/dev/char");
            std::fs::create_dir_all(&index).unwrap();
            let place = format!("../../devices/pci0000:00/{device}/{number}");
            std::os::unix::fs::symlink(place, index.join(number)).unwrap();
        }
        for (pid, file) in [(7, "dri/renderD128"), (8, "snd/pcmC1D0p"), (9, "dri/card0"), (10, "dri/card1")] {
            let files = root.path().join(format!("proc/{pid}/fd"));
            std::fs::create_dir_all(&files).unwrap();
            std::os::unix::fs::symlink(format!("/dev/{file}"), files.join("3")).unwrap();
        }
        let fs = HostFs::at(root.path()).unwrap();
        let mut errors = Vec::new();
        let files = Files::of_these(&fs, &BTreeSet::from([DISPLAY.to_owned()]), &mut errors);
        let held = find(&fs, &files, &mut errors);
        let pids: Vec<u32> = held[DISPLAY].iter().map(|holder| holder.pid).collect();
        assert_eq!((pids, held.len(), errors.len()), (vec![7, 8], 1, 0), "{errors:?}");
    }
}
