//! Images on their way into a domain: the refusals themselves are unit tests of `media`.

use std::os::unix::fs::MetadataExt;

use croft_hostagent::hypervisor::{Error, Hypervisor};
use croft_proto::agent::v1::DesiredImage;
use croft_proto::agent::v1::desired_image::Boot;
use croft_proto::v1::{DiskImage, disk_image::Format};
use uuid::Uuid;

use crate::lab::{Lab, NO_TENANT, image_file, run};

fn image(lab: &Lab, name: &str, format: Format) -> DesiredImage {
    let disk =
        DiskImage { file: Some(image_file(&lab.image_dir().join(name))), format: format.into(), min_disk_gib: 1 };
    let boot = Some(Boot::Disk(disk));
    DesiredImage { uid: Uuid::now_v7().to_string(), name: name.into(), platform: true, boot, ..Default::default() }
}

/// A guest whose image is raw and pretends to be qcow2 with the host's secret as its backing file sees its own bytes.
#[tokio::test(flavor = "multi_thread")]
async fn a_raw_image_is_never_probed() {
    let Some(lab) = Lab::new().await else { return };
    let src = lab.image_dir();
    let script = "cd {}; echo the-hosts-secret >secret; truncate -s 64k secret; \
                  qemu-img create -q -f qcow2 -F raw -b $PWD/secret trap.qcow2 64k; truncate -s 1M trap.qcow2";
    run(&script.replace("{}", &src.display().to_string()));
    let refused = lab.libvirt.ensure_image(&image(&lab, "trap.qcow2", Format::Qcow2), &|_, _| {}).await.unwrap_err();
    assert!(matches!(refused, Error::Refused { reason: "ImageHasBackingFile", .. }), "{refused}");

    // The same bytes as a raw root disk beside the tiny kernel.
    let mut desired = lab.instance("spy", NO_TENANT);
    let Some(Boot::Disk(root)) = image(&lab, "trap.qcow2", Format::Raw).boot else { panic!() };
    if let Some(Boot::Kernel(kernel)) = desired.image.as_mut().unwrap().boot.as_mut() {
        kernel.root = Some(root);
    }
    desired.image.as_mut().unwrap().uid = Uuid::now_v7().to_string();
    let (uid, mut shell) = lab.boot(&desired).await;
    assert_eq!(shell.run("dd if=/dev/vda bs=3 count=1 2>/dev/null").await.text, "QFI");
    assert!(!shell.run("dd if=/dev/vda bs=64k count=16 2>/dev/null | grep -q the-hosts-secret").await.ok());
    drop(shell);

    // In use: not pruned, and still nobody's but root's to write.
    lab.libvirt.prune_images(&[]).await.unwrap();
    let cached = lab.dir.join("s/images").join(&desired.image.as_ref().unwrap().uid).join("disk");
    let meta = std::fs::metadata(&cached).unwrap();
    assert_eq!((meta.mode() & 0o777, meta.uid()), (0o444, 0));
    lab.clear(&[uid]).await;
    lab.libvirt.prune_images(&[]).await.unwrap();
    assert!(!cached.exists());
}
