//! Tokens and their roles. The secret never passes here.

use croft_core::access::Role;
use croft_core::token::Token;
use croft_proto::v1;

use super::{meta, time};

#[must_use]
pub fn out(token: &Token) -> v1::Token {
    v1::Token {
        name: token.name(),
        metadata: Some(meta::out(&token.meta)),
        tenant: token.tenant.as_ref().map(|tenant| format!("tenants/{tenant}")).unwrap_or_default(),
        role: role_out(token.role).into(),
        description: token.description.clone(),
        disabled: token.disabled,
        expire_time: token.expire_time.map(time::out),
        last_used_time: token.last_used_time.map(time::out),
    }
}

#[must_use]
pub fn role_out(role: Role) -> v1::token::Role {
    match role {
        Role::PlatformAdmin => v1::token::Role::PlatformAdmin,
        Role::PlatformViewer => v1::token::Role::PlatformViewer,
        Role::TenantAdmin => v1::token::Role::TenantAdmin,
        Role::TenantOperator => v1::token::Role::TenantOperator,
        Role::TenantViewer => v1::token::Role::TenantViewer,
    }
}

/// `None`: unspecified, or none that we know.
#[must_use]
pub fn role_into(role: i32) -> Option<Role> {
    match v1::token::Role::try_from(role).ok()? {
        v1::token::Role::Unspecified => None,
        v1::token::Role::PlatformAdmin => Some(Role::PlatformAdmin),
        v1::token::Role::PlatformViewer => Some(Role::PlatformViewer),
        v1::token::Role::TenantAdmin => Some(Role::TenantAdmin),
        v1::token::Role::TenantOperator => Some(Role::TenantOperator),
        v1::token::Role::TenantViewer => Some(Role::TenantViewer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_come_back_as_they_went_and_unknown_ones_are_none() {
        let all =
            [Role::PlatformAdmin, Role::PlatformViewer, Role::TenantAdmin, Role::TenantOperator, Role::TenantViewer];
        for role in all {
            assert_eq!(role_into(role_out(role).into()), Some(role));
        }
        assert_eq!((role_into(0), role_into(99)), (None, None));
    }
}
