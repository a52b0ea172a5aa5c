use super::*;

const TENANT: &str = "0190a3c5-6d3e-7000-8000-00000000000f";

fn host(n: u8, name: Option<&str>) -> Host {
    Host { mac: format!("02:00:00:00:00:{n:02x}"), ip: Ipv4Addr::new(10, 200, 7, n), name: name.map(Into::into) }
}

#[test]
fn names_fit_an_interface_and_say_whose_they_are() {
    let names = Names::of(TENANT);
    assert_eq!(names.network.strip_prefix("croft-"), names.bridge.strip_prefix("cr-"));
    assert_eq!(names.bridge.len(), 11);
    assert_ne!(names, Names::of("0190a3c5-6d3e-7000-8000-00000000000e"));
}

#[test]
fn a_network_as_libvirt_gets_it() {
    let xml = network_xml(&Names::of(TENANT), Ipv4Addr::new(10, 200, 7, 1), &host(2, Some("train-1")));
    insta::assert_snapshot!("tenant-network", xml.write().unwrap());
}

#[test]
fn what_was_written_is_read_back() {
    let names = Names::of(TENANT);
    let xml = network_xml(&names, Ipv4Addr::new(10, 200, 7, 1), &host(2, None)).write().unwrap();
    let read = Definition::parse(&xml).unwrap();
    let expected =
        Definition { bridge: names.bridge, gateway: Ipv4Addr::new(10, 200, 7, 1), hosts: vec![host(2, None)] };
    assert_eq!(read, expected);
    assert_eq!(Definition::parse("<network><name>isolated</name><bridge name='virbr9'/></network>"), None);
}

#[test]
fn addresses_are_reserved_once_and_never_twice() {
    let mut network = Definition {
        bridge: "cr-00000000".into(),
        gateway: Ipv4Addr::new(10, 200, 7, 1),
        hosts: vec![host(2, Some("a")), host(4, Some("b"))],
    };
    let Ok(Reservation::Present(present)) = network.reserve("02:00:00:00:00:04", "b") else { panic!() };
    assert_eq!(present, host(4, Some("b")));
    let Ok(Reservation::New(new)) = network.reserve("02:00:00:00:00:09", "a") else { panic!() };
    assert_eq!((new.ip, new.name), (Ipv4Addr::new(10, 200, 7, 3), None), "the first hole, without the taken name");

    network.hosts = (2..=254).map(|n| host(n, None)).collect();
    assert!(matches!(network.reserve("02:00:00:00:01:00", "x"), Err(Error::Failed { reason: "NoSubnet", .. })));
}
