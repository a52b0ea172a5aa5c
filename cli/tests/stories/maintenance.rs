//! `host drain` and `undrain`: what would happen, that exactly that is asked for, and what became of each instance.

use crate::support::{Say, Stage};
use croft_proto::v1::drain_step::Effect;
use croft_proto::v1::host_maintenance::Phase;
use croft_proto::v1::instance_status::State;
use croft_proto::v1::{self, HostMaintenance};

fn step(id: &str, effect: Effect, message: &str) -> v1::DrainStep {
    v1::DrainStep {
        instance: format!("tenants/acme/instances/{id}"),
        uid: format!("01890000-0000-7000-8000-00000000000{}", id.len()),
        effect: effect.into(),
        message: message.into(),
        starts_again: id == "web",
    }
}

fn plan(web: Effect) -> v1::DrainPlan {
    let steps = vec![step("idle", Effect::StaysOff, "is off"), step("web", web, "it is asked to power off")];
    v1::DrainPlan { host: "hosts/h1".into(), steps }
}

fn host(phase: Option<Phase>) -> v1::Host {
    let maintenance = |phase: Phase| HostMaintenance {
        phase: phase.into(),
        actor: "token:root".into(),
        reason: "new kernel".into(),
        ..Default::default()
    };
    v1::Host {
        name: "hosts/h1".into(),
        state: v1::host::State::Ready.into(),
        cordoned: true,
        maintenance: phase.map(maintenance),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_is_a_table_and_its_json_is_what_is_expected() {
    let stage = Stage::new().await;
    stage.fake.say("explain_host_drain", Say::one(plan(Effect::Stops)));
    let table = stage.run(&["host", "drain", "h1", "--preview"]).await.ok();
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("INSTANCE ") && lines[0].contains("AFTERWARDS"), "{table}");
    assert!(
        lines[2].contains("STOPS") && lines[2].contains("starts again") && lines[2].ends_with("power off"),
        "{table}"
    );
    let json = stage.run(&["host", "drain", "h1", "--preview", "-o", "json"]).await.ok();
    assert!(stage.fake.asked::<v1::DrainHostRequest>("drain_host").is_empty(), "nothing was drained");

    let file = stage.write("plan.json", &json);
    stage.fake.say("drain_host", Say::one(host(Some(Phase::Draining))));
    let arguments = ["host", "drain", "h1", "--reason", "new kernel", "--expect", &file];
    let text = stage.run(&arguments).await.ok();
    assert!(text.starts_with("hosts/h1 draining"), "{text}");
    let [asked] = &stage.fake.asked::<v1::DrainHostRequest>("drain_host")[..] else { panic!("once") };
    assert_eq!((asked.expect.as_ref(), asked.reason.as_str()), (Some(&plan(Effect::Stops)), "new kernel"));
    assert!(!asked.request_id.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_is_told_of_each_instance() {
    let stage = Stage::new().await;
    for effect in [Effect::Stops, Effect::Stops, Effect::StaysOff] {
        stage.fake.say("explain_host_drain", Say::one(plan(effect)));
    }
    stage.fake.say("drain_host", Say::one(host(Some(Phase::Draining))));
    stage.fake.say("get_host", Say::one(host(Some(Phase::Draining))));
    stage.fake.say("get_host", Say::one(host(Some(Phase::Drained))));
    let ran = stage.run(&["host", "drain", "h1", "--wait"]).await;
    assert_eq!(ran.err, "tenants/acme/instances/web: STOPS: it is asked to power off\n");
    let text = ran.ok();
    assert!(text.contains("instances/idle: was off; stays off afterwards\n"), "{text}");
    assert!(text.contains("instances/web: stopped; starts again afterwards\n"), "{text}");
    assert!(text.ends_with("hosts/h1 drained\n"), "{text}");

    let shown = stage.run(&["host", "get", "h1"]).await.ok();
    assert!(shown.contains("READY,CORDONED,DRAINED"), "{shown}");
    assert!(shown.contains("by token:root: new kernel"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_is_waited_for_until_all_that_was_stopped_runs() {
    let stage = Stage::new().await;
    stage.fake.say("explain_host_drain", Say::one(plan(Effect::StaysOff)));
    stage.fake.say("undrain_host", Say::one(host(None)));
    for (state, reason) in [(State::Stopped, "HostMaintenance"), (State::Starting, ""), (State::Running, "")] {
        let status = v1::InstanceStatus { state: state.into(), reason: reason.into(), ..Default::default() };
        stage.fake.say("get_instance", Say::one(v1::Instance { status: Some(status), ..Default::default() }));
    }
    let ran = stage.run(&["host", "undrain", "h1", "--wait"]).await;
    let web = "tenants/acme/instances/web";
    assert_eq!(ran.err, format!("{web}: STOPPED\n{web}: STARTING\n{web}: RUNNING\n"));
    assert_eq!(ran.ok(), "hosts/h1 is not under maintenance any more\n");
    let asked: Vec<v1::GetInstanceRequest> = stage.fake.asked("get_instance");
    assert!(asked.iter().all(|request| request.name == web), "only what was stopped for it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_takes_too_long_goes_on_and_one_that_is_taken_back_is_told() {
    let stage = Stage::new().await;
    stage.fake.say("explain_host_drain", Say::one(plan(Effect::Stops)));
    stage.fake.say("drain_host", Say::one(host(Some(Phase::Draining))));
    stage.fake.say("get_host", Say::one(host(Some(Phase::Draining))));
    let late = stage.run(&["host", "drain", "h1", "--wait", "--timeout", "0s"]).await;
    assert_eq!(late.code, Some(5), "{}", late.err);
    assert!(late.err.contains("croft host undrain h1"), "{}", late.err);
    let stage = Stage::new().await;
    stage.fake.say("explain_host_drain", Say::one(plan(Effect::Stops)));
    stage.fake.say("drain_host", Say::one(host(Some(Phase::Draining))));
    stage.fake.say("get_host", Say::one(host(None)));
    let taken = stage.run(&["host", "drain", "h1", "--wait"]).await;
    assert!(taken.code == Some(1) && taken.err.contains("somebody ended"), "{}", taken.err);
}
