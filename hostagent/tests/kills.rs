//! SIGKILL of the real process at every named point: a supervisor starts it again, and the story must end as if nothing
//! had happened. And the words with which the process ends when an operator has to act.

mod fake;

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use croft_hostagent::crash;
use croft_hostagent::identity::{Identity, Request};
use croft_hostagent::journal;
use croft_proto::agent::v1::InstanceObservation;
use croft_proto::agent::v1::instance_observation::Phase;
use fake::host::{desired, started, stopped};
use fake::plane::Plane;
use fake::tls::Ca;
use uuid::Uuid;

const AGENT: &str = env!("CARGO_BIN_EXE_croft-hostagent");
const AT_ONCE: usize = 4;

fn command(state: &Path, server: SocketAddr) -> Command {
    let mut command = Command::new(AGENT);
    command.args(["run", "--backend", "simulated", "--metrics-listen", "127.0.0.1:0"]);
    command.arg("--state-dir").arg(state).arg("--server").arg(server.to_string());
    command.env_remove(crash::VARIABLE).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Starts the agent again whenever it was killed, for as long as it lives itself.
struct Supervisor {
    child: Arc<Mutex<Child>>,
    task: tokio::task::JoinHandle<()>,
    deaths: Arc<Mutex<usize>>,
}

impl Supervisor {
    fn start(state: PathBuf, server: SocketAddr, point: &str) -> Self {
        let spawn = move |point: Option<&str>| {
            let log = std::fs::OpenOptions::new().create(true).append(true).open(state.join("log")).expect("log");
            let mut command = command(&state, server);
            command.envs(point.map(|point| (crash::VARIABLE, point))).stderr(log);
            command.spawn().expect("spawn")
        };
        let child = Arc::new(Mutex::new(spawn(Some(point))));
        let deaths = Arc::new(Mutex::new(0));
        let task = tokio::spawn({
            let (child, deaths) = (Arc::clone(&child), Arc::clone(&deaths));
            async move {
                loop {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    let mut child = child.lock().expect("no panic under the lock");
                    if let Some(status) = child.try_wait().expect("wait") {
                        assert_eq!(status.signal(), Some(9), "ended by itself: {status}");
                        *deaths.lock().expect("no panic under the lock") += 1;
                        *child = spawn(None);
                    }
                }
            }
        });
        Self { child, task, deaths }
    }

    fn deaths(&self) -> usize {
        *self.deaths.lock().expect("no panic under the lock")
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.task.abort();
        let mut child = self.child.lock().expect("no panic under the lock");
        let _ = child.kill();
        let _ = child.wait();
    }
}

async fn until(point: &str, plane: &Plane, uid: Uuid, what: &str, holds: impl Fn(&InstanceObservation) -> bool) {
    let began = std::time::Instant::now();
    loop {
        let seen = plane.observed(uid);
        if holds(&seen) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{point}: {what}: {seen:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Not in what the guest reads, nor in the journal.
async fn until_nowhere(point: &str, state: &Path, secret: &str) {
    let began = std::time::Instant::now();
    loop {
        let holders = fake::files_with(state, secret);
        if holders.is_empty() {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{point}: {holders:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn story(point: &'static str) -> (&'static str, usize) {
    let dir = tempfile::tempdir().expect("tempdir");
    let (plane, ca) = (Plane::new(), Ca::new("the plane's CA"));
    let server = ca.serve(&plane, "h1", "once").await;
    let state = dir.path().join("state");
    let request = Request::ensure(&state, "h1").expect("request");
    Identity::store(&state, &ca.sign(&request.csr_pem, 2020, 2090), &ca.pem()).expect("identity");
    let supervisor = Supervisor::start(state.clone(), server, point);

    let uid = Uuid::now_v7();
    let mut wish = desired(uid);
    let secret = br#"{"meta-data": "local-hostname: web\n", "user-data": "", "files": {"croft-join.env": "sesame"}}"#;
    wish.seed_digest = plane.keep_blob(secret);
    plane.upsert(wish);
    until(point, &plane, uid, "runs", |seen| seen.phase() == Phase::Running && seen.power_generation == 1).await;
    let without = plane.keep_blob(br#"{"meta-data": "local-hostname: web\n", "user-data": ""}"#);
    plane.change(uid, |wish| wish.seed_digest = without);
    until_nowhere(point, &state, "sesame").await;
    plane.change(uid, |wish| wish.reboot_generation = 1);
    until(point, &plane, uid, "rebooted", |seen| seen.reboot_generation == 1).await;
    plane.change(uid, |wish| wish.reset_generation = 1);
    until(point, &plane, uid, "reset", |seen| seen.reset_generation == 1).await;
    plane.change(uid, |wish| wish.disk_generation = 1);
    until(point, &plane, uid, "rebuilt", |seen| seen.phase() == Phase::Running && seen.disk_generation == 1).await;
    plane.change(uid, stopped);
    until(point, &plane, uid, "off", |seen| seen.phase() == Phase::Off && seen.power_generation == 2).await;
    plane.change(uid, started);
    until(point, &plane, uid, "on", |seen| seen.phase() == Phase::Running && seen.power_generation == 3).await;
    plane.change(uid, |wish| {
        stopped(wish);
        wish.stop_timeout_seconds = 0;
    });
    until(point, &plane, uid, "killed", |seen| seen.phase() == Phase::Off && seen.power_generation == 4).await;
    assert_eq!(plane.observed(uid).restart_count, 0, "{point}: nothing here is a restart by policy");
    plane.bury(uid, false, 60);
    until(point, &plane, uid, "gone", |seen| seen.phase() == Phase::Absent).await;
    let left = std::fs::read_dir(state.join("simulated/domains")).expect("domains").count();
    assert_eq!(left, 0, "{point}");
    (point, supervisor.deaths())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_point_it_ends_as_if_nothing_had_happened() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut waiting = [crash::POINTS, crash::SEED_POINTS].concat();
    let mut running = tokio::task::JoinSet::new();
    let mut never_died = Vec::new();
    loop {
        while running.len() < AT_ONCE
            && let Some(point) = waiting.pop()
        {
            running.spawn(story(point));
        }
        let Some(ended) = running.join_next().await else { break };
        let (point, deaths) = ended.expect("a story failed");
        if deaths == 0 {
            never_died.push(point);
        }
    }
    assert!(never_died.is_empty(), "points that no story reaches: {never_died:?}");
}

fn fails(command: &mut Command) -> String {
    let output = command.stderr(Stdio::piped()).output().expect("run");
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).expect("text")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_with_exit_code_1_and_says_what_to_do() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().expect("tempdir");
    let (plane, ca) = (Plane::new(), Ca::new("the plane's CA"));
    let server = ca.serve(&plane, "h1", "once").await;
    let state = dir.path().join("state");

    let words = fails(&mut command(&state, server));
    assert!(words.contains("holds no certificate") && words.contains("croft-hostagent enrol"), "{words}");

    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, ca.pem()).expect("ca");
    let first_start = |token: &str| {
        let mut command = command(&state, server);
        command.args(["--token", token, "--host-id", "h1"]).arg("--ca-file").arg(&ca_file);
        command
    };
    let words = fails(&mut first_start("another"));
    assert!(words.contains("refuses the enrolment token") && words.contains("new one"), "{words}");

    let request = Request::ensure(&state, "h1").expect("request");
    Identity::store(&state, &ca.sign(&request.csr_pem, 2020, 2021), &ca.pem()).expect("identity");
    let words = fails(&mut command(&state, server));
    assert!(words.contains("certificate ended") && words.contains("croft-hostagent enrol"), "{words}");

    // With instances to look after it goes on, and says so: whoever comes back must find them as they should be.
    let record = state.join("journal").join(format!("{}.json", Uuid::now_v7()));
    std::fs::write(&record, serde_json::to_vec(&journal::Record::new(desired(Uuid::now_v7()))).expect("encode"))
        .expect("record");
    let log = dir.path().join("log");
    let mut agent = command(&state, server).stderr(std::fs::File::create(&log).expect("log")).spawn().expect("spawn");
    fake::eventually("the plane's word", async || {
        let said = std::fs::read_to_string(&log).expect("log");
        if said.contains("this host's certificate has expired") { Ok(()) } else { Err(said) }
    })
    .await;
    assert_eq!(agent.try_wait().expect("wait"), None, "nobody drives its instances");
    agent.kill().expect("kill");
    agent.wait().expect("wait");
    std::fs::remove_file(record).expect("remove");

    // A certificate of another plane, and nothing on this host that would be left alone without an agent.
    let other = Ca::new("another CA");
    Identity::store(&state, &other.sign(&request.csr_pem, 2020, 2090), &other.pem()).expect("identity");
    let words = fails(&mut command(&state, server));
    assert!(words.contains("not from the CA that this host enrolled with"), "{words}");

    Identity::store(&state, &ca.sign(&request.csr_pem, 2020, 2090), &ca.pem()).expect("identity");
    let mut agent = command(&state, server).stderr(Stdio::null()).spawn().expect("spawn");
    fake::eventually("a session", async || plane.lock().sync_done.ok_or("none".to_owned())).await;
    let words = fails(&mut command(&state, server));
    assert!(words.contains("another croft-hostagent"), "{words}");
    let pid = rustix::process::Pid::from_child(&agent);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signal");
    assert_eq!(agent.wait().expect("wait").code(), Some(0), "a polite end");
}
