//! OpenMetrics, as the library writes it, to the text format 0.0.4 that every Prometheus and promtool reads.
//!
//! They differ in two ways that matter: OpenMetrics names a counter without its `_total` in HELP and TYPE, and ends with
//! `# EOF`.

use std::collections::HashSet;
use std::fmt::Write as _;

use prometheus_client::encoding::text::encode_registry;
use prometheus_client::registry::Registry;

pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn render(registry: &Registry) -> String {
    let mut open = String::new();
    if encode_registry(&mut open, registry).is_err() {
        // A String takes whatever is written to it.
        return String::new();
    }
    let counters: HashSet<&str> =
        open.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut text = String::with_capacity(open.len());
    for line in open.lines() {
        match line.strip_prefix("# ").and_then(|rest| {
            let mut words = rest.splitn(3, ' ');
            Some((words.next()?, words.next()?, words.next()?))
        }) {
            Some((kind @ ("HELP" | "TYPE"), name, rest)) if counters.contains(name) => {
                let _ = writeln!(text, "# {kind} {name}_total {rest}");
            }
            _ => {
                let _ = writeln!(text, "{line}");
            }
        }
    }
    text
}
