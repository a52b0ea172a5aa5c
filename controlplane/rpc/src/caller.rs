//! Who makes a call: what authentication found out, handed to the handlers as an extension of the request.

use croft_core::access::Principal;
use croft_core::id::TenantId;
use croft_core::{Error, Result, Timestamp};

/// How a connection looks from outside; the binary, which accepts it, tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    /// `192.0.2.7:51234`; for audit rows.
    pub address: String,
    /// Of a client certificate that the built-in CA signed and that is still valid.
    pub certificate: Option<PeerCertificate>,
}

/// Whom a client certificate names. Whether that host still exists is checked at each call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    pub host: croft_core::id::HostId,
    pub uid: String,
}

/// Reads a connection's peer out of the extensions that the binary's acceptor put into each request.
pub type Identify = std::sync::Arc<dyn Fn(&http::Extensions) -> Peer + Send + Sync>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub principal: Principal,
    /// `/croft.v1.Instances/CreateInstance`
    pub method: &'static str,
    pub peer: String,
    pub credential: Credential,
}

/// What must go on being true for a long call to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    None,
    /// The same token, not a later one of the same name.
    Token {
        made: Timestamp,
    },
    Host {
        uid: String,
    },
}

impl Caller {
    /// Put there by the authentication layer; a service without it must not answer.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<Self> {
        let found = request.extensions().get::<Self>().cloned();
        found.ok_or_else(|| Error::internal("a request came past the authentication layer"))
    }

    /// The tenant that the caller is confined to; `None`: sees the whole plane.
    #[must_use]
    pub fn tenant(&self) -> Option<&TenantId> {
        self.principal.tenant()
    }
}
