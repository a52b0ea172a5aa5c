//! What is true of every call that changes something, said once: the request id and the digest that make a retry
//! harmless, the audit row of a call that failed (the store writes that of one that did not, in the same transaction),
//! and that a caller who hangs up does not cut it in half.

use std::future::Future;

use croft_core::audit::{AuditEntry, Call};
use croft_core::id::{AuditUid, TenantId};
use croft_core::{Error, Result, name};
use croft_proto::v1;
use prost::Message;
use sha2::{Digest as _, Sha256};
use tonic::{Code, Request, Response, Status};

use crate::api::Api;
use crate::caller::Caller;
use crate::status::{clip, code_name, status};

const REQUEST_ID_MAX: usize = 128;
const AUDIT_TEXT_MAX: usize = 500;

/// A request that changes something.
pub trait Mutation: Message + Clone + Default + 'static {
    fn request_id(&mut self) -> &mut String;

    fn validate_only(&self) -> bool {
        false
    }

    /// The resource that it is about, as far as the request itself says.
    fn target(&self) -> String;

    /// The tenant that it is about, likewise.
    fn tenant(&self) -> Option<TenantId> {
        tenant_of(&self.target())
    }
}

/// Runs `handler` to its end, whether or not the caller waits for it.
pub async fn mutate<Req, Res, Handled>(
    api: &Api,
    request: Request<Req>,
    handler: impl FnOnce(Api, Call, Req) -> Handled + Send + 'static,
) -> Result<Response<Res>, Status>
where
    Req: Mutation,
    Res: Send + 'static,
    Handled: Future<Output = Result<Res>> + Send,
{
    let caller = Caller::of(&request).map_err(status)?;
    let api = api.clone();
    let work = async move {
        let request = request.into_inner();
        let (target, tenant, quiet) = (request.target(), request.tenant(), request.validate_only());
        let call = call(&caller, request.clone());
        let request_id = call.as_ref().map(|call| call.request_id.clone()).unwrap_or_default();
        let result = match call {
            Ok(call) => handler(api.clone(), call, request).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(answer) => Ok(Response::new(answer)),
            Err(error) => {
                let status = status(error);
                if !quiet {
                    let entry = entry(&api, &caller, &target, tenant, request_id, &status).await;
                    append(&api, entry).await;
                }
                Err(status)
            }
        }
    };
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(why) => Err(status(Error::internal(format!("the handler did not end: {why}")))),
    }
}

/// What the store is told of the call.
fn call<Req: Mutation>(caller: &Caller, mut request: Req) -> Result<Call> {
    let request_id = std::mem::take(request.request_id());
    let printable = request_id.chars().all(|c| (' '..='~').contains(&c));
    if request_id.len() > REQUEST_ID_MAX || !printable {
        return Err(Error::invalid("request_id", format!("at most {REQUEST_ID_MAX} printable ASCII characters")));
    }
    Ok(Call {
        principal: caller.principal.clone(),
        method: caller.method,
        request_id,
        body_digest: Sha256::digest(request.encode_to_vec()).into(),
        peer: caller.peer.clone(),
        validate_only: request.validate_only(),
    })
}

async fn entry(
    api: &Api,
    caller: &Caller,
    target: &str,
    tenant: Option<TenantId>,
    request_id: String,
    status: &Status,
) -> AuditEntry {
    // The row belongs to the tenant it names only if the caller may see that tenant: nobody writes into the log of
    // strangers.
    let tenant = match tenant {
        Some(tenant) if api.sees(&caller.principal, &tenant).await.unwrap_or(false) => Some(tenant),
        _ => caller.tenant().cloned(),
    };
    AuditEntry {
        target: clip(target, AUDIT_TEXT_MAX),
        tenant,
        request_id,
        ..audit_entry(api, caller, status.code(), status.message())
    }
}

/// A row about the call itself; the caller fills in what it was about.
#[must_use]
pub fn audit_entry(api: &Api, caller: &Caller, code: Code, message: &str) -> AuditEntry {
    let now = api.deps.clock.now();
    AuditEntry {
        uid: AuditUid::new(now),
        time: now,
        actor: caller.principal.actor(),
        method: caller.method.to_owned(),
        tenant: caller.tenant().cloned(),
        target: String::new(),
        request_id: String::new(),
        result: code_name(code).to_owned(),
        message: clip(message, AUDIT_TEXT_MAX),
        peer: caller.peer.clone(),
    }
}

