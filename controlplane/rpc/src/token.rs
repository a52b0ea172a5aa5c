//! API tokens. The secret is made here, shown once, and known to nobody afterwards: the store has its SHA-256.

mod update;

use std::time::Duration;

use croft_core::access::{Principal, Role};
use croft_core::audit::Call;
use croft_core::id::{TenantId, TokenId, TokenUid};
use croft_core::meta::Meta;
use croft_core::token::{self, Token};
use croft_core::validate::Violations;
use croft_core::{Error, Result, name};
use croft_proto::v1;
use croft_store::Done;
use sha2::{Digest as _, Sha256};
use tonic::{Request, Response, Status};

use crate::api::Api;
use crate::caller::Caller;
use crate::convert::token::{out, role_into, role_out};
use crate::convert::{meta, time};
use crate::filter::label_selector;
use crate::mutation::{mutate, read};
use crate::page::page;
use crate::{random, scope};

const DESCRIPTION_MAX: usize = 200;
/// Longer than that is "never", which is said by leaving it out.
const TTL_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

#[tonic::async_trait]
impl v1::tokens_server::Tokens for Api {
    async fn get_token(&self, request: Request<v1::GetTokenRequest>) -> Result<Response<v1::Token>, Status> {
        read(self, request, get).await
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        mutate(self, request, create).await
    }

    async fn list_tokens(
        &self,
        request: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        read(self, request, list).await
    }

    async fn update_token(&self, request: Request<v1::UpdateTokenRequest>) -> Result<Response<v1::Token>, Status> {
        mutate(self, request, update::update).await
    }

    async fn disable_token(&self, request: Request<v1::DisableTokenRequest>) -> Result<Response<v1::Token>, Status> {
        mutate(self, request, |api, call, request: v1::DisableTokenRequest| async move {
            let id = see(&api, &call.principal, "name", &request.name).await?;
            let done = api.store().token_disable(&call, &id).await?;
            api.tokens.forget();
            Ok(out(&done.into_inner()))
        })
        .await
    }

    async fn delete_token(
        &self,
        request: Request<v1::DeleteTokenRequest>,
    ) -> Result<Response<v1::DeleteTokenResponse>, Status> {
        mutate(self, request, |api, call, request: v1::DeleteTokenRequest| async move {
            let id = see(&api, &call.principal, "name", &request.name).await?;
            api.store().token_delete(&call, &id).await?;
            api.tokens.forget();
            Ok(v1::DeleteTokenResponse {})
        })
        .await
    }
}

async fn create(api: Api, call: Call, request: v1::CreateTokenRequest) -> Result<v1::CreateTokenResponse> {
    let wire = request.token.unwrap_or_default();
    let mut violations = Violations::new();
    violations.check_slug(&request.token_id, token::ID_MAX, "token_id");
    let sent = meta::into("token", wire.metadata, &mut violations);
    check_description(&wire.description, &mut violations);
    let ttl = time::span_into("ttl", request.ttl, TTL_MAX, &mut violations);
    violations.check(
        ttl != Some(Duration::ZERO),
        "ttl",
        "more than 0 s; leave it out for a token that does not expire",
    );
    let (role, tenant) = role_and_tenant(wire.role, &wire.tenant, &mut violations);
    violations.finish()?;
    let role = role.ok_or_else(|| Error::invalid("token.role", "is missing"))?;

    if let Some(tenant) = &tenant {
        api.see(&call.principal, tenant, &wire.tenant).await?;
    }
    if !scope::role(&call.principal).is_some_and(|own| own.may_grant(role)) {
        let (actor, role) = (call.principal.actor(), role_out(role).as_str_name());
        return Err(Error::Denied { message: format!("{actor} may not hand out the role {role}") });
    }
    let secret = random::secret()?;
    let now = api.store().now();
    let token = Token {
        id: request.token_id.as_str().into(),
        meta: Meta::new(TokenUid::new(now).to_string(), sent.labels, sent.annotations, now),
        tenant,
        role,
        description: wire.description,
        disabled: false,
        expire_time: ttl.map(|ttl| now.plus(ttl)),
        last_used_time: None,
    };
    let done = api.store().token_create(&call, token, Sha256::digest(&secret).into()).await?;
    let secret = match &done {
        Done::New(token) if !call.validate_only => token::join(&token.id, &secret),
        // A retry: the first answer's secret is the one that counts, and nobody has it but who got that answer.
        Done::New(_) | Done::Replayed(_) => String::new(),
    };
    Ok(v1::CreateTokenResponse { token: Some(out(&done.into_inner())), secret })
}

