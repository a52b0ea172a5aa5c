//! What went wrong, from what kube, hyper, rustls and the API server each say in their own way.

use std::error::Error as StdError;
use std::io;

use crate::rights::APPROVE;
use croft_core::join::cluster::{Fault, Right};
use kube::core::response::Status;
use rustls::{AlertDescription, CertificateError, Error as TlsError};

const VERBS: [&str; 6] = ["get", "list", "create", "update", "patch", "delete"];
const TEXT_MAX: usize = 500;

pub(crate) fn of(server: &str, right: &Right, error: &kube::Error) -> Fault {
    let server = server.to_owned();
    match error {
        kube::Error::Api(status) => said(server, right, status),
        kube::Error::SerdeError(_)
        | kube::Error::FromUtf8(_)
        | kube::Error::BuildRequest(_)
        | kube::Error::HttpError(_) => Fault::Refused {
            server,
            doing: right.to_string(),
            why: format!("its answer cannot be read: {}", chain(error)),
        },
        _ => unsaid(server, error),
    }
}

/// The API server's own words.
fn said(server: String, right: &Right, status: &Status) -> Fault {
    let why = shortened(&status.message);
    let doing = right.to_string();
    match status.code {
        401 => Fault::Unauthorized { server, expires: None },
        403 => match lacking(right, &status.message) {
            Some(right) => Fault::Forbidden { server, right },
            None => Fault::Refused { server, doing, why },
        },
        404 => Fault::NotFound { server, what: named(right) },
        409 => Fault::Conflict { server, what: why },
        // 410: the list has moved on between two of its pages.
        410 | 429 | 500.. => Fault::Busy { server, doing, why },
        _ => Fault::Refused { server, doing, why },
    }
}

/// The right that the API server misses. `None`: it was not the authorizer that refused, but an admission plugin or policy,
/// with the same number.
fn lacking(asked: &Right, message: &str) -> Option<Right> {
    // The plugin that guards approvals asks for a right of its own.
    if let Some((_, signer)) = message.split_once("not permitted to approve requests with signerName ") {
        let signer = signer.trim_matches('"').to_owned();
        return Some(Right { name: Some(signer), ..APPROVE.right() });
    }
    let (who, what) = message.split_once(" cannot ")?;
    who.contains("User ").then_some(())?;
    // A patch of what is not there yet is a creation, and refused as one.
    let verb = what.split(' ').next().and_then(|verb| VERBS.into_iter().find(|known| *known == verb));
    Some(Right { verb: verb.unwrap_or(asked.verb), ..asked.clone() })
}

fn named(right: &Right) -> String {
    let name = right.name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
    let namespace = right.namespace.as_ref().map(|namespace| format!(" in namespace {namespace}")).unwrap_or_default();
    format!("{}{name}{namespace}", right.resource.trim_end_matches('s'))
}

/// No answer came.
pub(crate) fn unsaid(server: String, error: &(dyn StdError + 'static)) -> Fault {
    match within::<TlsError>(error) {
        Some(TlsError::InvalidCertificate(what)) => Fault::Certificate { server, why: certificate(what) },
        // The server, or what stands before it, does not take our certificate.
        Some(TlsError::AlertReceived(alert)) if is_about_us(*alert) => Fault::Unauthorized { server, expires: None },
        _ => Fault::Unreachable { server, why: chain(error) },
    }
}

fn is_about_us(alert: AlertDescription) -> bool {
    use AlertDescription as Alert;
    matches!(
        alert,
        Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::CertificateRequired
    )
}

fn certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet; is one of the two clocks wrong?".to_owned()
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "it is not signed by the CA of the kubeconfig; is this the right cluster?".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another name; tls-server-name says which one to expect".to_owned()
        }
        other => other.to_string(),
    }
}

/// An `io::Error` does not name what it wraps as its source, but as what it has within.
fn within<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = held.map(|held| held as &(dyn StdError + 'static)).or_else(|| error.source());
    }
    None
}

/// The chain, each part once: many layers repeat the one below.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let part = error.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        next = error.source();
    }
    shortened(&text)
}

/// A server may say as much as it likes; a log line and a condition may not.
pub(crate) fn shortened(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if plain.chars().count() <= TEXT_MAX {
        return plain;
    }
    plain.chars().take(TEXT_MAX).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rights::{NODE_GET, NODE_PATCH};

    fn status(code: u16, message: &str) -> kube::Error {
        kube::Error::Api(Status::failure(message, "").with_code(code).boxed())
    }

    #[test]
    fn a_refusal_of_rbac_is_told_from_one_of_a_policy() {
        let rbac = status(
            403,
            "nodes \"a\" is forbidden: User \"croft\" cannot patch resource \"nodes\" in API group \"\" at the cluster scope",
        );
        assert!(
            matches!(of("s", &NODE_PATCH.right(), &rbac), Fault::Forbidden { right, .. } if right == NODE_PATCH.right())
        );
        let policy = status(403, "nodes \"a\" is forbidden: is not allowed to modify labels: x");
        assert!(matches!(of("s", &NODE_PATCH.right(), &policy), Fault::Refused { why, .. } if why.contains("labels")));
    }

    #[test]
    fn the_right_that_is_missing_may_be_another_than_the_one_that_was_used() {
        let create = status(
            403,
            "secrets \"a\" is forbidden: User \"croft\" cannot create resource \"secrets\" in API group \"\"",
        );
        assert!(
            matches!(of("s", &NODE_PATCH.right(), &create), Fault::Forbidden { right, .. } if right.verb == "create")
        );
        let signer = "csr \"a\" is forbidden: user not permitted to approve requests with signerName \"kubernetes.io/kubelet-serving\"";
        let fault = of("s", &NODE_PATCH.right(), &status(403, signer)).to_string();
        assert!(fault.contains("approve signers.certificates.k8s.io kubernetes.io/kubelet-serving"), "{fault}");
    }

    #[test]
    fn what_is_not_there_is_named() {
        let fault = of("https://a", &NODE_GET.of("train-1-deadbeef"), &status(404, "nodes not found"));
        assert_eq!(fault.to_string(), "https://a has no node train-1-deadbeef");
    }

    #[test]
    fn a_tls_error_is_found_within_an_io_error() {
        let tls = TlsError::InvalidCertificate(CertificateError::Expired);
        let error = kube::Error::Service(Box::new(io::Error::new(io::ErrorKind::InvalidData, tls)));
        let fault = unsaid("s".to_owned(), &error);
        assert_eq!(fault, Fault::Certificate { server: "s".to_owned(), why: "it has expired".to_owned() });
        let refused = kube::Error::Service(Box::new(io::Error::from(io::ErrorKind::ConnectionRefused)));
        assert!(matches!(unsaid("s".to_owned(), &refused), Fault::Unreachable { why, .. } if why.contains("refused")));
    }

    #[test]
    fn what_a_server_says_is_one_short_line() {
        let long = shortened(&"x\n".repeat(10_000));
        assert!(long.chars().count() == TEXT_MAX + 1 && !long.contains('\n'));
    }
}
