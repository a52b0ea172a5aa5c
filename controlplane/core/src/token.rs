//! API tokens: `croft_<id>_<secret>`. The store keeps the SHA-256 of the secret; 32 random bytes need no slow hash.

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::access::Role;
use crate::id::{TenantId, TokenId};
use crate::meta::Meta;

pub const ID_MAX: usize = 63;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    pub id: TokenId,
    pub meta: Meta,
    /// `None`: the whole plane.
    pub tenant: Option<TenantId>,
    pub role: Role,
    pub description: String,
    pub disabled: bool,
    pub expire_time: Option<Timestamp>,
    pub last_used_time: Option<Timestamp>,
}

impl Token {
    #[must_use]
    pub fn name(&self) -> String {
        format!("tokens/{}", self.id)
    }
}

/// The text that a user sends: id and secret, or `None` when it is not one of ours.
#[must_use]
pub fn split(text: &str) -> Option<(TokenId, &str)> {
    let (id, secret) = text.strip_prefix("croft_")?.split_once('_')?;
    (crate::validate::is_slug(id, ID_MAX) && !secret.is_empty()).then(|| (id.into(), secret))
}

#[must_use]
pub fn join(id: &TokenId, secret: &str) -> String {
    format!("croft_{id}_{secret}")
}
