//! Takes connections in, side by side, so that a slow handshake holds up nobody but itself.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::connection::Connection;
use crate::metrics::{Handshake, Metrics};

/// After this long without an answer the kernel takes the other machine for gone.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
/// Out of file descriptors, say: trying again at once would only burn a CPU.
const PAUSE: Duration = Duration::from_millis(100);
const COMPLAIN_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub connections: usize,
    /// For TLS and the first words of HTTP/2 together.
    pub handshake: Duration,
}

/// Connections that are ready to be served. Ends with `stop`; then the port is free.
#[must_use]
pub fn accept(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    limits: Limits,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> ReceiverStream<io::Result<Connection>> {
    let (ready, connections) = mpsc::channel(16);
    let entrance = Entrance { tls: TlsAcceptor::from(tls), limits, metrics, complaints: Complaints::default() };
    tokio::spawn(async move {
        // Ends handshakes that are under way, too.
        let _ = stop.run_until_cancelled_owned(Arc::new(entrance).run(listener, ready)).await;
    });
    ReceiverStream::new(connections)
}

struct Entrance {
    tls: TlsAcceptor,
    limits: Limits,
    metrics: Arc<Metrics>,
    complaints: Complaints,
}

impl Entrance {
    async fn run(self: Arc<Self>, listener: TcpListener, ready: mpsc::Sender<io::Result<Connection>>) {
        let places = Arc::new(Semaphore::new(self.limits.connections));
        let mut handshakes = tokio::task::JoinSet::new();
        loop {
            // Before the connection is taken: who finds no place waits in the kernel's queue.
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let (stream, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    self.complaints.make(|| tracing::warn!(%error, "no connection can be taken in now"));
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            while handshakes.try_join_next().is_some() {}
            let (entrance, ready) = (self.clone(), ready.clone());
            handshakes.spawn(async move {
                if let Some(connection) = entrance.admit(stream, address, place).await {
                    // Nobody there to serve it: the plane stops.
                    let _ = ready.send(Ok(connection)).await;
                }
            });
        }
    }

    async fn admit(&self, stream: TcpStream, address: SocketAddr, place: OwnedSemaphorePermit) -> Option<Connection> {
        let counted = self.metrics.connection();
        let handshake = async {
            tune(&stream)?;
            let tls = self.tls.accept(stream).await?;
            Connection::open(tls, address, place, counted).await
        };
        let (outcome, connection, why) = match timeout(self.limits.handshake, handshake).await {
            Ok(Ok(connection)) => (Handshake::Good, Some(connection), String::new()),
            Ok(Err(error)) => (Handshake::Refused, None, error.to_string()),
            Err(_) => (Handshake::Late, None, format!("not done within {:?}", self.limits.handshake)),
        };
        self.metrics.handshake(outcome);
        if connection.is_none() {
            self.complaints.make(|| tracing::info!(%address, why, "a connection did not come about"));
        }
        connection
    }
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_EVERY)?;
    sockopt::set_tcp_keepcnt(stream, 3)?;
    Ok(())
}

/// One line a second is enough to know, and a port scan does not fill the disk.
#[derive(Debug, Default)]
struct Complaints(Mutex<Option<Instant>>);

impl Complaints {
    fn make(&self, complain: impl FnOnce()) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= COMPLAIN_EVERY) {
            *last = Some(Instant::now());
            complain();
        }
    }
}
