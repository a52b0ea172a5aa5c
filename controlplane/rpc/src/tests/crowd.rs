use croft_proto::agent::v1::{open_tunnel, plane_message};
use croft_proto::v1;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use v1::events_client::EventsClient;
use v1::instances_client::InstancesClient;
use v1::token::Role;

use super::agent::{create, enrolled, ready};
use super::plane::Plane;
use crate::auth::CROWD_MOST;

#[tokio::test]
async fn a_tunnel_that_its_tenant_has_no_place_for_is_audited_as_refused_and_asks_no_host() {
    let plane = Plane::new().await;
    plane.tenant("a", "").await;
    plane.image().await;
    let mut client = enrolled(&plane, "h1").await;
    let mut talk = ready(&plane, &mut client).await;
    InstancesClient::new(plane.admin()).create_instance(create("web")).await.unwrap();
    talk.change().await;
    let token = plane.token("ops", Role::TenantOperator, "tenants/a").await;

    let mut watches = Vec::new();
    for _ in 0..CROWD_MOST {
        let watch = v1::WatchEventsRequest { parent: "tenants/a".into(), ..Default::default() };
        watches.push(EventsClient::new(plane.by(&token)).watch_events(watch).await.unwrap().into_inner());
    }

    let name = "tenants/a/instances/web";
    let instances = || InstancesClient::new(plane.by(&token));
    let console = v1::ConsoleRequest { kind: Some(v1::console_request::Kind::Instance(name.into())) };
    let port = v1::port_forward_request::Target { instance: name.into(), port: 22 };
    let port = v1::PortForwardRequest { kind: Some(v1::port_forward_request::Kind::Target(port)) };
    let log = v1::ReadConsoleLogRequest { name: name.into(), tail_bytes: 0 };
    let refused: [Status; 3] = [
        instances().console(tokio_stream::iter([console])).await.unwrap_err(),
        instances().port_forward(tokio_stream::iter([port])).await.unwrap_err(),
        instances().read_console_log(log.clone()).await.unwrap_err(),
    ];
    for status in refused {
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert_eq!(status.get_details_error_info().unwrap().reason, "TOO_MANY_STREAMS");
    }
    let rows = plane.audit().await;
    for method in ["/Console", "/PortForward", "/ReadConsoleLog"] {
        let results: Vec<_> = rows.iter().filter(|row| row.0.ends_with(method)).map(|row| row.1.as_str()).collect();
        assert_eq!(results, ["RESOURCE_EXHAUSTED"], "{method}");
    }

    // The one that left makes room, and only now is the host asked.
    watches.pop();
    let mut caller = instances();
    let opening = tokio::spawn(async move { caller.read_console_log(log).await });
    let plane_message::Kind::OpenTunnel(open) = talk.hear().await.unwrap() else { panic!("not an OpenTunnel") };
    assert!(matches!(open.target, Some(open_tunnel::Target::ConsoleLog(_))), "{open:?}");
    opening.abort();
}
