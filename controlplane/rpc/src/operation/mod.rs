//! Operations: a table of contents.

mod wait;

use croft_core::operation::Operation;
use croft_core::{Error, Result, name};
use croft_proto::v1;
use tonic::{Request, Response, Status};

use crate::api::Api;
use crate::caller::Caller;
use crate::convert::operation::out;
use crate::filter::label_selector;
use crate::mutation::read;
use crate::page::page;

#[tonic::async_trait]
impl v1::operations_server::Operations for Api {
    async fn get_operation(
        &self,
        request: Request<v1::GetOperationRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        read(self, request, |api: Api, caller, request: v1::GetOperationRequest| async move {
            Ok(out(&find(&api, &caller, &request.name).await?))
        })
        .await
    }

    async fn list_operations(
        &self,
        request: Request<v1::ListOperationsRequest>,
    ) -> Result<Response<v1::ListOperationsResponse>, Status> {
        read(self, request, list).await
    }

    async fn wait_operation(
        &self,
        request: Request<v1::WaitOperationRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        read(self, request, wait::wait).await
    }
}

async fn list(api: Api, caller: Caller, request: v1::ListOperationsRequest) -> Result<v1::ListOperationsResponse> {
    let page = page(request.page_size, request.page_token)?;
    let labels = label_selector(&request.label_selector)?;
    let within = api.within(&caller, &request.parent).await?;
    let (operations, next) = api.store().operation_list(within.as_ref(), &labels, &page).await?;
    Ok(v1::ListOperationsResponse {
        operations: operations.iter().map(out).collect(),
        next_page_token: next.unwrap_or_default(),
    })
}

async fn find(api: &Api, caller: &Caller, name: &str) -> Result<Operation> {
    let uid = name::operation("name", name)?;
    let operation = api.store().operation_get(uid).await?.ok_or_else(|| Error::not_found(name))?;
    api.see(&caller.principal, &operation.tenant, name).await?;
    Ok(operation)
}
