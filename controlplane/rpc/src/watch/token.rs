//! Resume tokens: opaque, and of no use to another watch.
//!
//! ```text
//! version ‖ revision ‖ digest of both, the topic and the scope
//! ```
//! The digest finds damage and mistakes. It is no protection, and needs to be none: what a watcher may see is decided
//! by who calls, not by what the token says.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use croft_core::event::Topic;
use croft_core::id::TenantId;
use croft_core::{Error, Result};
use sha2::{Digest as _, Sha256};

use crate::caller::Caller;

const VERSION: u8 = 1;
const BODY: usize = 1 + 8;
const DIGEST: usize = 8;

/// What a watch is about: a token of one is refused by any other.
#[derive(Debug, Clone)]
pub struct Scope(Vec<u8>);

impl Scope {
    #[must_use]
    pub fn new(topic: Topic, parent: Option<&TenantId>, caller: &Caller) -> Self {
        let topic = match topic {
            Topic::Events => "events",
            Topic::Instances => "instances",
        };
        let text = |tenant: Option<&TenantId>| tenant.map(ToString::to_string).unwrap_or_default();
        Self(format!("{topic}\n{}\n{}\n", text(parent), text(caller.tenant())).into_bytes())
    }

    /// For whoever has seen everything up to and with `revision`.
    #[must_use]
    pub fn token(&self, revision: i64) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend(revision.to_be_bytes());
        let digest = self.digest(&bytes);
        bytes.extend(digest);
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    pub fn revision(&self, token: &str) -> Result<i64> {
        let wrong = || {
            let why = "is damaged, or of a watch of something else or by somebody else; watch again without it";
            Error::invalid("resume_token", why)
        };
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).map_err(|_| wrong())?;
        let (body, digest) = bytes.split_at_checked(BODY).ok_or_else(wrong)?;
        if body[0] != VERSION || digest != self.digest(body) {
            return Err(wrong());
        }
        body[1..].try_into().map(i64::from_be_bytes).map_err(|_| wrong())
    }

    fn digest(&self, body: &[u8]) -> [u8; DIGEST] {
        let digest = Sha256::new().chain_update(&self.0).chain_update(body).finalize();
        let mut first = [0; DIGEST];
        first.copy_from_slice(&digest[..DIGEST]);
        first
    }
}

#[cfg(test)]
mod tests {
    use croft_core::access::{Principal, Role};

    use super::*;
    use crate::caller::Credential;

    fn caller(tenant: Option<&str>) -> Caller {
        let principal =
            Principal::Token { id: "t".into(), role: Role::TenantViewer, tenant: tenant.map(TenantId::from) };
        Caller { principal, method: "", peer: String::new(), credential: Credential::None }
    }

    fn scope(topic: Topic, parent: Option<&str>, tenant: Option<&str>) -> Scope {
        Scope::new(topic, parent.map(TenantId::from).as_ref(), &caller(tenant))
    }

    #[test]
    fn revisions_come_back_as_they_went() {
        let scope = scope(Topic::Instances, Some("a"), None);
        for revision in [0, 7, i64::MAX] {
            assert_eq!(scope.revision(&scope.token(revision)), Ok(revision));
        }
    }

    #[test]
    fn a_token_of_another_watch_is_refused() {
        let token = scope(Topic::Instances, Some("a"), Some("a")).token(7);
        for other in [
            scope(Topic::Events, Some("a"), Some("a")),
            scope(Topic::Instances, Some("b"), Some("a")),
            scope(Topic::Instances, None, Some("a")),
            scope(Topic::Instances, Some("a"), None),
        ] {
            assert!(other.revision(&token).is_err());
        }
    }

    #[test]
    fn any_damage_is_found() {
        let scope = scope(Topic::Events, None, None);
        let token = scope.token(7);
        for wrong in ["", "x", "!!!", "AAAA", &token[1..], &format!("{token}A"), &token.replace('A', "B")] {
            assert!(matches!(scope.revision(wrong), Err(Error::Invalid(_))), "{wrong}");
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(&token).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(scope.revision(&BASE64_URL_SAFE_NO_PAD.encode(damaged)).is_err(), "byte {at}");
        }
    }
}
