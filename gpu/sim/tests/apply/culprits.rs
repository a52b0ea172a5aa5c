//! Who stands in the way is named, and nothing is taken out of anybody's hands.

use std::time::{Duration, Instant};

use croft_gpu::apply::{Culprit, Failure, Outcome, Undone};
use croft_gpu::plan::Step;
use croft_gpu_sim::kernel::{Process, SimHost};

use crate::bench::{Bench, GPU, NIC, at, scenes, to_vfio};

const DISPLAY: &str = "0000:61:00.0";
const AUDIO: &str = "0000:61:00.1";

fn devbox() -> Bench {
    Bench::new(SimHost::preset("devbox").unwrap())
}

fn must_apply(bench: &Bench, steps: &[Step]) {
    let outcome = bench.apply(steps);
    assert!(matches!(outcome, Outcome::Applied { .. }), "{outcome:?}");
}

/// Fails at this step, with all as it was before.
fn refused(bench: &Bench, steps: &[Step]) -> Failure {
    let before = bench.dump();
    let Outcome::Failed(failure) = bench.apply(steps) else { panic!("it was not refused") };
    assert_eq!((&failure.undone, bench.dump()), (&Undone::Whole, before), "{failure}");
    *failure
}

fn process(pid: u32, command: &str, unit: &str, file: &str) -> Culprit {
    Culprit::Process { pid, command: command.to_owned(), unit: Some(unit.to_owned()), file: file.to_owned() }
}

#[test]
fn nvidias_driver_is_not_asked_to_wait_for_a_monitor() {
    let bench = devbox();
    bench.host.hold(&Process::new(4711, "nv-hostengine", "nvidia-dcgm.service"), "/dev/nvidia0").unwrap();
    let started = Instant::now();
    let failure = refused(&bench, &to_vfio(at(GPU), "nvidia"));
    assert!(started.elapsed() < Duration::from_secs(10), "nobody waited in the kernel");
    assert_eq!(failure.culprits, [process(4711, "nv-hostengine", "nvidia-dcgm.service", "/dev/nvidia0")]);
    let text = failure.to_string();
    assert!(text.contains("nv-hostengine (pid 4711, nvidia-dcgm.service) has /dev/nvidia0 open"), "{text}");
    // Its neighbour is another matter.
    must_apply(&bench, &to_vfio(at(DISPLAY), "nvidia"));
}

#[test]
fn whoever_lets_go_in_a_moment_is_waited_for() {
    let bench = devbox();
    bench.host.hold(&Process::new(9, "nvidia-persistenced", "nvidia-persistenced.service"), "/dev/nvidia0").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(400));
            bench.host.end(9).unwrap();
        });
        must_apply(&bench, &to_vfio(at(GPU), "nvidia"));
    });
}

#[test]
fn a_guest_keeps_its_device_and_its_neighbours_group() {
    let bench = devbox();
    must_apply(&bench, &[to_vfio(at(DISPLAY), "nvidia"), to_vfio(at(AUDIO), "snd_hda_intel")].concat());
    let guest = Process::new(77, "qemu-system-x86", "machine-qemu-1-croft.scope");
    bench.host.open_vfio(&guest, DISPLAY).unwrap();
    // Of the other function, too: a group is opened as a whole.
    for address in [at(DISPLAY), at(AUDIO)] {
        let steps = [
            Step::Reset { address, methods: vec!["flr".to_owned()] },
            Step::Unbind { address, driver: "vfio-pci".to_owned() },
        ];
        for step in steps {
            let failure = refused(&bench, &[step]);
            assert!(failure.to_string().contains("qemu-system-x86 (pid 77"), "{failure}");
        }
    }
}

#[test]
fn functions_are_not_taken_from_guests() {
    let bench = devbox();
    let nic = at(NIC);
    let functions = Step::SetVirtualFunctions { physical: nic, from: 0, to: 4 };
    let vf = at("0000:81:10.2");
    must_apply(&bench, &[Step::SetAutoprobe { physical: nic, from: true, to: false }, functions.clone()]);
    let vfio = || "vfio-pci".to_owned();
    let bind = [
        Step::SetDriverOverride { address: vf, from: None, to: Some(vfio()) },
        Step::Bind { address: vf, driver: vfio() },
    ];
    must_apply(&bench, &bind);
    bench.host.open_vfio(&Process::new(78, "qemu-system-x86", "machine-qemu-2-croft.scope"), "0000:81:10.2").unwrap();
    for step in [functions.undo().unwrap(), Step::Unbind { address: nic, driver: "igb".to_owned() }] {
        let failure = refused(&bench, &[step]);
        assert!(failure.culprits.iter().any(|culprit| culprit.to_string().contains("pid 78")), "{failure}");
    }
}

