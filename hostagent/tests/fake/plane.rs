//! The plane's side of `croft.agent.v1.Agent`, on loopback.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};

use croft_proto::agent::v1::agent_server::{Agent, AgentServer};
use croft_proto::agent::v1::{
    AgentMessage, Change, DesiredInstance, FetchBlobRequest, FetchBlobResponse, Hello, HostObservation, HostPolicy,
    ImageObservation, InstanceObservation, OpenTunnel, PlaneMessage, RenewCertificateRequest, RenewCertificateResponse,
    Sync, Tombstone, TunnelFrame, Welcome, agent_message, open_tunnel, plane_message, tunnel_frame,
};
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

/// From a request to a certificate.
pub type Sign = dyn Fn(&str) -> RenewCertificateResponse + Send + std::marker::Sync;
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[derive(Clone, Default)]
pub struct Plane(Arc<Mutex<Inner>>);

#[derive(Default)]
pub struct Inner {
    pub epoch: i64,
    pub revision: i64,
    pub instances: HashMap<String, DesiredInstance>,
    pub tombstones: HashMap<String, Tombstone>,
    pub blobs: HashMap<String, Vec<u8>>,
    /// A seed that is replaced in the moment in which it is asked for: by which instance, and by which one.
    pub replaces: HashMap<String, (Uuid, String)>,
    /// Answers a Hello with this instead of a Welcome.
    pub refusal: Option<Status>,
    pub protocol: Option<i32>,
    pub renew: Option<Arc<Sign>>,
    pub policy: Option<HostPolicy>,

    pub hellos: Vec<Hello>,
    pub heartbeats: usize,
    pub sync_done: Option<(i64, i64)>,
    pub complete: usize,
    pub host: Option<HostObservation>,
    pub observed: HashMap<String, InstanceObservation>,
    /// Every reason that any instance ever had.
    pub reasons: BTreeSet<String>,
    pub images: HashMap<String, Vec<ImageObservation>>,
    session: Option<mpsc::Sender<Result<PlaneMessage, Status>>>,
    /// Which one it is.
    sessions: u64,
    tunnels: HashMap<String, oneshot::Sender<Tunnel>>,
}

/// The plane's end of a tunnel.
pub struct Tunnel {
    pub to_agent: mpsc::Sender<Result<TunnelFrame, Status>>,
    pub from_agent: Streaming<TunnelFrame>,
}

impl Plane {
    /// With an epoch of 1, as for a host that was just enrolled.
    pub fn new() -> Self {
        let plane = Self::default();
        plane.lock().epoch = 1;
        plane
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no panic under the lock")
    }

    /// Serves on loopback; returns a channel that dials it when used.
    pub async fn serve(&self) -> Channel {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let at: SocketAddr = listener.local_addr().expect("address");
        let server = Server::builder().add_service(AgentServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Endpoint::from_shared(format!("http://{at}")).expect("uri").connect_lazy()
    }

    /// Sets the instance down as desired, and tells the agent if it is connected.
    pub fn upsert(&self, desired: DesiredInstance) {
        let mut inner = self.lock();
        inner.instances.insert(desired.uid.clone(), desired.clone());
        inner.tell(Change { upserts: vec![desired], ..Change::default() });
    }

    pub fn change(&self, uid: Uuid, change: impl FnOnce(&mut DesiredInstance)) {
        let mut desired = self.lock().instances.get(&uid.to_string()).expect("known").clone();
        change(&mut desired);
        desired.generation += 1;
        self.upsert(desired);
    }

    pub fn bury(&self, uid: Uuid, force: bool, stop_timeout_seconds: i64) {
        let mut inner = self.lock();
        let generation = inner.instances.remove(&uid.to_string()).map_or(9, |desired| desired.generation + 1);
        let tombstone = Tombstone { uid: uid.to_string(), force, stop_timeout_seconds, generation };
        inner.tombstones.insert(tombstone.uid.clone(), tombstone.clone());
        inner.tell(Change { tombstones: vec![tombstone], ..Change::default() });
    }

    /// Says it in a new session: a policy comes with a Sync.
    pub fn set_policy(&self, policy: Option<HostPolicy>) {
        let mut inner = self.lock();
        inner.policy = policy;
        (inner.session, inner.sync_done) = (None, None);
    }

    /// Ends the session; the agent will dial again.
    pub fn cut(&self) {
        self.lock().hang_up();
    }

    /// From now on every session is refused, until it is given `None`.
    pub fn refuse(&self, status: Option<Status>) {
        let mut inner = self.lock();
        inner.refusal = status;
        inner.hang_up();
    }

    pub fn keep_blob(&self, bytes: &[u8]) -> String {
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(bytes)));
        self.lock().blobs.insert(digest.clone(), bytes.to_vec());
        digest
    }

    pub fn observed(&self, uid: Uuid) -> InstanceObservation {
        self.lock().observed.get(&uid.to_string()).cloned().unwrap_or_default()
    }

    /// Asks for a tunnel and waits until the agent has dialled it.
    pub async fn tunnel(&self, uid: Uuid, target: open_tunnel::Target) -> Tunnel {
        let session = Uuid::now_v7().to_string();
        let (dialled, tunnel) = oneshot::channel();
        let open = OpenTunnel { session: session.clone(), instance_uid: uid.to_string(), target: Some(target) };
        let sender = {
            let mut inner = self.lock();
            inner.tunnels.insert(session, dialled);
            inner.session.clone().expect("a session")
        };
        let message = PlaneMessage { kind: Some(plane_message::Kind::OpenTunnel(open)) };
        sender.send(Ok(message)).await.expect("session");
        tunnel.await.expect("dialled")
    }
}

