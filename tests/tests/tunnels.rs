//! The guest's console, live and kept, through plane and agent.

use croft_proto::v1;
use croft_tests::{Fleet, eventually};
use tokio_stream::wrappers::ReceiverStream;

fn data(bytes: &[u8]) -> v1::ConsoleRequest {
    v1::ConsoleRequest { kind: Some(v1::console_request::Kind::Data(bytes.to_vec())) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_typed_comes_back_and_is_kept() {
    let fleet = Fleet::with_host("h1").await;
    fleet.api.running("acme", "web").await;
    let name = "tenants/acme/instances/web".to_owned();
    let (keys, typed) = tokio::sync::mpsc::channel(8);
    let first = v1::ConsoleRequest { kind: Some(v1::console_request::Kind::Instance(name.clone())) };
    keys.send(first).await.unwrap();
    keys.send(data(b"hello, guest\n")).await.unwrap();
    let mut instances = fleet.api.instances.clone();
    let mut screen = instances.console(ReceiverStream::new(typed)).await.expect("a console").into_inner();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("hello, guest") {
        let next = tokio::time::timeout(std::time::Duration::from_secs(30), screen.message());
        seen.extend(next.await.expect("the guest echoes").unwrap().expect("no end").data);
    }

    // One holder at a time: the second is told so.
    let (more_keys, typed) = tokio::sync::mpsc::channel(8);
    more_keys.send(v1::ConsoleRequest { kind: Some(v1::console_request::Kind::Instance(name.clone())) }).await.unwrap();
    let second = match fleet.api.instances.clone().console(ReceiverStream::new(typed)).await {
        Err(status) => status,
        Ok(screen) => screen.into_inner().message().await.expect_err("refused"),
    };
    assert!(second.message().contains("console"), "{second:?}");
    drop((keys, screen, more_keys));

    fleet.api.done(&fleet.api.stop("acme", "web").await.unwrap()).await.unwrap();
    eventually("the log is readable after the stop", || async {
        let request = v1::ReadConsoleLogRequest { name: name.clone(), tail_bytes: 0 };
        let mut chunks =
            fleet.api.instances.clone().read_console_log(request).await.map_err(|e| e.to_string())?.into_inner();
        let mut text = Vec::new();
        while let Some(chunk) = chunks.message().await.map_err(|e| e.to_string())? {
            text.extend(chunk.data);
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        if text.contains("hello, guest") { Ok(()) } else { Err(text) }
    })
    .await;
    let audit = v1::ListAuditEntriesRequest { parent: "-".to_owned(), page_size: 1000, ..Default::default() };
    let rows = fleet.api.events.clone().list_audit_entries(audit).await.unwrap().into_inner().entries;
    let opened = rows.iter().filter(|row| row.method.ends_with("/Console") || row.method.ends_with("/ReadConsoleLog"));
    assert!(opened.count() >= 2, "looking into a guest is audited");
    fleet.end().await;
}