/// The call's own answer stands, whether or not the row could be written.
pub async fn append(api: &Api, entry: AuditEntry) {
    let told = format!("{} {} {}", entry.actor, entry.method, entry.result);
    if let Err(error) = api.store().audit_append(entry).await {
        tracing::error!(%told, ?error, "an audit row could not be written");
    }
}

fn tenant_of(target: &str) -> Option<TenantId> {
    let id = target.strip_prefix("tenants/")?.split('/').next()?;
    name::tenant("", &format!("tenants/{id}")).ok()
}

/// Reads only, so it may be cut short.
pub async fn read<Req, Res, Handled>(
    api: &Api,
    request: Request<Req>,
    handler: impl FnOnce(Api, Caller, Req) -> Handled,
) -> Result<Response<Res>, Status>
where
    Handled: Future<Output = Result<Res>>,
{
    let caller = Caller::of(&request).map_err(status)?;
    handler(api.clone(), caller, request.into_inner()).await.map(Response::new).map_err(status)
}

macro_rules! mutation {
    ($request:ident, |$it:ident| $target:expr) => {
        impl Mutation for v1::$request {
            fn request_id(&mut self) -> &mut String {
                &mut self.request_id
            }

            fn target(&self) -> String {
                let $it = self;
                $target
            }
        }
    };
    ($request:ident, validate_only, |$it:ident| $target:expr) => {
        impl Mutation for v1::$request {
            fn request_id(&mut self) -> &mut String {
                &mut self.request_id
            }

            fn validate_only(&self) -> bool {
                self.validate_only
            }

            fn target(&self) -> String {
                let $it = self;
                $target
            }
        }
    };
}

fn name_of<T>(resource: &Option<T>, name: impl FnOnce(&T) -> &String) -> String {
    resource.as_ref().map(name).cloned().unwrap_or_default()
}

mutation!(CreateTenantRequest, validate_only, |it| format!("tenants/{}", it.tenant_id));
mutation!(UpdateTenantRequest, validate_only, |it| name_of(&it.tenant, |tenant| &tenant.name));
mutation!(DeleteTenantRequest, validate_only, |it| it.name.clone());
mutation!(SetQuotaRequest, validate_only, |it| name_of(&it.quota, |quota| &quota.name));
mutation!(ClearQuotaRequest, validate_only, |it| it.name.clone());
mutation!(UpdateTokenRequest, validate_only, |it| name_of(&it.token, |token| &token.name));
mutation!(DisableTokenRequest, |it| it.name.clone());
mutation!(DeleteTokenRequest, |it| it.name.clone());
mutation!(DeleteImageRequest, validate_only, |it| it.name.clone());
mutation!(CreateNetworkRequest, validate_only, |it| format!("networks/{}", it.network_id));
mutation!(UpdateNetworkRequest, validate_only, |it| name_of(&it.network, |network| &network.name));
mutation!(DeleteNetworkRequest, validate_only, |it| it.name.clone());
mutation!(UpdateHostRequest, validate_only, |it| name_of(&it.host, |host| &host.name));
mutation!(DeleteHostRequest, validate_only, |it| it.name.clone());
mutation!(CordonHostRequest, |it| it.name.clone());
mutation!(UncordonHostRequest, |it| it.name.clone());
mutation!(DrainHostRequest, validate_only, |it| it.name.clone());
mutation!(UndrainHostRequest, |it| it.name.clone());
mutation!(FenceHostRequest, |it| it.name.clone());
mutation!(CreateEnrolmentTokenRequest, |it| format!("hosts/{}", it.host_id));
mutation!(CreateInstanceRequest, validate_only, |it| format!("{}/instances/{}", it.parent, it.instance_id));
mutation!(UpdateInstanceRequest, validate_only, |it| name_of(&it.instance, |instance| &instance.name));
mutation!(DeleteInstanceRequest, validate_only, |it| it.name.clone());
mutation!(StartInstanceRequest, validate_only, |it| it.name.clone());
mutation!(StopInstanceRequest, validate_only, |it| it.name.clone());
mutation!(RebootInstanceRequest, validate_only, |it| it.name.clone());
mutation!(ResetInstanceRequest, validate_only, |it| it.name.clone());
mutation!(RebuildInstanceRequest, validate_only, |it| it.name.clone());
mutation!(AttachDeviceRequest, validate_only, |it| it.name.clone());
mutation!(DetachDeviceRequest, validate_only, |it| it.name.clone());
mutation!(QuarantineDeviceRequest, |it| it.name.clone());
mutation!(ReleaseDeviceRequest, |it| it.name.clone());
mutation!(CreatePoolRequest, validate_only, |it| format!("pools/{}", it.pool_id));
mutation!(UpdatePoolRequest, validate_only, |it| name_of(&it.pool, |pool| &pool.name));
mutation!(DeletePoolRequest, validate_only, |it| it.name.clone());
mutation!(SetHostLayoutRequest, validate_only, |it| name_of(&it.layout, |layout| &layout.name));
mutation!(UpdateClusterRequest, validate_only, |it| name_of(&it.cluster, |cluster| &cluster.name));
mutation!(DeleteClusterRequest, validate_only, |it| it.name.clone());

