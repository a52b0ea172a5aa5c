//! A plane in one process: the real store in a temporary directory, every service, and the least of an engine.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use croft_core::audit::Call;
use croft_core::device::Request;
use croft_core::id::{HostId, InstanceUid, TenantId};
use croft_core::instance::{Instance, Spec};
use croft_core::placement::device::{Catalogue, Wishes};
use croft_core::placement::{self, Verdict};
use croft_core::ports::{Admission, Admitted, BoxFuture, NewInstance, Wake};
use croft_core::time::ManualClock;
use croft_core::{Error, Result, Timestamp};
use croft_proto::agent::v1::agent_client::AgentClient;
use croft_proto::v1;
use croft_store::{AttachAnswer, AttachRequest, ClaimAnswer, ClaimRequest, Extension, Options, Store};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::service::Routes;
use tower::Service;

use super::memory::{Memory, Shared};
use crate::{Deps, Hub, Peer, PeerCertificate, Signer};

pub struct Plane {
    pub store: Store,
    pub hub: Arc<Hub>,
    pub clusters: Arc<Memory>,
    pub admin: String,
    pub calls: Arc<Mutex<Vec<(&'static str, tonic::Code)>>>,
    pub shutdown: CancellationToken,
    routes: Routes,
    _directory: tempfile::TempDir,
}

impl Plane {
    pub async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(Timestamp(1_700_000_000_000_000)));
        let options = Options {
            url: format!("sqlite:{}/croft.db?mode=rwc", directory.path().display()),
            key_file: directory.path().join("secrets.key"),
            clock: clock.clone(),
        };
        let store = Store::open(options).await.unwrap();
        let hub = Hub::new(clock.clone());
        let clusters = Arc::<Memory>::default();
        let calls = Arc::<Mutex<Vec<_>>>::default();
        let noted = calls.clone();
        let shutdown = CancellationToken::new();
        let routes = crate::services(Deps {
            store: store.clone(),
            clock,
            admission: Arc::new(Placer(store.clone())),
            wake: Arc::new(Settler { store: store.clone(), hub: hub.clone() }),
            signer: Arc::new(Stamp),
            hub: hub.clone(),
            clusters: Arc::new(Shared(clusters.clone())),
            recipes: Arc::default(),
            identify: Arc::new(|extensions| Peer {
                address: "192.0.2.1:4711".into(),
                certificate: extensions.get::<PeerCertificate>().cloned(),
            }),
            observe: Arc::new(move |method, code, _| noted.lock().unwrap().push((method, code))),
            shutdown: shutdown.clone(),
        });
        let secret = "the-first-secret";
        let call = Call {
            principal: croft_core::access::Principal::Local,
            method: "reset-token",
            request_id: String::new(),
            body_digest: [0; 32],
            peer: String::new(),
            validate_only: false,
        };
        let admin = store.token_reset_admin(&call, sha2::Digest::finalize(digest(secret)).into()).await.unwrap();
        let admin = croft_core::token::join(&admin.id, secret);
        Self { store, hub, clusters, admin, calls, shutdown, routes, _directory: directory }
    }

    /// As whoever holds this token; empty: as nobody.
    pub fn by(&self, token: &str) -> Connection {
        let token = Some(format!("Bearer {token}")).filter(|_| !token.is_empty());
        Connection { routes: self.routes.clone(), token, certificate: None }
    }

    pub fn admin(&self) -> Connection {
        self.by(&self.admin)
    }

    /// As a host with a certificate of this uid.
    pub fn host(&self, host: &str, uid: &str) -> AgentClient<Connection> {
        let certificate = Some(PeerCertificate { host: host.into(), uid: uid.into() });
        AgentClient::new(Connection { routes: self.routes.clone(), token: None, certificate })
    }

    /// `tenants/{id}`, below `parent` if that is not empty.
    pub async fn tenant(&self, id: &str, parent: &str) -> v1::Tenant {
        let tenant = v1::Tenant { parent: parent.into(), ..Default::default() };
        let request = v1::CreateTenantRequest { tenant_id: id.into(), tenant: Some(tenant), ..Default::default() };
        v1::tenants_client::TenantsClient::new(self.admin()).create_tenant(request).await.unwrap().into_inner()
    }

    /// A token's text.
    pub async fn token(&self, id: &str, role: v1::token::Role, tenant: &str) -> String {
        let token = v1::Token { role: role.into(), tenant: tenant.into(), ..Default::default() };
        let request = v1::CreateTokenRequest { token_id: id.into(), token: Some(token), ..Default::default() };
        v1::tokens_client::TokensClient::new(self.admin()).create_token(request).await.unwrap().into_inner().secret
    }

    pub async fn image(&self) {
        let file = v1::ImageFile { uri: "https://example.org/tiny".into(), sha256: "0".repeat(64) };
        let disk = v1::DiskImage { file: Some(file), format: v1::disk_image::Format::Raw.into(), min_disk_gib: 2 };
        let image = v1::Image { boot: Some(v1::image::Boot::Disk(disk)), ..Default::default() };
        let request = v1::CreateImageRequest { image_id: "tiny".into(), image: Some(image), ..Default::default() };
        v1::images_client::ImagesClient::new(self.admin()).create_image(request).await.unwrap();
    }

    /// (method, result, target).
    pub async fn audit(&self) -> Vec<(String, String, String)> {
        let request = v1::ListAuditEntriesRequest { parent: "-".into(), page_size: 1000, ..Default::default() };
        let mut events = v1::events_client::EventsClient::new(self.admin());
        let entries = events.list_audit_entries(request).await.unwrap().into_inner().entries;
        entries.into_iter().map(|entry| (entry.method, entry.result, entry.target)).collect()
    }
}

