//! Other clients, faults that are asked for, and GPUs that go wrong.

use std::ops::ControlFlow;
use std::path::Path;
use std::thread;
use std::time::Duration;
use std::{env, fs};

use croft_gpu::nvml::{GpuEventKind, Nvml, NvmlError, code, snapshot, watch_events};
use croft_gpu_sim::boards::{H100_SXM_80GB, T4_16GB};
use croft_gpu_sim::driver::raise;
use croft_gpu_sim::faults::{Answer, Fault, set};
use croft_gpu_sim::state::{EventKind, Flavour, Nvidia};
use tempfile::TempDir;

use crate::{host, library, on_host, part, spawn};

fn two() -> TempDir {
    host(Flavour::Datacenter, &[&H100_SXM_80GB, &H100_SXM_80GB], |_| {})
}

fn open() -> Nvml {
    Nvml::open(Some(&library())).unwrap()
}

const FIRST: &str = "0000:00:06.0";

#[test]
fn the_mode_waits_for_another_client_even_one_that_is_killed() {
    let test = "trouble::the_mode_waits_for_another_client_even_one_that_is_killed";
    if part().as_deref() == Some("client") {
        let _nvml = open();
        fs::write(Path::new(&env::var_os("CROFT_SIM_ROOT").unwrap()).join("ready"), "").unwrap();
        return thread::sleep(Duration::from_secs(60));
    }
    on_host(test, two, |root, _| {
        let (nvml, gpu) = (open(), FIRST.parse().unwrap());
        let mut client = spawn(test, "client", root);
        while !root.join("ready").exists() {
            assert!(client.try_wait().unwrap().is_none(), "the client ended");
            thread::yield_now();
        }
        assert_eq!(nvml.set_mig_mode(gpu, true), Ok(code::IN_USE));
        let mode = nvml.mig_mode(gpu).unwrap();
        assert!(mode.pending && !mode.current);
        client.kill().unwrap();
        client.wait().unwrap();
        assert_eq!(nvml.set_mig_mode(gpu, true), Ok(0));
    });
}

#[test]
fn a_fault_answers_instead_and_changes_nothing() {
    on_host("trouble::a_fault_answers_instead_and_changes_nothing", two, |root, _| {
        let (nvml, gpu) = (open(), FIRST.parse().unwrap());
        let before = Nvidia::read(root).unwrap();
        let fault =
            Fault { device: Some(gpu), times: Some(1), ..Fault::answer("nvmlDeviceSetMigMode", Answer::Nvml(999)) };
        set(root, &[fault]).unwrap();
        assert_eq!(nvml.set_mig_mode("0000:00:07.0".parse().unwrap(), false), Ok(0), "its neighbour is well");
        assert_eq!(nvml.set_mig_mode(gpu, true).unwrap_err().code(), Some(999));
        assert_eq!(Nvidia::read(root).unwrap(), before);
        assert_eq!(nvml.set_mig_mode(gpu, true), Ok(0), "it was to strike once");
    });
}

#[test]
fn a_call_that_hangs_can_be_killed() {
    let test = "trouble::a_call_that_hangs_can_be_killed";
    if part().as_deref() == Some("hang") {
        drop(open().persistence(FIRST.parse().unwrap()));
        return;
    }
    on_host(test, two, |root, _| {
        set(root, &[Fault::hang("nvmlDeviceGetPersistenceMode")]).unwrap();
        let mut hung = spawn(test, "hang", root);
        thread::sleep(Duration::from_millis(300));
        assert!(hung.try_wait().unwrap().is_none(), "it returned");
        hung.kill().unwrap();
        assert!(!hung.wait().unwrap().success());
        // Nothing that it held is left: another call on the same GPU goes through.
        assert_eq!(open().set_mig_mode(FIRST.parse().unwrap(), true), Ok(0));
    });
}

#[test]
fn what_goes_wrong_is_heard_and_its_neighbour_stays_well() {
    on_host("trouble::what_goes_wrong_is_heard_and_its_neighbour_stays_well", two, |root, _| {
        let gpu = FIRST.parse().unwrap();
        let mut heard = Vec::new();
        let mut raised = false;
        let end = watch_events(Some(&library()), |event| {
            heard.extend(event.map(|event| (event.gpu, event.kind)));
            if !raised {
                raised = true;
                raise_all(root, gpu);
            }
            if heard.len() == 4 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(end, Ok(()));
        let kinds: Vec<_> = heard.iter().map(|(_, kind)| *kind).collect();
        assert_eq!(kinds, [GpuEventKind::Xid(48), GpuEventKind::Memory, GpuEventKind::Xid(79), GpuEventKind::Lost]);
        assert!(heard.iter().all(|(from, _)| *from == gpu));

        let look = snapshot(Some(&library())).unwrap();
        let well = look.gpus.iter().find(|seen| seen.address != gpu).unwrap();
        assert_eq!((well.faults.len(), well.errors.len()), (0, 0));
        let lost = NvmlError::Refused { call: "nvmlDeviceGetHandleByPciBusId_v2".into(), code: code::GPU_IS_LOST };
        assert_eq!(open().mig_mode(gpu), Err(lost));
    });
}

fn raise_all(root: &Path, gpu: croft_gpu::pci::PciAddress) {
    let mut host = Nvidia::open(root).unwrap();
    for kind in [EventKind::Xid(48), EventKind::EccDoubleBit, EventKind::Xid(79)] {
        raise(&mut host, gpu, kind);
    }
    host.save().unwrap();
}

#[test]
fn memory_that_ails_shows_on_the_board_alone() {
    let boards = || host(Flavour::Datacenter, &[&H100_SXM_80GB, &T4_16GB], |_| {});
    on_host("trouble::memory_that_ails_shows_on_the_board_alone", boards, |root, _| {
        let mut state = Nvidia::open(root).unwrap();
        raise(&mut state, FIRST.parse().unwrap(), EventKind::EccDoubleBit);
        state.save().unwrap();
        drop(state);
        let look = snapshot(Some(&library())).unwrap();
        assert!(look.gpus[0].faults.len() >= 2, "{:?}", look.gpus[0].faults);
        assert_eq!((look.gpus[1].faults.len(), look.gpus[1].errors.as_slice()), (0, &[][..]));
    });
}

#[test]
fn without_a_driver_there_is_nothing_to_open() {
    let unloaded =
        || host(Flavour::Datacenter, &[&H100_SXM_80GB, &H100_SXM_80GB], |state| state.gpus[1].driver_loaded = false);
    on_host("trouble::without_a_driver_there_is_nothing_to_open", unloaded, |root, wrapped| {
        assert_eq!(wrapped.device_count().unwrap(), 1, "the other is on vfio-pci");
        let (held, free) = ("0000:00:06.0", "0000:00:07.0");
        assert!(wrapped.device_by_pci_bus_id(held).is_ok());
        assert!(wrapped.device_by_pci_bus_id("00000000:00:06.0").is_ok(), "as NVML writes it");
        assert!(wrapped.device_by_pci_bus_id(free).is_err());
        let mut state = Nvidia::open(root).unwrap();
        state.gpus[0].driver_loaded = false;
        state.save().unwrap();
        assert_eq!(wrapped.device_count().unwrap(), 0);
    });
}
