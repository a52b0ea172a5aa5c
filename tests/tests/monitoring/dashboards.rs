//! Every query of every dashboard, as Grafana would send it, finds data. A panel that stays empty over a fleet in which
//! everything has happened would stay empty for an operator, too.

use croft_tests::prometheus::files;
use serde_json::Value;

use super::site::Site;

/// What Grafana puts in the place of its own variable: here long enough for two scrapes, whatever the machine does.
const INTERVAL: &str = "5m";

#[derive(Debug)]
struct Dashboard {
    file: String,
    board: Value,
}

fn all() -> Vec<Dashboard> {
    let read = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a dashboard");
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let board = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        Dashboard { file, board }
    };
    files("dashboards", "json").into_iter().map(read).collect()
}

impl Dashboard {
    fn panels(&self) -> Vec<&Value> {
        let panels = self.board["panels"].as_array().map(Vec::as_slice).unwrap_or_default();
        let within = panels.iter().flat_map(|panel| panel["panels"].as_array().into_iter().flatten());
        assert!(!panels.is_empty(), "{} has panels", self.file);
        panels.iter().chain(within).filter(|panel| panel["type"] != "row").collect()
    }

    fn variables(&self) -> Vec<&Value> {
        self.board["templating"]["list"].as_array().map(|list| list.iter().collect()).unwrap_or_default()
    }

    /// With "All" chosen everywhere.
    fn filled(&self, expression: &str) -> String {
        let mut filled = expression.replace("$__rate_interval", INTERVAL);
        for variable in self.variables().iter().filter(|variable| variable["type"] == "query") {
            let (name, all) = (variable["name"].as_str().unwrap_or_default(), variable["allValue"].as_str());
            filled = filled.replace(&format!("${name}"), all.unwrap_or(".*"));
        }
        assert!(!filled.contains('$'), "{}: a variable that nobody fills: {expression}", self.file);
        filled
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

pub async fn every_panel_has_data(site: &Site) {
    let mut empty = Vec::new();
    let mut asked = 0;
    for dashboard in all() {
        for variable in dashboard.variables().iter().filter(|variable| variable["type"] == "query") {
            let query = text(variable, "query");
            let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).expect(query);
            let (metric, label) = inner.rsplit_once(", ").expect(query);
            let found = site.prometheus.query(&format!("count by ({label}) ({metric})")).await.expect(query);
            let values: Vec<&str> = found.iter().map(|one| one.label(label)).filter(|one| !one.is_empty()).collect();
            assert!(!values.is_empty(), "{}: {query}", dashboard.file);
        }
        for panel in dashboard.panels() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                asked += 1;
                let expression = dashboard.filled(text(target, "expr"));
                let told = match site.prometheus.query(&expression).await {
                    // Not a number is what a quotient of nothing by nothing says.
                    Ok(found) if found.iter().any(|one| !one.value.is_nan()) => continue,
                    Ok(found) => format!("{} series, all without a value", found.len()),
                    Err(error) => error,
                };
                empty.push(format!("{}: {}: {told}\n    {expression}", dashboard.file, text(panel, "title")));
            }
        }
    }
    assert!(empty.is_empty(), "{} of {asked} queries find nothing:\n{}", empty.len(), empty.join("\n"));
    assert!(asked > 60, "only {asked} queries were found in the dashboards");
}

#[test]
fn nothing_is_made_up_and_every_panel_says_what_it_shows() {
    let mut titles = std::collections::BTreeSet::new();
    for dashboard in all() {
        assert!(titles.insert(text(&dashboard.board, "title").to_owned()), "{} has a title of its own", dashboard.file);
        assert_eq!(format!("croft-{}", dashboard.file.trim_end_matches(".json")), text(&dashboard.board, "uid"));
        let mut ids = std::collections::BTreeSet::new();
        for panel in dashboard.panels() {
            let title = text(panel, "title");
            assert!(!title.is_empty() && ids.insert(panel["id"].as_i64()), "{}: {panel}", dashboard.file);
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}: {title}", dashboard.file);
            for target in panel["targets"].as_array().into_iter().flatten() {
                let made_up = ["vector(", "absent("].iter().any(|word| text(target, "expr").contains(word));
                assert!(!made_up, "{}: {title}: shows something where nothing is known", dashboard.file);
            }
        }
    }
}
