use std::time::Duration;

use croft_proto::agent::v1::agent_client::AgentClient;
use croft_proto::agent::v1::enrolment_client::EnrolmentClient;
use croft_proto::agent::v1::{self as agent, agent_message, open_tunnel, plane_message, tunnel_frame};
use croft_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;
use v1::hosts_client::HostsClient;
use v1::instances_client::InstancesClient;
use v1::operations_client::OperationsClient;

use super::plane::{Connection, Plane};
use super::public::eventually;

fn csr(host: &str) -> String {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, host);
    params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

async fn enrol_token(plane: &Plane, host: &str) -> String {
    let request = v1::CreateEnrolmentTokenRequest { host_id: host.into(), ..Default::default() };
    let created = HostsClient::new(plane.admin()).create_enrolment_token(request).await.unwrap().into_inner();
    assert_eq!(created.ca_pem, "the CA");
    created.token
}

/// Enrols a host and returns a client with its certificate.
pub async fn enrolled(plane: &Plane, host: &str) -> AgentClient<Connection> {
    let request = agent::EnrolRequest { token: enrol_token(plane, host).await, csr_pem: csr(host) };
    let answer = EnrolmentClient::new(plane.by("")).enrol(request).await.unwrap().into_inner();
    let uid = answer.certificate_pem.rsplit(' ').next().unwrap();
    plane.host(host, uid)
}

pub struct Talk {
    to_plane: mpsc::Sender<agent::AgentMessage>,
    from_plane: Streaming<agent::PlaneMessage>,
}

