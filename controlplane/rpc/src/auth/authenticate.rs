//! From a header or a certificate to a principal.

use croft_core::access::Principal;
use croft_core::{Error, Reason, Result, token};
use http::HeaderMap;
use sha2::{Digest as _, Sha256};

use super::unauthenticated;
use crate::api::Api;
use crate::caller::{Credential, Peer, PeerCertificate};

/// A token counts before a certificate: an operator may call from a host.
pub async fn authenticate(api: &Api, headers: &HeaderMap, peer: &Peer) -> Result<(Principal, Credential)> {
    match (bearer(headers)?, &peer.certificate) {
        (Some(text), _) => by_token(api, &text).await,
        (None, Some(certificate)) => by_certificate(api, certificate).await,
        (None, None) => Err(unauthenticated("no credential; send the header `authorization: Bearer croft_…`")),
    }
}

fn bearer(headers: &HeaderMap) -> Result<Option<String>> {
    let Some(value) = headers.get(http::header::AUTHORIZATION) else {
        return Ok(None);
    };
    let wrong = || unauthenticated("the authorization header is not of the form `Bearer croft_…`");
    let (scheme, text) = value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or_else(wrong)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(Some(text.trim().to_owned())) } else { Err(wrong()) }
}

async fn by_token(api: &Api, text: &str) -> Result<(Principal, Credential)> {
    let (id, secret) = token::split(text).ok_or_else(|| {
        unauthenticated("the token is not of the form `croft_<id>_<secret>`; was it cut when copied?")
    })?;
    let digest: [u8; 32] = Sha256::digest(secret).into();
    // One answer for every way in which a token can be wrong: a guesser learns nothing.
    let found = api.tokens.authenticate(api.store(), &id, digest).await?;
    let token = found.ok_or_else(|| unauthenticated(format!("token `{id}` is unknown, wrong, disabled or expired")))?;
    let credential = Credential::Token { made: token.meta.create_time };
    Ok((Principal::Token { id: token.id, role: token.role, tenant: token.tenant }, credential))
}

async fn by_certificate(api: &Api, certificate: &PeerCertificate) -> Result<(Principal, Credential)> {
    let PeerCertificate { host, uid } = certificate;
    match api.store().host_get(host).await? {
        Some(found) if found.meta.uid == *uid => {
            Ok((Principal::Host(host.clone()), Credential::Host { uid: uid.clone() }))
        }
        // Also when a host of that name was enrolled again since: the old machine is not it.
        _ => Err(Error::Unauthenticated {
            reason: Reason::HostNotEnrolled,
            message: format!("hosts/{host} with this certificate is not enrolled (deleted?); enrol it again"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &[u8]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::AUTHORIZATION, http::HeaderValue::from_bytes(value).unwrap());
        headers
    }

    #[test]
    fn the_scheme_is_bearer_in_any_case_and_nothing_else() {
        assert_eq!(bearer(&HeaderMap::new()), Ok(None));
        for good in ["Bearer croft_a_b", "bearer croft_a_b", "BEARER  croft_a_b "] {
            assert_eq!(bearer(&headers(good.as_bytes())), Ok(Some("croft_a_b".to_owned())), "{good}");
        }
        for wrong in [b"Basic Zm9v".as_slice(), b"croft_a_b", b"", b"Bearer", b"Bearer \xff"] {
            assert!(matches!(bearer(&headers(wrong)), Err(Error::Unauthenticated { .. })), "{wrong:?}");
        }
    }

    #[test]
    fn garbage_is_no_token() {
        for wrong in
            ["", "croft_", "croft__x", "croft_a", "croft_a_", "croft_A_x", "croft_-a_x", "CROFT_a_x", "croft_a b_x"]
        {
            assert_eq!(token::split(wrong), None, "{wrong}");
        }
        assert_eq!(token::split("croft_a_x_y"), Some(("a".into(), "x_y")));
    }
}
