//! Who may do what. A role is a set of permissions; a scope is the whole plane or one tenant with all below it.
//!
//! Another tenant's object is NotFound, never Denied: `rpc` asks for visibility first and for the permission second.

use serde::{Deserialize, Serialize};

use crate::id::{HostId, TenantId, TokenId};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    PlatformAdmin,
    PlatformViewer,
    TenantAdmin,
    TenantOperator,
    TenantViewer,
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    Token {
        id: TokenId,
        role: Role,
        /// `None`: the whole plane.
        tenant: Option<TenantId>,
    },
    Host(HostId),
    /// Somebody with the data directory in his hands.
    Local,
    Anonymous,
}

impl Principal {
    /// For the audit log and as the key of idempotency.
    #[must_use]
    pub fn actor(&self) -> String {
        match self {
            Self::Token { id, .. } => format!("token:{id}"),
            Self::Host(id) => format!("host:{id}"),
            Self::Local => "local:root".to_owned(),
            Self::Anonymous => "anonymous".to_owned(),
        }
    }

    /// The tenant it is confined to; `None`: not confined.
    #[must_use]
    pub fn tenant(&self) -> Option<&TenantId> {
        match self {
            Self::Token { tenant, .. } => tenant.as_ref(),
            _ => None,
        }
    }

    /// Whether its role has `permission` (as declared in the proto) anywhere.
    #[must_use]
    pub fn may(&self, permission: &str) -> bool {
        match self {
            Self::Local => true,
            Self::Host(_) => matches!(permission, "host" | "public"),
            Self::Anonymous => permission == "public",
            Self::Token { role, .. } => role.may(permission),
        }
    }
}

const READ: [&str; 3] = ["get", "list", "watch"];
/// Nouns that belong to the platform: tenants' roles see none of their verbs but those listed with them.
const PLATFORM: [&str; 2] = ["hosts", "devices"];
/// Nouns that operators define and tenants see as far as they are granted.
const GRANTED: [&str; 2] = ["networks", "pools"];
const GUEST_ACCESS: [&str; 2] = ["instances.console", "instances.port_forward"];

impl Role {
    /// Every role may ask for its own `public` things; `host` is for agents alone.
    #[must_use]
    pub fn may(self, permission: &str) -> bool {
        if permission == "public" {
            return true;
        }
        let Some((noun, verb)) = permission.split_once('.') else {
            return false;
        };
        let reads = READ.contains(&verb);
        let tenants_own = !PLATFORM.contains(&noun);
        match self {
            Self::PlatformAdmin => true,
            // Reads everything; the inside of a guest is not "everything".
            Self::PlatformViewer => reads,
            // Quota of the own tenant is the parent's to set (checked by scope).
            Self::TenantAdmin => tenants_own && (reads || !GRANTED.contains(&noun)),
            Self::TenantOperator => {
                tenants_own && (reads && noun != "tokens" && noun != "audit" || matches!(noun, "instances" | "images"))
            }
            Self::TenantViewer => tenants_own && reads && noun != "tokens" && noun != "audit",
        }
    }

    /// Whether a token of this role belongs to a tenant.
    #[must_use]
    pub fn is_tenants(self) -> bool {
        matches!(self, Self::TenantAdmin | Self::TenantOperator | Self::TenantViewer)
    }

    /// A role may hand out itself and what is below it.
    #[must_use]
    pub fn may_grant(self, other: Self) -> bool {
        match self {
            Self::PlatformAdmin => true,
            Self::TenantAdmin => other.is_tenants(),
            _ => false,
        }
    }
}

/// Whether a verb looks into a guest: audited like a mutation though it changes nothing here.
#[must_use]
pub fn is_guest_access(permission: &str) -> bool {
    GUEST_ACCESS.contains(&permission)
}

/// Whether a call with this permission changes something, and so leaves an audit row.
#[must_use]
pub fn is_mutation(permission: &str) -> bool {
    permission.split_once('.').is_some_and(|(_, verb)| !READ.contains(&verb))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_nested_and_tenants_never_touch_the_platform() {
        for permission in ["instances.create", "images.create", "instances.console"] {
            assert!(Role::TenantOperator.may(permission), "{permission}");
            assert!(!Role::TenantViewer.may(permission), "{permission}");
            assert!(!Role::PlatformViewer.may(permission), "{permission}");
        }
        for permission in ["hosts.list", "hosts.fence", "devices.list", "networks.create", "pools.create", "host"] {
            assert!(!Role::TenantAdmin.may(permission), "{permission}");
        }
        assert!(Role::TenantViewer.may("pools.list") && !Role::TenantOperator.may("pools.update"));
        assert!(Role::TenantAdmin.may("networks.list") && Role::TenantAdmin.may("tokens.create"));
        assert!(!Role::TenantOperator.may("tokens.list"));
        assert!(!Role::TenantAdmin.may_grant(Role::PlatformViewer));
    }
}
