//! Who has a device open: every process with one of its files among its open ones.
//!
//! Seen are processes. What the kernel itself holds a device for (a mounted disk, an address on a NIC) is no open file: see
//! [`crate::kernel_use`].

use std::collections::{BTreeMap, BTreeSet};

use crate::bus::Inventory;
use crate::error::{FsError, IfPresent as _, ProbeCause, ProbeError};
use crate::host::{Holder, Mdev};
use crate::hostfs::HostFs;
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
        files
    }

    /// The files by which a device is opened while its driver has it. VFIO's is the newer way, without the group:
    /// `vfio-dev/vfio3` is `/dev/vfio/devices/vfio3`.
    fn add_cdevs(&mut self, fs: &HostFs, entry: &str, device: &str, key: &str, errors: &mut Vec<ProbeError>) {
        const BELOW: [(&str, &str, &[&str]); 3] = [
            ("vfio-dev", "/dev/vfio/devices", &["vfio"]),
            // A desktop, a compositor: a driver that is unbound below them leaves them with a device that is none.
            ("drm", "/dev/dri", &["card", "renderD"]),
            ("nvme", "/dev", &["nvme"]),
        ];
        let mut names = |directory: &str| match fs.entries(directory).if_present() {
            Ok(names) => names.unwrap_or_default(),
            Err(error) => {
                let what = "files of its driver".into();
                errors.push(ProbeError { device: device.to_owned(), what, source: error.into() });
                Vec::new()
            }
        };
        let mut found = Vec::new();
        for (class, at, prefixes) in BELOW {
            let names = names(&format!("{entry}/{class}")).into_iter();
            let files = names.filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)));
            found.extend(files.map(|name| format!("{at}/{name}")));
        }
        // `sound/card0/pcmC0D0p` is `/dev/snd/pcmC0D0p`.
        for card in names(&format!("{entry}/sound")) {
            let names = names(&format!("{entry}/sound/{card}")).into_iter();
            let files =
                names.filter(|name| ["control", "pcm", "hw", "midi"].iter().any(|prefix| name.starts_with(prefix)));
            found.extend(files.map(|name| format!("/dev/snd/{name}")));
        }
        for file in found {
            self.add(file, key);
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
        let root = tempfile::tempdir().unwrap();
        let make = |path: &str| std::fs::create_dir_all(root.path().join(path)).unwrap();
        for file in
            ["drm/card0", "drm/renderD128", "drm/version", "nvme/nvme3", "sound/card1/pcmC1D0p", "sound/card1/id"]
        {
            make(&format!("sys/bus/pci/devices/0000:03:00.0/{file}"));
        }
        for (pid, file) in [(7, "dri/renderD128"), (8, "nvme3"), (9, "snd/pcmC1D0p"), (10, "dri/card1"), (11, "snd/id")]
        {
            make(&format!("proc/{pid}/fd"));
            let link = root.path().join(format!("proc/{pid}/fd/3"));
            std::os::unix::fs::symlink(format!("/dev/{file}"), link).unwrap();
        }
        let fs = HostFs::at(root.path()).unwrap();
        let mut errors = Vec::new();
        let files = Files::of_these(&fs, &BTreeSet::from(["0000:03:00.0".to_owned()]), &mut errors);
        let held = find(&fs, &files, &mut errors);
        let pids: Vec<u32> = held["0000:03:00.0"].iter().map(|holder| holder.pid).collect();
        assert_eq!((pids, errors.len()), (vec![7, 8, 9], 0), "{errors:?}");
    }
}
