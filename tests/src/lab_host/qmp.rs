//! A hand at the machine itself: what is plugged in and out while it runs.

use std::io::{BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

/// Tells QEMU one thing; its refusal is a failure of the test.
pub fn tell(socket: &Path, command: &str, arguments: &Value) -> Value {
    let stream = UnixStream::connect(socket).expect("QEMU's socket");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a deadline");
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    let say = |what: &Value| (&stream).write_all(format!("{what}\n").as_bytes()).expect("QEMU listens");
    read(&mut reader, |answer| answer.get("QMP").is_some());
    say(&json!({ "execute": "qmp_capabilities" }));
    read(&mut reader, is_answer);
    say(&json!({ "execute": command, "arguments": arguments }));
    let answer = read(&mut reader, is_answer);
    assert!(answer.get("return").is_some(), "{command} {arguments}: {answer}");
    answer["return"].clone()
}

fn is_answer(line: &Value) -> bool {
    line.get("return").is_some() || line.get("error").is_some()
}

/// Events come in between.
fn read(reader: &mut impl std::io::BufRead, wanted: impl Fn(&Value) -> bool) -> Value {
    loop {
        let mut line = String::new();
        assert!(reader.read_line(&mut line).expect("QEMU answers") > 0, "QEMU closed its socket");
        let line: Value = serde_json::from_str(&line).expect("JSON");
        if wanted(&line) {
            return line;
        }
    }
}
