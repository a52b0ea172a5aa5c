//! Full disks, missing pages, firmware.

use croft_hostagent::hypervisor::{Error, Hypervisor, OffReason, Power};
use croft_hostagent::journal::{Journal, Record};
use croft_hostagent::tasks::Tasks;
use croft_proto::agent::v1::desired_image::Boot;
use croft_proto::agent::v1::{DesiredImage, NumaPin, Tombstone};
use croft_proto::v1::image::Firmware;
use croft_proto::v1::{DiskImage, disk_image::Format};
use uuid::Uuid;

use crate::lab::{Lab, NO_TENANT, PATIENCE, image_file, run, seed, uid};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_pauses_the_guest_until_there_is_space() {
    let Some(lab) = Lab::new().await else { return };
    let desired = lab.instance("db", NO_TENANT);
    let uid = uid(&desired);
    // Its directory on a file system of 24 MiB.
    let dir = lab.dir.join("s/instances").join(uid.to_string());
    run(&format!("mkdir -p -m 711 {0}; mount -t tmpfs -o size=24m,mode=711 tmpfs {0}", dir.display()));
    let (_, mut shell) = lab.boot(&desired).await;
    shell.type_line("dd if=/dev/urandom of=/dev/vda bs=1M count=48 conv=fsync; echo written $?").await;
    // libvirt tells that it is paused a moment before it tells why.
    let full = |power: &Power| matches!(power, Power::Paused { reason, .. } if reason == "OutOfSpace");
    let power = lab.until_power(uid, full).await;
    let Power::Paused { message, .. } = power else { panic!("{power:?}") };
    assert!(message.contains("vda"), "{message}");

    run(&format!("mount -o remount,size=96m {}", dir.display()));
    // As the driver does: a write that was under way may pause it once more.
    let deadline = std::time::Instant::now() + PATIENCE;
    while !lab.said(uid).await.contains("written 0") {
        assert!(std::time::Instant::now() < deadline, "it never went on: {:?}", lab.power(uid).await);
        lab.libvirt.resume(uid).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    lab.until_power(uid, |power| *power == Power::Running).await;
    drop(shell);
    lab.libvirt.destroy(uid).await.unwrap();
    run(&format!("umount -l {}", dir.display()));
    lab.libvirt.remove(uid).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn huge_pages_that_are_not_there_say_so() {
    let Some(lab) = Lab::new().await else { return };
    let mut desired = lab.instance("db", NO_TENANT);
    desired.huge_page_kib = 2048;
    lab.libvirt.ensure_image(desired.image.as_ref().unwrap(), &|_, _| {}).await.unwrap();
    lab.libvirt.ensure_defined(&desired, &seed(""), &[]).await.unwrap();
    let error = lab.libvirt.start(uid(&desired)).await.unwrap_err();
    assert!(matches!(error, Error::Failed { reason: "NoHugePages", .. }), "{error:?}");
    assert!(matches!(lab.power(uid(&desired)).await, Some(Power::Off(OffReason::Failed | OffReason::Unknown))));
    lab.clear(&[uid(&desired)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vcpus_are_pinned_where_they_were_placed() {
    let Some(lab) = Lab::new().await else { return };
    let mut desired = lab.instance("db", NO_TENANT);
    desired.vcpus = 2;
    desired.numa = vec![NumaPin { cell: 0, cpus: vec![1, 0], memory_mib: desired.memory_mib }];
    let (uid, mut shell) = lab.boot(&desired).await;
    assert_eq!(shell.run("nproc").await.text, "2");
    let pins = run(&format!("virsh vcpupin croft-{uid} | awk 'NR>2 && NF {{print $1\"=\"$2}}' | xargs"));
    assert_eq!(pins.trim(), "0=1 1=0");
    drop(shell);
    lab.clear(&[uid]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_disk_is_not_replaced_by_an_empty_one() {
    let Some(lab) = Lab::new().await else { return };
    let desired = lab.instance("db", NO_TENANT);
    let uid = lab.define(&desired).await;
    let disk = lab.dir.join("s/instances").join(uid.to_string()).join("disk.qcow2");
    std::fs::rename(&disk, disk.with_extension("away")).unwrap();
    for lost in [lab.libvirt.ensure_defined(&desired, &seed(""), &[]).await, lab.libvirt.start(uid).await] {
        assert!(matches!(lost, Err(Error::Failed { reason: "DiskMissing", .. })), "{lost:?}");
    }
    std::fs::rename(disk.with_extension("away"), &disk).unwrap();
    lab.libvirt.ensure_defined(&desired, &seed(""), &[]).await.unwrap();
    lab.libvirt.start(uid).await.unwrap();
    lab.clear(&[uid]).await;
}

fn blank_disk(lab: &Lab, firmware: Firmware) -> DesiredImage {
    let path = lab.image_dir().join("blank.raw");
    std::fs::write(&path, vec![0u8; 1 << 20]).unwrap();
    let disk = DiskImage { file: Some(image_file(&path)), format: Format::Raw.into(), min_disk_gib: 1 };
    DesiredImage {
        uid: Uuid::now_v7().to_string(),
        name: "images/blank".into(),
        platform: true,
        boot: Some(Boot::Disk(disk)),
        firmware: firmware.into(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn uefi_without_secure_boot_comes_up_and_leaves_no_variables() {
    let Some(lab) = Lab::new().await else { return };
    let mut desired = lab.instance("uefi", NO_TENANT);
    desired.image = Some(blank_disk(&lab, Firmware::Uefi));
    let uid = lab.define(&desired).await;
    lab.libvirt.start(uid).await.unwrap();
    let xml = run(&format!("virsh dumpxml croft-{uid}"));
    assert!(xml.contains("OVMF_CODE") && !xml.contains("secboot") && !xml.contains(".ms.fd"), "{xml}");
    // The firmware talks on the serial line: nothing to boot from, so it tries its shell or the network.
    lab.until_said(uid, "BdsDxe").await;
    assert!(lab.dir.join("s/instances").join(uid.to_string()).join("nvram.fd").exists());
    lab.clear(&[uid]).await;
    assert!(!lab.dir.join("s/instances").join(uid.to_string()).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn bios_comes_up() {
    let Some(lab) = Lab::new().await else { return };
    let mut desired = lab.instance("bios", NO_TENANT);
    desired.image = Some(blank_disk(&lab, Firmware::Bios));
    let uid = lab.define(&desired).await;
    lab.libvirt.start(uid).await.unwrap();
    assert_eq!(lab.power(uid).await, Some(Power::Running));
    lab.clear(&[uid]).await;
}

/// Deleting instances is how a full disk is healed, so their tombstones must find room in the journal.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_to_the_last_byte_still_takes_tombstones() {
    let Some(lab) = Lab::new().await else { return };
    let dir = lab.dir.join("full");
    run(&format!("mkdir {0}; mount -t tmpfs -o size=16m tmpfs {0}", dir.display()));
    let open = || Journal::open(&dir.join("journal"), Tasks::default()).unwrap();
    let journal = open().journal;
    let uid = uid(&lab.instance("db", NO_TENANT));
    let entry = journal.entry(uid, Record::default());
    entry.persist().await.unwrap();
    run(&format!("cat /dev/zero >{}/guests 2>/dev/null || true", dir.display()));
    let tombstone = Tombstone { uid: uid.to_string(), force: true, ..Tombstone::default() };
    entry.update(|record| record.bury(&tombstone, true)).await.unwrap();
    assert!(open().records[0].1.is_buried());

    // With space again, the room is kept again.
    std::fs::remove_file(dir.join("guests")).unwrap();
    entry.update(|record| record.restarts = 1).await.unwrap();
    assert!(dir.join("journal/ballast").exists());
    run(&format!("umount -l {}", dir.display()));
}
