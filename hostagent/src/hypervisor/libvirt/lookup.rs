//! Finding the domain of an instance, and being sure that it is ours.

use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::{Error as VirtError, ErrorNumber};
use virt_sys as sys;

use super::error::is;
use super::metadata::{Mark, NAMESPACE, domain_name};
use super::xml::Element;
use crate::hypervisor::Error;
use crate::reasons::{DOMAIN_CONFLICT, HYPERVISOR_ERROR};

/// What lies under an instance's uid and name.
pub enum Found {
    Ours(Domain),
    Nothing,
    /// A domain without our mark; it is never touched.
    Foreign,
}

pub fn find(connect: &Connect, uid: Uuid) -> Result<Found, Error> {
    let by_uuid = connect.lookup_domain_by_uuid(uid);
    match by_uuid {
        Ok(domain) => match mark(&domain, uid).map_err(query)? {
            Some(_) => Ok(Found::Ours(domain)),
            None => Ok(Found::Foreign),
        },
        Err(e) if is(&e, ErrorNumber::NoDomain) => match connect.lookup_domain_by_name(&domain_name(uid)) {
            Ok(_) => Ok(Found::Foreign),
            Err(e) if is(&e, ErrorNumber::NoDomain) => Ok(Found::Nothing),
            Err(e) => Err(query(e)),
        },
        Err(e) => Err(query(e)),
    }
}

/// The domain of an instance, for a verb that needs one.
pub fn ours(connect: &Connect, uid: Uuid) -> Result<Domain, Error> {
    match find(connect, uid)? {
        Found::Ours(domain) => Ok(domain),
        Found::Nothing | Found::Foreign => Err(Error::NotFound(uid)),
    }
}

pub fn conflict(uid: Uuid) -> Error {
    Error::Refused {
        reason: DOMAIN_CONFLICT,
        message: format!(
            "a domain with the name {} or the UUID {uid} is there and has not Croft's mark; it is left alone: remove or \
             rename it",
            domain_name(uid)
        ),
    }
}

/// The mark in the persistent definition: what the next start will run.
pub fn mark(domain: &Domain, uid: Uuid) -> Result<Option<Mark>, VirtError> {
    let kind = sys::VIR_DOMAIN_METADATA_ELEMENT as i32;
    let read = |flags| domain.metadata(kind, Some(NAMESPACE), flags);
    let persistent = match read(sys::VIR_DOMAIN_AFFECT_CONFIG) {
        // A transient domain has no persistent definition.
        Err(e) if is(&e, ErrorNumber::OperationInvalid) => read(sys::VIR_DOMAIN_AFFECT_LIVE),
        other => other,
    };
    match persistent {
        Ok(xml) => Ok(Mark::read(&xml, uid)),
        Err(e) if is(&e, ErrorNumber::NoDomainMetadata) => Ok(None),
        Err(e) => Err(e),
    }
}

/// The definition of the running guest, else the persistent one.
pub fn description(domain: &Domain) -> Result<Element, Error> {
    let xml = domain.xml_desc(0).map_err(query)?;
    let unreadable = |e: super::xml::Error| Error::Failed { reason: HYPERVISOR_ERROR, message: e.to_string() };
    Element::parse(&xml).map_err(unreadable)
}

/// An error of a call that only asked.
pub fn query(error: VirtError) -> Error {
    Error::Failed { reason: HYPERVISOR_ERROR, message: error.message().to_owned() }
}