mutation!(RegisterClusterRequest, validate_only, |it| match it.parent.as_str() {
    "" => format!("clusters/{}", it.cluster_id),
    parent => format!("{parent}/clusters/{}", it.cluster_id),
});

mutation!(CreateImageRequest, validate_only, |it| match it.parent.as_str() {
    "" => format!("images/{}", it.image_id),
    parent => format!("{parent}/images/{}", it.image_id),
});

impl Mutation for v1::CreateTokenRequest {
    fn request_id(&mut self) -> &mut String {
        &mut self.request_id
    }

    fn validate_only(&self) -> bool {
        self.validate_only
    }

    fn target(&self) -> String {
        format!("tokens/{}", self.token_id)
    }

    fn tenant(&self) -> Option<TenantId> {
        tenant_of(&self.token.as_ref()?.tenant)
    }
}

#[cfg(test)]
mod tests {
    use croft_core::access::Principal;

    use super::*;
    use crate::caller::Credential;

    fn caller() -> Caller {
        let method = "/croft.v1.Tenants/CreateTenant";
        Caller { principal: Principal::Local, method, peer: "here".into(), credential: Credential::None }
    }

    fn request(request_id: &str, labels: &[(&str, &str)]) -> v1::CreateTenantRequest {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let metadata = v1::Metadata { labels, ..Default::default() };
        v1::CreateTenantRequest {
            tenant_id: "acme".into(),
            tenant: Some(v1::Tenant { metadata: Some(metadata), ..Default::default() }),
            request_id: request_id.into(),
            validate_only: false,
        }
    }

    #[test]
    fn a_retry_has_the_same_digest_and_another_body_another() {
        let digest = |request| call(&caller(), request).unwrap().body_digest;
        let labels: Vec<(String, String)> = (0..50).map(|n| (format!("k{n}"), n.to_string())).collect();
        let labels: Vec<(&str, &str)> = labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let backwards: Vec<_> = labels.iter().copied().rev().collect();
        assert_eq!(digest(request("one", &labels)), digest(request("one", &backwards)));
        assert_eq!(digest(request("one", &labels)), digest(request("other", &labels)));
        assert_ne!(digest(request("one", &labels)), digest(request("one", &labels[1..])));
    }

    #[test]
    fn request_ids_are_short_and_printable() {
        assert_eq!(call(&caller(), request("try 1: a-b_c", &[])).unwrap().request_id, "try 1: a-b_c");
        for wrong in ["x".repeat(129), "a\nb".into(), "ä".into(), "\0".into()] {
            let error = call(&caller(), request(&wrong, &[])).unwrap_err().to_string();
            assert!(error.starts_with("request_id"), "{error}");
        }
    }

    #[test]
    fn a_target_belongs_to_the_tenant_in_its_name() {
        assert_eq!(tenant_of("tenants/acme/instances/web"), Some("acme".into()));
        assert_eq!((tenant_of("hosts/h1"), tenant_of("tenants/")), (None, None));
        let platform = v1::CreateImageRequest { image_id: "d".into(), ..Default::default() };
        assert_eq!((platform.target().as_str(), platform.tenant()), ("images/d", None));
    }
}
