//! Instances: a table of contents.

mod command;
mod console;
mod create;
mod device;
mod explain;
mod port_forward;
mod rebuild;
mod update;
mod watch;

use croft_core::{Error, Result, name};
use croft_proto::v1;
use croft_store::{Command, InstanceFilter};
use futures::stream::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use crate::api::Api;
use crate::caller::Caller;
use crate::convert::instance::out;
use crate::filter::label_selector;
use crate::mutation::{mutate, read};
use crate::page::page;

#[tonic::async_trait]
impl v1::instances_server::Instances for Api {
    type WatchInstancesStream = BoxStream<'static, Result<v1::WatchInstancesResponse, Status>>;
    type ConsoleStream = BoxStream<'static, Result<v1::ConsoleResponse, Status>>;
    type ReadConsoleLogStream = BoxStream<'static, Result<v1::ReadConsoleLogResponse, Status>>;
    type PortForwardStream = BoxStream<'static, Result<v1::PortForwardResponse, Status>>;

    async fn get_instance(&self, request: Request<v1::GetInstanceRequest>) -> Result<Response<v1::Instance>, Status> {
        read(self, request, |api: Api, caller, request: v1::GetInstanceRequest| async move {
            Ok(out(&find(&api, &caller, &request.name).await?))
        })
        .await
    }

    async fn list_instances(
        &self,
        request: Request<v1::ListInstancesRequest>,
    ) -> Result<Response<v1::ListInstancesResponse>, Status> {
        read(self, request, list).await
    }

    async fn create_instance(
        &self,
        request: Request<v1::CreateInstanceRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        mutate(self, request, create::create).await
    }

    async fn update_instance(
        &self,
        request: Request<v1::UpdateInstanceRequest>,
    ) -> Result<Response<v1::Instance>, Status> {
        mutate(self, request, update::update).await
    }

    async fn delete_instance(
        &self,
        request: Request<v1::DeleteInstanceRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        mutate(self, request, |api, call, request: v1::DeleteInstanceRequest| async move {
            let command = Command::Delete { force: request.force };
            command::run(api, call, &request.name, &request.etag, command).await
        })
        .await
    }

    async fn start_instance(
        &self,
        request: Request<v1::StartInstanceRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        mutate(self, request, |api, call, request: v1::StartInstanceRequest| async move {
            command::run(api, call, &request.name, &request.etag, Command::Start).await
        })
        .await
    }

    async fn stop_instance(
        &self,
        request: Request<v1::StopInstanceRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        mutate(self, request, |api, call, request: v1::StopInstanceRequest| async move {
            let timeout = command::timeout(request.timeout)?;
            command::run(api, call, &request.name, &request.etag, Command::Stop { timeout }).await
        })
        .await
    }

    async fn reboot_instance(
        &self,
        request: Request<v1::RebootInstanceRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        mutate(self, request, |api, call, request: v1::RebootInstanceRequest| async move {
            command::run(api, call, &request.name, &request.etag, Command::Reboot).await
        })
        .await
    }

    async fn reset_instance(
        &self,
        request: Request<v1::ResetInstanceRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        mutate(self, request, |api, call, request: v1::ResetInstanceRequest| async move {
            command::run(api, call, &request.name, &request.etag, Command::Reset).await
        })
        .await
    }

    async fn rebuild_instance(
        &self,
        request: Request<v1::RebuildInstanceRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        mutate(self, request, rebuild::rebuild).await
    }

    async fn attach_device(
        &self,
        request: Request<v1::AttachDeviceRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        mutate(self, request, device::attach).await
    }

    async fn detach_device(
        &self,
        request: Request<v1::DetachDeviceRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        mutate(self, request, device::detach).await
    }

    async fn watch_instances(
        &self,
        request: Request<v1::WatchInstancesRequest>,
    ) -> Result<Response<Self::WatchInstancesStream>, Status> {
        read(self, request, watch::watch).await
    }

    async fn explain_instance(
        &self,
        request: Request<v1::ExplainInstanceRequest>,
    ) -> Result<Response<v1::ExplainInstanceResponse>, Status> {
        read(self, request, explain::explain).await
    }

    async fn console(
        &self,
        request: Request<Streaming<v1::ConsoleRequest>>,
    ) -> Result<Response<Self::ConsoleStream>, Status> {
        console::live(self, request).await
    }

    async fn read_console_log(
        &self,
        request: Request<v1::ReadConsoleLogRequest>,
    ) -> Result<Response<Self::ReadConsoleLogStream>, Status> {
        console::log(self, request).await
    }

    async fn port_forward(
        &self,
        request: Request<Streaming<v1::PortForwardRequest>>,
    ) -> Result<Response<Self::PortForwardStream>, Status> {
        port_forward::forward(self, request).await
    }
}

async fn list(api: Api, caller: Caller, request: v1::ListInstancesRequest) -> Result<v1::ListInstancesResponse> {
    let page = page(request.page_size, request.page_token)?;
    let labels = label_selector(&request.label_selector)?;
    let host = match request.host.as_str() {
        "" => None,
        host => Some(name::host("host", host)?),
    };
    let tenant = api.parent(&caller, &request.parent).await?;
    let filter = InstanceFilter { within: caller.tenant().cloned(), tenant, host, labels };
    let (instances, next, _) = api.store().instance_list(&filter, &page).await?;
    Ok(v1::ListInstancesResponse {
        instances: instances.iter().map(out).collect(),
        next_page_token: next.unwrap_or_default(),
    })
}

async fn find(api: &Api, caller: &Caller, name: &str) -> Result<croft_core::instance::Instance> {
    let (tenant, id) = name::instance("name", name)?;
    api.see(&caller.principal, &tenant, name).await?;
    api.store().instance_get(&tenant, &id).await?.ok_or_else(|| Error::not_found(name))
}
