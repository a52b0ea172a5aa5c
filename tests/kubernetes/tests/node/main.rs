//! The whole path of a node, with nothing played by the test: the programs of Croft, libvirt and QEMU, a guest with systemd,
//! cloud-init, containerd and a kubelet, and a control plane of Kubernetes. Created by the CLI, joined by its own seed, Ready,
//! runs a pod, loses power, and is deleted; in between its own root user attacks.
//!
//! Runs in the kubernetes lane, inside tests/with-libvirtd.sh; elsewhere it says that it did not run.

mod attacks;
mod guest;
mod life;
mod processes;
mod site;
mod steps;

use guest::Guest;
use site::Site;
use steps::Steps;

#[tokio::test]
async fn a_guest_becomes_a_node_runs_a_pod_and_leaves_nothing_behind() {
    let (Some(programs), Some(image)) = (croft_test_cluster::programs(), guest::image()) else {
        eprintln!(
            "not run: no CROFT_KUBERNETES_BIN or no CROFT_KUBERNETES_GUEST; `cargo xtask test --lane kubernetes` sets both"
        );
        return;
    };
    let mut steps = Steps::begin();
    let site = Site::start(&programs, &image, &mut steps).await;

    let life::Booting { uid, node, token } = life::create(&site, &mut steps).await;
    let mut guest = Guest::of(&uid);
    attacks::with_the_token(&site, &node, &token).await;
    steps.done("another name on its token was denied, twice");
    life::join(&site, &mut guest, &node, &token, &mut steps).await;
    life::dressed(&site, &uid, &node).await;
    steps.done("dressed: labels, taints, providerID, annotations");
    life::no_secret_is_left(&site, &guest, &uid, &token).await;
    steps.done("its token is in no file, of the host or of the guest");
    life::runs_a_pod(&site).await;
    steps.done("a pod was scheduled, ran, and has ended");
    let identity = guest.identity().await;
    attacks::with_the_certificate(&site, &node, &identity).await;
    steps.done("what its root tried with the certificate was refused");

    life::loses_power(&site, &mut guest, &node, &mut steps).await;
    life::leaves(&site, &uid, &node, &mut steps).await;
    attacks::after_its_end(&site, &node, &identity).await;
    steps.done("its certificate makes no node, and is not renewed");
    life::nothing_is_left(&site).await;
    steps.done("nothing of it is left, in the cluster or on the host");
    steps.print(guest.silent_boots);
}