fn check_description(text: &str, violations: &mut Violations) {
    violations.check_line(text, DESCRIPTION_MAX, "token.description");
}

/// A platform's role has no tenant, a tenant's role needs one.
fn role_and_tenant(role: i32, tenant: &str, violations: &mut Violations) -> (Option<Role>, Option<TenantId>) {
    let role = role_into(role);
    violations.check(
        role.is_some(),
        "token.role",
        "PLATFORM_ADMIN, PLATFORM_VIEWER, TENANT_ADMIN, TENANT_OPERATOR or TENANT_VIEWER",
    );
    let tenants = role.is_none_or(Role::is_tenants);
    match (tenant, name::tenant("token.tenant", tenant)) {
        ("", _) => {
            violations.check(role.is_none() || !tenants, "token.tenant", "tenants/…: a tenant's role needs its tenant");
            (role, None)
        }
        (_, Ok(id)) => {
            violations.check(tenants, "token.tenant", "leave it empty: a platform's role is for the whole plane");
            (role, Some(id))
        }
        (_, Err(_)) => {
            violations.add("token.tenant", format!("`{tenant}` is not of the form tenants/…"));
            (role, None)
        }
    }
}

async fn get(api: Api, caller: Caller, request: v1::GetTokenRequest) -> Result<v1::Token> {
    let id = see(&api, &caller.principal, "name", &request.name).await?;
    api.store().token_get(&id).await?.map(|token| out(&token)).ok_or_else(|| Error::not_found(request.name))
}

async fn list(api: Api, caller: Caller, request: v1::ListTokensRequest) -> Result<v1::ListTokensResponse> {
    let page = page(request.page_size, request.page_token)?;
    let labels = label_selector(&request.label_selector)?;
    let within = api.within(&caller, &request.parent).await?;
    let (tokens, next) = api.store().token_list(within.as_ref(), &labels, &page).await?;
    Ok(v1::ListTokensResponse { tokens: tokens.iter().map(out).collect(), next_page_token: next.unwrap_or_default() })
}

/// The token's id, if the caller may know that it exists.
async fn see(api: &Api, principal: &Principal, field: &str, name: &str) -> Result<TokenId> {
    let id = name::token(field, name)?;
    match api.store().token_get(&id).await? {
        Some(token) => api.see_owned(principal, token.tenant.as_ref(), name).await?,
        // Who sees everything is answered by the store, which remembers what a retry asks for again.
        None if principal.tenant().is_none() => {}
        None => return Err(Error::not_found(name)),
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_and_tenants_go_together() {
        let ok = |role: v1::token::Role, tenant: &str| {
            let mut violations = Violations::new();
            role_and_tenant(role.into(), tenant, &mut violations);
            violations.finish().map_err(|error| error.to_string())
        };
        use v1::token::Role as R;
        for (role, tenant) in [(R::PlatformAdmin, ""), (R::PlatformViewer, ""), (R::TenantViewer, "tenants/a")] {
            assert_eq!(ok(role, tenant), Ok(()), "{role:?} {tenant}");
        }
        for (role, tenant, part) in [
            (R::PlatformAdmin, "tenants/a", "leave it empty"),
            (R::TenantAdmin, "", "needs its tenant"),
            (R::TenantAdmin, "a", "not of the form"),
            (R::Unspecified, "", "token.role"),
        ] {
            let error = ok(role, tenant).unwrap_err();
            assert!(error.contains(part), "{role:?} {tenant}: {error}");
        }
    }
}
