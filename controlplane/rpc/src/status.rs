//! What a caller sees of an error: the one place where [`Error`] becomes a gRPC status.
//!
//! Every status carries an `ErrorInfo` with a reason that has a page in docs/errors; most carry what to act on besides
//! (AIP-193). What only the operator should read is logged under an incident number and never sent.

use std::collections::HashMap;
use std::time::Duration;

use croft_core::error::QuotaViolation;
use croft_core::placement::{Outcome, Verdict};
use croft_core::{Error, Reason};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, PreconditionViolation, StatusExt as _};

use crate::random;

/// Details travel in a trailer, and clients refuse trailers beyond 8 to 16 KiB: a thousand hosts' verdicts must not
/// turn a clear refusal into a broken connection.
const DETAILS_MAX: usize = 12;
const DETAIL_TEXT_MAX: usize = 200;
const MESSAGE_MAX: usize = 1000;
/// When to come back after "try again".
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Exhaustive on purpose: a new error has to say here what its caller sees.
#[must_use]
pub fn status(error: Error) -> Status {
    let reason = error.reason();
    let mut message = clip(&error.to_string(), MESSAGE_MAX);
    let mut details = ErrorDetails::new();
    let mut metadata = HashMap::new();
    match error {
        Error::NotFound { name } => {
            details.set_resource_info(resource_type(&name), name, "", message.as_str());
        }
        Error::AlreadyExists { name } => {
            details.set_resource_info(resource_type(&name), name, "", message.as_str());
        }
        Error::Invalid(violations) => {
            note_left_out(&mut metadata, violations.len());
            let shown = violations.iter().take(DETAILS_MAX);
            // A single one may say at length what there is instead.
            let room = (DETAILS_MAX * DETAIL_TEXT_MAX / 2 / shown.len().max(1)).max(DETAIL_TEXT_MAX);
            let shown = shown.map(|v| FieldViolation::new(clip(&v.field, DETAIL_TEXT_MAX), clip(&v.description, room)));
            details.set_bad_request(shown.collect::<Vec<_>>());
        }
        Error::Precondition { reason, subject, message } => {
            let description = clip(&message, DETAIL_TEXT_MAX);
            details.set_precondition_failure([PreconditionViolation::new(reason.as_str(), subject, description)]);
        }
        Error::QuotaExceeded(violations) => quota(&violations, &mut details, &mut metadata),
        Error::NoCapacity { verdicts, .. } => capacity(verdicts, &mut details, &mut metadata),
        Error::Unavailable { .. } => {
            details.set_retry_info(Some(RETRY_AFTER));
        }
        Error::Internal { cause } => {
            let incident = random::short_id();
            tracing::error!(%incident, %cause, "internal error");
            message = format!("internal error; the control plane's log has it as incident {incident}");
            metadata.insert("incident".to_owned(), incident);
        }
        Error::Conflict { .. } | Error::Denied { .. } | Error::Unauthenticated { .. } | Error::OutOfRange { .. } => {}
    }
    details.set_error_info(reason.as_str(), croft_proto::DOMAIN, metadata);
    Status::with_error_details(code(reason), message, details)
}

/// Of a call that was refused, and of an operation that failed.
#[must_use]
pub fn code(reason: Reason) -> Code {
    match reason {
        Reason::NotFound => Code::NotFound,
        Reason::AlreadyExists => Code::AlreadyExists,
        Reason::InvalidArgument | Reason::PageTokenInvalid => Code::InvalidArgument,
        Reason::QuotaExceeded | Reason::NoCapacity | Reason::TooManyStreams => Code::ResourceExhausted,
        Reason::PermissionDenied => Code::PermissionDenied,
        Reason::Unauthenticated | Reason::EnrolmentTokenInvalid | Reason::HostNotEnrolled => Code::Unauthenticated,
        Reason::Unavailable | Reason::HostUnreachable | Reason::TunnelFailed => Code::Unavailable,
        Reason::Internal => Code::Internal,
        Reason::EtagMismatch | Reason::RequestIdReused | Reason::OperationSuperseded | Reason::HostFenced => {
            Code::Aborted
        }
        Reason::ResumeTokenTooOld => Code::OutOfRange,
        Reason::TenantNotEmpty
        | Reason::ImageInUse
        | Reason::NetworkInUse
        | Reason::NetworkNotGranted
        | Reason::DeviceNotGranted
        | Reason::NodeNotJoined
        | Reason::DeviceFaulty
        | Reason::DeviceInUse
        | Reason::DeviceNeedsStop
        | Reason::PoolInUse
        | Reason::ClusterInUse
        | Reason::ClusterUnreachable
        | Reason::ClusterCertificateRefused
        | Reason::ClusterCredentialRefused
        | Reason::ClusterRightsMissing
        | Reason::ClusterPoliciesMissing
        | Reason::ClusterCertificatesLongLived
        | Reason::HostNotEmpty
        | Reason::HostInMaintenance
        | Reason::DrainPlanChanged
        | Reason::FenceNotConfirmed
        | Reason::InstanceDeleting
        | Reason::InstanceNotRunning
        | Reason::InstanceUnknown
        | Reason::AgentTooOld
        | Reason::ProtocolUnsupported
        | Reason::InstanceFailed
        | Reason::LastAdminToken => Code::FailedPrecondition,
    }
}

