//! Devices of the host in libvirt's hands: what it takes, what it tells of it, and what it refuses. Whether a device works in
//! a guest is for the lab, which has some.

use croft_hostagent::hypervisor::{Error, HostDevice, Hypervisor, Rom, Source};

use crate::lab::{Lab, NO_TENANT, run, seed};

fn device(alias: &str, source: Source) -> HostDevice {
    HostDevice { alias: alias.to_owned(), source, numa_node: None }
}

/// None of which this machine has.
fn every_kind() -> Vec<HostDevice> {
    let address = |text: &str| text.parse().unwrap();
    let mac = "02:00:00:00:00:77".to_owned();
    vec![
        device("gpu", Source::Function { address: address("00f1:41:00.0"), rom: Rom::Hidden, window_mib: 131_120 }),
        device("gpu_1", Source::Function { address: address("00f1:41:00.1"), rom: Rom::Shown, window_mib: 0 }),
        device("slice", Source::VgpuFunction { address: address("00f1:42:00.4") }),
        device("old", Source::Mdev { uuid: "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001".to_owned() }),
        device("hsm", Source::Usb { bus: 99, device: 7 }),
        device("nic", Source::NicFunction { address: address("00f1:81:10.2"), mac }),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_is_taken_and_told_and_none_starts_without() {
    let Some(lab) = Lab::new().await else { return };
    let desired = lab.instance("devices", NO_TENANT);
    let uid = lab.define(&desired).await;
    lab.libvirt.ensure_defined(&desired, &seed(""), &every_kind()).await.unwrap();
    let told = async || {
        let survey = lab.libvirt.survey().await.unwrap();
        let domain = survey.ours.into_iter().find(|domain| domain.uid == uid).unwrap();
        let mut devices: Vec<_> = domain.devices.into_iter().map(|device| (device.alias, device.usb)).collect();
        devices.sort();
        devices
    };
    let expected =
        [("gpu", None), ("gpu_1", None), ("hsm", Some((99, 7))), ("nic", None), ("old", None), ("slice", None)];
    assert_eq!(told().await, expected.map(|(alias, usb)| (alias.to_owned(), usb)));
    let text = run(&format!("virsh dumpxml --inactive croft-{uid}"));
    let ports = text.matches("model='pcie-root-port'").count();
    // Disk, seed, agent, entropy, USB, five devices, four free.
    assert_eq!(ports, 14, "{text}");
    assert!(text.contains("<rom bar='off'/>"), "{text}");
    for port in 11..=14 {
        assert!(!text.contains(&format!("bus='0x{port:02x}'")), "port {port} is not free: {text}");
    }
    let error = lab.libvirt.start(uid).await.unwrap_err();
    assert!(matches!(error, Error::Failed { reason: "StartFailed", .. }), "{error}");

    // Out of one that is off, without a guest to ask.
    lab.libvirt.detach(uid, "hsm").await.unwrap();
    lab.libvirt.detach(uid, "hsm").await.unwrap();
    assert_eq!(told().await.len(), 5);
    lab.libvirt.ensure_defined(&desired, &seed(""), &[]).await.unwrap();
    assert_eq!(told().await, []);
    lab.clear(&[uid]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_guest_is_not_given_what_is_not_there() {
    let Some(lab) = Lab::new().await else { return };
    let desired = lab.instance("hot", NO_TENANT);
    let (uid, mut shell) = lab.boot(&desired).await;
    for device in every_kind() {
        let error = lab.libvirt.attach(uid, &device).await.unwrap_err();
        assert!(matches!(error, Error::Failed { reason: "DeviceRefused", .. }), "{}: {error}", device.alias);
        lab.libvirt.detach(uid, &device.alias).await.unwrap();
    }
    let survey = lab.libvirt.survey().await.unwrap();
    let domain = survey.ours.iter().find(|domain| domain.uid == uid).unwrap();
    assert!(domain.devices.is_empty(), "nothing is left of the tries: {:?}", domain.devices);
    assert_eq!(shell.run("echo alive").await.text, "alive");
    lab.clear(&[uid]).await;
}
