//! The simulated machine refuses and does what libvirt does: the same story for both.

mod conformance;

use croft_hostagent::hypervisor::simulated::Simulated;
use croft_proto::agent::v1::desired_image::Boot;
use croft_proto::agent::v1::{DesiredDisk, DesiredImage, DesiredInstance};
use croft_proto::v1::{ImageFile, KernelImage};
use uuid::Uuid;

#[tokio::test]
async fn it_conforms() {
    let directory = tempfile::tempdir().expect("tempdir");
    let capacity = "vcpus=4,memory-mib=4096,disk-gib=10".parse().expect("capacity");
    let simulated = Simulated::open(directory.path(), capacity).expect("open");
    let kernel = ImageFile { uri: "file:///images/vmlinuz".to_owned(), sha256: "0".repeat(64) };
    let boot = Boot::Kernel(KernelImage { kernel: Some(kernel), ..KernelImage::default() });
    let image = DesiredImage {
        uid: Uuid::now_v7().to_string(),
        name: "images/tiny".to_owned(),
        platform: true,
        boot: Some(boot),
        ..DesiredImage::default()
    };
    let desired = DesiredInstance {
        uid: Uuid::now_v7().to_string(),
        tenant: "acme".to_owned(),
        name: "web".to_owned(),
        generation: 1,
        vcpus: 1,
        memory_mib: 192,
        image: Some(image),
        disks: vec![DesiredDisk { size_gib: 1, ..DesiredDisk::default() }],
        ..DesiredInstance::default()
    };
    conformance::every_verb(&*simulated, &desired).await;
}
