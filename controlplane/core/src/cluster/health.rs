//! What a look at a cluster comes to: its status, from what was known before and what was seen now. Pure.
//!
//! | condition | is False when |
//! |---|---|
//! | Reachable | it does not answer, or shows a certificate that is not good |
//! | CredentialValid | it does not know the credential |
//! | RightsSufficient | Croft lacks a right there |
//! | PoliciesInstalled | a policy is missing, or not as shipped |
//! | CertificatesShortLived | kubelets' certificates live longer than a day |
//!
//! What a look did not get to see stays as it was: "not seen" is never "gone".

use super::Status;
use crate::condition::{Condition, ConditionStatus};
use crate::error::Reason;
use crate::join::cluster::{Anchor, Fault, Policies, Probe, Right};
use crate::time::Timestamp;

/// Of these is said how many more there are.
const NAMED_MAX: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Reachable,
    CredentialValid,
    RightsSufficient,
    PoliciesInstalled,
    CertificatesShortLived,
}

impl Kind {
    pub const ALL: [Self; 5] = [
        Self::Reachable,
        Self::CredentialValid,
        Self::RightsSufficient,
        Self::PoliciesInstalled,
        Self::CertificatesShortLived,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reachable => "Reachable",
            Self::CredentialValid => "CredentialValid",
            Self::RightsSufficient => "RightsSufficient",
            Self::PoliciesInstalled => "PoliciesInstalled",
            Self::CertificatesShortLived => "CertificatesShortLived",
        }
    }
}

/// What a condition is now.
struct Found {
    status: ConditionStatus,
    reason: Option<Reason>,
    message: String,
}

impl Found {
    fn good() -> Self {
        Self { status: ConditionStatus::True, reason: None, message: String::new() }
    }

    fn bad(reason: Reason, message: impl Into<String>) -> Self {
        Self { status: ConditionStatus::False, reason: Some(reason), message: message.into() }
    }

    fn unknown(reason: Option<Reason>, message: impl Into<String>) -> Self {
        Self { status: ConditionStatus::Unknown, reason, message: message.into() }
    }
}

/// `before`: the default for a cluster that was never seen.
#[must_use]
pub fn observed(before: &Status, anchor: &Anchor, seen: Result<&Probe, &Fault>, now: Timestamp) -> Status {
    let mut status = before.clone();
    status.server.clone_from(&anchor.server);
    status.ca_pins.clone_from(&anchor.ca_pins);
    match seen {
        Ok(probe) => probed(&mut status, probe, now),
        Err(fault) => failed(&mut status, fault, now),
    }
    complete(&mut status, now);
    status
}

/// Its credential opens nothing, whatever the network does.
#[must_use]
pub fn unusable(before: &Status, reason: Reason, message: String, now: Timestamp) -> Status {
    let mut status = before.clone();
    set(&mut status, Kind::CredentialValid, Found::bad(reason, message), now);
    complete(&mut status, now);
    status
}

/// All conditions, in their order.
fn complete(status: &mut Status, now: Timestamp) {
    // A first look that failed says nothing of the rest.
    for kind in Kind::ALL {
        if status.condition(kind).is_none() {
            set(status, kind, Found::unknown(None, "not seen yet"), now);
        }
    }
    let place = |condition: &Condition| Kind::ALL.iter().position(|kind| kind.as_str() == condition.kind);
    status.conditions.sort_by_key(place);
}

