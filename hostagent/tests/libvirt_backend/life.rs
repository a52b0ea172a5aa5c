//! The life of a guest, from nothing to nothing.

use std::time::Duration;

use croft_hostagent::hypervisor::{Error, Hypervisor, OffReason, Power, Seed};
use croft_proto::agent::v1::DesiredInstance;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::lab::{Lab, NO_TENANT, open, run, seed, uid};

const TENANT: &str = "0190a3c5-6d3e-7000-8000-00000000000f";

#[tokio::test(flavor = "multi_thread")]
async fn from_nothing_to_nothing() {
    let Some(lab) = Lab::new().await else { return };
    let desired = lab.instance("train-1", Some(TENANT));
    let uid = uid(&desired);
    let missing = lab.libvirt.ensure_defined(&desired, &seed(""), &[]).await.unwrap_err();
    assert!(matches!(missing, Error::Failed { reason: "ImageMissing", .. }), "{missing}");

    lab.define(&desired).await;
    lab.define(&desired).await; // twice is once
    assert_eq!(lab.power(uid).await, Some(Power::Off(OffReason::Unknown)));
    let mut events = lab.libvirt.events();
    lab.libvirt.start(uid).await.unwrap();
    lab.libvirt.start(uid).await.unwrap();
    assert_eq!(lab.power(uid).await, Some(Power::Running));
    tokio::time::timeout(Duration::from_secs(10), async { while events.recv().await.unwrap() != Some(uid) {} })
        .await
        .expect("no event of the start");

    let mut shell = lab.shell(uid).await;
    let said = lab.said(uid).await;
    assert!(said.contains("tiny: seed meta-data user-data"), "the seed is found by its label: {said}");
    assert!(
        said.contains("tiny: disk vda sectors 2097152 ro 0") && said.contains("vdb") && said.contains("ro 1"),
        "{said}"
    );
    assert_eq!(shell.run("echo $((6*7))").await.text, "42");
    let busy = lab.libvirt.console(uid).await.err().expect("two holders");
    assert!(matches!(busy, Error::Busy(_)), "{busy}");

    // Its address is known, from its agent and from outside, and its ports are reached.
    let guest = lab.until_agent(uid).await;
    assert_eq!(
        (guest.addresses[0].mac.as_str(), guest.addresses[0].source.as_str()),
        (desired.interfaces[0].mac.as_str(), "guest-agent")
    );
    let ip = guest.addresses[0].ip.clone();
    assert!(said.contains(&format!("tiny: address {ip}/24")), "{ip} in {said}");
    shell.run("(while :; do echo served | nc -l -p 8080; done) >/dev/null 2>&1 & true").await;
    let mut stream = lab.until_connected(uid, 8080).await;
    let mut served = String::new();
    stream.write_all(b"\n").await.unwrap();
    stream.read_to_string(&mut served).await.unwrap();
    assert_eq!(served, "served\n");
    let closed = lab.libvirt.connect(uid, 9).await.err().expect("a closed port");
    assert!(matches!(closed, Error::Failed { reason: "GuestUnreachable", .. }), "{closed}");

    // Not while it runs.
    let running = lab.libvirt.remove(uid).await.unwrap_err();
    assert!(matches!(running, Error::Failed { reason: "StillRunning", .. }), "{running}");
    drop(shell);

    lab.libvirt.request_shutdown(uid).await.unwrap();
    assert_eq!(lab.until_power(uid, |p| *p != Power::Running).await, Power::Off(OffReason::Shutdown));
    assert!(lab.said(uid).await.contains("tiny: agent asked to shut down"));
    lab.libvirt.start(uid).await.unwrap();
    lab.libvirt.destroy(uid).await.unwrap();
    lab.libvirt.destroy(uid).await.unwrap();
    assert_eq!(lab.power(uid).await, Some(Power::Off(OffReason::Destroyed)));

    let short = &run("virsh net-list --name").trim().replace("croft-", "cr-");
    assert!(run("nft list table inet croft").contains(short.as_str()));
    lab.libvirt.remove(uid).await.unwrap();
    lab.libvirt.remove(uid).await.unwrap();
    assert_eq!(run("virsh list --all --name").trim(), "");
    assert_eq!(run("virsh net-list --all --name").trim(), "");
    assert_eq!(run("ls /sys/class/net | grep -c '^cr-' || true").trim(), "0");
    assert_eq!(run("nft list tables | grep -c 'inet croft' || true").trim(), "0");
    assert_eq!(run(&format!("find {} -path '*{uid}*' ! -path '*/console/*'", lab.dir.display())), "");
    assert_eq!(run(&format!("find /var/log/libvirt /var/lib/libvirt -name '*{uid}*' -o -name '*{short}*'")), "");
    assert!(lab.said(uid).await.contains("tiny: ready"), "the console log stays");
    assert!(matches!(lab.libvirt.start(uid).await, Err(Error::NotFound(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_runs_sees_its_new_seed_and_nothing_of_the_old_one() {
    let Some(lab) = Lab::new().await else { return };
    let desired = lab.instance("node-1", NO_TENANT);
    let uid = uid(&desired);
    let ticket = [("croft-join.env".to_owned(), "CROFT_TOKEN='sesame'\n".to_owned())].into();
    lab.libvirt.ensure_image(desired.image.as_ref().unwrap(), &|_, _| {}).await.unwrap();
    lab.libvirt.ensure_defined(&desired, &Seed { files: ticket, ..seed("") }, &[]).await.unwrap();
    lab.libvirt.start(uid).await.unwrap();
    let mut shell = lab.shell(uid).await;
    let look = "mount -t vfat -o ro /dev/vdb /mnt && cat /mnt/croft-join.env; cat /mnt/user-data; umount /mnt";
    assert!(shell.run(look).await.text.contains("CROFT_TOKEN='sesame'"));
    assert_eq!(shell.run("grep -c sesame /dev/vdb").await.text, "1");

    lab.libvirt.replace_seed(uid, &seed("new")).await.unwrap();
    let seen = shell.run(look).await.text;
    assert!(seen.contains("No such file") && seen.ends_with("new"), "{seen}");
    assert_eq!(shell.run("grep -c sesame /dev/vdb").await.text, "0");
    assert_eq!(run(&format!("grep -c sesame {}/s/instances/{uid}/seed.img || true", lab.dir.display())).trim(), "0");
    drop(shell);
    // The emulator's locks and the file's owner are as they were.
    lab.libvirt.destroy(uid).await.unwrap();
    lab.libvirt.start(uid).await.unwrap();
    lab.clear(&[uid]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_without_an_agent_hears_the_acpi_button() {
    let Some(lab) = Lab::new().await else { return };
    let desired = lab.instance("web", NO_TENANT);
    let (uid, mut shell) = lab.boot(&desired).await;
    shell.run("killall tiny-agent; exec 3>&-; sleep 1").await;
    assert!(!lab.libvirt.guest(uid).await.unwrap().agent);
    lab.libvirt.request_shutdown(uid).await.unwrap();
    assert_eq!(lab.until_power(uid, |p| *p != Power::Running).await, Power::Off(OffReason::Shutdown));
    assert!(lab.said(uid).await.contains("tiny: power button"));
    let off = lab.libvirt.request_shutdown(uid).await.unwrap_err();
    assert!(matches!(off, Error::Failed { reason: "DomainNotRunning", .. }), "{off}");
    lab.clear(&[uid]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reboots_are_counted_and_resets_are_not_asked() {
    let Some(lab) = Lab::new().await else { return };
    let (uid, shell) = lab.boot(&lab.instance("web", NO_TENANT)).await;
    drop(shell);
    let before = lab.libvirt.guest_restarts(uid).unwrap();
    lab.libvirt.request_reboot(uid).await.unwrap();
    lab.until_said(uid, "tiny: agent asked to shut down").await;
    let booted = |said: &str| said.matches("tiny: shell").count();
    while booted(&lab.said(uid).await) < 2 {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(lab.libvirt.guest_restarts(uid).unwrap() > before);
    lab.libvirt.reset(uid).await.unwrap();
    while booted(&lab.said(uid).await) < 3 {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(lab.power(uid).await, Some(Power::Running));
    lab.clear(&[uid]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn how_it_ended_is_known() {
    let Some(lab) = Lab::new().await else { return };
    let (uid, mut shell) = lab.boot(&lab.instance("web", NO_TENANT)).await;
    shell.type_line("poweroff -f").await;
    assert_eq!(lab.until_power(uid, |p| *p != Power::Running).await, Power::Off(OffReason::Shutdown));
    drop(shell);

    lab.libvirt.start(uid).await.unwrap();
    while lab.said(uid).await.matches("tiny: shell").count() < 2 {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let mut shell = lab.shell(uid).await;
    shell.type_line("echo c >/proc/sysrq-trigger").await;
    assert_eq!(lab.until_power(uid, |p| *p != Power::Running).await, Power::Off(OffReason::Crashed));
    drop(shell);

    lab.libvirt.start(uid).await.unwrap();
    run(&format!("kill -9 $(cat /run/libvirt/qemu/croft-{uid}.pid)"));
    assert_eq!(lab.until_power(uid, |p| *p != Power::Running).await, Power::Off(OffReason::Crashed));
    lab.clear(&[uid]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_comes_back_finds_what_it_left() {
    let Some(lab) = Lab::new().await else { return };
    let mut desired = lab.instance("web", Some(TENANT));
    desired.generation = 7;
    let (uid, mut shell) = lab.boot(&desired).await;
    let pid = run("pidof qemu-system-x86_64");
    shell.run("echo kept >/tmp/kept").await;
    drop(shell);

    let again = open(&lab.dir);
    let survey = again.survey().await.unwrap();
    assert_eq!((survey.ours[0].uid, survey.ours[0].generation), (uid, 7));
    assert_eq!(survey.ours[0].power, Power::Running);
    desired.generation = 8;
    again.ensure_defined(&desired, &seed(""), &[]).await.unwrap();
    let survey = again.survey().await.unwrap();
    assert_eq!((survey.ours[0].generation, &survey.ours[0].power), (8, &Power::Running));
    assert_eq!(run("pidof qemu-system-x86_64"), pid, "the guest was left running");
    let mut shell = crate::shell::Shell::new(again.console(uid).await.unwrap());
    assert_eq!(shell.run("cat /tmp/kept").await.text, "kept");
    drop(shell);
    lab.clear(&[uid]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_was_rebuilt_has_a_fresh_disk() {
    let Some(lab) = Lab::new().await else { return };
    let desired = lab.instance("web", NO_TENANT);
    let (uid, mut shell) = lab.boot(&desired).await;
    let read = "dd if=/dev/vda bs=4096 count=1 2>/dev/null | grep -c marked";
    shell.run("echo marked >/dev/vda; sync").await;
    assert_eq!(shell.run(read).await.text, "1");
    drop(shell);
    let again = async |desired: &DesiredInstance, boots: usize| {
        lab.define(desired).await;
        lab.libvirt.start(uid).await.unwrap();
        while lab.said(uid).await.matches("tiny: shell").count() < boots {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        lab.shell(uid).await
    };

    // A definition of another generation keeps it.
    lab.libvirt.destroy(uid).await.unwrap();
    let newer = DesiredInstance { generation: desired.generation + 1, ..desired };
    let mut shell = again(&newer, 2).await;
    assert_eq!(shell.run(read).await.text, "1");
    drop(shell);

    let rebuilt = DesiredInstance { disk_generation: 1, ..newer };
    let running = lab.libvirt.ensure_defined(&rebuilt, &seed(""), &[]).await.unwrap_err();
    assert!(matches!(running, Error::Failed { reason: "StillRunning", .. }), "{running}");
    lab.libvirt.destroy(uid).await.unwrap();
    let mut shell = again(&rebuilt, 3).await;
    assert_eq!(shell.run(read).await.text, "0");
    assert_eq!(lab.libvirt.survey().await.unwrap().ours[0].disk_generation, 1);
    drop(shell);
    lab.clear(&[uid]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_conforms() {
    let Some(lab) = Lab::new().await else { return };
    crate::conformance::every_verb(&*lab.libvirt, &lab.instance("web", NO_TENANT)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_that_nobody_reads_stops_no_guest() {
    let Some(lab) = Lab::new().await else { return };
    let (uid, mut shell) = lab.boot(&lab.instance("web", NO_TENANT)).await;
    // Held, and not read from here on.
    shell.type_line("for i in $(seq 2000); do echo line $i; done; echo all-of-$((1999+1))").await;
    lab.until_said(uid, "all-of-2000").await;
    drop(shell);
    lab.clear(&[uid]).await;
}
