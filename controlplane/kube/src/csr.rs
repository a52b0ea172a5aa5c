//! What a PKCS#10 asks for, read so that the signer of the cluster cannot read anything else in it.
//!
//! The judge is only as good as this reading: a second name that we skip and the signer (Go's parser) takes is somebody else's
//! certificate. So whatever is not plain, or could be read in two ways, is not read at all, and the judge denies it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use croft_core::join::csr::Subject;
use x509_parser::asn1_rs::{Any, Class, Header, Oid, Tag};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::{ParsedCriAttribute, X509CriAttribute};
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::oid_registry::{
    OID_PKCS9_EXTENSION_REQUEST, OID_X509_COMMON_NAME, OID_X509_EXT_EXTENDED_KEY_USAGE, OID_X509_EXT_KEY_USAGE,
    OID_X509_EXT_SUBJECT_ALT_NAME, OID_X509_ORGANIZATION_NAME,
};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::{X509Name, X509Version};

const BEGIN: &str = "-----BEGIN CERTIFICATE REQUEST-----";
const END: &str = "-----END CERTIFICATE REQUEST-----";
/// A kubelet's request has 500 bytes; the API server takes what etcd takes.
const SIZE_MAX: usize = 16 * 1024;

/// `pem` is what a CertificateSigningRequest holds. `None`: not readable beyond doubt, or not signed by its own key.
#[must_use]
pub fn subject(pem: &[u8]) -> Option<Subject> {
    let der = only_block(pem)?;
    let (rest, request) = X509CertificationRequest::from_der(&der).ok()?;
    let info = &request.certification_request_info;
    if !rest.is_empty() || info.version != X509Version::V1 {
        return None;
    }
    request.verify_signature().ok()?;
    let mut subject = Subject::default();
    name(&info.subject, &mut subject)?;
    let mut seen = Vec::new();
    for attribute in info.iter_attributes() {
        match attribute.parsed_attribute() {
            ParsedCriAttribute::ExtensionRequest(asked) if is_single(attribute) => {
                for asked in &asked.extensions {
                    if seen.contains(&&asked.oid) {
                        return None;
                    }
                    seen.push(&asked.oid);
                    extension(asked, &mut subject)?;
                }
            }
            ParsedCriAttribute::ExtensionRequest(_) => return None,
            _ => subject.extensions.push(attribute.oid.to_string()),
        }
    }
    Some(subject)
}

/// Exactly one block and nothing around it: of several, another parser might take another one.
fn only_block(pem: &[u8]) -> Option<Vec<u8>> {
    if pem.len() > SIZE_MAX {
        return None;
    }
    let text = std::str::from_utf8(pem).ok()?.trim();
    let body = text.strip_prefix(BEGIN)?.strip_suffix(END)?;
    let body: String = body.split_ascii_whitespace().collect();
    STANDARD.decode(body).ok()
}

/// x509-parser stops in silence at an attribute that it cannot parse. What was read is therefore written again, and has to be
/// what stood there.
fn name(read: &X509Name<'_>, subject: &mut Subject) -> Option<()> {
    let mut written = Vec::new();
    for set in read.iter_rdn() {
        let mut members = Vec::new();
        for attribute in set.iter() {
            let (kind, value) = (attribute.attr_type(), attribute.attr_value());
            let text = text(value)?;
            if *kind == OID_X509_COMMON_NAME {
                subject.common_names.push(text.to_owned());
            } else if *kind == OID_X509_ORGANIZATION_NAME {
                subject.organizations.push(text.to_owned());
            } else {
                subject.others.push(format!("{kind}={text}"));
            }
            let pair = [tlv(Tag::Oid, kind.as_bytes()), tlv(value.tag(), value.data)].concat();
            members.extend(tlv(Tag::Sequence, &pair));
        }
        written.extend(tlv(Tag::Set, &members));
    }
    (tlv(Tag::Sequence, &written) == read.as_raw()).then_some(())
}

/// The two kinds of text that are written today; the older ones have more than one reading.
fn text<'a>(value: &Any<'a>) -> Option<&'a str> {
    let plain = value.class() == Class::Universal && matches!(value.tag(), Tag::Utf8String | Tag::PrintableString);
    if plain { std::str::from_utf8(value.data).ok() } else { None }
}

fn tlv(tag: Tag, content: &[u8]) -> Vec<u8> {
    let constructed = if matches!(tag, Tag::Sequence | Tag::Set) { 0x20 } else { 0 };
    let number = u8::try_from(tag.0).unwrap_or(0) | constructed;
    let length = content.len().to_be_bytes();
    let length = &length[length.iter().position(|byte| *byte != 0).unwrap_or(length.len() - 1)..];
    let mut out = vec![number];
    match length {
        [short] if *short < 0x80 => out.push(*short),
        long => {
            // At most eight bytes of a usize.
            out.push(0x80 | u8::try_from(long.len()).unwrap_or(8));
            out.extend(long);
        }
    }
    out.extend(content);
    out
}

/// A set of one value, to its last byte: the second one of two is skipped without a word.
fn is_single(attribute: &X509CriAttribute<'_>) -> bool {
    attribute.oid == OID_PKCS9_EXTENSION_REQUEST && is_whole(attribute.value)
}

fn is_whole(der: &[u8]) -> bool {
    Header::from_der(der).is_ok_and(|(content, header)| header.length().definite().ok() == Some(content.len()))
}

fn extension(asked: &X509Extension<'_>, subject: &mut Subject) -> Option<()> {
    let usage: [&Oid<'_>; 2] = [&OID_X509_EXT_KEY_USAGE, &OID_X509_EXT_EXTENDED_KEY_USAGE];
    if usage.contains(&&asked.oid) {
        // The signer goes by the usages beside the PKCS#10, which the judge sees.
        return Some(());
    }
    if asked.oid != OID_X509_EXT_SUBJECT_ALT_NAME {
        subject.extensions.push(asked.oid.to_string());
        return Some(());
    }
    let ParsedExtension::SubjectAlternativeName(names) = asked.parsed_extension() else { return None };
    if !is_whole(asked.value) {
        return None;
    }
    for name in &names.general_names {
        match name {
            GeneralName::DNSName(name) if name.is_ascii() => _ = subject.dns.insert((*name).to_owned()),
            GeneralName::IPAddress(bytes) => _ = subject.ips.insert(ip(bytes)?),
            GeneralName::DNSName(_) | GeneralName::Invalid(..) => return None,
            other => subject.other_names.push(other.to_string()),
        }
    }
    Some(())
}

/// An IPv4 address in the clothes of an IPv6 one is signed as what it is.
fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(four).into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|sixteen| IpAddr::from(Ipv6Addr::from(sixteen)).to_canonical())
}

#[cfg(test)]
mod tests;
