//! Bytes between a caller and a guest, through the plane: consoles, logs, forwarded ports.
//!
//! ```text
//!  caller ──Console──► plane ──OpenTunnel{session}──► agent            (on the host's session)
//!                        ▲  ◄──Tunnel{session}──────── agent           (a call of its own)
//!  caller ◄═════════════╪═══════════════════════════► agent ◄═► guest
//! ```
//! A session's name is random, is served once, and only by the host that was asked. Nothing is buffered beyond a few
//! frames: whoever reads slowly slows down whoever writes.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use croft_core::id::HostId;
use croft_core::instance::{Instance, State};
use croft_core::{Error, Reason, Result};
use croft_proto::agent::v1::{OpenTunnel, TunnelFrame, open_tunnel, tunnel_frame};
use futures::stream::{self, Stream, StreamExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming};

use crate::hub::Hub;
use crate::random;
use crate::status::{clip, status};

/// For the agent to dial, and for whoever opens a stream to say what for.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Frames towards the agent that it has not taken yet.
pub const WINDOW: usize = 4;

pub type ToAgent = mpsc::Sender<Result<TunnelFrame, Status>>;

/// Both directions of a tunnel that an agent serves.
#[derive(Debug)]
pub struct Pipe {
    pub to_agent: ToAgent,
    pub from_agent: Streaming<TunnelFrame>,
}

/// Sessions that were announced to an agent and not yet dialled.
#[derive(Debug, Default)]
pub struct Tunnels(Mutex<HashMap<String, Waiting>>);

#[derive(Debug)]
struct Waiting {
    host: HostId,
    pipe: oneshot::Sender<Pipe>,
}

impl Tunnels {
    fn announce(&self, session: &str, host: &HostId) -> Announced<'_> {
        let (pipe, dialled) = oneshot::channel();
        self.lock().insert(session.to_owned(), Waiting { host: host.clone(), pipe });
        Announced { tunnels: self, session: session.to_owned(), dialled }
    }

    /// Where to hand the pipe of a session that `host` serves. Another host's session is as unknown as one that never
    /// was, and stays open to the host that was asked.
    pub fn claim(&self, session: &str, host: &HostId) -> Result<oneshot::Sender<Pipe>> {
        let mut waiting = self.lock();
        if waiting.get(session).is_some_and(|waiting| waiting.host == *host)
            && let Some(waiting) = waiting.remove(session)
        {
            return Ok(waiting.pipe);
        }
        Err(Error::NotFound { name: "the tunnel session".to_owned() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgotten when dropped: nobody waits any more.
struct Announced<'a> {
    tunnels: &'a Tunnels,
    session: String,
    dialled: oneshot::Receiver<Pipe>,
}

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        self.tunnels.lock().remove(&self.session);
    }
}

/// What a tunnel needs of its instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// A domain that was started: it has a console from its first instruction on.
    Started,
    /// A host on which it has been.
    Host,
}

/// Asks the instance's host, and waits until its agent has dialled.
pub async fn open(hub: &Hub, instance: &Instance, needs: Needs, target: open_tunnel::Target) -> Result<Pipe> {
    let host = ready(instance, needs)?;
    let session = random::secret()?;
    let mut announced = hub.tunnels.announce(&session, host);
    let request = OpenTunnel { session, instance_uid: instance.uid.to_string(), target: Some(target) };
    hub.sessions().ask(host, request)?;
    match tokio::time::timeout(PATIENCE, &mut announced.dialled).await {
        Ok(Ok(pipe)) => Ok(pipe),
        Ok(Err(_)) | Err(_) => Err(Error::Unavailable {
            reason: Reason::TunnelFailed,
            message: format!("the agent of hosts/{host} did not open the tunnel in {} s", PATIENCE.as_secs()),
        }),
    }
}

/// The host to ask, if asking makes sense.
fn ready(instance: &Instance, needs: Needs) -> Result<&HostId> {
    let name = instance.name();
    let state = instance.status.state;
    let not_running =
        |why: &str| Err(Error::precondition(Reason::InstanceNotRunning, name.clone(), format!("{name} {why}")));
    let Some(host) = instance.host() else {
        return not_running("has no host, so there is nothing to connect to");
    };
    match (needs, state) {
        (Needs::Host, _)
        | (Needs::Started, State::Starting | State::Running | State::Stopping | State::Deleting | State::Unknown) => {
            Ok(host)
        }
        (Needs::Started, State::Pending | State::Placing | State::Preparing | State::Stopped | State::Failed) => {
            not_running(&format!("is {}, not running", state.as_str()))
        }
    }
}

