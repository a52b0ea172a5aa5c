//! URLs of images: which may be asked, and how they are shown.
//!
//! Refuses every scheme but https, names and passwords in URLs, and addresses that the policy does not permit where the
//! host is written as one. A name is checked when it is resolved ([`super::address::Resolver`]).

use reqwest::Url;

use super::address::{Policy, Refused};

/// Why a URL is not asked.
#[derive(Debug, thiserror::Error)]
pub enum UrlRefused {
    #[error("`{0}` is not https")]
    Scheme(String),
    #[error("it carries a name or password")]
    Credentials,
    #[error("it names no host")]
    NoHost,
    #[error("too many redirects")]
    Redirects,
    #[error(transparent)]
    Address(#[from] Refused),
}

/// Scheme, credentials, and the address where the host is written as one (a name is checked when it is resolved).
pub fn check(url: &Url, policy: &Policy) -> Result<(), UrlRefused> {
    if url.scheme() != "https" {
        return Err(UrlRefused::Scheme(url.scheme().to_owned()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(UrlRefused::Credentials);
    }
    let host = url.host_str().ok_or(UrlRefused::NoHost)?;
    // The parser has already turned 0x7f.1 and the like into dotted form.
    if let Ok(ip) = host.trim_start_matches('[').trim_end_matches(']').parse() {
        policy.check(ip)?;
    }
    Ok(())
}

/// The URL without its query, which may hold a signature.
pub fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}
pub fn shown_text(text: &str) -> String {
    Url::parse(text).map_or_else(|_| text.to_owned(), |url| shown(&url))
}
