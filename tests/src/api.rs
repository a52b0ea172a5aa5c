//! The public API as a user's program sees it.

use croft_proto::v1::clusters_client::ClustersClient;
use croft_proto::v1::devices_client::DevicesClient;
use croft_proto::v1::events_client::EventsClient;
use croft_proto::v1::hosts_client::HostsClient;
use croft_proto::v1::images_client::ImagesClient;
use croft_proto::v1::instances_client::InstancesClient;
use croft_proto::v1::networks_client::NetworksClient;
use croft_proto::v1::operations_client::OperationsClient;
use croft_proto::v1::pools_client::PoolsClient;
use croft_proto::v1::quotas_client::QuotasClient;
use croft_proto::v1::tenants_client::TenantsClient;
use croft_proto::v1::tokens_client::TokensClient;
use croft_proto::v1::{self, instance_status::State};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};

use crate::eventually;

#[derive(Debug, Clone)]
pub struct Bearer(MetadataValue<Ascii>);

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

type Service = InterceptedService<Channel, Bearer>;

/// Everything one token may do.
#[derive(Debug, Clone)]
pub struct Api {
    pub channel: Channel,
    pub token: String,
    pub tenants: TenantsClient<Service>,
    pub quotas: QuotasClient<Service>,
    pub tokens: TokensClient<Service>,
    pub hosts: HostsClient<Service>,
    pub devices: DevicesClient<Service>,
    pub pools: PoolsClient<Service>,
    pub images: ImagesClient<Service>,
    pub networks: NetworksClient<Service>,
    pub instances: InstancesClient<Service>,
    pub operations: OperationsClient<Service>,
    pub events: EventsClient<Service>,
    pub clusters: ClustersClient<Service>,
}

/// A lazy channel to the plane, pinned to its CA: it may be down now and dials again by itself.
pub fn channel(address: &str, ca_pem: &str) -> Channel {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca_pem)).domain_name("localhost");
    Endpoint::from_shared(format!("https://{address}"))
        .and_then(|endpoint| endpoint.tls_config(tls))
        .expect("a valid endpoint")
        .connect_lazy()
}

/// An instance in the fewest words.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub vcpus: i32,
    pub memory_mib: i64,
    pub disk_gib: i64,
    pub power: v1::instance_spec::Power,
    pub restart: v1::instance_spec::Restart,
    pub devices: Vec<v1::DeviceRequest>,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            vcpus: 1,
            memory_mib: 256,
            disk_gib: 2,
            power: v1::instance_spec::Power::Running,
            restart: v1::instance_spec::Restart::OnFailure,
            devices: Vec::new(),
        }
    }
}

pub const IMAGE: &str = "images/tiny";

pub fn tiny_image_request() -> v1::CreateImageRequest {
    let disk = v1::DiskImage {
        file: Some(v1::ImageFile { uri: "file:///images/tiny.qcow2".to_owned(), sha256: "0".repeat(64) }),
        format: v1::disk_image::Format::Qcow2.into(),
        min_disk_gib: 1,
    };
    let image = v1::Image { boot: Some(v1::image::Boot::Disk(disk)), ..Default::default() };
    v1::CreateImageRequest { image_id: "tiny".to_owned(), image: Some(image), ..Default::default() }
}

