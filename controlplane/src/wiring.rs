//! What is connected to what, in the order in which it must come up: ports first, for they fail most often; the database
//! before anything that asks it; health last.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use croft_core::Clock;
use croft_core::join::ports::Clusters;
use croft_core::join::seed::Recipes;
use croft_engine::{Console, Engine, Hooks};
use croft_rpc::{Deps, Hub, Identify, Peer, PeerCertificate};
use croft_store::Store;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::config::Config;
use crate::datadir::{DataDir, told};
use crate::metrics::http::Source;
use crate::metrics::{EngineMeter, Metrics, Reader};
use crate::pki::{Authority, Names, ServerCertificate};
use crate::plane::Parts;
use crate::serve::{CallsLayer, ConnectInfo, Health, Hold, HoldLayer, Limits};
use crate::{bootstrap, metrics, serve};

const HANDSHAKE: Duration = Duration::from_secs(10);
const CERTIFICATES_EVERY: Duration = Duration::from_secs(60);
/// Of a guest's console, when its join failed.
const CONSOLE_TAIL: usize = 64 * 1024;
const CONSOLE_WITHIN: Duration = Duration::from_secs(15);
/// A database that does not answer a trivial question in this time serves nobody.
const READY_WITHIN: Duration = Duration::from_secs(2);

pub struct Assembled {
    pub parts: Parts,
    pub api_addr: SocketAddr,
    pub metrics_addr: SocketAddr,
    pub ca_pem: String,
}

/// Runs on the plane's own runtime.
pub async fn assemble(config: Config, clock: Arc<dyn Clock>, clusters: Arc<dyn Clusters>) -> Result<Assembled> {
    // Before anything is made: what is wrong in that folder is for the operator who starts the plane.
    let recipes = Arc::new(config.recipes()?);
    let directory = DataDir::make(&config.place.data_dir)?;
    let lock = directory.lock()?;
    directory.forget_addresses()?;
    let names = Names::new(&config.public_names)?;
    let authority = Authority::open(&config.authority(&directory), config.host_certificate_days, clock.clone())?;
    let authority = Arc::new(authority);
    let certificate = Arc::new(ServerCertificate::open(authority.clone(), names, directory.server_pem())?);
    let (listener, api_addr) = bind("--listen", config.listen).await?;
    let (metrics_listener, metrics_addr) = bind("--metrics-listen", config.metrics_listen).await?;
    let store = directory.store(&config.place, clock.clone(), true).await?;
    bootstrap::first_token(&store, &directory).await?;

    let metrics = Metrics::new();
    metrics.certificate("ca", authority.not_after());
    metrics.certificate("server", certificate.not_after());
    let hub = Hub::new(clock.clone());
    let engine = spawn_engine(&store, &clock, &hub, &metrics, &clusters, &recipes);
    let shutdown = CancellationToken::new();
    let hold = Hold::new(directory.restored());
    let handle = Arc::new(engine.handle());
    let deps = Deps {
        store: store.clone(),
        clock: clock.clone(),
        admission: handle.clone(),
        wake: handle,
        signer: authority.clone(),
        hub: hub.clone(),
        clusters,
        recipes,
        identify: identify(clock.clone()),
        observe: {
            let metrics = metrics.clone();
            Arc::new(move |method, code, took| metrics.observe(method, code, took))
        },
        shutdown: shutdown.clone(),
    };
    let (health, routes) = Health::add_to(croft_rpc::services(deps)).await;
    let routes = serve::with_reflection(routes)?;
    let routes: Routes =
        routes.into_axum_router().layer(HoldLayer(hold.clone())).layer(CallsLayer(metrics.clone())).into();

    let tls = serve::tls_config(&authority, certificate.clone(), clock)?;
    let connections = usize::try_from(config.max_connections).unwrap_or(usize::MAX);
    let limits = Limits { connections, handshake: HANDSHAKE };
    let connections = serve::accept(listener, tls, limits, metrics.clone(), shutdown.clone());
    let api = tokio::spawn(serve::serve(connections, routes, shutdown.clone()));

    let serving = Arc::new(AtomicBool::new(true));
    let source = Source {
        metrics: metrics.clone(),
        reader: Arc::new(Reader::new(store.clone(), metrics.clone())),
        obstacles: obstacles(store.clone(), serving.clone()),
        agents: {
            let (sessions, hold) = (hub.sessions(), hold.clone());
            Arc::new(move || (sessions.live().len(), hold.held()))
        },
    };
    let mut chores = JoinSet::new();
    chores.spawn(metrics::http::serve(metrics_listener, source, shutdown.clone()));
    chores.spawn(renew_certificate(certificate, metrics));
    chores.spawn(hold.watch());
    health.serving().await;
    directory.write_addresses(api_addr, metrics_addr)?;
    tracing::info!(metrics = %metrics_addr, data_dir = %directory.path().display(), "croft-controlplane: listening on {api_addr}");
    let grace = Duration::from_secs(config.shutdown_grace);
    let parts = Parts { directory, store, engine, health, shutdown, serving, api, chores, grace, lock };
    Ok(Assembled { parts, api_addr, metrics_addr, ca_pem: authority.bundle_pem().to_owned() })
}

