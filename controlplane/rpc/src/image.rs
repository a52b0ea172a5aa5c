//! Images. A tenant sees the platform's, its own, its ancestors' and its children's; it makes and deletes its own and
//! its children's.

use croft_core::audit::Call;
use croft_core::id::{ImageUid, TenantId};
use croft_core::image::{self, Image, Registrar};
use croft_core::meta::Meta;
use croft_core::validate::Violations;
use croft_core::{Error, Result, name};
use croft_proto::v1;
use croft_store::ImageScope;
use tonic::{Request, Response, Status};

use crate::api::Api;
use crate::caller::Caller;
use crate::convert;
use crate::convert::image::out;
use crate::mutation::{mutate, read};
use crate::page::{is_all, page};
use crate::scope;

const DESCRIPTION_MAX: usize = 1000;

#[tonic::async_trait]
impl v1::images_server::Images for Api {
    async fn get_image(&self, request: Request<v1::GetImageRequest>) -> Result<Response<v1::Image>, Status> {
        read(self, request, get).await
    }

    async fn list_images(
        &self,
        request: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        read(self, request, list).await
    }

    async fn create_image(&self, request: Request<v1::CreateImageRequest>) -> Result<Response<v1::Image>, Status> {
        mutate(self, request, create).await
    }

    async fn delete_image(
        &self,
        request: Request<v1::DeleteImageRequest>,
    ) -> Result<Response<v1::DeleteImageResponse>, Status> {
        mutate(self, request, delete).await
    }
}

async fn get(api: Api, caller: Caller, request: v1::GetImageRequest) -> Result<v1::Image> {
    let (tenant, id) = name::image("name", &request.name)?;
    if !sees(&api, caller.tenant(), tenant.as_ref()).await? {
        return Err(Error::not_found(request.name));
    }
    let image = api.store().image_get(tenant.as_ref(), &id).await?.ok_or_else(|| Error::not_found(request.name))?;
    let copies = api.store().image_copies(image.uid).await?;
    Ok(out(&image, &copies))
}

/// Images are shared downwards: an ancestor's may be booted, so it may be seen.
async fn sees(api: &Api, own: Option<&TenantId>, owner: Option<&TenantId>) -> Result<bool> {
    let (Some(own), Some(owner)) = (own, owner) else {
        return Ok(true);
    };
    Ok(own == owner || api.store().tenant_within(own, owner).await? || api.store().tenant_within(owner, own).await?)
}

async fn list(api: Api, caller: Caller, request: v1::ListImagesRequest) -> Result<v1::ListImagesResponse> {
    let page = page(request.page_size, request.page_token)?;
    let scope = match (request.parent.as_str(), caller.tenant()) {
        ("", _) => ImageScope::Platform,
        (parent, None) if is_all(parent) => ImageScope::All,
        (parent, Some(own)) if is_all(parent) => ImageScope::SeenFrom(own.clone()),
        (parent, _) => {
            let tenant = api.parent(&caller, parent).await?;
            tenant.map_or(ImageScope::Platform, ImageScope::VisibleTo)
        }
    };
    let (found, next) = api.store().image_list(&scope, &page).await?;
    let mut images = Vec::new();
    for image in found {
        let copies = api.store().image_copies(image.uid).await?;
        images.push(out(&image, &copies));
    }
    Ok(v1::ListImagesResponse { images, next_page_token: next.unwrap_or_default() })
}

async fn create(api: Api, call: Call, request: v1::CreateImageRequest) -> Result<v1::Image> {
    let wire = request.image.unwrap_or_default();
    let mut violations = Violations::new();
    violations.check_slug(&request.image_id, image::ID_MAX, "image_id");
    violations.check(
        wire.description.chars().count() <= DESCRIPTION_MAX,
        "image.description",
        format!("at most {DESCRIPTION_MAX} characters"),
    );
    let sent = convert::meta::into("image", wire.metadata, &mut violations);
    let firmware = convert::image::firmware_into(wire.firmware, &mut violations);
    let tenant = match request.parent.as_str() {
        "" => None,
        parent => Some(name::tenant("parent", parent)?),
    };
    violations.finish()?;
    let boot = convert::image::boot_into(wire.boot)?;

    let registrar = match &tenant {
        None => {
            scope::of_the_platform(&call.principal, "an image for every tenant is registered by platform admins")?;
            Registrar::PlatformAdmin
        }
        Some(tenant) => {
            api.see(&call.principal, tenant, &request.parent).await?;
            Registrar::Tenant
        }
    };
    image::check(&boot, registrar)?;
    let now = api.store().now();
    let uid = ImageUid::new(now);
    let image = Image {
        uid,
        meta: Meta::new(uid.to_string(), sent.labels, sent.annotations, now),
        tenant,
        id: request.image_id,
        description: wire.description,
        boot,
        firmware,
    };
    let image = api.store().image_create(&call, image).await?.into_inner();
    Ok(out(&image, &[]))
}

async fn delete(api: Api, call: Call, request: v1::DeleteImageRequest) -> Result<v1::DeleteImageResponse> {
    let (tenant, id) = name::image("name", &request.name)?;
    let own = call.principal.tenant();
    if !sees(&api, own, tenant.as_ref()).await? {
        return Err(Error::not_found(request.name));
    }
    let may = match &tenant {
        Some(owner) => api.sees(&call.principal, owner).await?,
        None => own.is_none(),
    };
    if !may {
        let message = format!("{} is shared with you from above; who made it deletes it", request.name);
        return Err(Error::Denied { message });
    }
    api.store().image_delete(&call, tenant.as_ref(), &id, &request.etag).await?;
    Ok(v1::DeleteImageResponse {})
}
