//! A real distribution's image, by UEFI and cloud-init: what the tiny guest cannot show.
//!
//! CROFT_TEST_IMAGE names a qcow2 file with cloud-init (NoCloud) and the guest agent, such as `cargo xtask quickstart`
//! makes.

use std::path::Path;

use croft_hostagent::hypervisor::{Hypervisor, OffReason, Power};
use croft_proto::agent::v1::DesiredImage;
use croft_proto::agent::v1::desired_image::Boot;
use croft_proto::v1::{DiskImage, disk_image::Format};
use uuid::Uuid;

use crate::lab::{Lab, image_file, seed, uid};

const TENANT: &str = "0190a3c5-6d3e-7000-8000-00000000000f";

#[tokio::test(flavor = "multi_thread")]
async fn boots_configures_itself_and_answers() {
    let Some(image) = std::env::var_os("CROFT_TEST_IMAGE") else {
        eprintln!("skipped: CROFT_TEST_IMAGE names no image");
        return;
    };
    let Some(lab) = Lab::new().await else { return };
    let path = lab.image_dir().join("cloud.qcow2");
    std::fs::copy(Path::new(&image), &path).unwrap();
    let disk = DiskImage { file: Some(image_file(&path)), format: Format::Qcow2.into(), min_disk_gib: 4 };
    let mut desired = lab.instance("cloud", Some(TENANT));
    desired.image = Some(DesiredImage {
        uid: Uuid::now_v7().to_string(),
        name: "images/cloud".into(),
        platform: true,
        boot: Some(Boot::Disk(disk)),
        ..Default::default()
    });
    (desired.vcpus, desired.memory_mib, desired.disks[0].size_gib) = (2, 1024, 6);
    let uid = uid(&desired);
    let user_data =
        "#cloud-config\nruncmd:\n  - [sh, -c, 'echo root $(df -m --output=size / | tail -1) >/dev/ttyS0']\n";
    lab.libvirt.ensure_image(desired.image.as_ref().unwrap(), &|_, _| {}).await.unwrap();
    lab.libvirt.ensure_defined(&desired, &seed(user_data), &[]).await.unwrap();
    lab.libvirt.start(uid).await.unwrap();

    let said = lab.until_said(uid, "\nroot ").await;
    let size: u64 = said.rsplit("\nroot ").next().unwrap().split_whitespace().next().unwrap().parse().unwrap();
    assert!(size > 5000, "the root file system grew to the disk: {size} MiB");
    let guest = lab.until_agent(uid).await;
    assert!(guest.addresses.iter().any(|address| address.source == "guest-agent"), "{guest:?}");
    drop(lab.until_connected(uid, 22).await);
    let before = lab.libvirt.guest_restarts(uid).unwrap();
    lab.libvirt.request_reboot(uid).await.unwrap();
    while lab.libvirt.guest_restarts(uid).unwrap() == before {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    lab.until_agent(uid).await;
    lab.libvirt.request_shutdown(uid).await.unwrap();
    assert_eq!(lab.until_power(uid, |p| *p != Power::Running).await, Power::Off(OffReason::Shutdown));
    lab.clear(&[uid]).await;
}
