//! Devices. Platform roles alone have permissions here; a tenant sees what it was given, in its instances.

use croft_core::audit::Call;
use croft_core::id::HostId;
use croft_core::{Error, Result, name};
use croft_proto::v1;
use croft_store::DeviceFilter;
use tonic::{Request, Response, Status};

use crate::api::Api;
use crate::caller::Caller;
use crate::convert::device::{kind_into, record_out};
use crate::mutation::{mutate, read};
use crate::page::page;

const MESSAGE_MAX: usize = 500;

#[tonic::async_trait]
impl v1::devices_server::Devices for Api {
    async fn get_device(&self, request: Request<v1::GetDeviceRequest>) -> Result<Response<v1::Device>, Status> {
        read(self, request, get).await
    }

    async fn list_devices(
        &self,
        request: Request<v1::ListDevicesRequest>,
    ) -> Result<Response<v1::ListDevicesResponse>, Status> {
        read(self, request, list).await
    }

    async fn quarantine_device(
        &self,
        request: Request<v1::QuarantineDeviceRequest>,
    ) -> Result<Response<v1::Device>, Status> {
        mutate(self, request, quarantine).await
    }

    async fn release_device(&self, request: Request<v1::ReleaseDeviceRequest>) -> Result<Response<v1::Device>, Status> {
        mutate(self, request, release).await
    }
}

async fn get(api: Api, _: Caller, request: v1::GetDeviceRequest) -> Result<v1::Device> {
    let (host, id) = name::device("name", &request.name)?;
    let record = api.store().device_get(&host, &id).await?;
    record.map(|record| record_out(&record)).ok_or_else(|| Error::not_found(request.name))
}

async fn list(api: Api, _: Caller, request: v1::ListDevicesRequest) -> Result<v1::ListDevicesResponse> {
    let page = page(request.page_size, request.page_token.clone())?;
    let filter = filter(&api, &request).await?;
    let (records, next) = api.store().device_list(&filter, &page).await?;
    let devices = records.iter().map(record_out).collect();
    Ok(v1::ListDevicesResponse { devices, next_page_token: next.unwrap_or_default() })
}

async fn filter(api: &Api, request: &v1::ListDevicesRequest) -> Result<DeviceFilter> {
    let mut kinds = Vec::new();
    for (at, kind) in request.kinds().enumerate() {
        let unknown = || Error::invalid(format!("kinds[{at}]"), "GPU, FUNCTION, VIRTUAL_FUNCTION or USB");
        kinds.push(kind_into(kind).ok_or_else(unknown)?);
    }
    let pool = match request.pool.as_str() {
        "" => None,
        text => Some(name::pool("pool", text)?),
    };
    Ok(DeviceFilter { host: host(api, &request.parent).await?, kinds, pool })
}

/// A host that exists; `None`: all of them.
async fn host(api: &Api, parent: &str) -> Result<Option<HostId>> {
    if matches!(parent, "" | "-" | "hosts/-") {
        return Ok(None);
    }
    let id = name::host("parent", parent)?;
    match api.store().host_get(&id).await? {
        Some(_) => Ok(Some(id)),
        None => Err(Error::not_found(parent)),
    }
}

async fn quarantine(api: Api, call: Call, request: v1::QuarantineDeviceRequest) -> Result<v1::Device> {
    let (host, id) = name::device("name", &request.name)?;
    if request.message.chars().count() > MESSAGE_MAX {
        return Err(Error::invalid("message", format!("at most {MESSAGE_MAX} characters")));
    }
    let record = api.store().device_quarantine(&call, &host, &id, &request.message).await?.into_inner();
    api.deps.wake.hosts();
    Ok(record_out(&record))
}

async fn release(api: Api, call: Call, request: v1::ReleaseDeviceRequest) -> Result<v1::Device> {
    let (host, id) = name::device("name", &request.name)?;
    let record = api.store().device_release(&call, &host, &id).await?.into_inner();
    api.deps.wake.hosts();
    // Its agent may remember another card in that slot, and is told to take this one.
    api.deps.wake.host(&host);
    Ok(record_out(&record))
}
