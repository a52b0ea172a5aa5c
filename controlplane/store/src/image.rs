//! Images, of the platform or of a tenant.

use croft_core::audit::Call;
use croft_core::id::{ImageUid, TenantId};
use croft_core::image::Image;
use croft_core::{Error, Reason, Result, name};
use sqlx::AnyConnection;

use crate::call::{About, Done};
use crate::column::{from_json, from_word, to_json, to_word, wrong};
use crate::meta::MetaRow;
use crate::open::Store;
use crate::page::Page;
use crate::sql::sql;
use crate::tenant;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageScope {
    /// The platform's alone.
    Platform,
    /// What this tenant may boot: the platform's, its own and its ancestors'.
    VisibleTo(TenantId),
    /// The same, and those of the tenants below it.
    SeenFrom(TenantId),
    All,
}

#[derive(sqlx::FromRow)]
pub(crate) struct Row {
    #[sqlx(flatten)]
    meta: MetaRow,
    tenant: Option<String>,
    id: String,
    description: String,
    boot: String,
    firmware: String,
}

impl TryFrom<Row> for Image {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            uid: ImageUid::parse(&row.meta.uid).ok_or_else(|| wrong("images.uid", &row.meta.uid))?,
            meta: row.meta.read("images")?,
            tenant: row.tenant.map(TenantId),
            id: row.id,
            description: row.description,
            boot: from_json(&row.boot, "images.boot")?,
            firmware: from_word(&row.firmware, "images.firmware")?,
        })
    }
}

fn full_name(tenant: Option<&TenantId>, id: &str) -> String {
    match tenant {
        None => format!("images/{id}"),
        Some(tenant) => format!("tenants/{tenant}/images/{id}"),
    }
}

