//! The scripted services: per method a queue of answers, the last of which repeats; and all that was asked.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use croft_proto::v1::{
    self, clusters_server, devices_server, events_server, hosts_server, images_server, instances_server,
    networks_server, operations_server, pools_server, quotas_server, tenants_server, tokens_server,
};
use futures::Stream;
use prost::Message;
use tokio_stream::StreamExt as _;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

/// One scripted answer.
#[derive(Clone)]
pub enum Say {
    One(Vec<u8>),
    /// Messages, then how the stream ends: `None` keeps it open.
    Many(Vec<Vec<u8>>, Option<Result<(), Status>>),
    No(Status),
}

impl Say {
    pub fn one(message: impl Message) -> Self {
        Self::One(message.encode_to_vec())
    }

    pub fn many<M: Message>(messages: impl IntoIterator<Item = M>, end: Option<Result<(), Status>>) -> Self {
        Self::Many(messages.into_iter().map(|message| message.encode_to_vec()).collect(), end)
    }
}

#[derive(Clone, Default)]
pub struct Fake {
    script: Arc<Mutex<HashMap<&'static str, VecDeque<Say>>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

#[derive(Clone)]
struct Asked {
    method: &'static str,
    authorization: String,
    body: Vec<u8>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Fake {
    pub fn say(&self, method: &'static str, what: Say) -> &Self {
        self.script.lock().unwrap().entry(method).or_default().push_back(what);
        self
    }

    /// What a method was asked, in order.
    pub fn asked<Q: Message + Default>(&self, method: &str) -> Vec<Q> {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .filter(|asked| asked.method == method)
            .map(|asked| Q::decode(asked.body.as_slice()).unwrap())
            .collect()
    }

    /// Every `authorization` seen.
    pub fn authorizations(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|asked| asked.authorization.clone()).collect()
    }

    fn next<Q: Message>(&self, method: &'static str, request: &Request<Q>) -> Say {
        let authorization = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let body = request.get_ref().encode_to_vec();
        let asked = Asked { method, authorization: authorization.unwrap_or_default().to_owned(), body };
        self.asked.lock().unwrap().push(asked);
        let mut script = self.script.lock().unwrap();
        let queue = script.entry(method).or_default();
        let next = if queue.len() > 1 { queue.pop_front() } else { queue.front().cloned() };
        next.unwrap_or_else(|| Say::No(Status::unimplemented(format!("the test scripts no {method}"))))
    }

    fn one<Q: Message, A: Message + Default>(
        &self,
        method: &'static str,
        request: &Request<Q>,
    ) -> Result<Response<A>, Status> {
        match self.next(method, request) {
            Say::One(bytes) => Ok(Response::new(A::decode(bytes.as_slice()).unwrap())),
            Say::No(status) => Err(status),
            Say::Many(..) => panic!("{method} answers with one message"),
        }
    }

    fn many<Q: Message, A: Message + Default + 'static>(
        &self,
        method: &'static str,
        request: &Request<Q>,
    ) -> Result<Response<Answers<A>>, Status> {
        match self.next(method, request) {
            Say::Many(messages, end) => {
                let messages = messages.into_iter().map(|bytes| Ok(A::decode(bytes.as_slice()).unwrap()));
                let messages = tokio_stream::iter(messages.collect::<Vec<_>>());
                Ok(Response::new(match end {
                    None => Box::pin(messages.chain(tokio_stream::pending())),
                    Some(Ok(())) => Box::pin(messages),
                    Some(Err(status)) => Box::pin(messages.chain(tokio_stream::once(Err(status)))),
                }))
            }
            Say::No(status) => Err(status),
            Say::One(_) => panic!("{method} answers with a stream"),
        }
    }

    pub fn routes(&self) -> Routes {
        Routes::new(tenants_server::TenantsServer::new(self.clone()))
            .add_service(tokens_server::TokensServer::new(self.clone()))
            .add_service(quotas_server::QuotasServer::new(self.clone()))
            .add_service(images_server::ImagesServer::new(self.clone()))
            .add_service(networks_server::NetworksServer::new(self.clone()))
            .add_service(hosts_server::HostsServer::new(self.clone()))
            .add_service(devices_server::DevicesServer::new(self.clone()))
            .add_service(clusters_server::ClustersServer::new(self.clone()))
            .add_service(pools_server::PoolsServer::new(self.clone()))
            .add_service(instances_server::InstancesServer::new(self.clone()))
            .add_service(operations_server::OperationsServer::new(self.clone()))
            .add_service(events_server::EventsServer::new(self.clone()))
    }
}

