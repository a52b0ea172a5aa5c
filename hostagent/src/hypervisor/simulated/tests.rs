use croft_proto::agent::v1::{DesiredDisk, DesiredImage, DesiredInstance, DesiredInterface, NumaPin};
use croft_proto::agent::v1::{desired_image, desired_interface};
use croft_proto::v1::{DiskImage, ImageFile};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::hypervisor::{OffReason, Power};
use crate::plane::empty_seed;

const CAPACITY: &str = "vcpus=4,memory-mib=1000,disk-gib=10";

fn image() -> DesiredImage {
    let file = ImageFile { uri: "https://images.example/tiny.qcow2".to_owned(), sha256: "0".repeat(64) };
    let disk = DiskImage { file: Some(file), min_disk_gib: 2, ..DiskImage::default() };
    DesiredImage {
        uid: Uuid::from_u128(1).to_string(),
        boot: Some(desired_image::Boot::Disk(disk)),
        ..DesiredImage::default()
    }
}

fn desired(number: u128) -> DesiredInstance {
    DesiredInstance {
        uid: Uuid::from_u128(number).to_string(),
        tenant: "acme".to_owned(),
        name: format!("web-{number}"),
        generation: 1,
        vcpus: 1,
        memory_mib: 400,
        image: Some(image()),
        disks: vec![DesiredDisk { size_gib: 3, ..DesiredDisk::default() }],
        interfaces: vec![DesiredInterface { mac: "52:54:00:00:00:01".to_owned(), network: None }],
        ..DesiredInstance::default()
    }
}