async fn bind(option: &str, address: SocketAddr) -> Result<(TcpListener, SocketAddr)> {
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("{option}: {address} cannot be listened on"))?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

fn spawn_engine(
    store: &Store,
    clock: &Arc<dyn Clock>,
    hub: &Arc<Hub>,
    metrics: &Arc<Metrics>,
    clusters: &Arc<dyn Clusters>,
    recipes: &Arc<Recipes>,
) -> Engine {
    let sessions = hub.sessions();
    let (wake_host, wake_operations) = (hub.clone(), hub.clone());
    let hooks = Hooks {
        host_changed: Arc::new(move |host| wake_host.wake_host(host)),
        operations_changed: Arc::new(move || wake_operations.wake_operations()),
        console: console(hub.clone()),
        meter: Arc::new(EngineMeter(metrics.clone())),
    };
    Engine::spawn(
        store.clone(),
        clock.clone(),
        Arc::new(move || sessions.live()),
        hooks,
        clusters.clone(),
        recipes.clone(),
    )
}

/// For the engine, which tells why a guest did not become a node.
fn console(hub: Arc<Hub>) -> Console {
    Arc::new(move |instance| {
        let hub = hub.clone();
        Box::pin(async move {
            let asked = croft_rpc::console_tail(&hub, &instance, CONSOLE_TAIL);
            match tokio::time::timeout(CONSOLE_WITHIN, asked).await {
                Ok(Ok(tail)) => String::from_utf8_lossy(&tail).into_owned(),
                Ok(Err(_)) | Err(_) => String::new(),
            }
        })
    })
}

/// A certificate that ended during a long connection speaks for nobody any more.
fn identify(clock: Arc<dyn Clock>) -> Identify {
    Arc::new(move |extensions| {
        let Some(info) = extensions.get::<ConnectInfo>() else { return Peer::default() };
        let identity = info.identity.as_ref().filter(|identity| identity.not_after > clock.now());
        let certificate =
            identity.map(|identity| PeerCertificate { host: identity.host.clone(), uid: identity.uid.clone() });
        Peer { address: info.address.to_string(), certificate }
    })
}

fn obstacles(store: Store, serving: Arc<AtomicBool>) -> metrics::http::Obstacles {
    Arc::new(move || {
        let (store, serving) = (store.clone(), serving.clone());
        Box::pin(async move {
            let mut found = Vec::new();
            if !serving.load(Ordering::Relaxed) {
                found.push("the control plane is stopping".to_owned());
            }
            match tokio::time::timeout(READY_WITHIN, store.revision()).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => found.push(format!("the database: {}", told(&error))),
                Err(_) => found.push(format!("the database does not answer within {READY_WITHIN:?}")),
            }
            found
        })
    })
}

async fn renew_certificate(certificate: Arc<ServerCertificate>, metrics: Arc<Metrics>) {
    loop {
        tokio::time::sleep(CERTIFICATES_EVERY).await;
        match certificate.renew_if_due() {
            Ok(false) => {}
            Ok(true) => {
                metrics.certificate("server", certificate.not_after());
                tracing::info!("the server certificate was renewed; new connections get it");
            }
            Err(error) => tracing::error!(%error, "the server certificate cannot be renewed; trying again"),
        }
    }
}
