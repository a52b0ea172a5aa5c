//! An agent, a plane that says what it is told, and a simulated machine: the life of an instance on one host.

mod fake;

use croft_hostagent::hypervisor::Hypervisor as _;
use croft_hostagent::hypervisor::simulated::Fault;
use croft_hostagent::reasons;
use croft_proto::agent::v1::InstanceObservation;
use croft_proto::agent::v1::instance_observation::Phase;
use croft_proto::v1::condition::Status;
use croft_proto::v1::exit::Kind;
use croft_proto::v1::image::host_copy;
use croft_proto::v1::instance_spec::Restart;
use fake::eventually;
use fake::host::{Host, desired, started, stopped};
use uuid::Uuid;

#[tokio::test]
async fn create_poweroff_start_stop_delete() {
    let host = Host::start().await;
    let uid = Uuid::now_v7();
    host.plane.upsert(desired(uid));
    let seen = host.until(uid, Phase::Running).await;
    assert_eq!((seen.generation, seen.power_generation, seen.restart_count), (1, 1, 0));
    assert!(seen.start_time.is_some());
    let ready = |seen: &croft_proto::agent::v1::InstanceObservation| {
        seen.conditions.iter().any(|c| c.r#type == "GuestReady" && c.status() == Status::True)
    };
    let seen = host.until_that(uid, "GuestReady", ready).await;
    assert_eq!(seen.addresses[0].source, "guest-agent");

    host.simulated.guest_poweroff(uid).expect("poweroff");
    let seen = host.until(uid, Phase::Off).await;
    assert_eq!((seen.exit.expect("exit").kind(), seen.reason.as_str()), (Kind::GuestPoweroff, "GuestPoweredOff"));
    assert!(seen.addresses.is_empty());
    host.pass(120).await;
    assert!(host.simulated.running().is_empty(), "a guest that powers itself off stays off");

    host.plane.change(uid, started);
    let seen = host.until(uid, Phase::Running).await;
    assert_eq!((seen.power_generation, seen.restart_count), (2, 0));
    host.plane.change(uid, stopped);
    let seen = host.until_that(uid, "stopped", |seen| seen.phase() == Phase::Off && seen.power_generation == 3).await;
    assert_eq!(seen.exit.expect("exit").kind(), Kind::Stopped);

    host.plane.bury(uid, false, 60);
    host.until(uid, Phase::Absent).await;
    assert!(host.simulated.defined().is_empty());
    let journal = host.directory.path().join("agent/journal").join(format!("{uid}.json"));
    assert!(journal.exists(), "the plane still asks for it to be gone");
    host.plane.lock().tombstones.clear();
    host.plane.cut();
    host.pass_until("forgotten", async || if journal.exists() { Err("journal".to_owned()) } else { Ok(()) }).await;
    host.synced().await;
}

#[tokio::test]
async fn created_stopped_is_defined_and_never_started() {
    let host = Host::start().await;
    let uid = Uuid::now_v7();
    let mut wish = desired(uid);
    stopped(&mut wish);
    host.plane.upsert(wish);
    let seen = host.until_that(uid, "off", |seen| seen.phase() == Phase::Off && seen.power_generation == 2).await;
    assert_eq!(seen.exit, None);
    assert_eq!((host.simulated.defined(), host.simulated.boots(uid)), (vec![uid], 0));
}

#[tokio::test]
async fn crashes_are_answered_with_growing_patience() {
    let host = Host::start().await;
    let uid = Uuid::now_v7();
    host.plane.upsert(desired(uid));
    host.until(uid, Phase::Running).await;
    for restarts in 1..=3 {
        host.simulated.guest_crash(uid).expect("crash");
        let waits = |seen: &croft_proto::agent::v1::InstanceObservation| seen.reason == reasons::RESTART_BACK_OFF;
        let seen = host.until_that(uid, "back-off", waits).await;
        assert_eq!(seen.exit.expect("exit").kind(), Kind::Crashed);
        // 1 s, 2 s, 4 s: nothing happens before.
        host.pass((1 << (restarts - 1)) - 1).await;
        assert!(host.simulated.running().is_empty(), "restarted too early after crash {restarts}");
        host.pass(1).await;
        host.until_that(uid, "runs again", |seen| seen.restart_count == restarts).await;
    }
    host.plane.change(uid, |wish| wish.restart = Restart::Never.into());
    host.simulated.guest_crash(uid).expect("crash");
    let seen = host.until(uid, Phase::Off).await;
    assert_eq!(seen.reason, reasons::GUEST_CRASHED);
}

#[tokio::test]
async fn a_guest_that_ignores_a_stop_is_killed_at_the_deadline_which_survives_the_agent() {
    let mut host = Host::start().await;
    let uid = Uuid::now_v7();
    host.plane.upsert(desired(uid));
    host.until(uid, Phase::Running).await;
    host.simulated.guest_deaf(uid, true).expect("deaf");
    host.plane.change(uid, stopped);
    host.until(uid, Phase::Stopping).await;
    host.pass(60).await;
    assert_eq!(host.simulated.running(), [uid]);

    host.restart_agent().await;
    host.pass(20).await;
    assert_eq!(host.simulated.running(), [uid], "the deadline is not over");
    host.pass(11).await;
    let seen = host.until_that(uid, "off", |seen| seen.phase() == Phase::Off && seen.power_generation == 2).await;
    assert_eq!(seen.exit.expect("exit").kind(), Kind::Killed);
}

#[tokio::test]
async fn reboot_asks_and_falls_to_reset_and_reset_does_not_ask() {
    let host = Host::start().await;
    let uid = Uuid::now_v7();
    host.plane.upsert(desired(uid));
    host.until(uid, Phase::Running).await;
    host.plane.change(uid, |wish| wish.reboot_generation = 1);
    host.until_that(uid, "rebooted", |seen| seen.reboot_generation == 1).await;
    assert_eq!(host.simulated.boots(uid), 2);

    host.simulated.guest_deaf(uid, true).expect("deaf");
    host.plane.change(uid, |wish| wish.reboot_generation = 2);
    host.until_that(uid, "asked", |seen| seen.reason == reasons::REBOOT_REQUESTED).await;
    host.pass(89).await;
    assert_eq!((host.plane.observed(uid).reboot_generation, host.simulated.boots(uid)), (1, 2));
    host.pass(2).await;
    host.until_that(uid, "reset instead", |seen| seen.reboot_generation == 2).await;
    assert_eq!(host.simulated.boots(uid), 3);

    host.plane.change(uid, |wish| wish.reset_generation = 1);
    host.until_that(uid, "reset", |seen| seen.reset_generation == 1 && seen.phase() == Phase::Running).await;
    assert_eq!(host.simulated.boots(uid), 4);
}

#[tokio::test]
async fn a_rebuilt_guest_is_stopped_gets_another_disk_and_is_then_as_it_was() {
    let mut host = Host::start().await;
    let uid = Uuid::now_v7();
    host.plane.upsert(desired(uid));
    host.until(uid, Phase::Running).await;
    let disk = || host.simulated.disk(uid).expect("a disk");
    let first = disk();
    host.simulated.guest_deaf(uid, true).expect("deaf");
    host.plane.change(uid, |wish| wish.disk_generation = 1);
    host.until(uid, Phase::Stopping).await;
    assert_eq!(disk(), first, "not under a guest that runs");
    host.pass(91).await;
    let seen =
        host.until_that(uid, "rebuilt", |seen| seen.phase() == Phase::Running && seen.disk_generation == 1).await;
    assert_eq!((seen.power_generation, seen.restart_count), (1, 0));
    let second = disk();
    assert_ne!(second, first);

    // Neither a restart of the agent nor a lost journal asks for it again.
    host.agent.kill();
    host.plane.set_policy(None);
    host.start_agent().await;
    host.synced().await;
    host.plane.change(uid, |wish| wish.stop_timeout_seconds = 0);
    host.until_that(uid, "seen again", |seen| seen.phase() == Phase::Running && seen.generation == 3).await;
    assert_eq!(host.simulated.disk(uid), Some(second));

    // Off, it stays off. What cannot be made is said, and made when it can be.
    host.plane.change(uid, stopped);
    host.until_that(uid, "off", |seen| seen.phase() == Phase::Off).await;
    host.simulated.inject("ensure_defined", Some("refuse: DiskFull: no room".parse().expect("a fault")));
    host.plane.change(uid, |wish| wish.disk_generation = 2);
    let seen = host.until(uid, Phase::Failed).await;
    assert_eq!((seen.reason.as_str(), seen.disk_generation), ("DiskFull", 1));
    host.simulated.inject("ensure_defined", None);
    host.plane.change(uid, |wish| wish.disk_generation = 3);
    host.until_that(uid, "rebuilt", |seen| seen.phase() == Phase::Off && seen.disk_generation == 3).await;
    assert_ne!(host.simulated.disk(uid), Some(second));
    assert!(host.simulated.running().is_empty());
}

#[tokio::test]
async fn a_start_that_overtakes_a_stop_wins() {
    let host = Host::start().await;
    let uid = Uuid::now_v7();
    host.plane.upsert(desired(uid));
    host.until(uid, Phase::Running).await;
    host.simulated.guest_deaf(uid, true).expect("deaf");
    host.plane.change(uid, stopped);
    host.until(uid, Phase::Stopping).await;
    host.plane.change(uid, started);
    host.until_that(uid, "taken back", |seen| seen.phase() == Phase::Running && seen.power_generation == 3).await;
    // It had heard the request after all, and ends because of it: that was not its own idea.
    host.simulated.guest_poweroff(uid).expect("poweroff");
    host.until_that(uid, "again", |seen| seen.phase() == Phase::Running && seen.exit.is_some()).await;
    assert_eq!(host.plane.observed(uid).exit.expect("exit").kind(), Kind::Stopped);
}

#[tokio::test]
async fn a_guest_without_space_is_paused_and_goes_on_by_itself() {
    let host = Host::start().await;
    let uid = Uuid::now_v7();
    host.plane.upsert(desired(uid));
    host.until(uid, Phase::Running).await;
    host.simulated.set_disk_free_gib(Some(0)).expect("full");
    host.simulated.guest_out_of_space(uid).expect("pause");
    let seen = host.until(uid, Phase::Paused).await;
    assert_eq!(seen.reason, reasons::OUT_OF_SPACE);
    host.pass(65).await;
    assert_eq!(host.plane.observed(uid).phase(), Phase::Paused);
    host.simulated.set_disk_free_gib(None).expect("space");
    host.pass_until("goes on", async || match host.plane.observed(uid).phase() {
        Phase::Running => Ok(()),
        phase => Err(format!("{phase:?}")),
    })
    .await;
    assert_eq!(host.simulated.boots(uid), 1, "resumed, not restarted");
}

#[tokio::test]
async fn seeds_are_fetched_once_checked_and_survive_without_the_plane() {
    let mut host = Host::start().await;
    let (good, bad) = (Uuid::now_v7(), Uuid::now_v7());
    let text = br##"{"meta-data": "local-hostname: from-the-seed\n", "user-data": "#cloud-config\n"}"##;
    let digest = host.plane.keep_blob(text);
    let mut wish = desired(good);
    wish.seed_digest.clone_from(&digest);
    host.plane.upsert(wish);
    host.until(good, Phase::Running).await;
    let log = host.simulated.console_log(good).await.expect("log");
    assert!(std::fs::read_to_string(&log[0]).expect("log").contains("from-the-seed"));

    let mut wish = desired(bad);
    wish.seed_digest = format!("sha256:{}", "1".repeat(64));
    host.plane.lock().blobs.insert(wish.seed_digest.clone(), b"something else".to_vec());
    host.plane.upsert(wish);
    let seen = host.until(bad, Phase::Failed).await;
    assert_eq!(seen.reason, reasons::SEED_INVALID);

    host.plane.lock().blobs.clear();
    host.plane.refuse(Some(tonic::Status::unavailable("away")));
    host.restart_agent().await;
    host.simulated.guest_crash(good).expect("crash");
    host.pass_until("restarted without the plane", async || match host.simulated.running() {
        running if running == [good] => Ok(()),
        running => Err(format!("{running:?}")),
    })
    .await;
}

#[tokio::test]
async fn a_seed_is_replaced_under_a_running_guest_and_the_old_one_is_nowhere() {
    let host = Host::start().await;
    let uid = Uuid::now_v7();
    let secret = br##"{"meta-data": "", "user-data": "", "files": {"croft-join.env": "sesame"}}"##;
    let (with, without) =
        (host.plane.keep_blob(secret), host.plane.keep_blob(br##"{"meta-data": "", "user-data": ""}"##));
    let mut wish = desired(uid);
    wish.seed_digest.clone_from(&with);
    host.plane.upsert(wish);
    host.until(uid, Phase::Running).await;
    let holders = || fake::files_with(host.directory.path(), "sesame");
    assert_eq!(holders().len(), 2, "the guest and the journal: {:?}", holders());

    // While the plane does not hand it out everything else goes on, and says why.
    let blob = host.plane.lock().blobs.remove(&without).expect("kept");
    host.plane.change(uid, |wish| {
        wish.seed_digest.clone_from(&without);
        wish.reset_generation = 1;
    });
    let waits = |seen: &InstanceObservation| seen.reset_generation == 1 && seen.reason == reasons::PLANE_UNREACHABLE;
    assert_eq!(host.until_that(uid, "waits for its seed", waits).await.phase(), Phase::Running);
    host.plane.lock().blobs.insert(without.clone(), blob);
    host.pass_until(
        "the secret is gone",
        async || if holders().is_empty() { Ok(()) } else { Err(format!("{:?}", holders())) },
    )
    .await;
    host.until_that(uid, "all is well", |seen| seen.phase() == Phase::Running && seen.reason.is_empty()).await;
    assert_eq!(host.simulated.boots(uid), 2, "started and reset, and not for the seed");

    // One that rests gets it, too, and loses it again.
    host.plane.change(uid, stopped);
    host.until(uid, Phase::Off).await;
    host.plane.change(uid, |wish| wish.seed_digest.clone_from(&with));
    eventually("the secret is there", async || if holders().len() == 2 { Ok(()) } else { Err("not yet".to_owned()) })
        .await;
    host.plane.change(uid, |wish| wish.seed_digest.clone_from(&without));
    eventually("the secret is gone", async || if holders().is_empty() { Ok(()) } else { Err("not yet".to_owned()) })
        .await;
}

#[tokio::test]
async fn a_seed_that_is_replaced_while_it_is_asked_for_is_nobodys_trouble() {
    let host = Host::start().await;
    let uid = Uuid::now_v7();
    let last = host.plane.keep_blob(br##"{"meta-data": "local-hostname: the-last\n", "user-data": ""}"##);
    let gone = |n: &str| format!("sha256:{}", n.repeat(64));
    // Once before the first start, and once under the guest that runs.
    let mut wish = desired(uid);
    wish.seed_digest = gone("1");
    host.plane.lock().replaces.insert(gone("1"), (uid, last.clone()));
    host.plane.upsert(wish);
    host.until(uid, Phase::Running).await;
    let next = host.plane.keep_blob(br##"{"meta-data": "local-hostname: the-next\n", "user-data": ""}"##);
    host.plane.lock().replaces.insert(gone("2"), (uid, next));
    host.plane.change(uid, |wish| wish.seed_digest = gone("2"));
    host.pass_until("the guest has it", async || {
        let holders = fake::files_with(host.directory.path(), "the-next");
        if holders.len() == 2 { Ok(()) } else { Err(format!("{holders:?}")) }
    })
    .await;
    let reasons = host.plane.lock().reasons.clone();
    assert!(!reasons.contains(reasons::PLANE_UNREACHABLE), "{reasons:?}");
}

#[tokio::test]
async fn an_image_that_is_refused_fails_the_instance_and_says_why() {
    let host = Host::start().await;
    let uid = Uuid::now_v7();
    let fault = Fault::refuse(reasons::IMAGE_DIGEST_MISMATCH, "expected 00, found 11");
    host.simulated.inject("ensure_image", Some(fault));
    host.plane.upsert(desired(uid));
    let seen = host.until(uid, Phase::Failed).await;
    assert_eq!(
        (seen.reason.as_str(), seen.message.as_str()),
        (reasons::IMAGE_DIGEST_MISMATCH, "expected 00, found 11")
    );
    let image = eventually("the host's copy", async || {
        let images = host.plane.lock().images.values().flatten().last().cloned();
        images.filter(|image| image.state() == host_copy::State::Failed).ok_or("none".to_owned())
    })
    .await;
    assert_eq!(image.reason, reasons::IMAGE_DIGEST_MISMATCH);

    // A person may try again at any time; otherwise it is tried every five minutes.
    host.simulated.inject("ensure_image", None);
    host.pass(290).await;
    assert_eq!(host.plane.observed(uid).phase(), Phase::Failed);
    host.plane.change(uid, started);
    host.until(uid, Phase::Running).await;
    let copies: Vec<_> = host.plane.lock().images.values().flatten().map(|image| image.state()).collect();
    assert_eq!(copies.last(), Some(&host_copy::State::Ready), "{copies:?}");
}

#[tokio::test]
async fn failures_are_tried_again_and_shown_meanwhile() {
    let host = Host::start().await;
    let uid = Uuid::now_v7();
    host.simulated.inject("start", Some(Fault::fail("no luck")));
    host.plane.upsert(desired(uid));
    let seen = host.until_that(uid, "the reason", |seen| seen.reason == reasons::HYPERVISOR_ERROR).await;
    assert_eq!((seen.phase(), seen.message.as_str()), (Phase::Starting, "no luck"));
    host.simulated.inject("start", None);
    host.pass_until("runs", async || match host.plane.observed(uid).phase() {
        Phase::Running => Ok(()),
        phase => Err(format!("{phase:?}")),
    })
    .await;
    assert_eq!(host.plane.observed(uid).reason, "");
}

#[tokio::test]
async fn what_needs_an_unknown_feature_is_refused_whole() {
    let host = Host::start().await;
    let uid = Uuid::now_v7();
    let mut wish = desired(uid);
    wish.required_features = vec!["gpu.mig".to_owned()];
    host.plane.upsert(wish);
    let seen = host.until(uid, Phase::Failed).await;
    assert_eq!(seen.reason, reasons::FEATURE_MISSING);
    assert!(host.simulated.defined().is_empty());
    host.plane.bury(uid, false, 0);
    host.until(uid, Phase::Absent).await;
}

#[tokio::test]
async fn a_tombstone_does_not_wait_for_a_download() {
    let host = Host::start().await;
    let uid = Uuid::now_v7();
    host.simulated.inject("ensure_image", Some(Fault::fail("slow mirror")));
    host.plane.upsert(desired(uid));
    host.until_that(uid, "waiting", |seen| seen.reason == reasons::HYPERVISOR_ERROR).await;
    host.plane.bury(uid, false, 60);
    host.until(uid, Phase::Absent).await;
}

#[tokio::test]
async fn a_tombstone_for_something_unknown_is_confirmed_after_a_look() {
    let host = Host::start().await;
    let uid = Uuid::now_v7();
    host.plane.bury(uid, true, 0);
    let seen = host.until(uid, Phase::Absent).await;
    assert_eq!(seen.generation, 9, "it answers this tombstone");
}

#[tokio::test]
async fn a_driver_that_panics_is_replaced_and_the_others_do_not_notice() {
    let host = Host::start().await;
    let (fallen, other) = (Uuid::now_v7(), Uuid::now_v7());
    host.simulated.inject("start", Some(Fault::panic("a bug").once()));
    host.plane.upsert(desired(fallen));
    let seen = host.until_that(fallen, "the fault", |seen| seen.reason == reasons::AGENT_FAULT).await;
    assert_eq!((seen.phase(), seen.generation), (Phase::Failed, 1));
    host.plane.upsert(desired(other));
    host.until(other, Phase::Running).await;
    host.pass(1).await;
    host.until(fallen, Phase::Running).await;
    assert_eq!(host.simulated.boots(fallen), 1);
}
