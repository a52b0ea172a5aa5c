//! One connection: TLS on TCP, who is at its other end, and its place among the connections.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::metrics::OpenConnection;
use crate::pki::HostIdentity;

/// What every HTTP/2 client says first (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// In the extensions of each request that came over a connection.
#[derive(Debug, Clone)]
pub struct ConnectInfo {
    pub address: SocketAddr,
    /// Of a verified client certificate. It may have ended since the handshake.
    pub identity: Option<Arc<HostIdentity>>,
}

#[derive(Debug)]
pub struct Connection {
    tls: TlsStream<TcpStream>,
    info: ConnectInfo,
    /// How much of the preface, which was read already, the next reader has had.
    replayed: usize,
    _place: OwnedSemaphorePermit,
    _counted: OpenConnection,
}

impl Connection {
    /// Waits for the preface: who has nothing to say within the handshake's time gets no further, and HTTP/2's own pings
    /// watch over everybody who has.
    pub(super) async fn open(
        mut tls: TlsStream<TcpStream>,
        address: SocketAddr,
        place: OwnedSemaphorePermit,
        counted: OpenConnection,
    ) -> io::Result<Self> {
        let mut preface = [0; PREFACE.len()];
        tls.read_exact(&mut preface).await?;
        if preface != *PREFACE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "does not speak HTTP/2"));
        }
        let leaf = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let identity = leaf.and_then(HostIdentity::of).map(Arc::new);
        let info = ConnectInfo { address, identity };
        Ok(Self { tls, info, replayed: 0, _place: place, _counted: counted })
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectInfo;

    fn connect_info(&self) -> ConnectInfo {
        self.info.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let rest = &PREFACE[self.replayed..];
        if rest.is_empty() {
            return Pin::new(&mut self.tls).poll_read(cx, buffer);
        }
        let taken = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..taken]);
        self.replayed += taken;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