fn digest(text: &str) -> sha2::Sha256 {
    sha2::Digest::chain_update(sha2::Digest::new(), text)
}

/// The services themselves, without a network in between.
#[derive(Clone)]
pub struct Connection {
    routes: Routes,
    token: Option<String>,
    certificate: Option<PeerCertificate>,
}

impl Service<http::Request<Body>> for Connection {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = <Routes as Service<http::Request<Body>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::<http::Request<Body>>::poll_ready(&mut self.routes, context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        if let Some(token) = &self.token {
            request.headers_mut().insert(http::header::AUTHORIZATION, token.parse().unwrap());
        }
        if let Some(certificate) = self.certificate.clone() {
            request.extensions_mut().insert(certificate);
        }
        self.routes.call(request)
    }
}

/// One at a time; the engine's places in batches, by the same functions.
struct Placer(Store);

impl Placer {
    async fn request(&self, spec: &Spec) -> Result<placement::Request> {
        let pools = self.0.pool_all().await?.into_iter().map(|pool| (pool.id, pool.matches)).collect();
        let mut request = placement::Request::from(spec);
        request.devices.pools = Arc::new(pools);
        Ok(request)
    }

    async fn attach(
        &self,
        call: Call,
        tenant: TenantId,
        id: String,
        etag: String,
        device: Request,
    ) -> Result<Admitted> {
        let found = self.0.instance_get(&tenant, &id).await?;
        let place = found.ok_or_else(|| Error::not_found(&id))?.placement.ok_or_else(|| Error::internal("no host"))?;
        let view = self.0.host_view(&place.host).await?.ok_or_else(|| Error::internal("the host is gone"))?;
        let pools = self.0.pool_all().await?.into_iter().map(|pool| (pool.id, pool.matches)).collect();
        let wishes = Wishes { requests: vec![device.clone()], pools: Arc::new(pools), ..Wishes::default() };
        let placed = placement::extend(&view, &wishes, &place.pins).map(|given| {
            let assignment = given.into_iter().next()?;
            let claims = view.devices.claims(&assignment);
            Some(Extension { host: place.host, version: view.version, assignment, claims })
        });
        let request = AttachRequest { call, tenant, id, etag, device, placed };
        match self.0.instance_attach(request).await? {
            AttachAnswer::Attached(done) => {
                let (operation, instance) = done.into_inner();
                Ok(Admitted { operation, instance })
            }
            AttachAnswer::Stale => Err(Error::internal("nobody else places here")),
        }
    }
}

impl Admission for Placer {
    fn create<'a>(&'a self, call: Call, new: NewInstance) -> BoxFuture<'a, Result<Admitted>> {
        Box::pin(async move {
            let views = self.0.host_views().await?;
            let request = self.request(&new.spec).await?;
            let mut catalogue = Catalogue::default();
            views.iter().for_each(|view| catalogue.add(&view.devices));
            catalogue.check(&new.device_paths, &new.spec.devices)?;
            let placed = placement::place(&views, &request).map(|placement| {
                let view = views.iter().find(|view| view.id == placement.host).unwrap();
                let claim = view.claim(&request, &placement);
                (placement, claim, view.version)
            });
            let answers = self.0.instance_claim(vec![ClaimRequest { call, new, placed }]).await?;
            match answers.into_iter().next() {
                Some(ClaimAnswer::Admitted { operation, instance, .. }) => Ok(Admitted { operation, instance }),
                Some(ClaimAnswer::Refused(error)) => Err(error),
                Some(ClaimAnswer::Stale) | None => Err(Error::internal("nobody else places here")),
            }
        })
    }

    fn attach<'a>(
        &'a self,
        call: Call,
        tenant: TenantId,
        id: String,
        etag: String,
        device: Request,
    ) -> BoxFuture<'a, Result<Admitted>> {
        Box::pin(self.attach(call, tenant, id, etag, device))
    }

    fn room_elsewhere(&self, instance: Instance) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let away_from = instance.host().cloned();
            let request = placement::Request { away_from, ..placement::Request::from(&instance) };
            placement::place(&self.0.host_views().await?, &request).map(drop)
        })
    }

    fn explain<'a>(&'a self, new: NewInstance) -> BoxFuture<'a, Result<Vec<Verdict>>> {
        Box::pin(async move { Ok(placement::explain(&self.0.host_views().await?, &self.request(&new.spec).await?)) })
    }
}

struct Settler {
    store: Store,
    hub: Arc<Hub>,
}

impl Wake for Settler {
    fn instance(&self, uid: InstanceUid) {
        let (store, hub) = (self.store.clone(), self.hub.clone());
        tokio::spawn(async move {
            store.instance_settle(vec![uid]).await.unwrap();
            hub.wake_operations();
        });
    }

    fn host(&self, id: &HostId) {
        self.hub.wake_host(id);
    }

    fn hosts(&self) {}

    fn clusters(&self) {}
}

struct Stamp;

impl Signer for Stamp {
    fn sign_host(&self, _: &str, host: &HostId, host_uid: &str) -> Result<String> {
        Ok(format!("certificate of {host} {host_uid}"))
    }

    fn ca_pem(&self) -> String {
        "the CA".into()
    }
}
