//! The agent dies, the machine restarts, the hypervisor or the plane goes away, the host was fenced: nothing runs twice,
//! nothing is lost, and nothing that was not looked at is called gone.

mod fake;

use std::time::Duration;

use croft_hostagent::hypervisor::Hypervisor as _;
use croft_hostagent::hypervisor::simulated::Fault;
use croft_hostagent::plane::empty_seed;
use croft_hostagent::reasons;
use croft_proto::agent::v1::instance_observation::Phase;
use croft_proto::agent::v1::{Tombstone, open_tunnel};
use croft_proto::v1::condition::Status as Truth;
use croft_proto::v1::exit::Kind;
use fake::eventually;
use fake::host::{Host, desired};
use tonic::Status;
use uuid::Uuid;

async fn running(host: &Host, count: usize) -> Vec<Uuid> {
    let uids: Vec<Uuid> = (0..count).map(|_| Uuid::now_v7()).collect();
    for uid in &uids {
        host.plane.upsert(desired(*uid));
    }
    for uid in &uids {
        host.until(*uid, Phase::Running).await;
    }
    uids
}

#[tokio::test]
async fn a_killed_agent_adopts_what_runs_without_touching_it() {
    let mut host = Host::start().await;
    let uids = running(&host, 3).await;
    host.synced().await;
    let before = host.plane.observed(uids[0]);
    let complete = host.plane.lock().complete;
    host.restart_agent().await;
    host.pass_until("a complete report", async || {
        let now = host.plane.lock().complete;
        if now > complete { Ok(()) } else { Err(now.to_string()) }
    })
    .await;
    for uid in &uids {
        let seen = host.plane.observed(*uid);
        assert_eq!((seen.phase(), seen.restart_count, host.simulated.boots(*uid)), (Phase::Running, 0, 1));
    }
    assert_eq!(host.plane.observed(uids[0]).start_time, before.start_time);
    assert_eq!(host.plane.lock().hellos.last().expect("hello").epoch, 1);
}

#[tokio::test]
async fn without_a_plane_the_journal_is_enough() {
    let mut host = Host::start().await;
    let uids = running(&host, 2).await;
    host.synced().await;
    host.agent.kill();
    host.plane.refuse(Some(Status::unavailable("away")));
    host.simulated.guest_crash(uids[0]).expect("crash");
    host.simulated.guest_poweroff(uids[1]).expect("poweroff");
    host.start_agent().await;
    host.pass_until("the crashed one runs again", async || match host.simulated.running() {
        running if running == [uids[0]] => Ok(()),
        running => Err(format!("{running:?}")),
    })
    .await;
    host.pass(120).await;
    assert_eq!(host.simulated.running(), [uids[0]], "losing the plane stops nothing; the other rests");
    assert_eq!(
        host.agent.board().instance(uids[1]).expect("known").exit.as_ref().expect("exit").kind(),
        Kind::GuestPoweroff
    );
}

#[tokio::test]
async fn after_a_restart_of_the_machine_nothing_starts_before_the_plane_confirms_the_epoch() {
    let mut host = Host::start().await;
    let uids = running(&host, 1).await;
    host.synced().await;
    host.agent.kill();
    host.plane.refuse(Some(Status::unavailable("away")));
    host.simulated.host_reboot().expect("reboot");
    host.start_agent().await;
    eventually("it waits", async || match host.agent.board().instance(uids[0]) {
        Some(seen) if seen.reason == reasons::AWAITING_EPOCH => Ok(()),
        seen => Err(format!("{seen:?}")),
    })
    .await;
    host.pass(60).await;
    // A second restart of the agent in this boot confirms nothing either.
    host.restart_agent().await;
    host.pass(60).await;
    assert!(host.simulated.running().is_empty());

    host.plane.refuse(None);
    host.pass_until("it runs", async || match host.simulated.running() {
        running if running == uids => Ok(()),
        running => Err(format!("{running:?}")),
    })
    .await;
    let again = |seen: &croft_proto::agent::v1::InstanceObservation| seen.restart_count == 1;
    let seen = host.until_that(uids[0], "runs again", again).await;
    assert_eq!((seen.phase(), seen.exit.expect("exit").kind()), (Phase::Running, Kind::HostShutdown));
}

