//! Watches across broken connections and forgotten histories: every change once.

use crate::support::{Say, Stage};
use croft_proto::v1::{self, instance_status::State, watch_instances_response::Kind};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

fn instance(id: &str, state: State) -> v1::Instance {
    v1::Instance {
        name: format!("tenants/acme/instances/{id}"),
        metadata: Some(v1::Metadata { uid: id.into(), ..v1::Metadata::default() }),
        status: Some(v1::InstanceStatus { state: state.into(), ..v1::InstanceStatus::default() }),
        ..v1::Instance::default()
    }
}

fn labelled(mut instance: v1::Instance) -> v1::Instance {
    instance.metadata.get_or_insert_default().labels.insert("a".into(), "b".into());
    instance
}

fn change(kind: Kind, instance: Option<v1::Instance>, token: &str) -> v1::WatchInstancesResponse {
    v1::WatchInstancesResponse { kind: kind.into(), instance, resume_token: token.into() }
}

fn broken() -> Option<Result<(), Status>> {
    Some(Err(Status::unavailable("restarting")))
}

fn too_old() -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info("RESUME_TOKEN_TOO_OLD", "croft.dev", std::collections::HashMap::new());
    Status::with_error_details(Code::OutOfRange, "too old", details)
}

/// `ADDED web RUNNING`
fn shown(out: &str) -> Vec<String> {
    out.lines()
        .map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            let text = |pointer: &str| value.pointer(pointer).and_then(|v| v.as_str()).unwrap_or("-").to_owned();
            let name = text("/instance/name");
            let id = name.rsplit('/').next().unwrap_or_default();
            format!("{} {id} {}", text("/kind"), text("/instance/status/state"))
        })
        .collect()
}

fn tokens(stage: &Stage) -> Vec<String> {
    let asked: Vec<v1::WatchInstancesRequest> = stage.fake.asked("watch_instances");
    asked.into_iter().map(|request| request.resume_token).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_watch_goes_on_where_it_was() {
    let stage = Stage::new().await;
    stage.fake.say("get_instance", Say::one(instance("web", State::Starting)));
    let first = [
        change(Kind::Added, Some(instance("web", State::Starting)), "1"),
        change(Kind::Added, Some(instance("other", State::Running)), "1"),
        change(Kind::Synced, None, "2"),
        change(Kind::Modified, Some(instance("web", State::Running)), "3"),
    ];
    // The last change again: whatever the plane repeats is shown once.
    let second =
        [change(Kind::Modified, Some(instance("web", State::Running)), "3"), change(Kind::Bookmark, None, "4")];
    let third = [change(Kind::Removed, Some(instance("web", State::Deleting)), "5")];
    stage.fake.say("watch_instances", Say::many(first, broken()));
    stage.fake.say("watch_instances", Say::many(second, Some(Ok(()))));
    stage.fake.say("watch_instances", Say::many(third, None));
    let ran = stage.run(&["instance", "watch", "web", "-o", "json"]).await;
    assert!(ran.err.contains("connection lost"), "{ran:?}");
    assert_eq!(shown(&ran.ok()), ["ADDED web STARTING", "MODIFIED web RUNNING", "REMOVED web DELETING"]);
    assert_eq!(tokens(&stage), ["", "3", "4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_history_shows_only_what_differs() {
    let stage = Stage::new().await;
    stage.fake.say("get_instance", Say::one(instance("web", State::Running)));
    let first = [change(Kind::Added, Some(instance("web", State::Starting)), "1"), change(Kind::Synced, None, "2")];
    let again = [change(Kind::Added, Some(instance("web", State::Running)), "9"), change(Kind::Synced, None, "9")];
    stage.fake.say("watch_instances", Say::many(first, broken()));
    stage.fake.say("watch_instances", Say::No(too_old()));
    stage.fake.say("watch_instances", Say::many(again, broken()));
    stage.fake.say("watch_instances", Say::No(too_old()));
    // Gone while nobody could see it.
    stage.fake.say("watch_instances", Say::many([change(Kind::Synced, None, "12")], None));
    let ran = stage.run(&["instance", "watch", "web", "-o", "json"]).await;
    assert_eq!(shown(&ran.ok()), ["ADDED web STARTING", "MODIFIED web RUNNING", "REMOVED web RUNNING"]);
    assert_eq!(tokens(&stage), ["", "2", "", "9", ""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_as_a_table_shows_the_state_and_then_changes_in_line() {
    let stage = Stage::new().await;
    stage.fake.say("get_instance", Say::one(instance("web", State::Running)));
    let told = [
        change(Kind::Added, Some(instance("web", State::Running)), "1"),
        change(Kind::Synced, None, "1"),
        // Nothing that a column shows.
        change(Kind::Modified, Some(labelled(instance("web", State::Running))), "2"),
        change(Kind::Removed, Some(instance("web", State::Deleting)), "3"),
    ];
    stage.fake.say("watch_instances", Say::many(told, None));
    let out = stage.run(&["instance", "watch", "web"]).await.ok();
    assert_eq!(
        out,
        "EVENT      TENANT   NAME   STATE     HOST   VCPUS   MEMORY   ADDRESS   AGE\n\
         ADDED      acme     web    RUNNING   -      -       -        -         -\n\
         REMOVED    acme     web    DELETING   -      -       -        -         -\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_nothing_ends_with_three() {
    let stage = Stage::new().await;
    stage.fake.say("get_instance", Say::No(Status::not_found("no")));
    assert_eq!(stage.run(&["instance", "watch", "web"]).await.code, Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_is_denied_ends() {
    let stage = Stage::new().await;
    stage.fake.say("watch_instances", Say::No(Status::permission_denied("no")));
    assert_eq!(stage.run(&["instance", "list", "--watch"]).await.code, Some(4));
}

fn event(revision: u32) -> v1::Event {
    v1::Event { name: format!("events/{revision}"), reason: format!("R{revision}"), ..v1::Event::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_listed_then_followed_and_listed_again_when_forgotten() {
    let stage = Stage::new().await;
    let list = |revisions: &[u32], token: &str| v1::ListEventsResponse {
        events: revisions.iter().map(|revision| event(*revision)).collect(),
        resume_token: token.into(),
        ..v1::ListEventsResponse::default()
    };
    let told =
        |revision: u32| v1::WatchEventsResponse { event: Some(event(revision)), resume_token: format!("t{revision}") };
    stage.fake.say("list_events", Say::one(list(&[1, 2], "t2")));
    stage.fake.say("list_events", Say::one(list(&[3, 7], "t7")));
    stage.fake.say("watch_events", Say::many([told(3)], broken()));
    stage.fake.say("watch_events", Say::No(too_old()));
    stage.fake.say("watch_events", Say::many([told(7), told(8)], Some(Err(Status::permission_denied("disabled")))));
    let ran = stage.run(&["event", "list", "--watch", "-o", "name"]).await;
    assert_eq!(ran.out, "events/1\nevents/2\nevents/3\nevents/7\nevents/8\n");
    assert!(ran.err.contains("events may be missing"), "{ran:?}");
    assert_eq!(ran.code, Some(4), "a token that was disabled ends the watch");
    let asked: Vec<v1::WatchEventsRequest> = stage.fake.asked("watch_events");
    assert_eq!(asked.iter().map(|r| r.resume_token.as_str()).collect::<Vec<_>>(), ["t2", "t3", "t7"]);
}
