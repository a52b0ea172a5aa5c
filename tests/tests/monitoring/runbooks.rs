//! An alert without a page, without a test of both its answers, or a page without an alert, is half an alert.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use croft_tests::prometheus::files;
use serde_yaml_ng::Value;

const PAGES: &str = "https://croft.dev/docs/runbooks/";
const PARTS: [&str; 4] = ["**What it means.**", "**How bad.**", "**Look.**", "**Do.**"];

fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).expect("a file");
    serde_yaml_ng::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_sequence).into_iter().flatten()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn alerts() -> BTreeMap<String, Value> {
    let rules = files("rules", "yml").into_iter().flat_map(|path| {
        let groups = read(&path);
        list(&groups, "groups").flat_map(|group| list(group, "rules")).cloned().collect::<Vec<_>>()
    });
    rules.filter(|rule| rule.get("alert").is_some()).map(|rule| (text(&rule, "alert").to_owned(), rule)).collect()
}

fn pages() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/runbooks")
}

#[test]
fn each_alert_has_a_page_and_each_page_an_alert() {
    let alerts = alerts();
    let entries = std::fs::read_dir(pages()).expect("docs/runbooks").flatten();
    let there: BTreeSet<String> =
        entries.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".md").map(str::to_owned)).collect();
    assert_eq!(there, alerts.keys().cloned().collect());
    for (name, rule) in &alerts {
        let annotations = rule.get("annotations").expect(name);
        assert_eq!(text(annotations, "runbook_url"), format!("{PAGES}{name}.md"));
        assert!(!text(annotations, "summary").is_empty(), "{name}");
        let severity = rule.get("labels").map(|labels| text(labels, "severity")).unwrap_or_default();
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: {severity:?}");
        let page = std::fs::read_to_string(pages().join(format!("{name}.md"))).expect("a page");
        for part in [format!("# {name}\n").as_str()].into_iter().chain(PARTS) {
            assert!(page.contains(part), "{name}.md has no {part}");
        }
        let bad = PARTS[1].to_owned() + " " + &severity[..1].to_uppercase() + &severity[1..];
        assert!(page.contains(&bad), "{name}.md: {bad}");
    }
}

#[test]
fn each_alert_is_tried_both_ways() {
    let mut tried: BTreeMap<(String, bool), usize> = BTreeMap::new();
    for path in files("tests", "yml") {
        let file = read(&path);
        for case in list(&file, "tests").flat_map(|test| list(test, "alert_rule_test")) {
            let fires = list(case, "exp_alerts").next().is_some();
            *tried.entry((text(case, "alertname").to_owned(), fires)).or_default() += 1;
        }
    }
    for name in alerts().into_keys() {
        for (fires, what) in [(true, "fires"), (false, "does not fire")] {
            assert!(tried.contains_key(&(name.clone(), fires)), "no test in monitoring/tests in which {name} {what}");
        }
    }
}
