//! Who has a device open: every process with one of its files among its open ones.
//!
//! Seen are processes. What the kernel itself holds a device for (a mounted disk, an address on a NIC) is no open file: see
//! [`crate::kernel_use`].

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{FsError, IfPresent as _, IfThere as _, ProbeCause, ProbeError};
use crate::host::Holder;
use crate::hostfs::{HostFs, Node};
use crate::pci::PciAddress;
use crate::seat;

/// Which devices a file stands for: by address, mdev UUID or USB port.
#[derive(Debug, Default)]
pub(crate) struct Files(BTreeMap<Node, BTreeSet<String>>);

impl Files {
    /// `minors`: of `/dev/nvidia{minor}`.
    pub fn read(fs: &HostFs, minors: &[(u32, PciAddress)], errors: &mut Vec<ProbeError>) -> Files {
        let mut files = Files::default();
        if let Err(error) = files.add_listed(fs).and_then(|()| files.add_nvidia(fs, minors)) {
            errors.push(unread("files of devices", error));
        }
        files
    }

    fn add_listed(&mut self, fs: &HostFs) -> Result<(), FsError> {
        for (kind, block) in [("char", false), ("block", true)] {
            for (number, target) in fs.links(&format!("/sys/dev/{kind}")).if_present()?.unwrap_or_default() {
                let devices = seat::of_node(fs, &target)?;
                if let (Some(node), false) = (Node::numbered(block, &number), devices.is_empty()) {
                    self.0.entry(node).or_default().extend(devices);
                }
            }
        }
        Ok(())
    }

    /// NVIDIA's driver tells the kernel nothing of its files.
    fn add_nvidia(&mut self, fs: &HostFs, minors: &[(u32, PciAddress)]) -> Result<(), FsError> {
        /// `NV_MAJOR_DEVICE_NUMBER`
        const MAJOR: u32 = 195;
        let capabilities = major(fs, "nvidia-caps")?;
        for (minor, gpu) in minors {
            self.0.entry(Node::char(MAJOR, *minor)).or_default().insert(gpu.to_string());
            let Some(major) = capabilities else { continue };
            // Who has a part of it has it.
            let mig = format!("/proc/driver/nvidia/capabilities/gpu{minor}/mig");
            for instance in fs.entries(&mig).if_there()?.unwrap_or_default() {
                let parts = fs.entries(&format!("{mig}/{instance}")).if_there()?.unwrap_or_default();
                let parts = parts.into_iter().filter(|part| part != "access").map(|part| format!("{instance}/{part}"));
                for part in parts.chain([instance.clone()]) {
                    let file = fs.read(&format!("{mig}/{part}/access")).if_there()?.unwrap_or_default();
                    let number =
                        file.lines().find_map(|line| line.strip_prefix("DeviceFileMinor:")?.trim().parse().ok());
                    if let Some(number) = number {
                        self.0.entry(Node::char(major, number)).or_default().insert(gpu.to_string());
                    }
                }
            }
        }
        Ok(())
    }
}

/// Of a driver's character devices: `508 nvidia-caps`.
fn major(fs: &HostFs, driver: &str) -> Result<Option<u32>, FsError> {
    let table = fs.read("/proc/devices").if_present()?.unwrap_or_default();
    let mut characters = table.lines().take_while(|line| *line != "Block devices:");
    Ok(characters
        .find_map(|line| line.trim_start().split_once(' ').filter(|(_, name)| *name == driver)?.0.parse().ok()))
}