impl Inner {
    fn tell(&mut self, change: Change) {
        self.revision += 1;
        let change = Change { epoch: self.epoch, revision: self.revision, ..change };
        if let Some(session) = &self.session {
            let message = PlaneMessage { kind: Some(plane_message::Kind::Change(change)) };
            session.try_send(Ok(message)).expect("the agent reads");
        }
    }

    /// What is still on its way from that session is not heard any more.
    fn hang_up(&mut self) {
        self.session = None;
        self.sessions += 1;
    }

    fn hear(&mut self, message: AgentMessage) {
        match message.kind.expect("a kind") {
            agent_message::Kind::Hello(hello) => self.greet(hello),
            agent_message::Kind::Heartbeat(_) => self.heartbeats += 1,
            agent_message::Kind::SyncDone(done) => self.sync_done = Some((done.epoch, done.revision)),
            agent_message::Kind::Observation(observation) => {
                if observation.complete {
                    assert!(self.sync_done.is_some(), "a complete report before the Sync was journaled");
                    self.complete += 1;
                    self.observed.clear();
                }
                if let Some(host) = observation.host {
                    self.host = Some(host);
                }
                for instance in observation.instances {
                    self.reasons.insert(instance.reason.clone());
                    self.observed.insert(instance.uid.clone(), instance);
                }
                for image in observation.images {
                    self.images.entry(image.uid.clone()).or_default().push(image);
                }
            }
        }
    }

    fn greet(&mut self, hello: Hello) {
        self.hellos.push(hello);
        let session = self.session.clone().expect("a session");
        let say = |kind| session.try_send(Ok(PlaneMessage { kind: Some(kind) })).expect("room");
        say(plane_message::Kind::Welcome(Welcome {
            protocol: self.protocol.unwrap_or(1),
            host_id: "h1".to_owned(),
            heartbeat_seconds: 1,
        }));
        say(plane_message::Kind::Sync(Sync {
            epoch: self.epoch,
            revision: self.revision,
            instances: self.instances.values().cloned().collect(),
            tombstones: self.tombstones.values().cloned().collect(),
            policy: self.policy.clone(),
        }));
    }
}

#[tonic::async_trait]
impl Agent for Plane {
    type SessionStream = Answers<PlaneMessage>;
    type FetchBlobStream = Answers<FetchBlobResponse>;
    type TunnelStream = Answers<TunnelFrame>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (session, answers) = mpsc::channel(1000);
        let mine = {
            let mut inner = self.lock();
            if let Some(status) = &inner.refusal {
                return Err(status.clone());
            }
            inner.sync_done = None;
            inner.hang_up();
            inner.session = Some(session);
            inner.sessions
        };
        let plane = self.clone();
        let mut inbox = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(message)) = inbox.message().await {
                let mut inner = plane.lock();
                if inner.sessions != mine {
                    return;
                }
                inner.hear(message);
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn fetch_blob(&self, request: Request<FetchBlobRequest>) -> Result<Response<Self::FetchBlobStream>, Status> {
        let digest = request.into_inner().digest;
        let replaced = self.lock().replaces.remove(&digest);
        if let Some((uid, by)) = replaced {
            // Its generation stays: nobody asked for anything else of the instance.
            let mut wish = self.lock().instances.get(&uid.to_string()).expect("known").clone();
            wish.seed_digest = by;
            self.upsert(wish);
        }
        let bytes = self.lock().blobs.get(&digest).cloned().ok_or_else(|| Status::not_found(digest))?;
        let chunks: Vec<_> = bytes.chunks(16).map(|data| Ok(FetchBlobResponse { data: data.to_vec() })).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }

    async fn tunnel(&self, request: Request<Streaming<TunnelFrame>>) -> Result<Response<Self::TunnelStream>, Status> {
        let mut from_agent = request.into_inner();
        let (to_agent, answers) = mpsc::channel(4);
        let plane = self.clone();
        tokio::spawn(async move {
            let first = from_agent.next().await.expect("a frame").expect("a frame");
            let Some(tunnel_frame::Kind::Session(session)) = first.kind else { panic!("{first:?}") };
            let dialled = plane.lock().tunnels.remove(&session).expect("asked for");
            let _ = dialled.send(Tunnel { to_agent, from_agent });
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn renew_certificate(
        &self,
        request: Request<RenewCertificateRequest>,
    ) -> Result<Response<RenewCertificateResponse>, Status> {
        let renew = self.lock().renew.clone().ok_or_else(|| Status::unimplemented("no CA"))?;
        Ok(Response::new(renew(&request.into_inner().csr_pem)))
    }
}

impl Tunnel {
    pub async fn send(&self, data: &[u8]) {
        let frame = TunnelFrame { kind: Some(tunnel_frame::Kind::Data(data.to_vec())) };
        self.to_agent.send(Ok(frame)).await.expect("tunnel");
    }

    pub async fn close(&self) {
        let kind = Some(tunnel_frame::Kind::Close(tunnel_frame::Close::default()));
        self.to_agent.send(Ok(TunnelFrame { kind })).await.expect("tunnel");
    }

    /// Exactly so many bytes.
    pub async fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            match self.from_agent.message().await.expect("frame").and_then(|frame| frame.kind) {
                Some(tunnel_frame::Kind::Data(data)) => bytes.extend(data),
                other => panic!("{other:?} after {bytes:?}"),
            }
        }
        bytes
    }

    /// Everything up to the Close, and its error.
    pub async fn read_to_close(&mut self) -> (Vec<u8>, String) {
        let mut bytes = Vec::new();
        loop {
            match self.from_agent.message().await.expect("frame").and_then(|frame| frame.kind) {
                Some(tunnel_frame::Kind::Data(data)) => bytes.extend(data),
                Some(tunnel_frame::Kind::Close(close)) => return (bytes, close.error),
                other => panic!("{other:?}"),
            }
        }
    }
}
