//! libvirtd goes away, hangs, and comes back; and domains that are not ours.

use std::path::Path;
use std::time::{Duration, Instant};

use croft_hostagent::hypervisor::{Error, Hypervisor, Power};

use crate::lab::{Lab, NO_TENANT, run};

pub fn signal(name: &str) {
    run(&format!("kill -{name} $(cat $CROFT_LIBVIRTD_PIDFILE)"));
}

pub fn start_again() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/start-libvirtd.sh");
    run(&script.display().to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_libvirtd_is_unavailable_and_loses_no_guest() {
    let Some(lab) = Lab::new().await else { return };
    let (uid, shell) = lab.boot(&lab.instance("web", NO_TENANT)).await;
    drop(shell);
    signal("KILL");
    let away = lab.libvirt.survey().await.unwrap_err();
    assert!(matches!(away, Error::Unavailable(_)), "{away}");
    // The console and its log need no libvirtd.
    assert!(lab.said(uid).await.contains("tiny: shell"));
    assert!(lab.libvirt.console(uid).await.is_ok());

    let mut events = lab.libvirt.events();
    start_again();
    let back = async { while events.recv().await.unwrap().is_some() {} };
    tokio::time::timeout(Duration::from_secs(20), back).await.expect("nobody was told that libvirtd is back");
    assert_eq!(lab.power(uid).await, Some(Power::Running));

    // Events flow over the new connection.
    lab.libvirt.destroy(uid).await.unwrap();
    let told = async { while events.recv().await.unwrap() != Some(uid) {} };
    tokio::time::timeout(Duration::from_secs(10), told).await.expect("no event after the reconnect");
    lab.clear(&[uid]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_libvirtd_costs_a_deadline_and_not_the_agent() {
    let Some(lab) = Lab::new().await else { return };
    let uid = lab.define(&lab.instance("web", NO_TENANT)).await;
    signal("STOP");
    let began = Instant::now();
    // Many callers at once: none may be lost, and none may wait for ever.
    let calls = (0..40).map(|_| lab.libvirt.guest(uid));
    for result in futures::future::join_all(calls).await {
        assert!(matches!(result, Err(Error::Unavailable(_))), "{result:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
    signal("CONT");
    let deadline = Instant::now() + Duration::from_secs(60);
    while lab.libvirt.survey().await.is_err() {
        assert!(Instant::now() < deadline, "never came back");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    lab.clear(&[uid]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_domains_are_counted_and_left_alone() {
    let Some(lab) = Lab::new().await else { return };
    let dir = lab.dir.join("foreign");
    std::fs::create_dir_all(&dir).unwrap();
    let disk = dir.join("disk.qcow2");
    run(&format!(
        "chmod 711 {0}; qemu-img create -q -f qcow2 {0}/disk.qcow2 7G; chmod 666 {0}/disk.qcow2",
        dir.display()
    ));
    let desired = lab.instance("web", NO_TENANT);
    // One that runs, one that only has a disk, and one that took the name of an instance of ours.
    let uid = crate::lab::uid(&desired);
    let domain = |name: &str, disks: &str| {
        format!(
            "<domain type='qemu'><name>{name}</name><memory unit='MiB'>300</memory><vcpu>3</vcpu>\
             <os><type machine='q35'>hvm</type></os><devices>{disks}</devices></domain>"
        )
    };
    let with_disk = format!(
        "<disk type='file'><driver name='qemu' type='qcow2'/><source file='{}'/><target dev='vda' bus='virtio'/></disk>",
        disk.display()
    );
    for (name, disks) in [("their-db", with_disk.as_str()), ("their-web", ""), (&format!("croft-{uid}"), "")] {
        let file = dir.join("domain.xml");
        std::fs::write(&file, domain(name, disks)).unwrap();
        run(&format!("virsh define {}", file.display()));
    }
    run("virsh start their-web");

    let survey = lab.libvirt.survey().await.unwrap();
    assert!(survey.ours.is_empty(), "{survey:?}");
    let of = |name: &str| survey.foreign.iter().find(|domain| domain.name == name).unwrap();
    let (db, web) = (of("their-db"), of("their-web"));
    assert_eq!((db.vcpus, db.memory_mib, db.disk_gib), (0, 0, 7), "it does not run, but its disk may grow");
    assert_eq!((web.vcpus, web.memory_mib, web.disk_gib), (3, 300, 0));

    lab.libvirt.ensure_image(&lab.image(), &|_, _| {}).await.unwrap();
    let taken = lab.libvirt.ensure_defined(&desired, &crate::lab::seed(""), &[]).await.unwrap_err();
    assert!(matches!(taken, Error::Refused { reason: "DomainConflict", .. }), "{taken}");
    for verb in [lab.libvirt.start(uid).await, lab.libvirt.destroy(uid).await, lab.libvirt.request_shutdown(uid).await]
    {
        assert!(matches!(verb, Err(Error::NotFound(_))), "{verb:?}");
    }
    lab.libvirt.remove(uid).await.unwrap();
    assert!(run("virsh list --all --name").contains(&format!("croft-{uid}")), "not ours to remove");
    assert_eq!(run("virsh domstate their-web").trim(), "running");
    run(&format!("virsh destroy their-web; for d in their-db their-web croft-{uid}; do virsh undefine $d; done"));
}

/// Somebody edits our domain and throws the metadata away: it is nobody's we know, and it still runs on our files.
#[tokio::test(flavor = "multi_thread")]
async fn a_domain_that_lost_its_mark_is_not_called_gone() {
    let Some(lab) = Lab::new().await else { return };
    let uid = lab.define(&lab.instance("web", NO_TENANT)).await;
    lab.libvirt.start(uid).await.unwrap();
    let disk = lab.dir.join("s/instances").join(uid.to_string()).join("disk.qcow2");
    run(&format!("virsh metadata croft-{uid} https://croft.dev/libvirt/1 --remove --live --config"));
    assert_eq!(lab.power(uid).await, None);
    let kept = lab.libvirt.remove(uid).await.unwrap_err();
    assert!(matches!(kept, Error::Refused { reason: "DomainConflict", .. }), "{kept}");
    assert!(disk.exists(), "a guest runs on it");
    run(&format!("virsh destroy croft-{uid}; virsh undefine croft-{uid}"));
    lab.libvirt.remove(uid).await.unwrap();
    assert!(!disk.exists());
}
