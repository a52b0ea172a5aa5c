//! PortForward: one TCP connection into a guest, from its host's side of the tenant's network.

use croft_core::{Error, Result};
use croft_proto::agent::v1::open_tunnel::{self, Target};
use croft_proto::v1;
use futures::stream::{BoxStream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use super::console::{Opened, open};
use crate::api::Api;
use crate::auth::guarded_in;
use crate::caller::Caller;
use crate::status::status;
use crate::tunnel::{self, Needs};

type Answer = Result<Response<BoxStream<'static, Result<v1::PortForwardResponse, Status>>>, Status>;

pub async fn forward(api: &Api, request: Request<Streaming<v1::PortForwardRequest>>) -> Answer {
    let caller = Caller::of(&request).map_err(status)?;
    let mut inbound = request.into_inner();
    let first = tunnel::first(&mut inbound, "target").await?;
    let Some(v1::port_forward_request::Kind::Target(to)) = first.kind else {
        return Err(status(Error::invalid("target", "must be the first message: an instance and a port")));
    };
    if !(1..=65535).contains(&to.port) {
        return Err(status(Error::invalid("target.port", format!("1 to 65535, not {}", to.port))));
    }
    let target = Target::Port(open_tunnel::Port { port: to.port });
    let what = format!("port {}", to.port);
    let Opened { pipe, place } =
        open(api, &caller, &to.instance, Needs::Started, target, &what).await.map_err(status)?;
    let sent = inbound.filter_map(|message| {
        std::future::ready(match message {
            Ok(v1::PortForwardRequest { kind: Some(v1::port_forward_request::Kind::Data(data)) }) => Some(Ok(data)),
            Ok(_) => None,
            Err(why) => Some(Err(why)),
        })
    });
    let received = tunnel::splice(pipe, sent, |data| v1::PortForwardResponse { data });
    Ok(Response::new(guarded_in(place, api, &caller, received)))
}
