//! The gRPC face of the control plane: handlers, conversion, authentication, authorisation.
//!
//! ```text
//!  metrics ─► auth (who, may he) ─► one file per RPC: convert, check scope ─► store, or the engine's admission
//!                                                                        └─► wake: somebody may be waiting
//! ```
//! Decides nothing that core decides (what fits, what a role may, what a state is) and holds no SQL. What it keeps in
//! memory (live host sessions, tunnels, fresh tokens) may be lost at any moment.
#![forbid(unsafe_code)]

pub mod agent;
mod api;
pub mod auth;
mod caller;
mod cluster;
pub mod convert;
mod device;
mod event;
mod filter;
mod host;
mod hub;
mod image;
mod instance;
mod mask;
mod metrics;
mod mutation;
mod network;
mod operation;
mod page;
mod pool;
mod quota;
mod random;
mod scope;
pub mod status;
mod tenant;
mod token;
mod tunnel;
mod watch;

use croft_proto::agent::v1::agent_server::AgentServer;
use croft_proto::agent::v1::enrolment_server::EnrolmentServer;
use croft_proto::v1::clusters_server::ClustersServer;
use croft_proto::v1::devices_server::DevicesServer;
use croft_proto::v1::events_server::EventsServer;
use croft_proto::v1::hosts_server::HostsServer;
use croft_proto::v1::images_server::ImagesServer;
use croft_proto::v1::instances_server::InstancesServer;
use croft_proto::v1::networks_server::NetworksServer;
use croft_proto::v1::operations_server::OperationsServer;
use croft_proto::v1::pools_server::PoolsServer;
use croft_proto::v1::quotas_server::QuotasServer;
use croft_proto::v1::tenants_server::TenantsServer;
use croft_proto::v1::tokens_server::TokensServer;
use tonic::service::Routes;

pub use agent::Signer;
pub use api::Deps;
pub use caller::{Identify, Peer, PeerCertificate};
pub use hub::{Hub, Sessions};
pub use metrics::Observe;
pub use tunnel::console_tail;

use api::Api;

/// What one message may weigh, in either direction that we read.
pub const MESSAGE_MAX: usize = 4 * 1024 * 1024;

/// Every service of Croft, behind authentication and metrics. What the binary adds to it (health, reflection) is public.
#[must_use]
pub fn services(deps: Deps) -> Routes {
    let observe = deps.observe.clone();
    let api = Api::new(deps);
    let routes = Routes::default()
        .add_service(TenantsServer::new(api.clone()).max_decoding_message_size(MESSAGE_MAX))
        .add_service(QuotasServer::new(api.clone()).max_decoding_message_size(MESSAGE_MAX))
        .add_service(TokensServer::new(api.clone()).max_decoding_message_size(MESSAGE_MAX))
        .add_service(ImagesServer::new(api.clone()).max_decoding_message_size(MESSAGE_MAX))
        .add_service(NetworksServer::new(api.clone()).max_decoding_message_size(MESSAGE_MAX))
        .add_service(HostsServer::new(api.clone()).max_decoding_message_size(MESSAGE_MAX))
        .add_service(DevicesServer::new(api.clone()).max_decoding_message_size(MESSAGE_MAX))
        .add_service(PoolsServer::new(api.clone()).max_decoding_message_size(MESSAGE_MAX))
        .add_service(ClustersServer::new(api.clone()).max_decoding_message_size(MESSAGE_MAX))
        .add_service(InstancesServer::new(api.clone()).max_decoding_message_size(MESSAGE_MAX))
        .add_service(OperationsServer::new(api.clone()).max_decoding_message_size(MESSAGE_MAX))
        .add_service(EventsServer::new(api.clone()).max_decoding_message_size(MESSAGE_MAX))
        .add_service(EnrolmentServer::new(api.clone()).max_decoding_message_size(MESSAGE_MAX))
        .add_service(AgentServer::new(api.clone()).max_decoding_message_size(MESSAGE_MAX));
    let router = routes.into_axum_router().layer(auth::AuthLayer(api)).layer(metrics::MetricsLayer(observe));
    router.into()
}

#[cfg(test)]
mod tests;
