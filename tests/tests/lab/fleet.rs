//! The lab host as a member of a fleet: its agent under systemd, the control plane outside, guests under nested KVM.

use croft_proto::v1::instance_status::State;

use crate::shared::lab;
use crate::site::{Site, guest};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fleet_1_an_enrolled_host_runs_guests_under_kvm() {
    let Some(lab) = lab() else { return };
    let site = Site::start(&lab).await;
    let info = site.api.host("lab").await.info.expect("what the host says of itself");
    assert_eq!(info.domain_type, "kvm", "{}", info.domain_type_reason);
    assert!(info.probe_errors.is_empty(), "{:?}", info.probe_errors);

    let create = site.api.create_as(guest("plain")).await.expect("accepted");
    site.until("plain", State::Running).await;
    site.done(&create).await.expect("created");
    site.guest_says("plain", &["lab-guest: ready"]).await;
    site.remove("plain").await;
    assert_eq!(lab.sh("virsh -q list --all --name"), "");
}