/// As `google.rpc.Code` spells it: `PERMISSION_DENIED`.
#[must_use]
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

fn quota(violations: &[QuotaViolation], details: &mut ErrorDetails, metadata: &mut HashMap<String, String>) {
    note_left_out(metadata, violations.len());
    let shown = violations.iter().take(DETAILS_MAX).map(|violation| {
        let QuotaViolation { tenant, resource, limit, used, requested } = violation;
        let subject = format!("tenants/{tenant}/quotas/{resource}");
        let description = format!("limit {limit}, used {used}, requested {requested}");
        tonic_types::QuotaViolation {
            quota_metric: resource.clone(),
            quota_value: *limit,
            ..tonic_types::QuotaViolation::new(subject, description)
        }
    });
    details.set_quota_failure(shown.collect::<Vec<_>>());
    if let Some(first) = violations.first() {
        metadata.insert("tenant".to_owned(), format!("tenants/{}", first.tenant));
        metadata.insert("resource".to_owned(), first.resource.clone());
        for (key, number) in [("limit", first.limit), ("used", first.used), ("requested", first.requested)] {
            metadata.insert(key.to_owned(), number.to_string());
        }
    }
}

/// The hosts that came furthest first: they are the ones worth mending.
fn capacity(mut verdicts: Vec<Verdict>, details: &mut ErrorDetails, metadata: &mut HashMap<String, String>) {
    metadata.insert("hosts".to_owned(), verdicts.len().to_string());
    note_left_out(metadata, verdicts.len());
    verdicts.sort_by_key(|verdict| match &verdict.outcome {
        Outcome::Fails { predicate, .. } => std::cmp::Reverse(Some(*predicate)),
        Outcome::Fits { .. } => std::cmp::Reverse(None),
    });
    let shown = verdicts.into_iter().take(DETAILS_MAX).filter_map(|verdict| match verdict.outcome {
        Outcome::Fits { .. } => None,
        Outcome::Fails { predicate, message, fix } => {
            let description = clip(&format!("{message}; {fix}"), DETAIL_TEXT_MAX);
            Some(PreconditionViolation::new(predicate.as_str(), format!("hosts/{}", verdict.host), description))
        }
    });
    details.set_precondition_failure(shown.collect::<Vec<_>>());
}

fn note_left_out(metadata: &mut HashMap<String, String>, all: usize) {
    if let Some(more @ 1..) = all.checked_sub(DETAILS_MAX) {
        metadata.insert("details_left_out".to_owned(), more.to_string());
    }
}

/// `tenants/a/instances/b` is a `croft.dev/Instance`.
fn resource_type(name: &str) -> String {
    // `quotas/gpus/h100` and `quotas/devices/nic`: the resource has a slash of its own.
    let collection = if name.contains("/quotas/") { "quotas" } else { name.rsplit('/').nth(1).unwrap_or_default() };
    let noun = match collection {
        "tenants" => "Tenant",
        "quotas" => "Quota",
        "tokens" => "Token",
        "images" => "Image",
        "networks" => "Network",
        "hosts" => "Host",
        "devices" => "Device",
        "pools" => "Pool",
        "clusters" => "Cluster",
        "instances" => "Instance",
        "operations" => "Operation",
        _ if name.ends_with("/layout") => "HostLayout",
        _ => "Resource",
    };
    format!("{}/{noun}", croft_proto::DOMAIN)
}

/// At most `most` characters, with an ellipsis where something was cut.
#[must_use]
pub fn clip(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}…", &text[..at]),
    }
}

#[cfg(test)]
mod tests {
    use croft_core::placement::Predicate;