#[tokio::test]
async fn a_guest_that_ends_with_its_host_did_not_power_itself_off() {
    let host = Host::start().await;
    let uids = running(&host, 1).await;
    host.simulated.set_host_stopping(true).expect("stopping");
    host.simulated.guest_poweroff(uids[0]).expect("poweroff");
    let seen = host.until_that(uids[0], "held back", |seen| seen.reason == reasons::HOST_STOPPING).await;
    assert_eq!(seen.exit.expect("exit").kind(), Kind::HostShutdown);
    assert!(host.simulated.running().is_empty(), "nothing starts on a machine that goes down");
}

#[tokio::test]
async fn a_fenced_host_first_destroys_what_was_fenced() {
    let mut host = Host::start().await;
    let (fenced, kept, new) = {
        let uids = running(&host, 2).await;
        (uids[0], uids[1], Uuid::now_v7())
    };
    host.synced().await;
    host.agent.kill();
    {
        let mut plane = host.plane.lock();
        plane.epoch = 2;
        plane.instances.remove(&fenced.to_string());
        let tombstone = Tombstone { uid: fenced.to_string(), stop_timeout_seconds: 600, ..Tombstone::default() };
        plane.tombstones.insert(fenced.to_string(), tombstone);
        plane.instances.insert(new.to_string(), desired(new));
    }
    host.plane.cut();
    host.simulated.inject("remove", Some(Fault::fail("busy")));
    host.start_agent().await;
    host.pass_until("the plug is pulled, with no time to say goodbye", async || match host.simulated.running() {
        running if running == [kept] => Ok(()),
        running => Err(format!("{running:?}")),
    })
    .await;
    host.pass(100).await;
    assert!(!host.simulated.defined().contains(&new), "something new was made before the fence was through");
    assert_eq!(host.plane.lock().sync_done, None);

    // A crash in the middle of it changes nothing.
    host.restart_agent().await;
    host.pass(100).await;
    assert!(!host.simulated.defined().contains(&new));
    host.simulated.inject("remove", None);
    host.pass_until("the fence is through", async || {
        let done = host.plane.lock().sync_done;
        if done.is_some_and(|(epoch, _)| epoch == 2) { Ok(()) } else { Err(format!("{done:?}")) }
    })
    .await;
    host.until(fenced, Phase::Absent).await;
    host.until(new, Phase::Running).await;
    assert_eq!(host.simulated.boots(kept), 1, "what was not fenced ran on");

    // The plane has let go of the tombstone, and places the same instance here again.
    host.plane.lock().tombstones.clear();
    let wish = croft_proto::agent::v1::DesiredInstance { generation: 2, ..desired(fenced) };
    host.plane.upsert(wish);
    let seen = host.until(fenced, Phase::Running).await;
    assert_eq!((seen.generation, seen.restart_count, seen.exit), (2, 0, None));
    host.synced().await;
    host.restart_agent().await;
    host.plane.cut();
    host.pass_until("synced again", async || host.plane.lock().sync_done.ok_or("none".to_owned())).await;
    host.until(fenced, Phase::Running).await;
}

