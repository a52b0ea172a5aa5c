//! A client that opens a GPU in the moment before its driver is unbound: the driver would wait for it in the kernel, and every
//! other GPU's with it.

use std::time::{Duration, Instant};

use croft_gpu::apply::{Outcome, Undone};
use croft_gpu_sim::faults::{self, Fault};
use croft_gpu_sim::kernel::{Process, SimHost};

use crate::bench::{Bench, GPU, at, to_vfio};
use crate::hangs::{apply, helper};

/// The first write to a file of this name is slow, and meanwhile somebody tries to open the GPU.
fn opened_during(bench: &Bench, write: &str) -> (Outcome, std::io::Result<()>) {
    let slow = Fault { hang: false, delay_ms: 1500, times: Some(1), ..Fault::hang(write) };
    faults::set(bench.root(), &[slow]).unwrap();
    let began = || {
        let text = std::fs::read_to_string(bench.root().join("run/croft-sim/faults.json")).unwrap();
        serde_json::from_str::<Vec<Fault>>(&text).unwrap()[0].times == Some(0)
    };
    std::thread::scope(|scope| {
        let opened = scope.spawn(move || {
            let deadline = Instant::now() + Duration::from_secs(60);
            while !began() {
                assert!(Instant::now() < deadline, "nobody wrote {write}");
                std::thread::sleep(Duration::from_millis(5));
            }
            bench.host.hold(&Process::new(31, "nvidia-smi", "cron.service"), "/dev/nvidia0")
        });
        let outcome = apply(bench, helper(bench), &to_vfio(at(GPU), "nvidia"), Duration::from_secs(20));
        (outcome, opened.join().unwrap())
    })
}

#[test]
fn one_that_comes_between_the_look_and_the_unbind_is_not_waited_for() {
    let bench = Bench::new(SimHost::preset("devbox").unwrap());
    let before = bench.dump();
    let lock = format!("write /proc/driver/nvidia/gpus/{GPU}/unbindLock");
    let unbind = format!("write /sys/bus/pci/devices/{GPU}/driver/unbind");
    // Whichever is written first.
    let (outcome, opened) = opened_during(&bench, &format!("{lock}|{unbind}"));
    opened.unwrap();
    let Outcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
    assert!(failure.error.message.contains("unbindLock"), "{failure}");
    assert!(failure.to_string().contains("nvidia-smi (pid 31"), "{failure}");
    assert_eq!((&failure.undone, bench.dump()), (&Undone::Whole, before), "{failure}");
}

#[test]
fn none_gets_in_once_the_driver_is_about_to_go() {
    let bench = Bench::new(SimHost::preset("devbox").unwrap());
    let (outcome, opened) = opened_during(&bench, &format!("write /sys/bus/pci/devices/{GPU}/driver/unbind"));
    assert!(matches!(outcome, Outcome::Applied { .. }), "{outcome:?}");
    assert_eq!(opened.unwrap_err().raw_os_error(), Some(rustix::io::Errno::BUSY.raw_os_error()));
}

/// The unbind itself fails: the GPU must not stay closed to everybody.
#[test]
fn a_lock_that_was_for_nothing_is_given_back() {
    let bench = Bench::new(SimHost::preset("devbox").unwrap());
    let before = bench.dump();
    let unbind = format!("write /sys/bus/pci/devices/{GPU}/driver/unbind");
    faults::set(bench.root(), &[Fault::answer(&unbind, faults::Answer::Errno(5))]).unwrap();
    let outcome = apply(&bench, helper(&bench), &to_vfio(at(GPU), "nvidia"), Duration::from_secs(20));
    assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
    // Killed in the middle, too.
    faults::set(bench.root(), &[Fault { times: Some(1), ..Fault::hang(&unbind) }]).unwrap();
    let outcome = apply(&bench, helper(&bench), &to_vfio(at(GPU), "nvidia"), Duration::from_secs(3));
    assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
    assert_eq!(bench.dump(), before);
}