impl Wanted {
    pub fn request(&self, tenant: &str, id: &str) -> v1::CreateInstanceRequest {
        v1::CreateInstanceRequest {
            parent: format!("tenants/{tenant}"),
            instance_id: id.to_owned(),
            instance: Some(v1::Instance {
                spec: Some(v1::InstanceSpec {
                    vcpus: self.vcpus,
                    memory_mib: self.memory_mib,
                    power: self.power.into(),
                    restart: self.restart.into(),
                    boot_source: Some(v1::instance_spec::BootSource::Image(IMAGE.to_owned())),
                    disks: vec![v1::Disk { size_gib: self.disk_gib }],
                    devices: self.devices.clone(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }
}

impl Api {
    pub fn new(channel: Channel, token: &str) -> Self {
        let bearer = Bearer(format!("Bearer {token}").parse().expect("a token is ASCII"));
        macro_rules! client {
            ($client:ident) => {
                $client::with_interceptor(channel.clone(), bearer.clone())
            };
        }
        Self {
            tenants: client!(TenantsClient),
            clusters: client!(ClustersClient),
            quotas: client!(QuotasClient),
            tokens: client!(TokensClient),
            hosts: client!(HostsClient),
            devices: client!(DevicesClient),
            pools: client!(PoolsClient),
            images: client!(ImagesClient),
            networks: client!(NetworksClient),
            instances: client!(InstancesClient),
            operations: client!(OperationsClient),
            events: client!(EventsClient),
            token: token.to_owned(),
            channel,
        }
    }

    pub async fn tenant(&self, id: &str, parent: Option<&str>) {
        let tenant = v1::Tenant {
            parent: parent.map(|parent| format!("tenants/{parent}")).unwrap_or_default(),
            ..Default::default()
        };
        let request = v1::CreateTenantRequest { tenant_id: id.to_owned(), tenant: Some(tenant), ..Default::default() };
        self.tenants.clone().create_tenant(request).await.expect("tenant");
    }

    pub async fn quota(&self, tenant: &str, resource: &str, limit: i64) {
        let name = format!("tenants/{tenant}/quotas/{resource}");
        let quota = Some(v1::Quota { name, limit: Some(limit), ..Default::default() });
        let request = v1::SetQuotaRequest { quota, ..Default::default() };
        self.quotas.clone().set_quota(request).await.expect("quota");
    }

    pub async fn used(&self, tenant: &str, resource: &str) -> i64 {
        let name = format!("tenants/{tenant}/quotas/{resource}");
        self.quotas.clone().get_quota(v1::GetQuotaRequest { name }).await.expect("quota").into_inner().used
    }

    /// `images/tiny`, which simulated hosts take at its word.
    pub async fn tiny_image(&self) {
        let request = tiny_image_request();
        self.images.clone().create_image(request).await.expect("image");
    }

    pub async fn create(&self, tenant: &str, id: &str) -> Result<v1::Operation, Status> {
        self.create_as(Wanted::default().request(tenant, id)).await
    }

    pub async fn create_as(&self, request: v1::CreateInstanceRequest) -> Result<v1::Operation, Status> {
        Ok(self.instances.clone().create_instance(request).await?.into_inner())
    }

    /// Creates it and waits until it runs.
    pub async fn running(&self, tenant: &str, id: &str) -> v1::Instance {
        let operation = self.create(tenant, id).await.expect("create");
        self.done(&operation).await.expect("created");
        self.get(tenant, id).await.expect("it is there")
    }

    pub async fn get(&self, tenant: &str, id: &str) -> Result<v1::Instance, Status> {
        let name = format!("tenants/{tenant}/instances/{id}");
        Ok(self.instances.clone().get_instance(v1::GetInstanceRequest { name }).await?.into_inner())
    }

    pub async fn state(&self, tenant: &str, id: &str) -> Option<State> {
        match self.get(tenant, id).await {
            Ok(instance) => Some(instance.status.expect("a status").state()),
            Err(status) if status.code() == Code::NotFound => None,
            Err(status) => panic!("{status:?}"),
        }
    }

    pub async fn until(&self, tenant: &str, id: &str, wanted: State) {
        eventually(&format!("{id} is {wanted:?}"), || async {
            match self.get(tenant, id).await {
                Ok(instance) => {
                    let status = instance.status.unwrap_or_default();
                    if status.state() == wanted { Ok(()) } else { Err(format!("{status:?}")) }
                }
                Err(status) => Err(status.to_string()),
            }
        })
        .await;
    }

    pub async fn stop(&self, tenant: &str, id: &str) -> Result<v1::Operation, Status> {
        let name = format!("tenants/{tenant}/instances/{id}");
        let request = v1::StopInstanceRequest { name, ..Default::default() };
        Ok(self.instances.clone().stop_instance(request).await?.into_inner())
    }

    pub async fn start(&self, tenant: &str, id: &str) -> Result<v1::Operation, Status> {
        let name = format!("tenants/{tenant}/instances/{id}");
        let request = v1::StartInstanceRequest { name, ..Default::default() };
        Ok(self.instances.clone().start_instance(request).await?.into_inner())
    }

    pub async fn delete(&self, tenant: &str, id: &str) -> Result<v1::Operation, Status> {
        let name = format!("tenants/{tenant}/instances/{id}");
        let request = v1::DeleteInstanceRequest { name, ..Default::default() };
        Ok(self.instances.clone().delete_instance(request).await?.into_inner())
    }

    pub async fn rebuild(&self, tenant: &str, id: &str, elsewhere: bool) -> Result<v1::Operation, Status> {
        let name = format!("tenants/{tenant}/instances/{id}");
        let request = v1::RebuildInstanceRequest { name, elsewhere, ..Default::default() };
        Ok(self.instances.clone().rebuild_instance(request).await?.into_inner())
    }

    /// Waits for the operation; its failure is the error. Survives a plane that restarts meanwhile.
    pub async fn done(&self, operation: &v1::Operation) -> Result<(), v1::Error> {
        let done = eventually(&format!("{} of {} is done", operation.verb, operation.target), || async {
            let request = v1::WaitOperationRequest {
                name: operation.name.clone(),
                timeout: Some(prost_types::Duration { seconds: 2, nanos: 0 }),
            };
            match self.operations.clone().wait_operation(request).await.map(tonic::Response::into_inner) {
                Ok(operation) if operation.done => Ok(operation),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        done.error.map_or(Ok(()), Err)
    }

    /// Of one host; `-`: of all.
    pub async fn devices_of(&self, host: &str) -> Vec<v1::Device> {
        let request = v1::ListDevicesRequest { parent: format!("hosts/{host}"), page_size: 1000, ..Default::default() };
        self.devices.clone().list_devices(request).await.expect("devices").into_inner().devices
    }

    pub async fn device(&self, host: &str, id: &str) -> v1::Device {
        let name = format!("hosts/{host}/devices/{id}");
        self.devices.clone().get_device(v1::GetDeviceRequest { name }).await.expect("device").into_inner()
    }

    pub async fn device_until(&self, host: &str, id: &str, wanted: v1::device::State) -> v1::Device {
        eventually(&format!("{id} of {host} is {wanted:?}"), || async {
            let name = format!("hosts/{host}/devices/{id}");
            match self.devices.clone().get_device(v1::GetDeviceRequest { name }).await.map(tonic::Response::into_inner)
            {
                Ok(device) if device.state() == wanted => Ok(device),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    pub async fn host(&self, id: &str) -> v1::Host {
        let name = format!("hosts/{id}");
        self.hosts.clone().get_host(v1::GetHostRequest { name }).await.expect("host").into_inner()
    }

    pub async fn host_until(&self, id: &str, wanted: v1::host::State) {
        eventually(&format!("{id} is {wanted:?}"), || async {
            let state = self.host(id).await.state();
            if state == wanted { Ok(()) } else { Err(state) }
        })
        .await;
    }

    pub async fn drain(&self, host: &str) -> Result<v1::Host, Status> {
        let request = v1::DrainHostRequest { name: format!("hosts/{host}"), ..Default::default() };
        Ok(self.hosts.clone().drain_host(request).await?.into_inner())
    }

    pub async fn undrain(&self, host: &str) -> Result<v1::Host, Status> {
        let request = v1::UndrainHostRequest { name: format!("hosts/{host}"), ..Default::default() };
        Ok(self.hosts.clone().undrain_host(request).await?.into_inner())
    }

    /// What a drain does to each instance, by its id; or has still to do.
    pub async fn drain_plan(&self, host: &str) -> Vec<(String, v1::drain_step::Effect, bool)> {
        let request = v1::ExplainHostDrainRequest { name: format!("hosts/{host}") };
        let plan = self.hosts.clone().explain_host_drain(request).await.expect("a plan").into_inner();
        let id = |step: &v1::DrainStep| step.instance.rsplit('/').next().unwrap_or_default().to_owned();
        plan.steps.iter().map(|step| (id(step), step.effect(), step.starts_again)).collect()
    }

    pub async fn drained(&self, host: &str) {
        eventually(&format!("{host} is drained"), || async {
            let maintenance = self.host(host).await.maintenance;
            let phase = maintenance.as_ref().map(v1::HostMaintenance::phase);
            if phase == Some(v1::host_maintenance::Phase::Drained) { Ok(()) } else { Err(format!("{maintenance:?}")) }
        })
        .await;
    }
}