    use super::*;

    fn one_of_each() -> Vec<(Error, Code)> {
        let message = || "why".to_owned();
        let quota = QuotaViolation { tenant: "a".into(), resource: "vcpus".into(), limit: 4, used: 3, requested: 2 };
        vec![
            (Error::not_found("tenants/a/instances/b"), Code::NotFound),
            (Error::AlreadyExists { name: "hosts/h".into() }, Code::AlreadyExists),
            (Error::invalid("instance.spec.vcpus", "1 to 512, not 0"), Code::InvalidArgument),
            (Error::precondition(Reason::ImageInUse, "images/x", "in use"), Code::FailedPrecondition),
            (Error::Conflict { reason: Reason::EtagMismatch, message: message() }, Code::Aborted),
            (Error::QuotaExceeded(vec![quota]), Code::ResourceExhausted),
            (Error::NoCapacity { message: message(), verdicts: verdicts(2) }, Code::ResourceExhausted),
            (Error::Denied { message: message() }, Code::PermissionDenied),
            (Error::Unauthenticated { reason: Reason::Unauthenticated, message: message() }, Code::Unauthenticated),
            (Error::OutOfRange { reason: Reason::ResumeTokenTooOld, message: message() }, Code::OutOfRange),
            (Error::OutOfRange { reason: Reason::PageTokenInvalid, message: message() }, Code::InvalidArgument),
            (Error::Unavailable { reason: Reason::HostUnreachable, message: message() }, Code::Unavailable),
            (Error::Unavailable { reason: Reason::TooManyStreams, message: message() }, Code::ResourceExhausted),
            (Error::internal("disk I/O error at page 7"), Code::Internal),
        ]
    }

    fn verdicts(n: usize) -> Vec<Verdict> {
        let predicate = |at| if at == n - 1 { Predicate::Memory } else { Predicate::Cordon };
        let fails = |at| Outcome::Fails { predicate: predicate(at), message: "m".repeat(500), fix: "f".to_owned() };
        (0..n).map(|at| Verdict { host: format!("h{at}").as_str().into(), outcome: fails(at) }).collect()
    }

    #[test]
    fn every_error_has_its_code_its_reason_and_our_domain() {
        for (error, expected) in one_of_each() {
            let reason = error.reason();
            let status = status(error);
            assert_eq!(status.code(), expected, "{status:?}");
            let info = status.get_details_error_info().unwrap();
            assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason.as_str(), "croft.dev"));
        }
    }

    #[test]
    fn the_cause_of_an_internal_error_is_never_sent() {
        let status = status(Error::internal("secret path /x"));
        let info = status.get_details_error_info().unwrap();
        assert!(status.message().contains(&info.metadata["incident"]));
        assert!(!status.message().contains("secret") && !String::from_utf8_lossy(status.details()).contains("secret"));
    }

    #[test]
    fn a_quota_refusal_names_tenant_resource_and_numbers() {
        let quota = QuotaViolation { tenant: "a".into(), resource: "vcpus".into(), limit: 4, used: 3, requested: 2 };
        let status = status(Error::QuotaExceeded(vec![quota]));
        let failure = status.get_details_quota_failure().unwrap();
        assert_eq!(failure.violations[0].subject, "tenants/a/quotas/vcpus");
        assert_eq!(failure.violations[0].description, "limit 4, used 3, requested 2");
        assert_eq!(status.get_details_error_info().unwrap().metadata["requested"], "2");
    }

    #[test]
    fn a_fleet_of_refusals_fits_into_a_trailer_with_the_closest_host_first() {
        let status = status(Error::NoCapacity { message: "x".repeat(9000), verdicts: verdicts(1000) });
        let failure = status.get_details_precondition_failure().unwrap();
        assert_eq!(
            (failure.violations[0].r#type.as_str(), failure.violations[0].subject.as_str()),
            ("Memory", "hosts/h999")
        );
        assert!(status.details().len() < 5000, "{}", status.details().len());
        assert!(status.message().len() < 1100);
        assert_eq!(status.get_details_error_info().unwrap().metadata["details_left_out"], "988");
    }

    #[test]
    fn resources_are_named_by_type() {
        assert_eq!(resource_type("tenants/a/instances/b"), "croft.dev/Instance");
        assert_eq!(resource_type("tenants/a/quotas/gpus/h100"), "croft.dev/Quota");
        assert_eq!(resource_type("tenants/a"), "croft.dev/Tenant");
    }
}