/// By resource name. Whether somebody may see it is not asked here.
pub(crate) async fn get(conn: &mut AnyConnection, name: &str) -> Result<Option<Image>> {
    let row: Option<Row> = sql("SELECT uid, tenant, id, description, boot, firmware, generation, labels, annotations,
                                       create_time, update_time
                                FROM images
                                WHERE name = $1")
    .bind(name)
    .optional(conn)
    .await?;
    row.map(TryInto::try_into).transpose()
}

pub(crate) async fn by_uids(conn: &mut AnyConnection, uids: &[ImageUid]) -> Result<Vec<Image>> {
    if uids.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<Row> = sql("SELECT uid, tenant, id, description, boot, firmware, generation, labels, annotations,
                                     create_time, update_time
                              FROM images
                              WHERE uid IN ")
    .list(uids)
    .all(conn)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

impl Store {
    pub async fn image_create(&self, call: &Call, image: Image) -> Result<Done<Image>> {
        let about = About { tenant: image.tenant.clone(), target: image.name() };
        let done = self
            .mutate(call, about, move |tx| {
                Box::pin(async move {
                    if let Some(tenant) = &image.tenant {
                        tenant::require(&mut tx.conn, tenant).await?;
                    }
                    if get(&mut tx.conn, &image.name()).await?.is_some() {
                        return Err(Error::AlreadyExists { name: image.name() });
                    }
                    sql("INSERT INTO images (uid, name, tenant, id, description, boot, firmware, generation, labels,
                                             annotations, create_time, update_time)
                         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)")
                    .bind(image.uid)
                    .bind(image.name())
                    .bind(&image.tenant)
                    .bind(&image.id)
                    .bind(&image.description)
                    .bind(to_json(&image.boot)?)
                    .bind(to_word(image.firmware)?)
                    .bind(image.meta.generation)
                    .bind(to_json(&image.meta.labels)?)
                    .bind(to_json(&image.meta.annotations)?)
                    .bind(image.meta.create_time)
                    .bind(image.meta.update_time)
                    .run(&mut tx.conn)
                    .await?;
                    Ok(image)
                })
            })
            .await?;
        match done {
            Done::Replayed(then) => Ok(Done::Replayed(self.image_by_uid(then.uid).await?.unwrap_or(then))),
            new => Ok(new),
        }
    }

    /// `tenant`: `None` for the platform's.
    pub async fn image_get(&self, tenant: Option<&TenantId>, id: &str) -> Result<Option<Image>> {
        get(&mut *self.reader().await?, &full_name(tenant, id)).await
    }

    pub async fn image_by_uid(&self, uid: ImageUid) -> Result<Option<Image>> {
        Ok(by_uids(&mut *self.reader().await?, &[uid]).await?.pop())
    }

    /// The image that `tenant` may boot under this name; another's does not exist.
    pub async fn image_visible(&self, tenant: &TenantId, name: &str) -> Result<Image> {
        let missing = || Error::not_found(name);
        let (owner, id) = name::image("image", name)?;
        let mut tx = self.snapshot().await?;
        if let Some(owner) = &owner
            && !tenant::within(&mut tx, tenant, owner).await?
        {
            return Err(missing());
        }
        get(&mut tx, &full_name(owner.as_ref(), &id)).await?.ok_or_else(missing)
    }

    /// By name: the platform's first.
    pub async fn image_list(&self, scope: &ImageScope, page: &Page) -> Result<(Vec<Image>, Option<String>)> {
        let list = format!("images {scope:?}");
        let after = page.after::<1>(&list)?.map(|[name]| name).unwrap_or_default();
        let head = sql("SELECT uid, tenant, id, description, boot, firmware, generation, labels, annotations,
                               create_time, update_time
                        FROM images
                        WHERE name > $1")
        .bind(after);
        let above = "AND (tenant IS NULL OR tenant IN (
                         SELECT above.id
                         FROM tenants above
                         JOIN tenant_ancestors a ON a.ancestor_uid = above.uid
                         JOIN tenants t ON t.uid = a.tenant_uid
                         WHERE t.id = $2)";
        let below = "OR tenant IN (
                         SELECT below.id
                         FROM tenants below
                         JOIN tenant_ancestors a ON a.tenant_uid = below.uid
                         JOIN tenants t ON t.uid = a.ancestor_uid
                         WHERE t.id = $2)";
        let filtered = match scope {
            ImageScope::All => head,
            ImageScope::Platform => head.push(" AND tenant IS NULL"),
            ImageScope::VisibleTo(tenant) => head.push(" ").push(above).push(")").bind(tenant),
            ImageScope::SeenFrom(tenant) => head.push(" ").push(above).push(" ").push(below).push(")").bind(tenant),
        };
        let rows: Vec<Row> =
            filtered.push(" ORDER BY name LIMIT ").push_bind(page.fetch()).all(&mut *self.reader().await?).await?;
        let mut images: Vec<Image> = rows.into_iter().map(TryInto::try_into).collect::<Result<_>>()?;
        let next = page.cut(&list, &mut images, |image| [image.name()]);
        Ok((images, next))
    }

    /// Refused while an instance boots from it.
    pub async fn image_delete(&self, call: &Call, tenant: Option<&TenantId>, id: &str, etag: &str) -> Result<()> {
        let (name, etag) = (full_name(tenant, id), etag.to_owned());
        let about = About { tenant: tenant.cloned(), target: name.clone() };
        self.mutate(call, about, move |tx| {
            Box::pin(async move {
                let image = get(&mut tx.conn, &name).await?.ok_or_else(|| Error::not_found(&name))?;
                image.meta.check_etag(&etag, &name)?;
                let users = sql("SELECT COUNT(*) FROM instances WHERE image_uid = $1")
                    .bind(image.uid)
                    .number(&mut tx.conn)
                    .await?;
                if users > 0 {
                    let message = format!("{users} instances boot from {name}; delete these first");
                    return Err(Error::precondition(Reason::ImageInUse, name, message));
                }
                sql("DELETE FROM images WHERE uid = $1").bind(image.uid).run(&mut tx.conn).await?;
                Ok(())
            })
        })
        .await?;
        Ok(())
    }
}
