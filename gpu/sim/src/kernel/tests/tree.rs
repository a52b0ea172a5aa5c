//! The trees of all presets, as the inventory reads them.

use croft_gpu::usb;

use super::*;
use crate::kernel::PRESETS;
use crate::state::Flavour;

#[test]
fn every_preset_is_read_without_an_error() {
    for name in PRESETS {
        let host = preset(name);
        let functions = host.functions();
        assert!(usb::probe(&host.fs).unwrap().errors.is_empty());
        let gpus: Vec<_> =
            functions.iter().filter(|function| function.vendor == 0x10de && function.class >> 16 == 3).collect();
        let expected = name.rsplit_once('x').and_then(|(_, count)| count.parse().ok()).unwrap_or(2);
        assert_eq!(gpus.len(), expected, "{name}");
        for gpu in gpus {
            assert_eq!(gpu.driver.as_deref(), Some("nvidia"), "{name}");
            assert!(gpu.iommu_group.is_some() && gpu.numa_node.is_some() && !gpu.reset_methods.is_empty());
            assert!(gpu.link.is_some_and(|link| !link.is_degraded()), "{name}: {:?}", gpu.link);
            assert!(gpu.bars.iter().any(|bar| bar.bytes >= 256 << 20), "{name}: {:?}", gpu.bars);
            assert!(host.has(&format!("/proc/driver/nvidia/gpus/{}/information", gpu.address)));
        }
    }
    assert!(SimHost::preset("h100x9").is_none());
}

#[test]
fn the_whole_look_at_a_host_finds_nothing_odd() {
    use croft_gpu::fabric::FabricSource;
    use croft_gpu::host::Host;
    use croft_gpu::nvml::NvmlSource;
    for name in PRESETS {
        let host = preset(name);
        let gpu = host.functions().into_iter().find(|function| function.class == 0x030200).unwrap().address;
        let makes_functions = host.has(&format!("/sys/bus/pci/devices/{gpu}/sriov_totalvfs"));
        if makes_functions {
            host.manage(&gpu.to_string(), true);
        }
        host.host
            .hold(&Process::new(77, "nvidia-persistenced", "nvidia-persistenced.service"), "/dev/nvidia0")
            .unwrap();
        let why = || "not asked".to_owned();
        let nvml = NvmlSource::NoLibrary { why: why() };
        let look = Host::probe(&host.fs, &nvml, &FabricSource::Unavailable { why: why() });
        assert!(look.pci.errors.is_empty() && look.usb.errors.is_empty(), "{name}: {look:?}");
        assert!(look.errors.is_empty(), "{name}: {:?}", look.errors);
        let holders = &look.holders[&gpu.to_string()];
        assert_eq!((holders[0].pid, holders[0].command.as_str()), (77, "nvidia-persiste"));
        assert_eq!(holders[0].unit.as_deref(), Some("nvidia-persistenced.service"));
        // Boards that make no functions carry their vGPUs themselves.
        let parents =
            if makes_functions { host.virtual_functions(&gpu.to_string()).len() } else { look.gpus.devices.len() };
        assert_eq!(look.vgpus.len(), parents, "{name}");
    }
}

#[test]
fn a_guest_is_shown_less() {
    let hardware = SimHost::preset("devbox").unwrap();
    let host = machine(Hardware { flavour: Flavour::Guest, ..hardware });
    let gpu = host.function(GPU);
    assert_eq!((gpu.sriov, gpu.iommu_group), (Sriov::None, None));
}

#[test]
fn every_card_has_a_number_of_its_own() {
    let serial = |host: &Machine| pci::serial_number(&host.fs, at(NIC)).unwrap();
    let (one, other) = (preset("devbox"), machine(SimHost::preset("devbox").unwrap().with_serials_from(1000)));
    assert!(serial(&one).is_some() && serial(&one) != serial(&other));
    assert_eq!(pci::serial_number(&one.fs, at(GPU)).unwrap(), None);
    one.set(NIC, "sriov_numvfs", "1").unwrap();
    assert_eq!(pci::serial_number(&one.fs, at("0000:81:10.0")).unwrap(), None);
}

#[test]
fn bars_lie_apart() {
    let host = preset("devbox");
    let mut windows = Vec::new();
    for function in host.functions() {
        for line in host.fs.read(&format!("/sys/bus/pci/devices/{}/resource", function.address)).unwrap().lines() {
            let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
            let numbers: Vec<_> = line.split(' ').map(number).collect();
            if numbers[2] != 0 {
                assert_eq!(
                    numbers[0] % (numbers[1] - numbers[0] + 1),
                    0,
                    "{} {line}: aligned to its size",
                    function.address
                );
                windows.push((numbers[0], numbers[1]));
            }
        }
    }
    windows.sort_unstable();
    assert!(windows.windows(2).all(|pair| pair[0].1 < pair[1].0) && windows.len() > 10);
}
