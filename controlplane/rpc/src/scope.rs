//! What a caller may see. A caller who is confined to a tenant sees it and everything below it, and of its ancestors
//! what they share (images, granted networks). Whatever else there is does not exist for him.

use croft_core::access::{Principal, Role};
use croft_core::id::TenantId;
use croft_core::{Error, Result, name};

use crate::api::Inner;
use crate::caller::Caller;
use crate::page::is_all;

impl Inner {
    /// Whether `tenant` is the caller's own or below it. Says nothing about whether it exists.
    pub async fn sees(&self, principal: &Principal, tenant: &TenantId) -> Result<bool> {
        match principal.tenant() {
            None => Ok(true),
            Some(own) if own == tenant => Ok(true),
            Some(own) => self.store().tenant_within(tenant, own).await,
        }
    }

    /// `name`: what was asked for, and what is not found when its tenant is somebody else's.
    pub async fn see(&self, principal: &Principal, tenant: &TenantId, name: &str) -> Result<()> {
        if self.sees(principal, tenant).await? { Ok(()) } else { Err(Error::not_found(name)) }
    }

    /// For nouns without a tenant, or with one that may be none: those are the platform's.
    pub async fn see_owned(&self, principal: &Principal, tenant: Option<&TenantId>, name: &str) -> Result<()> {
        match tenant {
            Some(tenant) => self.see(principal, tenant, name).await,
            None if principal.tenant().is_none() => Ok(()),
            None => Err(Error::not_found(name)),
        }
    }

    /// The parent of a list: a tenant that exists and may be seen; `None`: all that the caller may see.
    pub async fn parent(&self, caller: &Caller, parent: &str) -> Result<Option<TenantId>> {
        if is_all(parent) {
            return Ok(None);
        }
        let tenant = name::tenant("parent", parent)?;
        self.see(&caller.principal, &tenant, parent).await?;
        match self.store().tenant_get(&tenant).await? {
            Some(_) => Ok(Some(tenant)),
            None => Err(Error::not_found(parent)),
        }
    }

    /// As [`Inner::parent`], as the tenant to look within.
    pub async fn within(&self, caller: &Caller, parent: &str) -> Result<Option<TenantId>> {
        Ok(self.parent(caller, parent).await?.or_else(|| caller.tenant().cloned()))
    }
}

/// For what the platform decides about a tenant, or the tenant's parent does: its quota, its end.
pub fn strictly_above(principal: &Principal, tenant: &TenantId, what: &str) -> Result<()> {
    if principal.tenant() == Some(tenant) {
        return Err(Error::Denied { message: format!("{what} is decided above tenants/{tenant}, not inside it") });
    }
    Ok(())
}

/// For what is the platform's alone, though the noun is open to tenants.
pub fn of_the_platform(principal: &Principal, what: &str) -> Result<()> {
    match principal.tenant() {
        None => Ok(()),
        Some(own) => Err(Error::Denied { message: format!("{what}; tenants/{own} cannot") }),
    }
}

/// `None` for callers that hold no role.
#[must_use]
pub fn role(principal: &Principal) -> Option<Role> {
    match principal {
        Principal::Token { role, .. } => Some(*role),
        Principal::Local => Some(Role::PlatformAdmin),
        Principal::Host(_) | Principal::Anonymous => None,
    }
}