/// A service whose every method asks the script. Bidirectional ones echo.
macro_rules! scripted {
    (
        $service:path,
        unary { $($method:ident($request:ident) -> $response:ident;)* }
        stream { $($watch:ident($watch_request:ident) -> $watch_response:ident as $assoc:ident;)* }
        echo { $($talk:ident($talk_request:ident) -> $talk_response:ident as $talk_assoc:ident by $echo:path;)* }
    ) => {
        #[tonic::async_trait]
        impl $service for Fake {
            $(async fn $method(&self, request: Request<v1::$request>) -> Result<Response<v1::$response>, Status> {
                self.one(stringify!($method), &request)
            })*
            $(type $assoc = Answers<v1::$watch_response>;
            async fn $watch(&self, request: Request<v1::$watch_request>) -> Result<Response<Self::$assoc>, Status> {
                self.many(stringify!($watch), &request)
            })*
            $(type $talk_assoc = Answers<v1::$talk_response>;
            async fn $talk(
                &self,
                request: Request<Streaming<v1::$talk_request>>,
            ) -> Result<Response<Self::$talk_assoc>, Status> {
                $echo(request.into_inner()).await
            })*
        }
    };
}

scripted!(
    tenants_server::Tenants,
    unary {
        get_tenant(GetTenantRequest) -> Tenant;
        list_tenants(ListTenantsRequest) -> ListTenantsResponse;
        create_tenant(CreateTenantRequest) -> Tenant;
        update_tenant(UpdateTenantRequest) -> Tenant;
        delete_tenant(DeleteTenantRequest) -> DeleteTenantResponse;
    }
    stream {}
    echo {}
);

scripted!(
    quotas_server::Quotas,
    unary {
        get_quota(GetQuotaRequest) -> Quota;
        list_quotas(ListQuotasRequest) -> ListQuotasResponse;
        set_quota(SetQuotaRequest) -> Quota;
        clear_quota(ClearQuotaRequest) -> Quota;
    }
    stream {}
    echo {}
);

scripted!(
    tokens_server::Tokens,
    unary {
        get_token(GetTokenRequest) -> Token;
        create_token(CreateTokenRequest) -> CreateTokenResponse;
        list_tokens(ListTokensRequest) -> ListTokensResponse;
        update_token(UpdateTokenRequest) -> Token;
        disable_token(DisableTokenRequest) -> Token;
        delete_token(DeleteTokenRequest) -> DeleteTokenResponse;
    }
    stream {}
    echo {}
);

scripted!(
    images_server::Images,
    unary {
        get_image(GetImageRequest) -> Image;
        list_images(ListImagesRequest) -> ListImagesResponse;
        create_image(CreateImageRequest) -> Image;
        delete_image(DeleteImageRequest) -> DeleteImageResponse;
    }
    stream {}
    echo {}
);

scripted!(
    networks_server::Networks,
    unary {
        get_network(GetNetworkRequest) -> Network;
        list_networks(ListNetworksRequest) -> ListNetworksResponse;
        create_network(CreateNetworkRequest) -> Network;
        update_network(UpdateNetworkRequest) -> Network;
        delete_network(DeleteNetworkRequest) -> DeleteNetworkResponse;
    }
    stream {}
    echo {}
);

scripted!(
    hosts_server::Hosts,
    unary {
        get_host(GetHostRequest) -> Host;
        list_hosts(ListHostsRequest) -> ListHostsResponse;
        update_host(UpdateHostRequest) -> Host;
        delete_host(DeleteHostRequest) -> DeleteHostResponse;
        cordon_host(CordonHostRequest) -> Host;
        uncordon_host(UncordonHostRequest) -> Host;
        explain_host_drain(ExplainHostDrainRequest) -> DrainPlan;
        drain_host(DrainHostRequest) -> Host;
        undrain_host(UndrainHostRequest) -> Host;
        fence_host(FenceHostRequest) -> Host;
        get_host_layout(GetHostLayoutRequest) -> HostLayout;
        set_host_layout(SetHostLayoutRequest) -> HostLayout;
        create_enrolment_token(CreateEnrolmentTokenRequest) -> CreateEnrolmentTokenResponse;
    }
    stream {}
    echo {}
);

scripted!(
    devices_server::Devices,
    unary {
        get_device(GetDeviceRequest) -> Device;
        list_devices(ListDevicesRequest) -> ListDevicesResponse;
        quarantine_device(QuarantineDeviceRequest) -> Device;
        release_device(ReleaseDeviceRequest) -> Device;
    }
    stream {}
    echo {}
);

scripted!(
    pools_server::Pools,
    unary {
        get_pool(GetPoolRequest) -> Pool;
        list_pools(ListPoolsRequest) -> ListPoolsResponse;
        create_pool(CreatePoolRequest) -> Pool;
        update_pool(UpdatePoolRequest) -> Pool;
        delete_pool(DeletePoolRequest) -> DeletePoolResponse;
    }
    stream {}
    echo {}
);

