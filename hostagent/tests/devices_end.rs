//! Whoever restarts the agent's process, for an upgrade say, does so while it changes a device: the step in hand comes to its end,
//! the plan is taken back where that was not its last, and none begins after it.

mod fake;

use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use croft_gpu_sim::faults::{self, Answer, Fault};
use croft_gpu_sim::kernel::dump;
use croft_proto::v1::condition::Status;
use croft_proto::v1::device::State;
use fake::devices::{condition, piece, whole, with};
use fake::eventually;
use fake::process::Site;
use rustix::process::{Pid, Signal, kill_process};
use uuid::Uuid;

const DISPLAY: &str = "0000:61:00.0";
const SOUND: &str = "0000:61:00.1";
/// Longer than what the process waits for once it has decided to end.
const SLOW: u64 = 5000;

impl Site {
    /// An instance that wants a display card with its companion, and an agent that is about to bind the first of them when it is
    /// told to end.
    async fn wanted() -> (Site, Uuid) {
        let lab = Site::new().await;
        let display = lab
            .first_life(|plane| {
                let devices = plane.lock().host.clone()?.devices;
                let found = devices.into_iter().find(|device| device.name.ends_with(DISPLAY));
                found.filter(|device| device.state() == State::Available)
            })
            .await;
        let uid = Uuid::now_v7();
        lab.plane.upsert(with(uid, vec![piece("card", &display, whole)]));
        (lab, uid)
    }

    fn driver(&self, id: &str) -> String {
        let link = self.machine().join(format!("sys/bus/pci/devices/{id}/driver"));
        std::fs::read_link(link).ok().and_then(|to| Some(to.file_name()?.to_str()?.to_owned())).unwrap_or_default()
    }

    fn journal(&self) -> serde_json::Value {
        let text = std::fs::read(self.state.join("journal/devices.json")).expect("journal");
        serde_json::from_slice(&text).expect("journal")
    }

    /// A new agent, which is told to end when the first of these has struck; each strikes once.
    async fn told_in_the_middle(&self, faults: &[Fault]) -> Child {
        let once: Vec<Fault> = faults.iter().map(|fault| Fault { times: Some(1), ..fault.clone() }).collect();
        faults::set(&self.machine(), &once).expect("fault");
        let agent = self.agent(None);
        eventually("a step is in hand", async || {
            let text = std::fs::read(self.machine().join("run/croft-sim/faults.json")).expect("faults");
            let left: Vec<Fault> = serde_json::from_slice(&text).expect("faults");
            if left[0].times == Some(0) { Ok(()) } else { Err(self.log()) }
        })
        .await;
        end(&agent);
        agent
    }

    async fn runs_by_the_next_agent(&self, uid: Uuid) {
        let mut agent = self.agent(None);
        eventually("it runs", async || {
            let seen = self.plane.observed(uid);
            if condition(&seen).0 == Status::True { Ok(()) } else { Err(self.log()) }
        })
        .await;
        agent.kill().expect("kill");
        agent.wait().expect("wait");
    }
}

fn end(agent: &Child) {
    let pid = Pid::from_raw(i32::try_from(agent.id()).expect("pid")).expect("pid");
    kill_process(pid, Signal::TERM).expect("signal");
}

async fn ended(mut agent: Child, lab: &Site) -> ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = agent.try_wait().expect("wait") {
            return status;
        }
        assert!(began.elapsed() < Duration::from_secs(180), "{}", lab.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn slow(operation: &str) -> Fault {
    Fault { answer: None, delay_ms: SLOW, ..Fault::answer(operation, Answer::Errno(0)) }
}

const PROBE: &str = "write /sys/bus/pci/drivers_probe";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_before_the_last_step_it_ends_the_one_in_hand_and_takes_back() {
    let (lab, uid) = Site::wanted().await;
    let before = dump(&lab.machine()).expect("dump");
    let agent = lab.told_in_the_middle(&[slow(PROBE)]).await;
    assert!(ended(agent, &lab).await.success(), "{}", lab.log());
    assert!(dump(&lab.machine()).expect("dump") == before, "{}", lab.log());
    let journal = lab.journal();
    for list in ["marks", "left"] {
        assert!(journal[list].as_object().is_none_or(serde_json::Map::is_empty), "{list}: {journal}");
    }
    lab.plane.lock().observed.clear();
    lab.runs_by_the_next_agent(uid).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_in_the_last_step_the_plan_is_carried_out_before_the_agent_ends() {
    let (lab, uid) = Site::wanted().await;
    let agent = lab.told_in_the_middle(&[Fault { skip: 1, ..slow(PROBE) }]).await;
    assert!(ended(agent, &lab).await.success(), "{}", lab.log());
    for id in [DISPLAY, SOUND] {
        assert_eq!(lab.driver(id), "vfio-pci", "{id}: {}", lab.log());
    }
    assert!(lab.journal()["holds"][uid.to_string()]["card"]["device"] == DISPLAY, "{}", lab.journal());
    // The next one has nothing more to do than to start it.
    lab.plane.lock().observed.clear();
    lab.runs_by_the_next_agent(uid).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_in_hand_that_fails_is_taken_back_before_the_agent_ends() {
    let (lab, uid) = Site::wanted().await;
    let before = dump(&lab.machine()).expect("dump");
    let fails = Fault { answer: Some(Answer::Errno(5)), skip: 1, ..slow(PROBE) };
    // However late it hears that it is to end: the second bind of every later try fails as well, after the two of the way back
    // and the first.
    let again = Fault { delay_ms: 0, skip: 3, ..fails.clone() };
    let agent = lab.told_in_the_middle(&[vec![fails], vec![again; 100]].concat()).await;
    assert!(ended(agent, &lab).await.success(), "{}", lab.log());
    assert!(dump(&lab.machine()).expect("dump") == before, "{}", lab.log());
    assert!(lab.journal()["marks"].as_object().is_some_and(serde_json::Map::is_empty), "{}", lab.journal());
    assert!(lab.log().contains("agent ends") && uid != Uuid::nil());
}

/// Whoever asks twice does not wait, and loses nothing by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_twice_it_ends_at_once_and_the_next_one_goes_on() {
    let (lab, uid) = Site::wanted().await;
    let forever = Fault { delay_ms: 25_000, ..slow(PROBE) };
    let agent = lab.told_in_the_middle(&[forever]).await;
    eventually("it has heard", async || if lab.log().contains("agent ends") { Ok(()) } else { Err(lab.log()) }).await;
    let began = Instant::now();
    end(&agent);
    assert!(ended(agent, &lab).await.success(), "{}", lab.log());
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    lab.runs_by_the_next_agent(uid).await;
}
