//! Who may import whom: the picture of docs/architecture.md as data, held against `cargo metadata`.

use anyhow::{Result, bail};
use serde_json::Value;

use super::Findings;
use crate::workspace::Metadata;

/// Each crate of ours with the crates of ours that it may use. A crate that is not listed may not exist.
const ARROWS: &[(&str, &[&str])] = &[
    ("croft-proto", &[]),
    ("croft-program", &[]),
    ("croft-gpu-geometry", &[]),
    ("croft-gpu", &["croft-gpu-geometry"]),
    ("croft-gpu-sim", &["croft-gpu", "croft-gpu-geometry"]),
    ("croft-nvml-sim", &["croft-gpu", "croft-gpu-sim"]),
    ("croft-core", &["croft-gpu-geometry"]),
    ("croft-store", &["croft-core"]),
    ("croft-engine", &["croft-core", "croft-store"]),
    ("croft-kube", &["croft-core", "croft-test-cluster"]),
    ("croft-rpc", &["croft-core", "croft-store", "croft-proto"]),
    (
        "croft-controlplane",
        &[
            "croft-core",
            "croft-store",
            "croft-engine",
            "croft-kube",
            "croft-rpc",
            "croft-proto",
            "croft-program",
            "croft-test-cluster",
        ],
    ),
    ("croft-preflight", &["croft-gpu", "croft-gpu-sim"]),
    (
        "croft-hostagent",
        &["croft-proto", "croft-program", "croft-gpu", "croft-gpu-sim", "croft-nvml-sim", "croft-preflight"],
    ),
    ("croft-cli", &["croft-proto", "croft-program", "croft-preflight"]),
    (
        "croft-tests",
        &[
            "croft-core",
            "croft-store",
            "croft-engine",
            "croft-kube",
            "croft-rpc",
            "croft-controlplane",
            "croft-gpu",
            "croft-gpu-sim",
            "croft-hostagent",
            "croft-nvml-sim",
            "croft-proto",
            "croft-test-cluster",
        ],
    ),
    ("croft-test-cluster", &[]),
    ("xtask", &[]),
];

/// Crates of others that a crate of ours must do without; a trailing `*` stands for the rest of a name.
/// The pure ones stay pure, SQL stays in the store, and libvirt stays on hosts.
const WALLS: &[(&str, &[&str])] = &[
    ("croft-core", &["tokio*", "tonic*", "prost*", "sqlx*", "kube*", "k8s-openapi", "virt*", "reqwest", "hyper*"]),
    ("croft-gpu-geometry", &["*"]),
    ("croft-gpu", &["tokio*", "tonic*", "prost*", "sqlx*", "kube*", "virt*"]),
    ("croft-gpu-sim", &["tokio*", "tonic*", "prost*", "sqlx*", "kube*", "virt*"]),
    ("croft-nvml-sim", &["tokio*", "tonic*", "prost*", "sqlx*", "kube*", "virt*"]),
    ("croft-store", &["tonic*", "prost*", "kube*", "virt*"]),
    ("croft-engine", &["tonic*", "prost*", "sqlx*", "kube*", "k8s-openapi", "virt*"]),
    ("croft-kube", &["tonic*", "prost*", "sqlx*", "virt*"]),
    ("croft-rpc", &["sqlx*", "kube*", "virt*"]),
    ("croft-controlplane", &["virt*"]),
    ("croft-preflight", &["tokio*", "tonic*", "prost*", "sqlx*", "kube*", "virt*"]),
    ("croft-hostagent", &["sqlx*", "kube*"]),
    ("croft-cli", &["sqlx*", "virt*", "kube*"]),
];

pub(super) fn check() -> Result<Findings> {
    let metadata = Metadata::load()?;
    let mut findings = Findings::default();
    for package in metadata.packages()? {
        let Some(name) = package["name"].as_str() else { bail!("cargo metadata has a package without a name") };
        findings.faults.extend(faults(name, &dependencies(package)));
    }
    Ok(findings)
}

#[derive(Debug, Clone)]
struct Dependency {
    name: String,
    dev: bool,
}

fn dependencies(package: &Value) -> Vec<Dependency> {
    let list = package["dependencies"].as_array().cloned().unwrap_or_default();
    list.iter()
        .filter_map(|d| Some(Dependency { name: d["name"].as_str()?.to_owned(), dev: d["kind"] == "dev" }))
        .collect()
}

fn faults(name: &str, dependencies: &[Dependency]) -> Vec<String> {
    let Some((_, allowed)) = ARROWS.iter().find(|(from, _)| *from == name) else {
        return vec![format!("{name} is in no arrow: add it to xtask/src/lint/arrows.rs and to docs/architecture.md")];
    };
    let walls = WALLS.iter().find(|(from, _)| *from == name).map_or(&[][..], |(_, walls)| walls);
    let mut faults = Vec::new();
    for dependency in dependencies {
        let ours = ARROWS.iter().any(|(crate_, _)| *crate_ == dependency.name);
        if ours && !allowed.contains(&dependency.name.as_str()) {
            faults.push(format!("{name} may not depend on {}", dependency.name));
        }
        // A test may use what the code may not.
        if !ours && !dependency.dev && walls.iter().any(|wall| stands_for(wall, &dependency.name)) {
            faults.push(format!("{name} must do without {}", dependency.name));
        }
    }
    faults
}

fn stands_for(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uses(name: &str, dev: bool) -> [Dependency; 1] {
        [Dependency { name: name.to_owned(), dev }]
    }

    #[test]
    fn an_arrow_against_the_picture_is_a_fault() {
        assert_eq!(faults("croft-core", &uses("croft-store", false)), ["croft-core may not depend on croft-store"]);
        assert_eq!(faults("croft-cli", &uses("croft-core", true)), ["croft-cli may not depend on croft-core"]);
        assert!(faults("croft-store", &uses("croft-core", false)).is_empty());
    }

    #[test]
    fn the_pure_crates_stay_pure_outside_their_tests() {
        assert_eq!(faults("croft-core", &uses("tokio-stream", false)), ["croft-core must do without tokio-stream"]);
        assert_eq!(faults("croft-gpu-geometry", &uses("serde", false)), ["croft-gpu-geometry must do without serde"]);
        assert!(faults("croft-gpu-geometry", &uses("proptest", true)).is_empty());
    }

    #[test]
    fn a_crate_that_nobody_drew_is_a_fault() {
        assert_eq!(faults("croft-surprise", &[]).len(), 1);
    }
}
