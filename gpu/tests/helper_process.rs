//! The process that works on a device, seen from the one that sent it. Shell scripts stand for helpers: what matters here
//! is how they end.
#![expect(clippy::unwrap_used, reason = "a test stops where something is missing")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use croft_gpu::apply::{Carried, ChildProcess, Done, Ending, Executor, Site, Work};
use croft_gpu::plan::Step;

const FOUND: &str = r#"echo '{"line":"found","standing":{"standing":"before"},"remembered":[]}';"#;
const DONE: &str = r#"echo '{"line":"done","changed":true,"reset_method":null}';"#;

fn helper(script: &str) -> ChildProcess {
    let site =
        Site { root: "/".into(), simulated: true, nvml_library: None, fabric_library: None, lock_directory: None };
    ChildProcess::new("/bin/sh", ["-c", &format!("cat >/dev/null; {script}")], site)
}

fn work() -> Work {
    let step = Step::Unbind { address: "0000:41:00.0".parse().unwrap(), driver: "nvidia".to_owned() };
    Work::Do { step }
}

fn carry_out(script: &str) -> Carried {
    helper(script).carry_out(&work(), Duration::from_millis(500))
}

fn is_alive(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn what_it_says_is_heard() {
    let Carried { found, ending } = carry_out(&format!("{FOUND}{DONE}"));
    assert!(found.is_some());
    assert_eq!(ending, Ending::Done(Done { changed: true, ..Done::default() }));
    let refused = r#"echo '{"line":"failed","error":{"message":"no","errno":16,"nvml":null}}'"#;
    let Carried { found: None, ending: Ending::Failed(error) } = carry_out(refused) else { panic!() };
    assert!(error.suggests_a_holder());
    assert_eq!(carry_out(r#"echo '{"line":"held_back","pid":7}'"#).ending, Ending::Stuck { pid: 7 });
}

/// It gets the request as one JSON text, and nothing else.
#[test]
fn it_is_told_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let heard = directory.path().join("heard");
    let site =
        Site { root: "/".into(), simulated: true, nvml_library: None, fabric_library: None, lock_directory: None };
    let script = format!("cat >{}; {DONE}", heard.display());
    ChildProcess::new("/bin/sh", ["-c", &script], site).carry_out(&work(), Duration::from_secs(5));
    let request: croft_gpu::apply::Request = serde_json::from_slice(&fs::read(heard).unwrap()).unwrap();
    assert_eq!(request.work, work());
}

#[test]
fn one_that_dies_or_raves_is_a_failure_that_says_so() {
    for (script, said) in [
        ("exit 3", "without a word: exit status: 3"),
        ("kill -9 $$", "without a word: signal: 9"),
        ("echo hello", "can not be understood"),
        (r#"printf '{"line":"done"'"#, "can not be understood"),
    ] {
        let Carried { found: None, ending: Ending::Failed(error) } = carry_out(script) else { panic!("{script}") };
        assert!(error.message.contains(said), "{script}: {error}");
    }
    // Whoever died in the middle has touched the device, for all we know.
    assert!(carry_out(&format!("{FOUND} kill -9 $$")).found.is_some());
    let nobody = ChildProcess::new("/nonexistent", ["x"], serde_json::from_str(SITE).unwrap());
    let Ending::Failed(error) = nobody.carry_out(&work(), Duration::from_secs(1)).ending else { panic!() };
    assert!(error.message.contains("/nonexistent"), "{error}");
}

const SITE: &str = r#"{"root":"/","simulated":true,"nvml_library":null,"fabric_library":null,"lock_directory":null}"#;

#[test]
fn the_deadline_ends_it_and_all_that_it_started() {
    let directory = tempfile::tempdir().unwrap();
    let (own, tools) = (directory.path().join("own"), directory.path().join("tools"));
    // It goes on when its tool is killed, and the tool runs on when it is.
    let script =
        format!("{FOUND} echo $$ >{}; sleep 1000 & echo $! >{}; wait; sleep 1000", own.display(), tools.display());
    let started = Instant::now();
    let Carried { found, ending } = carry_out(&script);
    assert!(started.elapsed() < Duration::from_millis(1500), "{:?}", started.elapsed());
    assert_eq!((found.is_some(), ending), (true, Ending::Overran));
    for pid in [own, tools] {
        assert!(!is_alive(&read(&pid)), "{} lives on", pid.display());
    }
}

#[test]
fn a_tool_does_not_outlive_the_helper_that_started_it() {
    let directory = tempfile::tempdir().unwrap();
    let tool = directory.path().join("tool");
    let script = format!("{FOUND} {DONE} sleep 1000 >/dev/null & echo $! >{}", tool.display());
    let Carried { ending, .. } = carry_out(&script);
    assert!(matches!(ending, Ending::Done(_)), "{ending:?}");
    assert!(!is_alive(&read(&tool)));
}

/// A signal that does nothing is what one is to a process asleep in the kernel.
#[test]
fn one_that_does_not_die_is_left_behind_and_remembered() {
    let helper = helper(&format!("{FOUND} exec sleep 1000")).with_kill(|_| Ok(()));
    let started = Instant::now();
    let Carried { found, ending: Ending::Stuck { pid } } = helper.carry_out(&work(), Duration::from_millis(300)) else {
        panic!("it died")
    };
    assert!(started.elapsed() < Duration::from_secs(5), "who waits for it is not stuck: {:?}", started.elapsed());
    assert!(found.is_some() && is_alive(&pid.to_string()));
    assert_eq!(helper.left_behind(), [pid]);

    let raw = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(raw, rustix::process::Signal::KILL).unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while !helper.left_behind().is_empty() {
        assert!(Instant::now() < deadline, "it woke up and ended, and is still waited for");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "nobody asked for the zombie");
}

/// An answer does not prove that it let go of the device.
#[test]
fn one_that_answers_and_does_not_end_is_stuck_all_the_same() {
    let helper = helper(&format!("{FOUND} {DONE} exec sleep 1000 >/dev/null")).with_kill(|_| Ok(()));
    let Ending::Stuck { pid } = helper.carry_out(&work(), Duration::from_secs(5)).ending else { panic!() };
    let raw = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(raw, rustix::process::Signal::KILL).unwrap();
}

/// A directory stands for the hierarchy: the tool says itself that it is in there, as the kernel would.
#[test]
fn a_tool_that_left_the_process_group_is_found_in_the_cgroup() {
    let (parent, pids) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tool = pids.path().join("tool");
    let escape = format!("setsid sleep 1000 >/dev/null & echo $! | tee {} >", tool.display());
    let cgroup = format!("for cgroup in {}/device-helper-*; do", parent.path().display());
    let script = format!("{FOUND} {cgroup} {escape} $cgroup/cgroup.procs; done; {DONE}");
    let carried = helper(&script).with_cgroups(parent.path()).carry_out(&work(), Duration::from_secs(20));
    let pid = read(&tool);
    // The kernel takes the dead off its list, and nobody takes them off this one: what was killed passes for a survivor here.
    assert_eq!(carried.ending, Ending::Stuck { pid: pid.trim().parse().unwrap() });
    assert!(!is_alive(&pid), "{pid} lives on");
}

/// The same with the kernel's, where there is one that this process may divide.
#[test]
fn the_kernel_kills_what_left_the_process_group() {
    let Some(parent) = own_cgroup() else {
        eprintln!("SKIPPED: no cgroup hierarchy of version 2 that this process may write to");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let tool = directory.path().join("tool");
    for (end, sleeps) in [(DONE, 20), ("sleep 1000", 1)] {
        let script = format!("{FOUND} setsid sleep 1000 >/dev/null & echo $! >{}; {end}", tool.display());
        let started = Instant::now();
        let helper = helper(&script).with_cgroups(&parent);
        let Carried { ending, .. } = helper.carry_out(&work(), Duration::from_secs(sleeps));
        assert!(!matches!(ending, Ending::Stuck { .. } | Ending::Failed(_)), "{ending:?}");
        assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
        assert!(!is_alive(&read(&tool)));
        assert_eq!(helper.left_behind(), [0; 0]);
        let left = fs::read_dir(&parent).unwrap().flatten().filter(|entry| entry.path().is_dir()).count();
        assert_eq!(left, 0, "its cgroup is gone with it");
    }
    fs::remove_dir(&parent).unwrap();
}

fn own_cgroup() -> Option<std::path::PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mount = mounts.lines().find_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
        [_, at, "cgroup2", ..] => Some(at.to_owned()),
        _ => None,
    })?;
    let path = Path::new(&mount).join(format!("croft-test-{}", std::process::id()));
    fs::create_dir(&path).ok()?;
    // A process that may not move others there may not divide it either.
    let moved = std::process::Command::new("/bin/sh")
        .args(["-c", &format!("echo $$ > {}/cgroup.procs", path.display())])
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    if !moved.success() {
        fs::remove_dir(&path).unwrap();
        return None;
    }
    Some(path)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}
