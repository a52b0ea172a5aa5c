//! The watch: nothing lost, nothing doubled, wherever the stream is cut.

use croft_proto::v1;
use croft_proto::v1::watch_instances_response::Kind;
use croft_tests::{Api, Fleet};
use tonic_types::StatusExt;

const ALL: &str = "tenants/-";

async fn next_after(api: &Api, resume_token: &str) -> v1::WatchInstancesResponse {
    let request = v1::WatchInstancesRequest { parent: ALL.to_owned(), resume_token: resume_token.to_owned() };
    let mut stream = api.instances.clone().watch_instances(request).await.expect("watch").into_inner();
    let next = tokio::time::timeout(std::time::Duration::from_secs(60), stream.message());
    next.await.expect("a message").expect("no error").expect("no end")
}

/// (kind, name, generation, state) of everything up to the removal of `last`.
type Seen = Vec<(Kind, String, i64, i32)>;

fn note(seen: &mut Seen, message: &v1::WatchInstancesResponse) {
    if let Some(instance) = &message.instance {
        let generation = instance.metadata.as_ref().map_or(0, |metadata| metadata.generation);
        let state = instance.status.as_ref().map_or(0, |status| status.state);
        seen.push((message.kind(), instance.name.clone(), generation, state));
    }
}

fn ends(message: &v1::WatchInstancesResponse) -> bool {
    message.kind() == Kind::Removed && message.instance.as_ref().is_some_and(|i| i.name.ends_with("/last"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_at_every_message_it_tells_the_same_story() {
    let fleet = Fleet::with_host("h1").await;
    let api = fleet.api.clone();
    api.running("acme", "before").await;
    let synced = {
        let mut token = String::new();
        let request = v1::WatchInstancesRequest { parent: ALL.to_owned(), resume_token: String::new() };
        let mut stream = api.instances.clone().watch_instances(request).await.unwrap().into_inner();
        let mut added = 0;
        loop {
            let message = stream.message().await.unwrap().unwrap();
            token.clone_from(&message.resume_token);
            match message.kind() {
                Kind::Added => added += 1,
                Kind::Synced => break,
                other => panic!("{other:?} before SYNCED"),
            }
        }
        assert_eq!(added, 1);
        token
    };

    // One watcher in one piece, one that is cut after each message.
    let whole = tokio::spawn({
        let (api, token) = (fleet.another_client(), synced.clone());
        async move {
            let request = v1::WatchInstancesRequest { parent: ALL.to_owned(), resume_token: token };
            let mut stream = api.instances.clone().watch_instances(request).await.unwrap().into_inner();
            let mut seen = Seen::new();
            loop {
                let message = stream.message().await.unwrap().unwrap();
                note(&mut seen, &message);
                if ends(&message) {
                    return seen;
                }
            }
        }
    });
    let cut = tokio::spawn({
        let (api, mut token) = (fleet.another_client(), synced.clone());
        async move {
            let mut seen = Seen::new();
            loop {
                let message = next_after(&api, &token).await;
                token.clone_from(&message.resume_token);
                note(&mut seen, &message);
                if ends(&message) {
                    return seen;
                }
            }
        }
    });

    for id in ["one", "last"] {
        api.running("acme", id).await;
    }
    api.done(&api.stop("acme", "one").await.unwrap()).await.unwrap();
    api.done(&api.delete("acme", "one").await.unwrap()).await.unwrap();
    api.done(&api.delete("acme", "last").await.unwrap()).await.unwrap();

    let (whole, cut) = (whole.await.unwrap(), cut.await.unwrap());
    assert_eq!(whole, cut);
    let kinds_of = |name: &str| -> Vec<Kind> {
        whole.iter().filter(|(_, n, ..)| n.ends_with(name)).map(|(kind, ..)| *kind).collect()
    };
    for name in ["/one", "/last"] {
        let kinds = kinds_of(name);
        assert_eq!(kinds.first(), Some(&Kind::Added), "{kinds:?}");
        assert_eq!(kinds.iter().filter(|kind| **kind == Kind::Added).count(), 1, "{kinds:?}");
        assert_eq!(kinds.last(), Some(&Kind::Removed), "{kinds:?}");
        assert_eq!(kinds.iter().filter(|kind| **kind == Kind::Removed).count(), 1, "{kinds:?}");
    }
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_from_nowhere_is_refused_and_says_what_to_do() {
    let fleet = Fleet::with_host("h1").await;
    for token in ["garbage", "////", "AAAAAAAAAAAAAAAA"] {
        let request = v1::WatchInstancesRequest { parent: ALL.to_owned(), resume_token: token.to_owned() };
        let status = match fleet.api.instances.clone().watch_instances(request).await {
            Err(status) => status,
            Ok(stream) => stream.into_inner().message().await.unwrap_err(),
        };
        assert!(matches!(status.code(), tonic::Code::OutOfRange | tonic::Code::InvalidArgument), "{status:?}");
        assert!(!status.get_details_error_info().unwrap().reason.is_empty());
    }
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_resume_too() {
    let fleet = Fleet::with_host("h1").await;
    let api = &fleet.api;
    api.running("acme", "web").await;
    let list = v1::ListEventsRequest { parent: "tenants/acme".to_owned(), page_size: 1000, ..Default::default() };
    let listed = api.events.clone().list_events(list.clone()).await.unwrap().into_inner();
    assert!(listed.events.iter().any(|event| event.reason == "InstanceRunning"), "{:?}", listed.events);
    api.done(&api.delete("acme", "web").await.unwrap()).await.unwrap();
    let mut token = listed.resume_token;
    let mut reasons = Vec::new();
    while reasons.last().map(String::as_str) != Some("InstanceDeleted") {
        let request = v1::WatchEventsRequest { parent: "tenants/acme".to_owned(), resume_token: token.clone() };
        let mut stream = api.events.clone().watch_events(request).await.unwrap().into_inner();
        let message = stream.message().await.unwrap().unwrap();
        token = message.resume_token;
        reasons.extend(message.event.map(|event| event.reason));
    }
    let all = api.events.clone().list_events(list).await.unwrap().into_inner().events;
    let after: Vec<String> = all.iter().skip(listed.events.len()).map(|event| event.reason.clone()).collect();
    assert_eq!(reasons, after, "list and watch tell the same");
    fleet.end().await;
}
