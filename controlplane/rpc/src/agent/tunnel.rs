//! Agent.Tunnel: the agent dials what it was asked to; whoever asked gets both ends.

use croft_core::id::HostId;
use croft_core::{Error, Result};
use croft_proto::agent::v1::{TunnelFrame, tunnel_frame};
use futures::stream::{BoxStream, StreamExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::api::Api;
use crate::status::status;
use crate::tunnel::{Pipe, ToAgent, WINDOW, first};

/// Answers at once: an agent may wait for the answer's head before it says which session it serves.
pub fn spawn(
    api: Api,
    host: HostId,
    from_agent: Streaming<TunnelFrame>,
) -> BoxStream<'static, Result<TunnelFrame, Status>> {
    let (to_agent, frames) = mpsc::channel(WINDOW);
    tokio::spawn(async move {
        if let Err(why) = serve(&api, &host, to_agent.clone(), from_agent).await {
            // An agent that is gone needs no answer.
            let _ = to_agent.send(Err(why)).await;
        }
    });
    ReceiverStream::new(frames).boxed()
}

async fn serve(
    api: &Api,
    host: &HostId,
    to_agent: ToAgent,
    mut from_agent: Streaming<TunnelFrame>,
) -> Result<(), Status> {
    let frame = first(&mut from_agent, "session").await?;
    let Some(tunnel_frame::Kind::Session(session)) = frame.kind else {
        return Err(status(Error::invalid("session", "must be the first frame")));
    };
    let asked = api.deps.hub.tunnels.claim(&session, host).map_err(status)?;
    // Whoever asked may have gone meanwhile; dropping the pipe ends the call.
    let _ = asked.send(Pipe { to_agent, from_agent });
    Ok(())
}