fn uid(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn open(directory: &std::path::Path) -> Arc<Simulated> {
    Simulated::open(directory, CAPACITY.parse().expect("capacity")).expect("open")
}

async fn with_image(directory: &std::path::Path) -> Arc<Simulated> {
    let simulated = open(directory);
    simulated.ensure_image(&image(), &|_, _| {}).await.expect("image");
    simulated
}

async fn define(simulated: &Simulated, desired: &DesiredInstance) -> Result<(), Error> {
    simulated.ensure_defined(desired, &empty_seed(Uuid::try_parse(&desired.uid).expect("uid")), &[]).await
}

async fn run(simulated: &Simulated, number: u128) -> Result<(), Error> {
    define(simulated, &desired(number)).await?;
    simulated.start(uid(number)).await
}

async fn power(simulated: &Simulated, number: u128) -> Option<Power> {
    let survey = simulated.survey().await.expect("survey");
    survey.ours.into_iter().find(|domain| domain.uid == uid(number)).map(|domain| domain.power)
}

#[track_caller]
fn refused(outcome: Result<(), Error>, reason: &str) {
    match outcome {
        Err(error @ (Error::Refused { .. } | Error::Failed { .. })) => assert_eq!(error.reason(), reason, "{error}"),
        other => panic!("{reason} was expected, not {other:?}"),
    }
}

#[tokio::test]
async fn domains_outlive_whoever_drives_them() {
    let dir = tempfile::tempdir().expect("tempdir");
    let simulated = with_image(dir.path()).await;
    run(&simulated, 1).await.expect("run");
    simulated.add_foreign("theirs", 1, 100, 1).expect("foreign");
    let boot_id = simulated.boot_id().await.expect("boot id");
    drop(simulated);

    let again = open(dir.path());
    assert_eq!(power(&again, 1).await, Some(Power::Running));
    assert_eq!(again.boot_id().await.expect("boot id"), boot_id);
    assert_eq!(again.foreign(), ["theirs"]);

    again.host_reboot().expect("reboot");
    let after = open(dir.path());
    assert_eq!(power(&after, 1).await, Some(Power::Off(OffReason::Unknown)));
    assert_ne!(after.boot_id().await.expect("boot id"), boot_id);
}

#[tokio::test]
async fn every_verb_may_be_repeated() {
    let dir = tempfile::tempdir().expect("tempdir");
    let simulated = with_image(dir.path()).await;
    for _ in 0..2 {
        simulated.ensure_image(&image(), &|_, _| {}).await.expect("image");
        run(&simulated, 1).await.expect("run");
    }
    assert_eq!(simulated.boots(uid(1)), 1, "a second start of a running domain does nothing");
    define(&simulated, &desired(1)).await.expect("define");
    assert_eq!(power(&simulated, 1).await, Some(Power::Running), "defining again stops nothing");
    for _ in 0..2 {
        simulated.destroy(uid(1)).await.expect("destroy");
    }
    for _ in 0..2 {
        simulated.remove(uid(1)).await.expect("remove");
    }
    assert!(simulated.defined().is_empty());
}

#[tokio::test]
async fn it_refuses_what_libvirt_refuses() {
    use crate::hypervisor::libvirt::reasons::{CPU_UNAVAILABLE, DOMAIN_NOT_RUNNING, NO_HUGE_PAGES, STILL_RUNNING};
    use crate::media::reasons::DISK_FULL;
    let dir = tempfile::tempdir().expect("tempdir");
    let simulated = open(dir.path());
    refused(define(&simulated, &desired(1)).await, reasons::IMAGE_MISSING);
    simulated.ensure_image(&image(), &|_, _| {}).await.expect("image");

    let define_with = async |change: &dyn Fn(&mut DesiredInstance)| {
        let mut desired = desired(1);
        change(&mut desired);
        define(&simulated, &desired).await
    };
    refused(define_with(&|d| d.vcpus = 5).await, reasons::HOST_TOO_SMALL);
    refused(define_with(&|d| d.memory_mib = 1001).await, reasons::HOST_TOO_SMALL);
    refused(define_with(&|d| d.disks[0].size_gib = 1).await, reasons::DISK_TOO_SMALL);
    refused(define_with(&|d| d.disks[0].size_gib = 11).await, DISK_FULL);
    refused(define_with(&|d| d.huge_page_kib = 2048).await, NO_HUGE_PAGES);
    refused(define_with(&|d| d.numa = vec![NumaPin { cell: 1, ..NumaPin::default() }]).await, CPU_UNAVAILABLE);
    let bridge = desired_interface::Bridge { bridge: "br9".to_owned(), vlan: 0 };
    let on_bridge = |d: &mut DesiredInstance| {
        d.interfaces[0].network = Some(desired_interface::Network::Bridge(bridge.clone()));
    };
    refused(define_with(&on_bridge).await, reasons::NETWORK_UNKNOWN);

    run(&simulated, 1).await.expect("run");
    refused(define_with(&|d| d.name = "other".to_owned()).await, reasons::DOMAIN_CONFLICT);
    refused(simulated.remove(uid(1)).await, STILL_RUNNING);
    run(&simulated, 2).await.expect("run");
    let mut third = desired(3);
    third.disks[0].size_gib = 4;
    define(&simulated, &third).await.expect("define");
    refused(simulated.start(uid(3)).await, reasons::INSUFFICIENT_MEMORY);
    simulated.destroy(uid(1)).await.expect("destroy");
    simulated.start(uid(3)).await.expect("there is memory now");
    refused(simulated.request_shutdown(uid(1)).await, DOMAIN_NOT_RUNNING);
    assert!(matches!(simulated.start(uid(9)).await, Err(Error::NotFound(_))));
    simulated.add_foreign(&format!("croft-{}", uid(4)), 1, 1, 0).expect("foreign");
    refused(define(&simulated, &desired(4)).await, reasons::DOMAIN_CONFLICT);
}

#[tokio::test]
async fn images_come_from_where_they_may() {
    let dir = tempfile::tempdir().expect("tempdir");
    let simulated = open(dir.path());
    let fetch = async |uri: &str, platform: bool| {
        let mut image = DesiredImage { platform, ..image() };
        if let Some(desired_image::Boot::Disk(disk)) = &mut image.boot {
            disk.file.as_mut().expect("file").uri = uri.to_owned();
        }
        simulated.ensure_image(&image, &|_, _| {}).await
    };
    refused(fetch("http://images.example/x", true).await, reasons::IMAGE_SOURCE_REFUSED);
    refused(fetch("file:///x", false).await, reasons::IMAGE_SOURCE_REFUSED);
    fetch("file:///x", true).await.expect("a platform image");
    run(&simulated, 1).await.expect("run");
    simulated.prune_images(&[]).await.expect("prune");
    simulated.destroy(uid(1)).await.expect("destroy");
    simulated.start(uid(1)).await.expect("an image that a disk is an overlay of is never pruned");
    simulated.destroy(uid(1)).await.expect("destroy");
    simulated.remove(uid(1)).await.expect("remove");
    simulated.prune_images(&[]).await.expect("prune");
    refused(define(&simulated, &desired(1)).await, reasons::IMAGE_MISSING);
}

#[tokio::test]
async fn guests_hear_unless_they_are_deaf_or_paused() {
    let dir = tempfile::tempdir().expect("tempdir");
    let simulated = with_image(dir.path()).await;
    run(&simulated, 1).await.expect("run");
    simulated.request_reboot(uid(1)).await.expect("reboot");
    assert_eq!(simulated.guest_restarts(uid(1)), Some(1));
    simulated.guest_deaf(uid(1), true).expect("deaf");
    simulated.request_shutdown(uid(1)).await.expect("asked");
    assert_eq!(power(&simulated, 1).await, Some(Power::Running));
    simulated.guest_deaf(uid(1), false).expect("hears");

    simulated.set_disk_free_gib(Some(0)).expect("full");
    simulated.guest_out_of_space(uid(1)).expect("paused");
    simulated.request_shutdown(uid(1)).await.expect("asked");
    simulated.resume(uid(1)).await.expect("resume");
    assert!(matches!(power(&simulated, 1).await, Some(Power::Paused { reason, .. }) if reason == "OutOfSpace"));
    simulated.set_disk_free_gib(None).expect("space");
    simulated.resume(uid(1)).await.expect("resume");
    simulated.request_shutdown(uid(1)).await.expect("asked");
    assert_eq!(power(&simulated, 1).await, Some(Power::Off(OffReason::Shutdown)));
}

#[tokio::test]
async fn a_console_has_one_holder_and_a_memory() {
    let dir = tempfile::tempdir().expect("tempdir");
    let simulated = with_image(dir.path()).await;
    run(&simulated, 1).await.expect("run");
    let mut console = simulated.console(uid(1)).await.expect("console");
    assert!(matches!(simulated.console(uid(1)).await, Err(Error::Busy(_))));
    console.write_all(b"hello").await.expect("write");
    let mut echoed = [0; 5];
    console.read_exact(&mut echoed).await.expect("read");
    assert_eq!(&echoed, b"hello");
    drop(console);
    while simulated.console(uid(1)).await.is_err() {
        tokio::task::yield_now().await;
    }
    let log = simulated.console_log(uid(1)).await.expect("log");
    let text = std::fs::read_to_string(&log[0]).expect("text");
    assert!(text.starts_with("simulated guest boots: web-1") && text.ends_with("hello"), "{text}");
}

#[tokio::test]
async fn faults_come_from_the_process_and_from_a_file() {
    let dir = tempfile::tempdir().expect("tempdir");
    let simulated = with_image(dir.path()).await;
    simulated.inject("start", Some(Fault::fail("no luck").once()));
    refused(run(&simulated, 1).await, reasons::HYPERVISOR_ERROR);
    run(&simulated, 1).await.expect("once is over");

    let faults = dir.path().join("faults.json");
    let text = r#"{"destroy": "refuse once: DiskMissing: gone: for good", "survey": "unavailable"}"#;
    std::fs::write(&faults, text).expect("write");
    match simulated.destroy(uid(1)).await {
        Err(Error::Refused { reason, message }) => {
            assert_eq!((reason, message.as_str()), ("DiskMissing", "gone: for good"))
        }
        other => panic!("{other:?}"),
    }
    simulated.destroy(uid(1)).await.expect("once is over");
    assert!(matches!(simulated.survey().await, Err(Error::Unavailable(_))));
    assert!(matches!(simulated.survey().await, Err(Error::Unavailable(_))));
    std::fs::write(&faults, r#"{"survey": "explode"}"#).expect("write");
    let error = simulated.survey().await.expect_err("not understood");
    assert!(error.to_string().contains("explode"), "{error}");
    std::fs::remove_file(&faults).expect("remove");
    simulated.survey().await.expect("healed");
}

#[tokio::test]
async fn other_processes_act_through_files() {
    let dir = tempfile::tempdir().expect("tempdir");
    let simulated = with_image(dir.path()).await;
    run(&simulated, 1).await.expect("run");
    let mut events = simulated.events();
    let text = serde_json::to_vec(&Control::GuestCrash(uid(1))).expect("encode");
    durable::write(&dir.path().join("control/1.json"), &text).expect("write");
    assert_eq!(events.recv().await.expect("event"), Some(uid(1)));
    assert_eq!(power(&simulated, 1).await, Some(Power::Off(OffReason::Crashed)));
}
