//! promtool's own opinion: of the configuration, of the rules and their tests, of the pages.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use croft_tests::prometheus::{files, is_installed, shipped};

pub fn check_metrics(whose: &str, page: &str) {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool");
    child.stdin.take().expect("its input").write_all(page.as_bytes()).expect("written");
    let ended = child.wait_with_output().expect("promtool");
    let said = [ended.stdout, ended.stderr].concat();
    assert!(ended.status.success() && said.is_empty(), "{whose}: {}\n{page}", String::from_utf8_lossy(&said));
}

fn promtool(arguments: &[&str], paths: &[impl AsRef<Path>]) {
    let mut command = Command::new("promtool");
    command.args(arguments).args(paths.iter().map(AsRef::as_ref));
    let ended = command.output().expect("promtool");
    let said = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
    assert!(ended.status.success(), "{said}");
}

#[test]
fn the_configuration_and_the_rules_are_well_formed() {
    if is_installed() {
        promtool(&["check", "config"], &[shipped().join("prometheus.yml")]);
        promtool(&["check", "rules", "--lint-fatal"], &files("rules", "yml"));
    }
}

#[test]
fn alerts_fire_when_they_should_and_only_then() {
    if is_installed() {
        promtool(&["test", "rules"], &files("tests", "yml"));
    }
}