fn unread(what: &'static str, source: FsError) -> ProbeError {
    ProbeError { device: "holders".to_owned(), what: what.into(), source: source.into() }
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
        let open = match open_files(fs, pid, files).if_there() {
            Ok(open) => open.unwrap_or_default(),
            Err(error) => {
                refused += 1;
                first.get_or_insert(error);
                continue;
            }
        };
        for (file, node) in open {
            let holder = Holder { pid, command: command(fs, pid), unit: unit(fs, pid), file };
            for device in &files.0[&node] {
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

/// Those of its open files that count, as the process itself names them.
fn open_files(fs: &HostFs, pid: u32, files: &Files) -> Result<BTreeSet<(String, Node)>, FsError> {
    let mut open = BTreeSet::new();
    let mut look = |directory: String| {
        let mut found = Vec::new();
        let any = fs.open_nodes(&directory, |descriptor, node| {
            if files.0.contains_key(&node) {
                found.push((format!("{directory}/{descriptor}"), node));
            }
        })?;
        for (link, node) in found {
            let name = fs.link(&link).if_there()?;
            open.insert((name.map_or_else(|| node.to_string(), |name| name.to_string_lossy().into_owned()), node));
        }
        Ok(any)
    };
    if !look(format!("/proc/{pid}/fd"))? {
        // The files of a process whose first thread has ended are the others'. Threads of the kernel have none either, and no others.
        for thread in fs.entries(&format!("/proc/{pid}/task")).if_there()?.unwrap_or_default() {
            if thread != pid.to_string() {
                look(format!("/proc/{pid}/task/{thread}/fd")).if_there()?;
            }
        }
    }
    Ok(open)
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

    const GPU: &str = "0000:03:00.0";

    fn tree<S: AsRef<str>>(files: &[(S, S)], links: &[(S, S)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let place = |path: &S| {
            let path = root.path().join(path.as_ref());
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            path
        };
        for (path, text) in files {
            std::fs::write(place(path), text.as_ref()).unwrap();
        }
        for (path, target) in links {
            std::os::unix::fs::symlink(target.as_ref(), place(path)).unwrap();
        }
        root
    }

    fn held(root: &tempfile::TempDir) -> BTreeMap<String, Vec<u32>> {
        let (fs, mut errors) = (HostFs::at(root.path()).unwrap(), Vec::new());
        let minors = nvidia_minors(&fs, &mut errors);
        let files = Files::read(&fs, &minors, &mut errors);
        let found = find(&fs, &files, &mut errors);
        assert!(errors.is_empty(), "{errors:?}");
        found.into_iter().map(|(device, held)| (device, held.iter().map(|holder| holder.pid).collect())).collect()
    }

    fn by(device: &str, pids: &[u32]) -> (String, Vec<u32>) {
        (device.to_owned(), pids.to_vec())
    }

    #[test]
    fn files_of_a_driver_are_files_of_its_device() {
        let of = "../../devices/pci0000:00/0000:03:00.0";
        let classes = [
            ("226:128", "drm/renderD128"),
            ("116:3", "sound/card1/pcmC1D0p"),
            ("231:192", "infiniband_verbs/uverbs0"),
            ("249:0", "ptp/ptp0"),
            ("511:0", "vfio-dev/vfio0"),
            ("13:64", "input/input5/event0"),
        ];
        let listed: Vec<_> =
            classes.iter().map(|(n, at)| (format!("sys/dev/char/{n}"), format!("{of}/{at}"))).collect();
        let nodes: Vec<_> = classes.iter().map(|(n, at)| (format!("dev/{at}"), format!("char {n}"))).collect();
        let fds: Vec<_> =
            (7..).zip(classes).map(|(n, (_, at))| (format!("proc/{n}/fd/3"), format!("/dev/{at}"))).collect();
        let root = tree(&nodes, &[listed, fds].concat());
        assert_eq!(held(&root), [by(GPU, &[7, 8, 9, 10, 11])].into(), "keys are only listened to");
    }

    /// A pod that has the host's `/dev` below `/host`, a chroot, and one without an IOMMU.
    #[test]
    fn a_file_is_the_device_whichever_name_it_has() {
        let root = tree(
            &[
                ("proc/driver/nvidia/gpus/0000:03:00.0/information", "Device Minor: \t 0\n"),
                ("dev/nvidia0", "char 195:0"),
                ("host/dev/gpu", "char 195:0"),
                ("host/dev/other", "char 195:1"),
                ("run/vfio", "char 235:1"),
                ("sys/kernel/iommu_groups/12/devices/0000:04:00.0", ""),
                ("sys/kernel/iommu_groups/12/devices/8c2a7e5e-7b0a-4ad2-9d5c-0e3f0c0ffee0", ""),
            ],
            &[
                ("sys/dev/char/235:1", "../../devices/virtual/vfio/noiommu-12"),
                ("proc/7/fd/3", "/host/dev/gpu"),
                ("proc/7/fd/4", "/dev/nvidia0"),
                ("proc/8/fd/3", "/host/dev/other"),
                ("proc/9/fd/3", "/run/vfio"),
            ],
        );
        let group = [by("0000:04:00.0", &[9]), by("8c2a7e5e-7b0a-4ad2-9d5c-0e3f0c0ffee0", &[9])];
        let expected: BTreeMap<_, _> = [by(GPU, &[7, 7])].into_iter().chain(group).collect();
        assert_eq!(held(&root), expected);
    }

    #[test]
    fn who_has_a_part_of_a_gpu_has_the_gpu() {
        let access = "DeviceFileMinor: 12\nDeviceFileMode: 256\n";
        let root = tree(
            &[
                ("proc/driver/nvidia/gpus/0000:03:00.0/information", "Device Minor: \t 0\n"),
                ("proc/driver/nvidia/capabilities/gpu0/mig/gi1/access", access),
                ("proc/driver/nvidia/capabilities/gpu0/mig/gi1/ci0/access", "DeviceFileMinor: 13\n"),
                ("proc/devices", "Character devices:\n  1 mem\n508 nvidia-caps\n\nBlock devices:\n  7 loop\n"),
                ("dev/nvidia-caps/nvidia-cap12", "char 508:12"),
                ("dev/nvidia-caps/nvidia-cap13", "char 508:13"),
            ],
            &[("proc/7/fd/3", "/dev/nvidia-caps/nvidia-cap12"), ("proc/8/fd/3", "/dev/nvidia-caps/nvidia-cap13")],
        );
        assert_eq!(held(&root), [by(GPU, &[7, 8])].into());
    }

    #[test]
    fn the_kernel_tells_who_has_a_device_open() {
        let _null = std::fs::File::open("/dev/null").unwrap();
        let files = Files([(Node::char(1, 3), ["null".to_owned()].into())].into());
        // Others' processes only root may look at.
        let held = find(&HostFs::at("/").unwrap(), &files, &mut Vec::new());
        let own = held["null"].iter().find(|holder| holder.pid == std::process::id()).unwrap();
        assert_eq!(own.file, "/dev/null");
    }

    /// The kernel shows no files of a first thread that has ended.
    #[test]
    fn a_process_whose_first_thread_ended_still_holds() {
        let root = tree(
            &[("dev/nvme0", "char 240:0"), ("proc/7/task/7/comm", "x"), ("proc/7/fd/nothing", "")],
            &[
                ("sys/dev/char/240:0", "../../devices/pci0000:00/0000:03:00.0/nvme/nvme0"),
                ("proc/7/task/9/fd/3", "/dev/nvme0"),
            ],
        );
        std::fs::remove_file(root.path().join("proc/7/fd/nothing")).unwrap();
        assert_eq!(held(&root), [by(GPU, &[7])].into());
    }
}