scripted!(
    clusters_server::Clusters,
    unary {
        get_cluster(GetClusterRequest) -> Cluster;
        list_clusters(ListClustersRequest) -> ListClustersResponse;
        register_cluster(RegisterClusterRequest) -> Cluster;
        update_cluster(UpdateClusterRequest) -> Cluster;
        delete_cluster(DeleteClusterRequest) -> DeleteClusterResponse;
    }
    stream {}
    echo {}
);

scripted!(
    operations_server::Operations,
    unary {
        get_operation(GetOperationRequest) -> Operation;
        list_operations(ListOperationsRequest) -> ListOperationsResponse;
        wait_operation(WaitOperationRequest) -> Operation;
    }
    stream {}
    echo {}
);

scripted!(
    events_server::Events,
    unary {
        list_events(ListEventsRequest) -> ListEventsResponse;
        list_audit_entries(ListAuditEntriesRequest) -> ListAuditEntriesResponse;
    }
    stream {
        watch_events(WatchEventsRequest) -> WatchEventsResponse as WatchEventsStream;
    }
    echo {}
);

scripted!(
    instances_server::Instances,
    unary {
        get_instance(GetInstanceRequest) -> Instance;
        list_instances(ListInstancesRequest) -> ListInstancesResponse;
        create_instance(CreateInstanceRequest) -> Operation;
        update_instance(UpdateInstanceRequest) -> Instance;
        delete_instance(DeleteInstanceRequest) -> Operation;
        start_instance(StartInstanceRequest) -> Operation;
        stop_instance(StopInstanceRequest) -> Operation;
        reboot_instance(RebootInstanceRequest) -> Operation;
        reset_instance(ResetInstanceRequest) -> Operation;
        rebuild_instance(RebuildInstanceRequest) -> Operation;
        explain_instance(ExplainInstanceRequest) -> ExplainInstanceResponse;
        attach_device(AttachDeviceRequest) -> Operation;
        detach_device(DetachDeviceRequest) -> Operation;
    }
    stream {
        watch_instances(WatchInstancesRequest) -> WatchInstancesResponse as WatchInstancesStream;
        read_console_log(ReadConsoleLogRequest) -> ReadConsoleLogResponse as ReadConsoleLogStream;
    }
    echo {
        console(ConsoleRequest) -> ConsoleResponse as ConsoleStream by shouting_console;
        port_forward(PortForwardRequest) -> PortForwardResponse as PortForwardStream by shouting_port;
    }
);

/// A guest that says everything back in capitals, and powers off at `bye`.
async fn shouting_console(
    mut typed: Streaming<v1::ConsoleRequest>,
) -> Result<Response<Answers<v1::ConsoleResponse>>, Status> {
    use v1::console_request::Kind;
    let Some(v1::ConsoleRequest { kind: Some(Kind::Instance(name)) }) = typed.message().await? else {
        return Err(Status::invalid_argument("the first message names the instance"));
    };
    if name != "tenants/acme/instances/web" {
        return Err(Status::not_found(format!("{name} does not exist")));
    }
    let (send, receive) = tokio::sync::mpsc::channel(4);
    tokio::spawn(async move {
        while let Ok(Some(message)) = typed.message().await {
            let Some(Kind::Data(data)) = message.kind else { return };
            let over = data.starts_with(b"bye");
            let _ = send.send(Ok(v1::ConsoleResponse { data: data.to_ascii_uppercase() })).await;
            if over {
                return;
            }
        }
    });
    Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(receive))))
}

/// A server in the guest that answers with capitals until its client ends, then says how much it got.
async fn shouting_port(
    mut sent: Streaming<v1::PortForwardRequest>,
) -> Result<Response<Answers<v1::PortForwardResponse>>, Status> {
    use v1::port_forward_request::Kind;
    let Some(v1::PortForwardRequest { kind: Some(Kind::Target(target)) }) = sent.message().await? else {
        return Err(Status::invalid_argument("the first message names the target"));
    };
    if target.port != 7 {
        return Err(Status::unavailable(format!("nothing listens on {}", target.port)));
    }
    let (send, receive) = tokio::sync::mpsc::channel(4);
    tokio::spawn(async move {
        let mut total = 0;
        while let Ok(Some(message)) = sent.message().await {
            if let Some(Kind::Data(data)) = message.kind {
                total += data.len();
                let _ = send.send(Ok(v1::PortForwardResponse { data: data.to_ascii_uppercase() })).await;
            }
        }
        let data = format!("<{total}>").into_bytes();
        let _ = send.send(Ok(v1::PortForwardResponse { data })).await;
    });
    Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(receive))))
}
