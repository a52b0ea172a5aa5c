//! An agent was killed while it changed a device, and what it had started lives on: a tool that is at work, or a process that
//! hangs in the kernel. The next agent tells the two apart.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use croft_gpu::apply::{Deferred, Outcome, Undone};
use croft_gpu::plan::Step;
use croft_gpu_sim::boards::H100_SXM_80GB;
use croft_gpu_sim::kernel::{Hardware, Slot};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::bench::{Bench, GPU, at};
use crate::hangs::{apply, helper, locks};

/// With all that it started.
struct LeftAtWork(Child);

impl LeftAtWork {
    /// `limit`: the seconds that its step may take. `{lock}` among the arguments: the file.
    fn start(bench: &Bench, program: &str, arguments: &[&str], limit: u64) -> LeftAtWork {
        fs::create_dir_all(locks(bench)).unwrap();
        let lock = locks(bench).join(GPU);
        // Its helper is dead: no process has a number like this.
        fs::write(&lock, format!("4194999\n[]\n{limit}\n")).unwrap();
        let path = lock.to_str().unwrap();
        let arguments: Vec<String> = arguments.iter().map(|argument| argument.replace("{lock}", path)).collect();
        let child = Command::new(program).args(arguments).stdin(Stdio::null()).process_group(0).spawn().unwrap();
        let left = LeftAtWork(child);
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is_locked(&lock) {
            assert!(Instant::now() < deadline, "{program} has not locked {path}");
            std::thread::sleep(Duration::from_millis(20));
        }
        left
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn state(&self) -> Option<char> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }
}

impl Drop for LeftAtWork {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.pid().try_into().unwrap()).unwrap();
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.0.wait();
    }
}

fn is_locked(path: &Path) -> bool {
    use rustix::fs::{FlockOperation, flock};
    let file = fs::File::open(path).unwrap();
    flock(&file, FlockOperation::NonBlockingLockShared).is_err()
}

fn bench() -> Bench {
    Bench::new(Hardware::new(vec![Slot::new(&H100_SXM_80GB, 0x41)]))
}

fn reserve() -> [Step; 1] {
    [Step::SetDriverOverride { address: at(GPU), from: None, to: Some("vfio-pci".to_owned()) }]
}

#[test]
fn a_tool_that_is_still_at_work_is_waited_for_and_marks_nothing() {
    let bench = bench();
    let before = bench.dump();
    // However long it is at it already.
    let tool = LeftAtWork::start(&bench, "flock", &["{lock}", "sleep", "1000"], 0);
    let Outcome::Failed(failure) = apply(&bench, helper(&bench), &reserve(), Duration::from_secs(60)) else {
        panic!("two were at one device, or it passes for stuck")
    };
    assert_eq!(failure.error.deferred, Some(Deferred::HeldBy { pid: tool.pid() }), "{failure}");
    assert!(failure.to_string().contains(&format!("held by pid {} (flock)", tool.pid())), "{failure}");
    assert_eq!((&failure.undone, bench.dump()), (&Undone::Whole, before), "{failure}");
    drop(tool);
    let outcome = apply(&bench, helper(&bench), &reserve(), Duration::from_secs(60));
    assert!(matches!(outcome, Outcome::Applied { .. }), "{outcome:?}");
}

/// A real sleep in the kernel: whoever calls `vfork` is in one until its child is another program, and this child never is.
#[test]
fn one_that_hangs_in_the_kernel_longer_than_its_step_may_take_is_stuck() {
    const HANG: &str = "import ctypes, fcntl, signal
lock = open('{lock}', 'r+')
fcntl.flock(lock, fcntl.LOCK_EX)
if ctypes.CDLL(None).vfork() == 0:
    while True: signal.pause()";
    if !Command::new("python3").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: no python3, which stands for a process that hangs in the kernel");
        return;
    }
    for (limit, is_stuck) in [(1000, false), (0, true)] {
        let bench = bench();
        let before = bench.dump();
        let hanging = LeftAtWork::start(&bench, "python3", &["-c", HANG], limit);
        let deadline = Instant::now() + Duration::from_secs(60);
        while hanging.state() != Some('D') {
            assert!(Instant::now() < deadline, "it does not hang, its state is {:?}", hanging.state());
            std::thread::sleep(Duration::from_millis(20));
        }
        match apply(&bench, helper(&bench), &reserve(), Duration::from_secs(60)) {
            Outcome::Stuck(stuck) => assert!(is_stuck && stuck.pid == hanging.pid(), "{stuck}"),
            Outcome::Failed(failure) => {
                assert!(!is_stuck, "{failure}");
                assert!(matches!(failure.error.deferred, Some(Deferred::HeldBy { .. })), "{failure}");
            }
            outcome @ Outcome::Applied { .. } => panic!("{outcome:?}"),
        }
        assert_eq!(bench.dump(), before, "nothing was written");
    }
}