/// The end of what a guest wrote to its console, at most so many bytes of it.
pub async fn console_tail(hub: &Hub, instance: &Instance, bytes: usize) -> Result<Vec<u8>> {
    let tail_bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    let target = open_tunnel::Target::ConsoleLog(open_tunnel::ConsoleLog { tail_bytes });
    let pipe = open(hub, instance, Needs::Host, target).await?;
    let mut kept = splice(pipe, stream::pending(), |data| data).boxed();
    let mut tail = Vec::new();
    // One that breaks off has said something all the same.
    while let Some(Ok(data)) = kept.next().await {
        tail.extend(data);
        if tail.len() >= bytes {
            break;
        }
    }
    Ok(tail)
}

/// Carries bytes both ways: `inbound` to the agent, and what comes back as the returned stream.
pub fn splice<T: Send + 'static>(
    pipe: Pipe,
    inbound: impl Stream<Item = Result<Vec<u8>, Status>> + Send + 'static,
    wrap: impl Fn(Vec<u8>) -> T + Send + 'static,
) -> impl Stream<Item = Result<T, Status>> + Send + 'static {
    let Pipe { to_agent, from_agent } = pipe;
    // Ends with the answer: a caller who is gone is not pumped for.
    let pump = AbortOnDropHandle::new(tokio::spawn(pump(inbound, to_agent.clone())));
    // The agent takes the end of our direction for the end of the call, so it is held open as long as the answer is.
    let state = Some((from_agent, wrap, pump, to_agent));
    stream::unfold(state, |state| async move {
        let (mut from_agent, wrap, pump, to_agent) = state?;
        loop {
            let frame = match from_agent.message().await {
                Ok(Some(frame)) => frame.kind,
                Ok(None) => return Some((Err(failed("the host ended it without a word")), None)),
                Err(why) => return Some((Err(failed(why.message())), None)),
            };
            match frame {
                Some(tunnel_frame::Kind::Data(data)) => {
                    return Some((Ok(wrap(data)), Some((from_agent, wrap, pump, to_agent))));
                }
                Some(tunnel_frame::Kind::Close(close)) if close.error.is_empty() => return None,
                Some(tunnel_frame::Kind::Close(close)) => return Some((Err(failed(&close.error)), None)),
                Some(tunnel_frame::Kind::Session(_)) | None => {}
            }
        }
    })
}

async fn pump(inbound: impl Stream<Item = Result<Vec<u8>, Status>>, to_agent: ToAgent) {
    let mut inbound = std::pin::pin!(inbound);
    // Until the caller has no more to say, or broke off.
    while let Some(Ok(data)) = inbound.next().await {
        let frame = TunnelFrame { kind: Some(tunnel_frame::Kind::Data(data)) };
        if to_agent.send(Ok(frame)).await.is_err() {
            return;
        }
    }
    let close = TunnelFrame { kind: Some(tunnel_frame::Kind::Close(tunnel_frame::Close::default())) };
    // An agent that is gone needs no end of file.
    let _ = to_agent.send(Ok(close)).await;
}

fn failed(why: &str) -> Status {
    status(Error::Unavailable { reason: Reason::TunnelFailed, message: format!("tunnel: {}", clip(why, 500)) })
}

/// The first message of a stream, which says what the stream is for; `what` names it in the complaint.
pub async fn first<T>(inbound: &mut Streaming<T>, what: &str) -> Result<T, Status> {
    let missing =
        || status(Error::invalid(what, format!("must be the first message, within {} s", PATIENCE.as_secs())));
    match tokio::time::timeout(PATIENCE, inbound.message()).await {
        Ok(message) => message?.ok_or_else(missing),
        Err(_) => Err(missing()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_host_that_was_asked_serves_a_session_and_only_once() {
        let tunnels = Tunnels::default();
        let announced = tunnels.announce("s", &"h1".into());
        assert!(tunnels.claim("s", &"h2".into()).is_err());
        assert!(tunnels.claim("other", &"h1".into()).is_err());
        assert!(tunnels.claim("s", &"h1".into()).is_ok());
        assert!(tunnels.claim("s", &"h1".into()).is_err());
        drop(announced);
    }

    #[tokio::test]
    async fn nobody_serves_a_session_that_nobody_waits_for() {
        let tunnels = Tunnels::default();
        drop(tunnels.announce("s", &"h1".into()));
        assert!(tunnels.claim("s", &"h1".into()).is_err());
        assert!(tunnels.lock().is_empty());
    }

    #[tokio::test]
    async fn what_the_caller_sends_arrives_in_order_and_then_the_end() {
        let (to_agent, mut agent) = mpsc::channel(1);
        let inbound = stream::iter([Ok(b"a".to_vec()), Ok(b"b".to_vec())]);
        let pumping = tokio::spawn(pump(inbound, to_agent));
        let mut seen = Vec::new();
        while let Some(Ok(frame)) = agent.recv().await {
            seen.push(frame.kind);
        }
        pumping.await.unwrap();
        let close = tunnel_frame::Kind::Close(tunnel_frame::Close::default());
        let data = |text: &[u8]| tunnel_frame::Kind::Data(text.to_vec());
        assert_eq!(seen, [Some(data(b"a")), Some(data(b"b")), Some(close)]);
    }
}
