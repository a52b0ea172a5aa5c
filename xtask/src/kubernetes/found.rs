//! Programs that the machine already has: in KUBEBUILDER_ASSETS, on the PATH, or where setup-envtest puts them.
//!
//! A cluster is of one version, so the first API server that will do decides which, and of the others only those of the very
//! same version are taken. (setup-envtest brings no controller manager, scheduler or kubelet: those are then built.)

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};

use super::VERSION;
use crate::run::{Run, have};

/// ValidatingAdmissionPolicy is stable since 1.30.
const OLDEST_MINOR: u32 = 30;

/// etcd first: it is of no version of Kubernetes. The kubelet, which nobody waits for first, comes last.
pub(super) const PROGRAMS: [&str; 6] =
    ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kubelet"];

/// What will be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) version: String,
    /// The others are built, and etcd is taken from Debian.
    pub(super) found: BTreeMap<&'static str, PathBuf>,
}

impl Plan {
    /// What Go must build. etcd is none of Kubernetes' own.
    pub(super) fn to_build(&self) -> Vec<&'static str> {
        PROGRAMS.into_iter().filter(|name| *name != "etcd" && !self.found.contains_key(name)).collect()
    }
}

/// What this machine has. Asks setup-envtest, which may download, only when there is no API server elsewhere.
pub(super) fn look() -> Plan {
    let wanted = env::var("CROFT_KUBERNETES_VERSION").ok().filter(|version| !version.is_empty());
    let mut places: Vec<PathBuf> = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from).into_iter().collect();
    places.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    let plan = plan(&places, wanted.as_deref());
    if plan.found.contains_key("kube-apiserver") || !have("setup-envtest") {
        return plan;
    }
    let series = plan.version.trim_start_matches('v').rsplit_once('.').map_or("", |(series, _)| series);
    match Run::new("setup-envtest").args(["use", "-p", "path"]).arg(format!("{series}.x")).stdout() {
        Ok(dir) => {
            places.insert(0, PathBuf::from(dir.trim()));
            self::plan(&places, wanted.as_deref())
        }
        Err(error) => {
            println!("    setup-envtest has none to give: {error:#}");
            plan
        }
    }
}

/// Of these directories, the first that has a program has it for good.
fn plan(places: &[PathBuf], wanted: Option<&str>) -> Plan {
    let will_do = |version: &str| wanted.map_or(minor(version) >= Some(OLDEST_MINOR), |wanted| wanted == version);
    let all = |name: &'static str| places.iter().map(move |place| place.join(name)).filter(|file| file.is_file());
    let decisive = all("kube-apiserver").find_map(|file| version(&file).filter(|version| will_do(version)));
    let version_of_all = decisive.or(wanted.map(str::to_owned)).unwrap_or_else(|| VERSION.to_owned());
    let mut found = BTreeMap::new();
    for name in PROGRAMS {
        let fits = |file: &PathBuf| name == "etcd" || version(file).as_deref() == Some(&version_of_all);
        if let Some(file) = all(name).find(fits) {
            found.insert(name, file);
        }
    }
    Plan { version: version_of_all, found }
}

/// What it calls itself, if that is a version that was released: `v1.36.3`, not `v1.36.3+k3s1`.
fn version(program: &Path) -> Option<String> {
    let kubectl = program.file_name().is_some_and(|name| name == "kubectl");
    let arguments: &[&str] = if kubectl { &["version", "--client"] } else { &["--version"] };
    let said = Run::new(program).args(arguments).ended().ok().filter(|ended| ended.success)?.stdout;
    said.split_whitespace().find(|word| minor(word).is_some()).map(str::to_owned)
}

/// Of `v1.36.3`, 36; of anything else, nothing.
fn minor(version: &str) -> Option<u32> {
    let (minor, patch) = version.strip_prefix("v1.")?.split_once('.')?;
    patch.parse::<u32>().ok()?;
    minor.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A directory of programs that say what they are.
    fn place(dir: &Path, programs: &[(&str, &str)]) -> PathBuf {
        fs::create_dir_all(dir).unwrap();
        for (name, says) in programs {
            let file = dir.join(name);
            fs::write(&file, format!("#!/bin/sh\necho '{says}'\n")).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        dir.to_owned()
    }

    fn names(plan: &Plan) -> Vec<&str> {
        plan.found.keys().copied().collect()
    }

    #[test]
    fn the_first_api_server_that_will_do_decides_the_version_of_all() {
        let dir = tempfile::tempdir().unwrap();
        let old = place(&dir.path().join("old"), &[("kube-apiserver", "Kubernetes v1.24.1")]);
        let foreign = place(&dir.path().join("foreign"), &[("kube-apiserver", "Kubernetes v1.35.0+k3s1")]);
        let assets = [
            ("etcd", "etcd Version: 3.5.9"),
            ("kube-apiserver", "Kubernetes v1.34.1"),
            ("kubelet", "Kubernetes v1.33.0"),
            ("kubectl", "Client Version: v1.34.1\nKustomize Version: v5.6.0"),
        ];
        let assets = place(&dir.path().join("assets"), &assets);
        let later = place(&dir.path().join("later"), &[("kubelet", "Kubernetes v1.34.1")]);
        let plan = plan(&[old, foreign, assets, later.clone()], None);
        assert_eq!(plan.version, "v1.34.1");
        assert_eq!(names(&plan), ["etcd", "kube-apiserver", "kubectl", "kubelet"]);
        assert_eq!(plan.found["kubelet"], later.join("kubelet"));
        assert_eq!(plan.to_build(), ["kube-controller-manager", "kube-scheduler"]);
    }

    #[test]
    fn who_asks_for_a_version_gets_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let programs = [("etcd", "etcd Version: 3.4.23"), ("kube-apiserver", "Kubernetes v1.36.3")];
        let places = [place(dir.path(), &programs)];
        let other = plan(&places, Some("v1.35.2"));
        assert_eq!((other.version.as_str(), names(&other)), ("v1.35.2", vec!["etcd"]));
        assert_eq!(names(&plan(&places, Some("v1.36.3"))), ["etcd", "kube-apiserver"]);
    }

    #[test]
    fn a_program_that_only_has_the_name_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path(), &[("kube-apiserver", "hello"), ("kubelet", "Kubernetes v1.30")]);
        let plan = plan(&[place], None);
        assert_eq!((plan.version.as_str(), names(&plan)), (VERSION, vec![]));
    }
}