impl Talk {
    async fn begin(client: &mut AgentClient<Connection>, protocol: i32) -> Self {
        let (to_plane, outgoing) = mpsc::channel(16);
        let from_plane = client.session(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
        let talk = Self { to_plane, from_plane };
        let boot_id = "boot-1".into();
        let hello = agent::Hello { protocol_min: protocol, protocol_max: protocol, boot_id, ..Default::default() };
        talk.say(agent_message::Kind::Hello(hello)).await;
        talk
    }

    pub async fn say(&self, kind: agent_message::Kind) {
        self.to_plane.send(agent::AgentMessage { kind: Some(kind) }).await.unwrap();
    }

    pub async fn hear(&mut self) -> Result<plane_message::Kind, Status> {
        let next = tokio::time::timeout(Duration::from_secs(10), self.from_plane.next()).await.expect("a message");
        next.expect("the stream goes on").map(|message| message.kind.unwrap())
    }

    pub async fn sync(&mut self) -> agent::Sync {
        let plane_message::Kind::Sync(sync) = self.hear().await.unwrap() else { panic!("not a Sync") };
        self.done(sync.epoch, sync.revision).await;
        sync
    }

    pub async fn change(&mut self) -> agent::Change {
        let plane_message::Kind::Change(change) = self.hear().await.unwrap() else { panic!("not a Change") };
        self.done(change.epoch, change.revision).await;
        change
    }

    async fn done(&self, epoch: i64, revision: i64) {
        self.say(agent_message::Kind::SyncDone(agent::SyncDone { epoch, revision })).await;
    }

    async fn report(&self, uid: &str, generation: i64, phase: agent::instance_observation::Phase) {
        let instance = agent::InstanceObservation {
            uid: uid.into(),
            generation,
            phase: phase.into(),
            power_generation: 1,
            ..Default::default()
        };
        let observation = agent::Observation { instances: vec![instance], ..Default::default() };
        self.say(agent_message::Kind::Observation(observation)).await;
    }
}

/// Up to and with the first Sync, with room for VMs.
pub async fn ready(plane: &Plane, client: &mut AgentClient<Connection>) -> Talk {
    let mut talk = Talk::begin(client, 1).await;
    let welcome = talk.hear().await.unwrap();
    assert!(matches!(welcome, plane_message::Kind::Welcome(agent::Welcome { protocol: 1, .. })), "{welcome:?}");
    talk.sync().await;
    let capacity = v1::Capacity {
        vcpus: 8,
        memory_mib: 16 * 1024,
        disk_gib: 100,
        disk_free_gib: 100,
        cells: vec![v1::NumaCell { memory_mib: 16 * 1024, ..Default::default() }],
    };
    let host = agent::HostObservation { capacity: Some(capacity), ..Default::default() };
    let observation = agent::Observation { host: Some(host), ..Default::default() };
    talk.say(agent_message::Kind::Observation(observation)).await;
    // What the engine does every second.
    let live = plane.hub.sessions().live();
    plane.store.host_lease_renew(&live, plane.store.now().plus(Duration::from_secs(30))).await.unwrap();
    eventually(async || {
        let views = plane.store.host_views().await.unwrap();
        views.iter().any(|view| view.capacity.vcpus == 8).then_some(())
    })
    .await;
    talk
}

pub fn create(id: &str) -> v1::CreateInstanceRequest {
    let spec = v1::InstanceSpec {
        vcpus: 1,
        memory_mib: 512,
        boot_source: Some(v1::instance_spec::BootSource::Image("images/tiny".into())),
        cloud_init: Some(v1::CloudInit { user_data: "#!/bin/sh\necho secret\n".into(), ..Default::default() }),
        ..Default::default()
    };
    v1::CreateInstanceRequest {
        parent: "tenants/a".into(),
        instance_id: id.into(),
        instance: Some(v1::Instance { spec: Some(spec), ..Default::default() }),
        ..Default::default()
    }
}

pub async fn wait(plane: &Plane, name: &str) -> v1::Operation {
    let timeout = Some(prost_types::Duration { seconds: 10, nanos: 0 });
    let request = v1::WaitOperationRequest { name: name.into(), timeout };
    let operation = OperationsClient::new(plane.admin()).wait_operation(request).await.unwrap().into_inner();
    assert!(operation.done && operation.error.is_none(), "{operation:?}");
    operation
}

#[tokio::test]
async fn a_vm_comes_runs_is_reached_and_goes() {
    let plane = Plane::new().await;
    plane.tenant("a", "").await;
    plane.image().await;
    let mut client = enrolled(&plane, "h1").await;
    let mut talk = ready(&plane, &mut client).await;
    let mut instances = InstancesClient::new(plane.admin());
    let watch = v1::WatchInstancesRequest { parent: "tenants/a".into(), ..Default::default() };
    let mut watch = instances.watch_instances(watch).await.unwrap().into_inner();

    // Created: the host is told, with the default disk and network, and fetches the seed.
    let dry = v1::CreateInstanceRequest { validate_only: true, ..create("web") };
    let dry = instances.create_instance(dry).await.unwrap().into_inner();
    assert!(dry.name.is_empty() && dry.done);
    let created = instances.create_instance(create("web")).await.unwrap().into_inner();
    let change = talk.change().await;
    let desired = &change.upserts[0];
    assert_eq!((desired.name.as_str(), desired.disks[0].size_gib, desired.interfaces.len()), ("web", 2, 1));
    let fetch = agent::FetchBlobRequest { digest: desired.seed_digest.clone() };
    let mut chunks = client.fetch_blob(fetch.clone()).await.unwrap().into_inner();
    let seed = chunks.next().await.unwrap().unwrap().data;
    assert!(String::from_utf8(seed).unwrap().contains("echo secret"));
    let mut stranger = enrolled(&plane, "h2").await;
    assert_eq!(stranger.fetch_blob(fetch).await.unwrap_err().code(), Code::NotFound);

    // Not yet a guest to talk to.
    let name = "tenants/a/instances/web";
    let port = v1::port_forward_request::Target { instance: name.into(), port: 22 };
    let first = v1::PortForwardRequest { kind: Some(v1::port_forward_request::Kind::Target(port)) };
    let early = instances.port_forward(tokio_stream::iter([first])).await.unwrap_err();
    assert_eq!(early.get_details_precondition_failure().unwrap().violations[0].r#type, "INSTANCE_NOT_RUNNING");

    // Runs: the operation ends; what was secret is not shown.
    talk.report(&desired.uid, desired.generation, agent::instance_observation::Phase::Running).await;
    wait(&plane, &created.name).await;
    let shown = instances.get_instance(v1::GetInstanceRequest { name: name.into() }).await.unwrap().into_inner();
    assert_eq!(shown.status.unwrap().state(), v1::instance_status::State::Running);
    let cloud_init = shown.spec.unwrap().cloud_init.unwrap();
    assert!(cloud_init.user_data.is_empty() && cloud_init.user_data_digest.starts_with("sha256:"));
    let explain = v1::ExplainInstanceRequest { name: name.into(), ..Default::default() };
    let explained = instances.explain_instance(explain).await.unwrap().into_inner();
    assert!(explained.summary.contains("RUNNING on hosts/h1"), "{}", explained.summary);

    // Reached: bytes go both ways, by the host that was asked and no other.
    let (typed, typing) = mpsc::channel(4);
    typed.send(v1::ConsoleRequest { kind: Some(v1::console_request::Kind::Instance(name.into())) }).await.unwrap();
    let mut caller = instances.clone();
    let opening = tokio::spawn(async move { caller.console(ReceiverStream::new(typing)).await });
    let plane_message::Kind::OpenTunnel(open) = talk.hear().await.unwrap() else { panic!("not an OpenTunnel") };
    assert_eq!((open.instance_uid.as_str(), &open.target), (desired.uid.as_str(), &CONSOLE));
    let refused = dial(&mut stranger, &open.session).await.1.next().await.unwrap().unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let (to_plane, mut from_plane) = dial(&mut client, &open.session).await;
    let mut console = opening.await.unwrap().unwrap().into_inner();
    to_plane.send(frame(tunnel_frame::Kind::Data(b"login: ".to_vec()))).await.unwrap();
    assert_eq!(console.next().await.unwrap().unwrap().data, b"login: ");
    typed.send(v1::ConsoleRequest { kind: Some(v1::console_request::Kind::Data(b"root\n".to_vec())) }).await.unwrap();
    let got = from_plane.next().await.unwrap().unwrap();
    assert_eq!(got.kind, Some(tunnel_frame::Kind::Data(b"root\n".to_vec())));
    let gone = agent::tunnel_frame::Close { error: "the guest is gone".into() };
    to_plane.send(frame(tunnel_frame::Kind::Close(gone))).await.unwrap();
    let end = console.next().await.unwrap().unwrap_err();
    assert!(end.message().contains("the guest is gone"), "{end}");
    assert_eq!(end.get_details_error_info().unwrap().reason, "TUNNEL_FAILED");

    // Goes: only what the host says after it was told counts.
    let delete = v1::DeleteInstanceRequest { name: name.into(), ..Default::default() };
    let deleted = instances.delete_instance(delete).await.unwrap().into_inner();
    let change = talk.change().await;
    assert_eq!(change.tombstones[0].uid, desired.uid);
    talk.report(&desired.uid, 0, agent::instance_observation::Phase::Absent).await;
    wait(&plane, &deleted.name).await;
    assert_eq!(plane.store.consistency().await.unwrap(), Vec::<String>::new());

    // Seen by the watch, once and in order.
    let mut kinds = Vec::new();
    while kinds.last() != Some(&"REMOVED") {
        let message = tokio::time::timeout(Duration::from_secs(10), watch.next()).await.unwrap().unwrap().unwrap();
        kinds.push(message.kind().as_str_name());
    }
    assert_eq!((kinds[0], kinds[1]), ("SYNCED", "ADDED"), "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| **kind == "ADDED").count(), 1, "{kinds:?}");

    let audit = plane.audit().await;
    let rows =
        |method: &str| audit.iter().filter(|row| row.0.ends_with(method)).map(|row| row.1.as_str()).collect::<Vec<_>>();
    assert_eq!(rows("/CreateInstance"), ["OK"]);
    assert_eq!(rows("/Console"), ["OK"]);
    assert_eq!(rows("/DeleteInstance"), ["OK"]);
}

const CONSOLE: Option<open_tunnel::Target> = Some(open_tunnel::Target::Console(open_tunnel::Console {}));

fn frame(kind: tunnel_frame::Kind) -> agent::TunnelFrame {
    agent::TunnelFrame { kind: Some(kind) }
}

async fn dial(
    client: &mut AgentClient<Connection>,
    session: &str,
) -> (mpsc::Sender<agent::TunnelFrame>, Streaming<agent::TunnelFrame>) {
    let (to_plane, outgoing) = mpsc::channel(4);
    to_plane.send(frame(tunnel_frame::Kind::Session(session.into()))).await.unwrap();
    let from_plane = client.tunnel(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
    (to_plane, from_plane)
}

#[tokio::test]
async fn without_a_host_nothing_fits_and_nothing_is_charged() {
    let plane = Plane::new().await;
    plane.tenant("a", "").await;
    plane.image().await;
    let mut instances = InstancesClient::new(plane.admin());
    let status = instances.create_instance(create("web")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.get_details_error_info().unwrap().reason, "NO_CAPACITY");
    let explain = v1::ExplainInstanceRequest { create: Some(create("web")), ..Default::default() };
    let explained = instances.explain_instance(explain).await.unwrap().into_inner();
    assert!(explained.summary.starts_with("it would be refused: no host is enrolled"), "{}", explained.summary);
    let away = v1::ReadConsoleLogRequest { name: "tenants/a/instances/web".into(), tail_bytes: 0 };
    assert_eq!(instances.read_console_log(away).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(plane.store.consistency().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn an_enrolment_token_is_for_one_host_and_for_once() {
    let plane = Plane::new().await;
    let token = enrol_token(&plane, "h1").await;
    let mut enrolment = EnrolmentClient::new(plane.by(""));
    let request = |csr_pem: &str| agent::EnrolRequest { token: token.clone(), csr_pem: csr_pem.to_owned() };
    let (mine, later) = (csr("h1"), csr("h1"));
    let refusal = |status: Status| (status.code(), status.get_details_error_info().unwrap().reason);
    let invalid = (Code::Unauthenticated, "ENROLMENT_TOKEN_INVALID".to_owned());

    assert_eq!(refusal(enrolment.enrol(request(&csr("h2"))).await.unwrap_err()), invalid);
    let first = enrolment.enrol(request(&mine)).await.unwrap().into_inner();
    let repeat = enrolment.enrol(request(&mine)).await.unwrap().into_inner();
    assert_eq!((first.host_id.as_str(), &first), ("h1", &repeat));
    assert_eq!(refusal(enrolment.enrol(request(&later)).await.unwrap_err()), invalid);
    let guess = agent::EnrolRequest { token: "guess".into(), csr_pem: mine };
    assert_eq!(refusal(enrolment.enrol(guess).await.unwrap_err()), invalid);
}

#[tokio::test]
async fn a_session_needs_a_common_version_and_the_newest_session_wins() {
    let plane = Plane::new().await;
    let mut client = enrolled(&plane, "h1").await;
    let refused = Talk::begin(&mut client, 7).await.hear().await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("7 to 7") && refused.message().contains("1 to 1"), "{refused}");

    let mut first = Talk::begin(&mut client, 1).await;
    first.hear().await.unwrap();
    first.sync().await;
    let mut second = Talk::begin(&mut client, 1).await;
    second.hear().await.unwrap();
    let over = first.hear().await.unwrap_err();
    assert!(over.message().contains("took over"), "{over}");
    second.sync().await;
    assert_eq!(plane.hub.sessions().live(), ["h1".into()]);
}

#[tokio::test]
async fn a_host_that_was_forgotten_is_let_in_no_more() {
    let plane = Plane::new().await;
    let mut client = enrolled(&plane, "h1").await;
    let mut talk = Talk::begin(&mut client, 1).await;
    talk.hear().await.unwrap();
    talk.sync().await;
    let delete = v1::DeleteHostRequest { name: "hosts/h1".into(), ..Default::default() };
    HostsClient::new(plane.admin()).delete_host(delete).await.unwrap();
    assert_eq!(talk.hear().await.unwrap_err().code(), Code::Unauthenticated);
    let renew = agent::RenewCertificateRequest { csr_pem: csr("h1") };
    let status = client.renew_certificate(renew).await.unwrap_err();
    assert_eq!(status.get_details_error_info().unwrap().reason, "HOST_NOT_ENROLLED");
}

#[tokio::test]
async fn a_certificate_is_renewed_for_the_host_that_asks_and_no_other() {
    let plane = Plane::new().await;
    let mut client = enrolled(&plane, "h1").await;
    let renew = |host: &str| agent::RenewCertificateRequest { csr_pem: csr(host) };
    let renewed = client.renew_certificate(renew("h1")).await.unwrap().into_inner();
    assert!(renewed.certificate_pem.starts_with("certificate of h1 "));
    assert_eq!(client.renew_certificate(renew("h2")).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn what_an_operator_keeps_free_reaches_the_agent() {
    let plane = Plane::new().await;
    let mut client = enrolled(&plane, "h1").await;
    let mut talk = ready(&plane, &mut client).await;
    let update = |disk_gib, path: &str| v1::UpdateHostRequest {
        host: Some(v1::Host {
            name: "hosts/h1".into(),
            reserve: Some(v1::Resources { disk_gib, ..Default::default() }),
            ..Default::default()
        }),
        update_mask: Some(prost_types::FieldMask { paths: vec![path.into()] }),
        ..Default::default()
    };
    let mut hosts = HostsClient::new(plane.admin());
    let host = hosts.update_host(update(50, "reserve.disk_gib")).await.unwrap().into_inner();
    let reserve = host.reserve.unwrap();
    assert_eq!((reserve.disk_gib, reserve.memory_mib), (50, 1024), "what the mask does not name stays");
    assert_eq!(talk.sync().await.policy.unwrap().disk_reserve_gib, 50);
    let negative = hosts.update_host(update(-1, "reserve")).await.unwrap_err();
    assert_eq!(negative.get_details_bad_request().unwrap().field_violations[0].field, "host.reserve.disk_gib");
    let state = hosts.update_host(update(1, "state")).await.unwrap_err();
    assert!(state.message().contains("output only"), "{state}");
}

#[tokio::test]
async fn fencing_needs_a_word_that_the_machine_is_off() {
    let plane = Plane::new().await;
    let mut client = enrolled(&plane, "h1").await;
    let mut talk = ready(&plane, &mut client).await;
    let mut hosts = HostsClient::new(plane.admin());
    let fence = |confirm_powered_off| v1::FenceHostRequest {
        name: "hosts/h1".into(),
        confirm_powered_off,
        ..Default::default()
    };
    let status = hosts.fence_host(fence(false)).await.unwrap_err();
    assert_eq!(status.get_details_precondition_failure().unwrap().violations[0].r#type, "FENCE_NOT_CONFIRMED");
    let before = hosts.get_host(v1::GetHostRequest { name: "hosts/h1".into() }).await.unwrap().into_inner().epoch;
    let fenced = hosts.fence_host(fence(true)).await.unwrap().into_inner();
    assert_eq!((fenced.state(), fenced.epoch), (v1::host::State::Fenced, before + 1));
    // Its agent, if it lives after all, is told at once, and confirms.
    assert_eq!(talk.sync().await.epoch, before + 1);
    eventually(async || {
        let host = plane.store.host_get(&"h1".into()).await.unwrap().unwrap();
        (host.state == croft_core::host::State::Ready).then_some(())
    })
    .await;
}
