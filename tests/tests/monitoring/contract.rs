//! docs/metrics.md against what a fleet exports: every name, every label, both ways.

use std::collections::{BTreeMap, BTreeSet};

use super::site::Site;

/// Name (as in its `# TYPE` line) to its labels.
type Contract = BTreeMap<String, BTreeSet<String>>;

/// Of a histogram's buckets, which Prometheus knows by itself.
const OWN: &str = "le";

pub async fn the_page_says_what_is_exported(site: &Site) {
    let mut exported: BTreeMap<&str, Contract> = BTreeMap::new();
    for (whose, page) in site.pages().await {
        let known = exported.entry(whose).or_default();
        for (name, labels) in found(&page) {
            known.entry(name).or_default().extend(labels);
        }
    }
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md")).expect("the page");
    let (plane, agent) = text.split_once("\n## Host agent\n").expect("the agent's half");
    let mut told = BTreeMap::from([("plane", documented(plane)), ("agent", documented(agent))]);
    for labels in told.get_mut("agent").expect("told").values_mut() {
        labels.insert("host".to_owned());
    }
    for whose in ["plane", "agent"] {
        let (told, exported) = (&told[whose], &exported[whose]);
        let missing: Vec<_> = told.keys().filter(|name| !exported.contains_key(*name)).collect();
        assert!(missing.is_empty(), "in docs/metrics.md, and no {whose} of the fleet exports it: {missing:?}");
        let unsaid: Vec<_> = exported.keys().filter(|name| !told.contains_key(*name)).collect();
        assert!(unsaid.is_empty(), "a {whose} exports it, and docs/metrics.md does not say so: {unsaid:?}");
        for (name, labels) in told {
            assert_eq!(labels, &exported[name], "the labels of {name}, left by docs/metrics.md, right as exported");
        }
    }
}

/// Names that have at least one sample, with the labels of all samples.
fn found(page: &str) -> Contract {
    let families: BTreeMap<&str, &str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let mut found = Contract::new();
    for line in page.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (name, rest) = line.split_once(['{', ' ']).expect(line);
        let of_histogram = ["_bucket", "_sum", "_count"].iter().filter_map(|end| name.strip_suffix(end));
        let family = of_histogram.into_iter().find(|name| families.get(name) == Some(&"histogram")).unwrap_or(name);
        assert!(families.contains_key(family), "{line} has no TYPE");
        let labels = found.entry(family.to_owned()).or_default();
        if line.contains('{') {
            labels.extend(label_names(rest).filter(|label| label != OWN));
        }
    }
    found
}

/// Values are quoted, and may hold anything.
fn label_names(rest: &str) -> impl Iterator<Item = String> {
    let outside: Vec<&str> = rest.split('"').step_by(2).collect();
    outside.into_iter().filter_map(|part| {
        let name = part.trim_start_matches(',').strip_suffix('=')?;
        Some(name.to_owned())
    })
}

/// Rows of tables that begin with a metric's name.
fn documented(part: &str) -> Contract {
    let mut told = Contract::new();
    for line in part.lines().filter(|line| line.starts_with("| `croft_")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").collect();
        let names: Vec<String> = words(cells[0]);
        let [name] = &names[..] else { panic!("one metric a row: {line}") };
        assert!(cells.len() == 3 && !cells[2].trim().is_empty(), "name, labels, meaning: {line}");
        assert!(told.insert(name.clone(), words(cells[1]).into_iter().collect()).is_none(), "twice: {name}");
    }
    told
}

/// What stands in backticks.
fn words(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn names_and_labels_are_read_as_they_are_written() {
    let page = "# HELP a_seconds A.\n# TYPE a_seconds histogram\na_seconds_bucket{le=\"1\",x=\"{,y=\\\\}\"} 1\n\
                a_seconds_sum{x=\"\"} 2\n# TYPE b gauge\nb 1\n# TYPE c gauge\n";
    let expected = [("a_seconds", vec!["x"]), ("b", vec![])];
    let expected: Contract = expected
        .into_iter()
        .map(|(name, labels)| (name.to_owned(), labels.into_iter().map(str::to_owned).collect()))
        .collect();
    assert_eq!(found(page), expected);
    assert_eq!(documented("| `croft_b` | – | is |")["croft_b"], BTreeSet::new());
}