fn probed(status: &mut Status, probe: &Probe, now: Timestamp) {
    status.version.clone_from(&probe.version);
    if let Some(identity) = &probe.identity {
        status.identity.clone_from(identity);
    }
    status.serving_expire_time = probe.serving_expires;
    status.ca_expire_time = probe.ca_expires;
    status.credential_expire_time = probe.credential_expires;
    status.answer_time = Some(now);
    set(status, Kind::Reachable, Found::good(), now);
    set(status, Kind::CredentialValid, Found::good(), now);
    let found = rights(&status.server, &probe.missing);
    set(status, Kind::RightsSufficient, found, now);
    set(status, Kind::PoliciesInstalled, policies(&probe.policies), now);
    let of_late = status.condition(Kind::CertificatesShortLived).is_some();
    match probe.certificates_are_short_lived() {
        Some(true) => set(status, Kind::CertificatesShortLived, Found::good(), now),
        Some(false) => {
            let hours = probe.certificate_life.unwrap_or_default().as_secs() / 3600;
            let message = format!(
                "kubelets' certificates live {hours} h, and none can be revoked; start the controller manager with \
                 --cluster-signing-duration=24h"
            );
            set(status, Kind::CertificatesShortLived, Found::bad(Reason::ClusterCertificatesLongLived, message), now);
        }
        // The cluster forgets what it issued within an hour or so; what was seen still holds.
        None if of_late => {}
        None => {
            let found = Found::unknown(None, "no kubelet's certificate was issued of late");
            set(status, Kind::CertificatesShortLived, found, now);
        }
    }
}

fn failed(status: &mut Status, fault: &Fault, now: Timestamp) {
    let found = Found::bad(fault.reason(), fault.to_string());
    match fault {
        // It answers; it is the answer that is not good.
        Fault::Unauthorized { .. } => {
            status.answer_time = Some(now);
            set(status, Kind::Reachable, Found::good(), now);
            set(status, Kind::CredentialValid, found, now);
        }
        Fault::Forbidden { .. } => {
            status.answer_time = Some(now);
            set(status, Kind::Reachable, Found::good(), now);
            set(status, Kind::RightsSufficient, found, now);
        }
        _ => set(status, Kind::Reachable, found, now),
    }
}

fn rights(server: &str, missing: &[Right]) -> Found {
    match missing_text(server, missing) {
        None => Found::good(),
        Some(text) => Found::bad(Reason::ClusterRightsMissing, text),
    }
}

/// `None`: nothing is missing.
#[must_use]
pub fn missing_text(server: &str, missing: &[Right]) -> Option<String> {
    if missing.is_empty() {
        return None;
    }
    let named = list(missing.iter().map(ToString::to_string));
    Some(format!("{server} does not let Croft {named}; apply the RBAC that `croft cluster manifest` prints"))
}

fn policies(policies: &Policies) -> Found {
    match policies {
        Policies::Installed => Found::good(),
        Policies::Lacking(what) => {
            let named = list(what.iter().cloned());
            let message = format!("{named}; tenants are not kept apart: apply what `croft cluster manifest` prints");
            Found::bad(Reason::ClusterPoliciesMissing, message)
        }
        Policies::Unknown => {
            Found::unknown(Some(Reason::ClusterRightsMissing), "it does not let Croft read its admission policies")
        }
    }
}

fn list(items: impl ExactSizeIterator<Item = String>) -> String {
    let more = items.len().saturating_sub(NAMED_MAX);
    let named: Vec<String> = items.take(NAMED_MAX).collect();
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    format!("{}{more}", named.join(", "))
}

fn set(status: &mut Status, kind: Kind, found: Found, now: Timestamp) {
    let since = status.condition(kind).filter(|before| before.status == found.status);
    let condition = Condition {
        kind: kind.as_str().to_owned(),
        status: found.status,
        reason: found.reason.map_or("", Reason::as_str).to_owned(),
        message: found.message,
        last_transition_time: since.map_or(now, |before| before.last_transition_time),
    };
    match status.conditions.iter_mut().find(|before| before.kind == condition.kind) {
        Some(before) => *before = condition,
        None => status.conditions.push(condition),
    }
}

/// The conditions of `after` that turned. What is seen for the first time turned only if it is bad.
pub fn turned<'a>(before: &'a Status, after: &'a Status) -> impl Iterator<Item = &'a Condition> {
    after.conditions.iter().filter(|now| match before.conditions.iter().find(|then| then.kind == now.kind) {
        Some(then) => then.status != now.status,
        None => now.status == ConditionStatus::False,
    })
}

#[cfg(test)]
mod tests;