#[test]
fn a_vgpu_in_use_stays_and_so_do_all_functions_of_its_gpu() {
    let name = "h100_sxm_80gb: give back beside one in use";
    let scene = scenes().into_iter().find(|scene| scene.name == name).unwrap();
    let bench = Bench::set(&scene);
    let Some(Step::ClearVgpuType { function, .. }) = scene.plan.first() else { panic!("{:?}", scene.plan) };
    bench
        .host
        .open_vfio(&Process::new(79, "qemu-system-x86", "machine-qemu-3-croft.scope"), &function.to_string())
        .unwrap();
    let gpu = at(GPU);
    for step in [scene.plan[0].clone(), Step::SriovManage { gpu, enable: false }] {
        let failure = refused(&bench, &[step]);
        assert!(failure.culprits.iter().any(|culprit| culprit.to_string().contains("pid 79")), "{failure}");
    }
    // The instance below it is the driver's to keep: it says "in use".
    let failure = refused(&bench, &scene.plan[1..]);
    assert_eq!(failure.error.nvml, Some(19), "{failure}");
}

/// The driver chose another instance than the plan's, which may be another tenant's: nobody is left on it.
#[test]
fn a_vgpu_on_another_instance_than_the_plans_goes_at_once() {
    let scene = scenes().into_iter().find(|scene| scene.name == "h100_sxm_80gb: carve beside one in use").unwrap();
    let bench = Bench::set(&scene);
    must_apply(&bench, &scene.plan[..1]);
    let Step::SetVgpuType { function, type_name, placement: Some(placed) } = scene.plan[1].clone() else {
        panic!("{:?}", scene.plan)
    };
    let placement = Some(croft_gpu::gpu::Span { start: placed.start - placed.size, ..placed });
    let failure = refused(&bench, &[Step::SetVgpuType { function, type_name, placement }]);
    assert!(
        failure.error.message.contains(&format!("the GPU instance at {}:{}", placed.start, placed.size)),
        "{failure}"
    );
    must_apply(&bench, &scene.plan[1..]);
}

#[test]
fn sriov_manage_names_who_has_the_gpu_open() {
    let bench = devbox();
    bench.host.hold(&Process::new(5, "python3", "user@1000.service"), "/dev/nvidia0").unwrap();
    let failure = refused(&bench, &[Step::SriovManage { gpu: at(GPU), enable: true }]);
    assert!(failure.to_string().contains("python3 (pid 5, user@1000.service) has /dev/nvidia0 open"), "{failure}");
    let failure = refused(&bench, &[Step::SetMigMode { gpu: at(GPU), from: false, to: true }]);
    assert_eq!(failure.error.nvml, Some(19));
    assert!(failure.to_string().contains("python3 (pid 5"), "{failure}");
}

/// Mounted, or opened by a guest, after the plan was made.
#[test]
fn what_the_host_began_to_use_meanwhile_is_not_pulled_away() {
    const NVME: &str = "0000:a1:00.0";
    const XHCI: &str = "0000:00:14.0";
    let bench = devbox();
    let proc = bench.root().join("proc/1");
    std::fs::create_dir_all(&proc).unwrap();
    std::fs::write(proc.join("mountinfo"), "25 1 259:161 / /srv rw - ext4 /dev/nvme161n1 rw\n").unwrap();
    let failure = refused(&bench, &[Step::Unbind { address: at(NVME), driver: "nvme".to_owned() }]);
    assert!(failure.to_string().contains("the host uses /dev/nvme161n1 (mounted on /srv)"), "{failure}");
    std::fs::remove_dir_all(&proc).unwrap();
    bench.host.hold(&Process::new(6, "postgres", "postgresql.service"), "/dev/nvme161n1").unwrap();
    let failure = refused(&bench, &[Step::Unbind { address: at(NVME), driver: "nvme".to_owned() }]);
    assert!(failure.to_string().contains("postgres (pid 6"), "{failure}");
    bench.host.hold(&Process::new(7, "qemu-system-x86", "machine-qemu.scope"), "/dev/bus/usb/001/002").unwrap();
    let failure = refused(&bench, &[Step::Unbind { address: at(XHCI), driver: "xhci_hcd".to_owned() }]);
    assert!(failure.to_string().contains("qemu-system-x86 (pid 7"), "{failure}");
}

/// `drivers_probe` says "done" when nothing was bound.
#[test]
fn a_bind_without_an_iommu_is_seen_to_have_failed() {
    let mut hardware = SimHost::preset("devbox").unwrap();
    hardware.iommu = croft_gpu_sim::kernel::Iommu::Off;
    let bench = Bench::new(hardware);
    let failure = refused(&bench, &to_vfio(at(NIC), "igb"));
    assert_eq!(failure.index, 2);
    assert!(failure.error.message.contains("nothing has changed"), "{failure}");
}

/// A plan from an older look is not carried out on what came since.
#[test]
fn a_stale_plan_changes_nothing() {
    let bench = devbox();
    let steps = to_vfio(at(NIC), "igb");
    must_apply(&bench, &steps);
    let failure = refused(&bench, &[Step::Unbind { address: at(NIC), driver: "igb".to_owned() }]);
    assert!(failure.to_string().contains("its driver is vfio-pci"), "{failure}");
    assert!(failure.culprits.is_empty(), "nobody is to blame");
    bench.host.surprise_remove(at(NIC)).unwrap();
    let failure = refused(&bench, &[Step::Unbind { address: at(NIC), driver: "vfio-pci".to_owned() }]);
    assert!(failure.to_string().contains("0000:81:00.0 is not on this host any more"), "{failure}");
}
