//! Rules as Prometheus evaluated them over the fleet.

use std::collections::BTreeSet;

use serde_json::Value;

use super::site::{DISPLAY, Site};

/// Each is provoked by the site; the others wait for something that takes weeks, or for nothing.
const PROVOKED: [&str; 5] =
    ["CroftDeviceFaulty", "CroftGpuUnhealthy", "CroftHostAgentDown", "CroftHostUnreachable", "CroftInstancesFailed"];

pub async fn all_are_well(site: &Site) {
    let rules = site.prometheus.rules().await;
    let text = |rule: &Value, key: &str| rule[key].as_str().unwrap_or_default().to_owned();
    for rule in &rules {
        assert_eq!(text(rule, "health"), "ok", "{rule}");
    }
    for record in rules.iter().filter(|rule| rule["type"] == "recording") {
        site.has_seen(&text(record, "name")).await;
    }
    let alerting: Vec<&Value> = rules.iter().filter(|rule| rule["type"] == "alerting").collect();
    let names: BTreeSet<String> = alerting.iter().map(|rule| text(rule, "name")).collect();
    assert!(names.len() > 20, "{names:?}");
    for alert in PROVOKED {
        let rule = alerting.iter().find(|rule| rule["name"] == alert).unwrap_or_else(|| panic!("{alert} is shipped"));
        // What it asks for is there; its `for` takes longer than a test.
        site.has_seen(&text(rule, "query")).await;
    }
    let seen = site.prometheus.query("croft:gpu_healthy:by_holder == 0").await.expect("an answer");
    let [desk] = &seen[..] else { panic!("{seen:?}") };
    let said = ["tenant", "instance", "host", "host_bdf", "guest_bdf"].map(|label| desk.label(label));
    assert_eq!(said, ["acme", "desk", "h1", DISPLAY, "0000:05:00.0"], "{seen:?}");
    let silent = site.prometheus.query(r#"count(up{job="croft-hostagent"} == 0)"#).await.expect("an answer");
    assert_eq!(silent.first().map(|one| one.value), Some(1.0), "one agent is away: {silent:?}");
}
