//! PKCS#10 requests written by hand, so that they can be wrong in every way that a library would not write.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};

pub const ORGANIZATION: u8 = 10;
pub const COMMON_NAME: u8 = 3;
pub const UNIT: u8 = 11;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const OCTETS: u8 = 0x04;
const UTF8: u8 = 0x0c;
pub const PRINTABLE: u8 = 0x13;

const ECDSA_SHA256: [u8; 8] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const EXTENSION_REQUEST: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e];
const CHALLENGE_PASSWORD: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x07];
const ALTERNATIVE_NAMES: [u8; 3] = [0x55, 0x1d, 0x11];
const BASIC_CONSTRAINTS: [u8; 3] = [0x55, 0x1d, 0x13];

/// In DER; lengths below 64 KiB.
pub fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap();
    let [high, low] = length.to_be_bytes();
    let mut out = vec![tag];
    match (high, low) {
        (0, low) if low < 0x80 => out.push(low),
        (0, low) => out.extend([0x81, low]),
        (high, low) => out.extend([0x82, high, low]),
    }
    out.extend(content);
    out
}

/// An attribute of a name: 2.5.4.`kind`.
pub fn attribute(kind: u8, tag: u8, value: &[u8]) -> Vec<u8> {
    tlv(SEQUENCE, &[tlv(OID, &[0x55, 0x04, kind]), tlv(tag, value)].concat())
}

/// A name in which each attribute stands alone.
pub fn name(attributes: &[(u8, &str)]) -> Vec<u8> {
    let sets = attributes.iter().map(|(kind, value)| tlv(SET, &attribute(*kind, UTF8, value.as_bytes())));
    tlv(SEQUENCE, &sets.collect::<Vec<_>>().concat())
}

/// A name of whatever stands in its one set.
pub fn name_of_one_set(members: &[Vec<u8>]) -> Vec<u8> {
    tlv(SEQUENCE, &tlv(SET, &members.concat()))
}

/// As a kubelet names itself.
pub fn node_name(node: &str) -> Vec<u8> {
    name(&[(ORGANIZATION, "system:nodes"), (COMMON_NAME, &format!("system:node:{node}"))])
}

pub fn dns(name: &str) -> Vec<u8> {
    tlv(0x82, name.as_bytes())
}

pub fn ip(bytes: &[u8]) -> Vec<u8> {
    tlv(0x87, bytes)
}

pub fn uri(text: &str) -> Vec<u8> {
    tlv(0x86, text.as_bytes())
}

pub fn alternative_names(names: &[Vec<u8>]) -> Vec<u8> {
    extension(&ALTERNATIVE_NAMES, &tlv(SEQUENCE, &names.concat()))
}

/// `CA:TRUE`
pub fn authority() -> Vec<u8> {
    extension(&BASIC_CONSTRAINTS, &tlv(SEQUENCE, &[0x01, 0x01, 0xff]))
}

pub fn extension(oid: &[u8], value: &[u8]) -> Vec<u8> {
    tlv(SEQUENCE, &[tlv(OID, oid), tlv(OCTETS, value)].concat())
}

/// The attribute that asks for extensions; more than one list is against the standard.
pub fn asking(lists: &[&[Vec<u8>]]) -> Vec<u8> {
    let lists = lists.iter().map(|list| tlv(SEQUENCE, &list.concat())).collect::<Vec<_>>();
    tlv(SEQUENCE, &[tlv(OID, &EXTENSION_REQUEST), tlv(SET, &lists.concat())].concat())
}

pub fn password() -> Vec<u8> {
    tlv(SEQUENCE, &[tlv(OID, &CHALLENGE_PASSWORD), tlv(SET, &tlv(UTF8, b"secret"))].concat())
}

/// Signed by its own key, and that key.
pub fn signed(name: &[u8], attributes: &[Vec<u8>]) -> (String, KeyPair) {
    let key = KeyPair::generate().unwrap();
    (pem(&der(name, attributes, &key, &key)), key)
}

/// For `key`, signed by `signer`.
pub fn der(name: &[u8], attributes: &[Vec<u8>], key: &KeyPair, signer: &KeyPair) -> Vec<u8> {
    let parts = [vec![0x02, 0x01, 0x00], name.to_vec(), key.subject_public_key_info(), tlv(0xa0, &attributes.concat())];
    let info = tlv(SEQUENCE, &parts.concat());
    let signature = [vec![0], signer.sign(&info).unwrap()].concat();
    tlv(SEQUENCE, &[info, tlv(SEQUENCE, &tlv(OID, &ECDSA_SHA256)), tlv(0x03, &signature)].concat())
}

pub fn pem(der: &[u8]) -> String {
    format!("-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n", STANDARD.encode(der))
}
