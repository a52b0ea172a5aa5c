//! Any sequence of writes leaves a tree that a kernel could have.

use std::collections::BTreeMap;

use super::*;
use crate::state::Nvidia;

/// Small, and the same on every run: a failure can be looked at again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    fn pick<'a>(&mut self, from: &'a [String]) -> &'a str {
        &from[self.roll(from.len())]
    }
}

fn step(host: &Machine, dice: &mut Dice) {
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let functions: Vec<String> = host.functions().iter().map(|function| function.address.to_string()).collect();
    let drivers = words(&["vfio-pci", "nvidia", "igb", "igbvf", "nvme", "pci-stub", "pci-pf-stub", "xhci_hcd", "none"]);
    let address = dice.pick(&functions).to_owned();
    let answer = match dice.roll(12) {
        0 | 1 => host.set(&address, "driver/unbind", &address),
        2 | 3 => host.write("/sys/bus/pci/drivers_probe", &address),
        4 => host.set(&address, "driver_override", dice.pick(&drivers)),
        5 => host.set(&address, "driver_override", "\n"),
        6 => host.set(
            dice.pick(&words(&[NIC, NVME, GPU])),
            "sriov_numvfs",
            dice.pick(&words(&["0", "1", "3", "4", "7", "9"])),
        ),
        7 => host.set(dice.pick(&words(&[NIC, NVME])), "sriov_drivers_autoprobe", dice.pick(&words(&["0", "1"]))),
        8 => {
            let _ = host.host.sriov_manage(at(GPU), dice.roll(2) == 0);
            Ok(())
        }
        9 => {
            let list = host.fs.read(&format!("/sys/bus/pci/devices/{address}/nvidia/creatable_vgpu_types"));
            let ids = list.map(|list| list.lines().skip(1).map(|line| line[..5].trim().to_owned()).collect::<Vec<_>>());
            let ids = ids.unwrap_or_default().into_iter().chain(["0".to_owned(), "7".to_owned()]).collect::<Vec<_>>();
            host.set(&address, "nvidia/current_vgpu_type", dice.pick(&ids))
        }
        10 => host.write(&format!("/sys/bus/pci/drivers/{}/bind", dice.pick(&drivers)), &address),
        _ => match dice.roll(3) {
            0 => host.set(&address, "reset", "1"),
            1 => host.set(dice.pick(&words(&[NIC, NVME, GPU, SOUND])), "remove", "1"),
            _ => host.write("/sys/bus/pci/rescan", "1"),
        },
    };
    // What the kernel's own sources and the vGPU driver's answer to such writes, and nothing else.
    let known =
        [Errno::NODEV, Errno::BUSY, Errno::INVAL, Errno::NOENT, Errno::RANGE, Errno::NOTTY, Errno::PERM, Errno::IO];
    if let Err(errno) = answer {
        assert!(known.contains(&errno), "{errno}");
    }
}

fn check(host: &Machine) {
    let functions = host.functions();
    let entries = |path: &str| host.fs.entries(path).unwrap();
    let by_address: BTreeMap<_, _> = functions.iter().map(|function| (function.address, function)).collect();

    // One driver a function, and each lists the other.
    for driver in entries("/sys/bus/pci/drivers") {
        let listed =
            entries(&format!("/sys/bus/pci/drivers/{driver}")).into_iter().filter_map(|name| name.parse().ok());
        let listed: Vec<PciAddress> = listed.collect();
        let bound = functions.iter().filter(|function| function.driver.as_ref() == Some(&driver));
        assert_eq!(listed, bound.map(|function| function.address).collect::<Vec<_>>(), "{driver}");
    }
    // Groups and members know each other.
    let groups = entries("/sys/kernel/iommu_groups");
    for group in &groups {
        let members = entries(&format!("/sys/kernel/iommu_groups/{group}/devices"));
        let inside = functions
            .iter()
            .filter(|function| function.iommu_group.map(|group| group.to_string()).as_ref() == Some(group));
        assert_eq!(members, inside.map(|function| function.address.to_string()).collect::<Vec<_>>(), "group {group}");
        assert!(!members.is_empty(), "group {group}");
    }
    assert!(
        functions.iter().all(|function| function.iommu_group.is_some_and(|group| groups.contains(&group.to_string())))
    );
    // Physical and virtual functions know each other.
    for function in &functions {
        match &function.sriov {
            Sriov::None => {}
            Sriov::Virtual { physical } => {
                let Sriov::Physical { functions, .. } = &by_address[physical].sriov else { panic!("{physical}") };
                assert!(functions.iter().any(|vf| vf.address == function.address), "{}", function.address);
            }
            Sriov::Physical { total, functions, .. } => {
                assert!(functions.len() <= usize::from(*total));
                assert_eq!(host.get(&function.address.to_string(), "sriov_numvfs"), functions.len().to_string());
                for vf in functions {
                    assert_eq!(by_address[&vf.address].sriov, Sriov::Virtual { physical: function.address });
                }
            }
        }
    }
    // A group has a file exactly while a VFIO driver has one of its functions.
    let vfio = functions.iter().filter(|function| {
        entries(&format!("/sys/bus/pci/devices/{}", function.address)).contains(&"vfio-dev".to_owned())
    });
    let mut expected: Vec<_> = vfio.map(|function| function.iommu_group.unwrap().to_string()).collect();
    expected.extend(
        ["devices".to_owned(), "vfio".to_owned()].into_iter().filter(|name| host.has(&format!("/dev/vfio/{name}"))),
    );
    expected.sort();
    expected.dedup();
    assert_eq!(entries("/dev/vfio"), expected);
    // The driver of the GPU and the kernel agree on who holds it, and on its functions.
    let nvidia = Nvidia::read(host.host.root()).unwrap();
    for gpu in &nvidia.gpus {
        let held = by_address.get(&gpu.address).is_some_and(|function| function.driver.as_deref() == Some("nvidia"));
        assert_eq!(gpu.driver_loaded, held, "{}", gpu.address);
        assert!(gpu.virtual_functions.iter().all(|vf| by_address.contains_key(&vf.address)), "{}", gpu.address);
        assert_eq!(host.has(&format!("/dev/nvidia{}", gpu.minor)), held);
    }
}

#[test]
fn random_writes_leave_a_tree_that_a_kernel_could_have() {
    for seed in 0..4 {
        let host = preset("devbox");
        let mut dice = Dice(seed);
        for _ in 0..120 {
            step(&host, &mut dice);
            check(&host);
        }
        // What was made step by step is what is made at once.
        let before = host.dump();
        let session = crate::kernel::session::Session::open(host.host.root()).unwrap();
        crate::kernel::tree::make(host.host.root(), &session.machine).unwrap();
        assert_eq!(host.dump(), before);
    }
}