#[tokio::test]
async fn a_plane_with_an_older_epoch_is_not_obeyed() {
    let mut host = Host::start().await;
    host.plane.lock().epoch = 5;
    host.restart_agent().await;
    host.pass_until("epoch 5", async || match host.plane.lock().sync_done {
        Some((5, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let uid = Uuid::now_v7();
    {
        let mut plane = host.plane.lock();
        plane.epoch = 4;
        plane.sync_done = None;
        plane.instances.insert(uid.to_string(), desired(uid));
    }
    host.plane.cut();
    host.pass(60).await;
    assert_eq!(host.plane.lock().sync_done, None);
    assert!(host.simulated.defined().is_empty());
}

#[tokio::test]
async fn a_silent_hypervisor_makes_nothing_absent() {
    let mut host = Host::start().await;
    let uids = running(&host, 2).await;
    host.simulated.set_unavailable(true);
    let condition = async |wanted: Truth| {
        host.pass_until("the host's condition", async || {
            let observed = host.plane.lock().host.clone().unwrap_or_default();
            let ready = observed.conditions.into_iter().find(|condition| condition.r#type == "HypervisorReady");
            ready.filter(|ready| ready.status() == wanted).ok_or("none".to_owned())
        })
        .await
    };
    assert_eq!(condition(Truth::False).await.reason, reasons::HYPERVISOR_UNAVAILABLE);
    let seen = host.until_that(uids[0], "why", |seen| seen.reason == reasons::HYPERVISOR_UNAVAILABLE).await;
    assert_eq!(seen.phase(), Phase::Running);

    // An agent that starts now has seen nothing, and so says nothing.
    host.agent.kill();
    host.plane.cut();
    {
        let mut plane = host.plane.lock();
        plane.complete = 0;
        plane.observed.clear();
        plane.sync_done = None;
    }
    host.start_agent().await;
    host.pass_until("a session", async || host.plane.lock().sync_done.ok_or("none".to_owned())).await;
    host.pass(30).await;
    {
        let plane = host.plane.lock();
        assert_eq!((plane.complete, plane.observed.len()), (0, 0));
    }

    host.simulated.set_unavailable(false);
    host.pass_until("a complete report", async || match host.plane.lock().complete {
        1 => Ok(()),
        count => Err(count.to_string()),
    })
    .await;
    for uid in &uids {
        assert_eq!((host.plane.observed(*uid).phase(), host.simulated.boots(*uid)), (Phase::Running, 1));
    }
}

#[tokio::test]
async fn foreign_domains_count_and_are_left_alone_and_so_are_orphans() {
    let host = Host::start().await;
    host.simulated.add_foreign("their-database", 2, 1024, 10).expect("foreign");
    let foreign = eventually("what foreign domains hold", async || {
        let observed = host.plane.lock().host.clone().unwrap_or_default();
        observed.foreign.filter(|foreign| foreign.vcpus > 0).ok_or("nothing".to_owned())
    })
    .await;
    assert_eq!((foreign.vcpus, foreign.memory_mib, foreign.disk_gib), (2, 1024, 10));
    let info = host.plane.lock().host.clone().and_then(|observed| observed.info).expect("info");
    assert_eq!(info.foreign_domains, ["their-database"]);
    assert_eq!((info.domain_type.as_str(), info.boot_id.is_empty()), ("simulated", false));

    // Ours by its mark, and nobody told this agent about it.
    let uid = Uuid::now_v7();
    let wish = desired(uid);
    host.simulated.ensure_image(wish.image.as_ref().expect("image"), &|_, _| {}).await.expect("image");
    host.simulated.ensure_defined(&wish, &empty_seed(uid), &[]).await.expect("define");
    host.simulated.start(uid).await.expect("start");
    let seen = host.until(uid, Phase::Running).await;
    assert_eq!((seen.generation, seen.reason.as_str()), (0, reasons::NOT_DESIRED));
    host.plane.cut();
    host.pass(60).await;
    assert_eq!(host.simulated.running(), [uid]);
    assert_eq!(host.simulated.foreign(), ["their-database"]);
    host.plane.bury(uid, true, 0);
    host.until(uid, Phase::Absent).await;
}

#[tokio::test]
async fn what_the_plane_forgot_is_left_as_it_is() {
    let host = Host::start().await;
    let uids = running(&host, 1).await;
    host.plane.lock().instances.clear();
    host.plane.cut();
    let left = host.pass_until("left alone", async || {
        let seen = host.plane.observed(uids[0]);
        if seen.reason == reasons::NOT_DESIRED { Ok(seen) } else { Err(format!("{seen:?}")) }
    });
    assert_eq!(left.await.generation, 0);
    host.simulated.guest_crash(uids[0]).expect("crash");
    host.pass(60).await;
    assert!(host.simulated.running().is_empty() && host.simulated.defined() == uids);
}

#[tokio::test]
async fn a_corrupt_journal_is_shown_until_somebody_decides() {
    let mut host = Host::start().await;
    let uids = running(&host, 2).await;
    host.synced().await;
    host.agent.kill();
    let path = host.directory.path().join("agent/journal").join(format!("{}.json", uids[0]));
    let text = std::fs::read(&path).expect("read");
    std::fs::write(&path, &text[..text.len() / 2]).expect("cut short");
    host.start_agent().await;
    let corrupt = host.pass_until("corrupt", async || {
        let seen = host.plane.observed(uids[0]);
        if seen.reason == reasons::JOURNAL_CORRUPT { Ok(seen) } else { Err(format!("{seen:?}")) }
    });
    assert_eq!(corrupt.await.phase(), Phase::Failed);
    host.until(uids[1], Phase::Running).await;
    host.plane.change(uids[0], fake::host::started);
    host.until(uids[0], Phase::Running).await;
    assert_eq!(host.simulated.boots(uids[0]), 1, "it ran all the time");
}

#[tokio::test]
async fn somebody_elses_hands_on_the_host_are_answered_by_policy() {
    let host = Host::start().await;
    let uids = running(&host, 1).await;
    host.simulated.operator_destroy(uids[0]).expect("virsh destroy");
    host.simulated.operator_undefine(uids[0]).expect("virsh undefine");
    host.pass_until("made again", async || match host.plane.observed(uids[0]) {
        seen if seen.phase() == Phase::Running && seen.restart_count == 1 => Ok(()),
        seen => Err(format!("{seen:?}")),
    })
    .await;
}

#[tokio::test]
async fn heartbeats_and_refusals() {
    let mut host = Host::start().await;
    host.synced().await;
    host.pass(10).await;
    assert!(host.plane.lock().heartbeats >= 5, "{}", host.plane.lock().heartbeats);

    host.plane.lock().protocol = Some(9);
    host.plane.cut();
    let hellos = host.plane.lock().hellos.len();
    host.pass_until("it tries again and again", async || {
        let now = host.plane.lock().hellos.len();
        if now >= hellos + 3 { Ok(()) } else { Err(now.to_string()) }
    })
    .await;
    host.plane.lock().protocol = None;
    host.pass_until("a session", async || host.plane.lock().sync_done.ok_or("none".to_owned())).await;

    // With nothing to look after, a refusal is for the operator to see.
    host.plane.refuse(Some(Status::unauthenticated("no such host")));
    let clock = host.clock.clone();
    let why = tokio::select! {
        why = host.agent.refused() => why,
        () = async { loop {
            clock.advance(Duration::from_secs(1));
            tokio::time::sleep(Duration::from_millis(2)).await;
        } } => unreachable!(),
    };
    assert!(why.contains("no such host") && why.contains("croft-hostagent enrol"), "{why}");
}

#[tokio::test]
async fn consoles_logs_and_ports_reach_the_plane() {
    let host = Host::start().await;
    let uid = running(&host, 1).await[0];
    let console = || open_tunnel::Target::Console(open_tunnel::Console {});
    let mut tunnel = host.plane.tunnel(uid, console()).await;
    tunnel.send(b"hello").await;
    assert_eq!(tunnel.read(5).await, b"hello");
    let (_, error) = host.plane.tunnel(uid, console()).await.read_to_close().await;
    assert!(error.contains("open elsewhere"), "{error}");
    tunnel.close().await;
    assert_eq!(tunnel.read_to_close().await, (Vec::new(), String::new()));

    let log = |tail_bytes| open_tunnel::Target::ConsoleLog(open_tunnel::ConsoleLog { tail_bytes });
    let (text, error) = host.plane.tunnel(uid, log(0)).await.read_to_close().await;
    let text = String::from_utf8(text).expect("text");
    assert!(text.starts_with("simulated guest boots") && text.ends_with("hello") && error.is_empty(), "{text} {error}");
    assert_eq!(host.plane.tunnel(uid, log(3)).await.read_to_close().await.0, b"llo");

    let port = |port| open_tunnel::Target::Port(open_tunnel::Port { port });
    let mut ssh = host.plane.tunnel(uid, port(22)).await;
    assert_eq!(ssh.read(25).await, b"SSH-2.0-croft_simulated\r\n");
    let large = vec![7; 300_000];
    ssh.send(&large).await;
    assert_eq!(ssh.read(large.len()).await, large);
    for (wrong, culprit) in [(0, "1 to 65535"), (81, "refused")] {
        let (_, error) = host.plane.tunnel(uid, port(wrong)).await.read_to_close().await;
        assert!(error.contains(culprit), "{error}");
    }
}

#[tokio::test]
async fn what_foreign_domains_hold_is_not_forgotten_because_nobody_can_look() {
    let mut host = Host::start().await;
    host.simulated.add_foreign("theirs", 2, 100, 1).expect("foreign");
    let taken = async |host: &Host| {
        let told = host.plane.lock().host.clone().ok_or("no report")?;
        let vcpus = told.foreign.map_or(0, |foreign| foreign.vcpus);
        if vcpus == 2 { Ok(()) } else { Err(format!("{vcpus} vCPUs are taken")) }
    };
    host.pass_until("counted", async || taken(&host).await).await;
    host.agent.kill();
    host.plane.lock().host = None;
    host.simulated.set_unavailable(true);
    host.start_agent().await;
    host.synced().await;
    host.pass(90).await;
    assert_eq!(host.plane.lock().host, None, "the last report of the agent before stands");
    host.simulated.set_unavailable(false);
    host.pass_until("counted again", async || taken(&host).await).await;
}
