//! Croft against a real API server: every attack on a join beside an honest one, rights too narrow, and tenants kept apart.
//!
//! Runs where CROFT_KUBERNETES_BIN names a folder with etcd, kube-apiserver, kube-controller-manager and kube-scheduler;
//! elsewhere each test says that it did not run.
#![expect(clippy::unwrap_used, reason = "the helpers of a test are part of the test")]

mod attacks;
mod control_plane;
mod joiner;
mod lives;
mod manifest;
mod request;
mod tenants;

use std::path::PathBuf;

fn programs(test: &str) -> Option<PathBuf> {
    let found = std::env::var_os("CROFT_KUBERNETES_BIN").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    if found.is_none() {
        println!("not run: {test} needs CROFT_KUBERNETES_BIN, a folder with etcd and the programs of a control plane");
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_honest_join_is_issued_beside_every_attack_on_it() {
    let Some(programs) = programs("an_honest_join_is_issued_beside_every_attack_on_it") else { return };
    let plane = control_plane::ControlPlane::start(&programs, 12).await;
    manifest::apply(&plane.admin().await, &croft_kube::manifest::whole()).await;
    lives::what_croft_does_in_its_life(&plane).await;
    lives::rights_that_are_missing_are_named(&plane).await;
    lives::faults_are_told_apart(&plane).await;
    attacks::run(&plane).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_are_kept_apart_on_one_cluster() {
    let Some(programs) = programs("tenants_are_kept_apart_on_one_cluster") else { return };
    let plane = control_plane::ControlPlane::start(&programs, 48).await;
    tenants::run(&plane).await;
}
