//! Console and port-forward: bytes through the plane, both ways, to the end.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::process::Stdio;

use crate::support::{Say, Stage};
use croft_proto::v1;
use tonic::Status;

#[tokio::test(flavor = "multi_thread")]
async fn a_console_works_in_a_pipe() {
    let stage = Stage::new().await;
    // 0x1d is the escape of a terminal; in a pipe it is the guest's.
    let ran = stage.run_with(stage.command(&["instance", "console", "web"]), b"bye \x1d now\n").await;
    assert_eq!(ran.out, "BYE \u{1d} NOW\n");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let ran = stage.run(&["instance", "console", "other"]).await;
    assert_eq!(ran.code, Some(3), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_printed_as_it_is() {
    let stage = Stage::new().await;
    let part = |text: &str| v1::ReadConsoleLogResponse { data: text.into() };
    stage.fake.say("read_console_log", Say::many([part("Linux"), part(" boots\r\n")], Some(Ok(()))));
    assert_eq!(stage.run(&["instance", "console", "web", "--log", "--tail", "1KiB"]).await.ok(), "Linux boots\r\n");
    let asked: Vec<v1::ReadConsoleLogRequest> = stage.fake.asked("read_console_log");
    assert_eq!(asked[0].tail_bytes, 1024);
}

#[tokio::test(flavor = "multi_thread")]
async fn stdio_ends_when_both_sides_have_ended() {
    let stage = Stage::new().await;
    let command = || stage.command(&["instance", "port-forward", "web", "--stdio", "7"]);
    let ran = stage.run_with(command(), b"hello").await;
    assert_eq!((ran.out.as_str(), ran.code), ("HELLO<5>", Some(0)), "{ran:?}");
    let much = "x".repeat(3_000_000);
    let ran = stage.run_with(command(), much.as_bytes()).await;
    assert_eq!(ran.out.len(), much.len() + "<3000000>".len());
    assert!(ran.out.ends_with("X<3000000>"));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_connection_is_a_call_of_its_own() {
    let stage = Stage::new().await;
    stage.fake.say("get_instance", Say::one(v1::Instance::default()));
    let mut child = stage
        .command(&["instance", "port-forward", "web", ":7", "127.0.0.1:0:9", "-o", "name"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let talk = tokio::task::spawn_blocking(move || {
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut next = || lines.next().unwrap().unwrap();
        let (echo, closed) = (next(), next());
        let mut said = Vec::new();
        for _ in 0..2 {
            let mut socket = TcpStream::connect(&echo).unwrap();
            socket.write_all(b"hello").unwrap();
            socket.shutdown(Shutdown::Write).unwrap();
            let mut text = String::new();
            socket.read_to_string(&mut text).unwrap();
            said.push(text);
        }
        // Nothing listens there in the guest: this connection ends, the others do not.
        let mut text = String::new();
        let refused = TcpStream::connect(&closed).unwrap().read_to_string(&mut text);
        let errors = BufReader::new(child.stderr.take().unwrap()).lines().next().unwrap().unwrap();
        let running = child.try_wait().unwrap().is_none();
        child.kill().unwrap();
        child.wait().unwrap();
        (said, refused.map(|_| text), errors, running)
    });
    let (said, refused, errors, running) = talk.await.unwrap();
    assert_eq!(said, ["HELLO<5>", "HELLO<5>"]);
    assert_eq!(refused.unwrap_or_default(), "");
    assert!(errors.contains("nothing listens on 9"), "{errors}");
    assert!(running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_of_nothing_is_told_at_once() {
    let stage = Stage::new().await;
    stage.fake.say("get_instance", Say::No(Status::not_found("no")));
    assert_eq!(stage.run(&["instance", "port-forward", "web", ":22"]).await.code, Some(3));
}
