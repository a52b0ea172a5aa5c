//! What is read of good requests, and that forged or doubtful ones are not read.

use croft_core::join::csr::Subject;

use super::{SIZE_MAX, subject};

/// The tests against a real API server send the same ones.
#[path = "../../tests/real/request.rs"]
mod request;

use request::*;

const NODE: &str = "train-1-deadbeef";

fn read(name: &[u8], attributes: &[Vec<u8>]) -> Option<Subject> {
    subject(signed(name, attributes).0.as_bytes())
}

#[test]
fn a_kubelets_requests_are_read_whole() {
    let client = read(&node_name(NODE), &[]).unwrap();
    let expected = Subject {
        common_names: vec![format!("system:node:{NODE}")],
        organizations: vec!["system:nodes".to_owned()],
        ..Subject::default()
    };
    assert_eq!(client, expected);
    let names = alternative_names(&[dns(NODE), ip(&[10, 201, 0, 7]), uri("spiffe://x")]);
    let serving = read(&node_name(NODE), &[asking(&[&[names, authority()]])]).unwrap();
    assert_eq!(serving.dns, [NODE.to_owned()].into());
    assert_eq!(serving.ips, ["10.201.0.7".parse().unwrap()].into());
    assert_eq!((serving.other_names.len(), serving.extensions.as_slice()), (1, ["2.5.29.19".to_owned()].as_slice()));
}

#[test]
fn what_a_library_writes_is_read_too() {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new([NODE.to_owned(), "10.201.0.7".to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(rcgen::DnType::CommonName, "system:node:a");
    let read = subject(params.serialize_request(&key).unwrap().pem().unwrap().as_bytes()).unwrap();
    assert_eq!((read.dns.len(), read.ips.len()), (1, 1));
    assert_eq!(read.organizations, ["system:nodes"]);
}

#[test]
fn every_name_and_attribute_is_seen() {
    let two = name(&[
        (ORGANIZATION, "system:nodes"),
        (ORGANIZATION, "system:masters"),
        (COMMON_NAME, "system:node:a"),
        (COMMON_NAME, "system:node:b"),
        (UNIT, "x"),
    ]);
    let read_two = read(&two, &[password()]).unwrap();
    assert_eq!(read_two.common_names, ["system:node:a", "system:node:b"]);
    assert_eq!(read_two.organizations, ["system:nodes", "system:masters"]);
    assert_eq!(read_two.others, ["2.5.4.11=x"]);
    assert_eq!(read_two.extensions, ["1.2.840.113549.1.9.7"]);
    let in_one_set = [attribute(COMMON_NAME, PRINTABLE, b"a"), attribute(COMMON_NAME, PRINTABLE, b"b")];
    assert_eq!(read(&name_of_one_set(&in_one_set), &[]).unwrap().common_names, ["a", "b"]);
}

#[test]
fn an_ipv4_address_dressed_as_ipv6_is_known() {
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1];
    let read = read(&node_name(NODE), &[asking(&[&[alternative_names(&[ip(&mapped)])]])]).unwrap();
    assert_eq!(read.ips, ["10.0.0.1".parse().unwrap()].into());
}

#[test]
fn what_another_parser_might_read_otherwise_is_not_read() {
    let names = || alternative_names(&[dns(NODE)]);
    let evil = || alternative_names(&[dns("kubernetes")]);
    let attributes: [(&str, Vec<Vec<u8>>); 6] = [
        ("two lists of extensions in one attribute", vec![asking(&[&[names()], &[evil()]])]),
        ("the same extension twice", vec![asking(&[&[names(), evil()]])]),
        ("the same extension in two attributes", vec![asking(&[&[names()]]), asking(&[&[evil()]])]),
        ("an address of five bytes", vec![asking(&[&[alternative_names(&[ip(&[1, 2, 3, 4, 5])])]])]),
        ("a name that is not ASCII", vec![asking(&[&[alternative_names(&[dns("kubernetés")])]])]),
        ("bytes after the list of names", {
            let value = [tlv(0x30, &dns(NODE)), dns("kubernetes")].concat();
            vec![asking(&[&[extension(&[0x55, 0x1d, 0x11], &value)]])]
        }),
    ];
    for (what, attributes) in attributes {
        assert_eq!(read(&node_name(NODE), &attributes), None, "{what}");
    }
    let good = attribute(COMMON_NAME, PRINTABLE, b"system:node:a");
    let old_text = attribute(COMMON_NAME, 0x14, b"system:node:b");
    let no_value = tlv(0x30, &tlv(0x06, &[0x55, 0x04, COMMON_NAME]));
    let after =
        [tlv(0x31, &good), tlv(0x31, &no_value), tlv(0x31, &attribute(COMMON_NAME, PRINTABLE, b"evil"))].concat();
    let subjects = [
        ("a text of an old kind", name_of_one_set(&[good.clone(), old_text])),
        ("a name behind what cannot be parsed", tlv(0x30, &after)),
        (
            "the same within one set",
            name_of_one_set(&[good.clone(), no_value, attribute(COMMON_NAME, PRINTABLE, b"evil")]),
        ),
    ];
    for (what, subject) in subjects {
        assert_eq!(read(&subject, &[]), None, "{what}");
    }
    assert!(read(&name_of_one_set(&[good]), &[]).is_some());
}

#[test]
fn a_request_that_its_own_key_did_not_sign_is_not_read() {
    let (key, other) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
    assert_eq!(subject(pem(&der(&node_name(NODE), &[], &key, &other)).as_bytes()), None);
    let mut changed = der(&node_name(NODE), &[], &key, &key);
    assert!(subject(pem(&changed).as_bytes()).is_some());
    let at = changed.windows(4).position(|w| w == b"dead").unwrap();
    changed[at] = b'b';
    assert_eq!(subject(pem(&changed).as_bytes()), None);
}

#[test]
fn one_block_and_nothing_else_is_a_request() {
    let (good, _) = signed(&node_name(NODE), &[]);
    let (second, _) = signed(&node_name("other-0badcafe"), &[]);
    assert!(subject(format!("\n{good}\n").as_bytes()).is_some());
    let long = signed(&node_name(NODE), &[vec![0; SIZE_MAX]]).0;
    let headed = good.replacen("-----\n", "-----\nProc-Type: 4\n\n", 1);
    for bad in [
        "",
        "x",
        &format!("{second}{good}"),
        &format!("x\n{good}"),
        &good.replace("CERTIFICATE REQUEST", "CERTIFICATE"),
        &long,
        &headed,
    ] {
        assert_eq!(subject(bad.as_bytes()), None, "{bad}");
    }
    assert_eq!(subject(&[0xff; 40]), None);
}
