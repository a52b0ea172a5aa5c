//! `croft host preflight` on the machine that the tests run on, whatever that is: no plane, no context, no rights.

use std::process::Command;

use serde_json::Value;

struct Ran {
    code: i32,
    out: String,
    err: String,
}

/// With a configuration that is broken, and no plane anywhere.
fn preflight(arguments: &[&str]) -> Ran {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("config.yaml"), "[not a configuration").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_croft"))
        .args(["host", "preflight"])
        .args(arguments)
        .env_clear()
        .env("CROFT_CONFIG", home.path().join("config.yaml"))
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

fn findings(ran: &Ran) -> Vec<Value> {
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(report["schema"], 1);
    assert!(!report["host"].as_str().unwrap().is_empty());
    report["findings"].as_array().unwrap().clone()
}

#[test]
fn the_exit_code_says_whether_something_fails_and_the_level_only_what_is_shown() {
    // Nobody listens on port 1: this fails everywhere.
    let failing = ["--server", "127.0.0.1:1"];
    let all = preflight(&[&failing[..], &["-o", "json"]].concat());
    let found = findings(&all);
    assert_eq!(all.code, 1, "{}", all.err);
    let error: Value = serde_json::from_str(&all.err).unwrap();
    assert!(error["error"]["message"].as_str().unwrap().contains("plane"), "{error}");
    let plane = found.iter().find(|finding| finding["id"] == "plane").unwrap();
    assert_eq!((plane["level"].as_str(), plane["subject"].as_str()), (Some("fail"), Some("127.0.0.1:1")));

    let worst = preflight(&[&failing[..], &["-o", "json", "--level", "fail"]].concat());
    let shown = findings(&worst);
    assert!(!shown.is_empty() && shown.len() < found.len());
    assert!(shown.iter().all(|finding| finding["level"] == "fail"), "{shown:?}");

    let plain = preflight(&["-o", "json"]);
    let fails = findings(&plain).iter().any(|finding| finding["level"] == "fail");
    assert_eq!(plain.code, i32::from(fails), "{}", plain.err);
}

#[test]
fn people_get_a_table_and_below_it_what_to_do() {
    let ran = preflight(&["--server", "127.0.0.1:1"]);
    assert!(ran.out.starts_with("LEVEL   CHECK"), "{}", ran.out);
    let advice = ran.out.split("\nfail plane, 127.0.0.1:1: cannot be reached: ").nth(1).unwrap();
    assert!(advice.contains("\n  why: ") && advice.contains("\n  fix: start the control plane"), "{advice}");
    assert!(ran.err.starts_with("error: this machine is not fit to be a host yet: see "), "{}", ran.err);
    let names = preflight(&["-o", "name"]).out;
    assert_eq!(names.lines().next(), Some("machine"));
    let wrong = preflight(&["--server", "plane"]);
    assert!(wrong.code == 2 && wrong.err.contains("`plane` is not HOST:PORT"), "{}", wrong.err);
}
