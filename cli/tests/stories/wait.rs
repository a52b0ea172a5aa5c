//! `--wait`: the live state, a plane that goes away meanwhile, failure and timeout.

use crate::support::{Say, Stage};
use croft_proto::v1::{self, instance_status::State};
use tonic::Status;

const START: [&str; 4] = ["instance", "start", "web", "--wait"];

fn operation(done: bool, progress: &str) -> v1::Operation {
    v1::Operation {
        name: "operations/o1".into(),
        target: "tenants/acme/instances/web".into(),
        verb: "start".into(),
        progress: progress.into(),
        done,
        ..v1::Operation::default()
    }
}

fn web(state: State) -> v1::Instance {
    let address = v1::Address { ip: "10.200.0.12".into(), ..v1::Address::default() };
    v1::Instance {
        name: "tenants/acme/instances/web".into(),
        status: Some(v1::InstanceStatus {
            state: state.into(),
            host: "hosts/h1".into(),
            addresses: if state == State::Running { vec![address] } else { Vec::new() },
            ..v1::InstanceStatus::default()
        }),
        ..v1::Instance::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_live_state_is_shown_until_it_is_done() {
    let stage = Stage::new().await;
    stage.fake.say("start_instance", Say::one(operation(false, "")));
    for progress in ["", "waiting for the guest"] {
        stage.fake.say("wait_operation", Say::one(operation(false, progress)));
    }
    stage.fake.say("wait_operation", Say::one(operation(true, "")));
    for state in [State::Preparing, State::Starting, State::Starting, State::Running] {
        stage.fake.say("get_instance", Say::one(web(state)));
    }
    let ran = stage.run(&START).await;
    assert_eq!(ran.err, "web: PREPARING on h1\nweb: STARTING on h1\nweb: STARTING on h1: waiting for the guest\n");
    assert_eq!(ran.ok(), "tenants/acme/instances/web started: RUNNING on h1, 10.200.0.12\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_get_the_instance_as_it_is_at_the_end() {
    let stage = Stage::new().await;
    stage.fake.say("start_instance", Say::one(operation(true, "")));
    stage.fake.say("get_instance", Say::one(web(State::Running)));
    let text = stage.run(&[&START[..], &["-o", "json"]].concat()).await.ok();
    let instance: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(instance["status"]["state"], "RUNNING");
    assert_eq!(stage.run(&[&START[..], &["-o", "name"]].concat()).await.ok(), "tenants/acme/instances/web\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plane_that_goes_away_is_waited_for() {
    let stage = Stage::new().await;
    stage.fake.say("start_instance", Say::one(operation(false, "")));
    stage.fake.say("get_instance", Say::one(web(State::Running)));
    // More than one call's patience: the wait itself does not give up.
    for _ in 0..8 {
        stage.fake.say("wait_operation", Say::No(Status::unavailable("restarting")));
    }
    stage.fake.say("wait_operation", Say::one(operation(true, "")));
    let ran = stage.run(&START).await;
    assert!(ran.err.contains("the plane is away; waiting for it"), "{ran:?}");
    ran.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_fails_fails_the_command() {
    let stage = Stage::new().await;
    let error = v1::Error { code: 9, message: "the image is corrupt".into(), details: Vec::new() };
    stage.fake.say("start_instance", Say::one(v1::Operation { error: Some(error), ..operation(true, "") }));
    let ran = stage.run(&START).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_eq!(ran.err, "error: FAILED_PRECONDITION: the image is corrupt\n");
    assert_eq!(ran.out, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_ends_with_five_and_says_how_to_go_on() {
    let stage = Stage::new().await;
    stage.fake.say("start_instance", Say::one(operation(false, "")));
    stage.fake.say("get_instance", Say::one(web(State::Starting)));
    stage.fake.say("wait_operation", Say::one(operation(false, "waiting for the guest")));
    let ran = stage.run(&[&START[..], &["--timeout", "1s"]].concat()).await;
    assert_eq!(ran.code, Some(5), "{ran:?}");
    assert!(ran.err.contains("croft operation wait o1"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_waiting_the_operation_is_named() {
    let stage = Stage::new().await;
    stage.fake.say("start_instance", Say::one(operation(false, "")));
    assert_eq!(
        stage.run(&["instance", "start", "web"]).await.ok(),
        "tenants/acme/instances/web start: begun (operation o1)\n"
    );
    assert_eq!(stage.run(&["instance", "start", "web", "-o", "name"]).await.ok(), "operations/o1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_asks_the_plane_and_waits_for_nothing() {
    let stage = Stage::new().await;
    stage.fake.say("start_instance", Say::one(v1::Operation { name: String::new(), ..operation(false, "") }));
    let said = stage.run(&[&START[..], &["--dry-run"]].concat()).await.ok();
    assert_eq!(said, "tenants/acme/instances/web would be started (dry run: nothing was changed)\n");
    let asked: Vec<v1::StartInstanceRequest> = stage.fake.asked("start_instance");
    assert!(asked[0].validate_only);
}
