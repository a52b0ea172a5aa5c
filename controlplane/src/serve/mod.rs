//! The one port of the plane: TLS, HTTP/2, and whatever services are handed in.
//!
//! ```text
//!   TCP ─► place among the connections ─► TLS (a host's certificate, or none) ─► HTTP/2 preface ─► tonic ─► calls
//!           waits when there is none       10 s, else hung up                    10 s, else hung up
//! ```
//! A client certificate that our CA did not sign, or that has ended, fails the handshake. Who a good one names is handed
//! on with each request; whether that host may do what it asks is not decided here.

mod acceptor;
mod calls;
mod connection;
mod health;
mod hold;
mod reflection;
#[cfg(test)]
mod tests;
mod tls;

use std::time::Duration;

use anyhow::{Context, Result};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;

pub use acceptor::{Limits, accept};
pub use calls::CallsLayer;
pub use connection::{ConnectInfo, Connection};
pub use health::Health;
pub use hold::{Hold, HoldLayer};
pub use reflection::with_reflection;
pub use tls::config as tls_config;

/// A peer that does not answer a ping in time is gone; its session must not stand in the way of the next one.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_ANSWERED: Duration = Duration::from_secs(10);
/// Of one connection: an agent has a tunnel for each console and each forwarded connection of its host.
const STREAMS: u32 = 1024;
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Our own headers are a few hundred bytes; a token is not long.
const HEADERS: u32 = 16 << 10;
/// Streams that a client opens and resets at once cost us and not it (CVE-2023-44487).
const RESETS: usize = 64;

/// Serves until `stop`, then until the last call has ended.
pub async fn serve(
    connections: ReceiverStream<std::io::Result<Connection>>,
    routes: Routes,
    stop: CancellationToken,
) -> Result<()> {
    Server::builder()
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_ANSWERED))
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(HEADERS)
        .http2_max_pending_accept_reset_streams(Some(RESETS))
        .serve_with_incoming_shutdown(routes, connections, stop.cancelled_owned())
        .await
        .context("the API cannot be served")
}
