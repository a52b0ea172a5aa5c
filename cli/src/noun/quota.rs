//! `croft quota`: limits per tenant and resource, and what is used of them.

mod doubts;

use clap::{Args, Subcommand};
use croft_proto::v1;

use crate::app::App;
use crate::failure::{Failure, Result};
use crate::flags::{Change, all_pages};
use crate::labels::{LabelEdits, Mask, Selector};
use crate::output::cell::{Mood, Text};
use crate::output::{Resource, cell, named, table::Column};
use crate::{names, size};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Set limits, also where none was set before, labels and annotations
    #[command(after_help = "Examples:\n  \
        croft quota set --tenant acme vcpus=16 memory_mib=64GiB disk_gib=1TiB instances=10\n  \
        croft quota set --tenant acme vcpus --label tier=gold\n  \
        croft quota set --tenant acme gpus/h100_sxm_80gb=2 gpu_slices/h100_sxm_80gb/2g.20gb=4 devices/nic-vf=8\n\n\
        Devices are denied until a limit of the tenant itself covers them.\n\
        A limit below what is used stops growth and takes nothing away.")]
    Set(Set),
    /// Take limits away: the resource is then unlimited at this tenant
    Clear {
        /// vcpus, memory_mib, disk_gib, instances, …
        #[arg(required = true)]
        resources: Vec<String>,
        #[command(flatten)]
        change: Change,
    },
    /// Show one limit
    Get { resource: String },
    /// Show all limits and uses of a tenant
    List {
        #[command(flatten)]
        selector: Selector,
    },
}

#[derive(Debug, Args)]
pub struct Set {
    /// vcpus, memory_mib, disk_gib, instances, …; without a limit only labels and annotations change
    #[arg(required = true, value_name = "RESOURCE[=LIMIT]", value_parser = wanted)]
    wanted: Vec<Wanted>,
    #[command(flatten)]
    labels: LabelEdits,
    /// Only if it has not changed since this etag was read
    #[arg(long, default_value = "", hide_default_value = true)]
    etag: String,
    #[command(flatten)]
    change: Change,
}

/// A resource, and the limit that is wanted for it, if any.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    resource: String,
    limit: Option<i64>,
}

/// Sizes may be written as such: `memory_mib=64GiB`.
fn wanted(text: &str) -> Result<Wanted, String> {
    if !text.contains('=') {
        return Ok(Wanted { resource: text.to_owned(), limit: None });
    }
    let (resource, limit) = crate::flags::pair(text).map_err(|_| format!("`{text}` is not RESOURCE=LIMIT"))?;
    let limit = match resource.rsplit('/').next() {
        Some("memory_mib" | "gpu_memory_mib") => size::memory_mib(&limit)?,
        Some("disk_gib") => size::disk_gib(&limit)?,
        _ => limit.parse().map_err(|_| format!("`{limit}` is no whole number"))?,
    };
    Ok(Wanted { resource, limit: Some(limit) })
}

named!(v1::Quota => "croft.v1.Quota");

impl Resource for v1::Quota {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::wide("TENANT", |quota| names::tenant_of(&quota.name).into()),
        Column::new("RESOURCE", |quota| resource(&quota.name).into()),
        Column::new("USED", |quota| quota.used.into()),
        Column::new("LIMIT", |quota| quota.limit.map_or("unlimited".into(), Into::into)),
        Column::new("AVAILABLE", available),
        Column::wide("ETAG", |quota| quota.metadata.as_ref().map(|m| m.etag.as_str()).unwrap_or_default().into()),
        Column::wide("LABELS", |quota| cell::labels(quota.metadata.as_ref())),
    ];

    fn name(&self) -> &str {
        &self.name
    }
}

fn resource(name: &str) -> &str {
    name.split_once("/quotas/").map_or(name, |(_, resource)| resource)
}

fn available(quota: &v1::Quota) -> Text {
    match quota.available {
        None => "unlimited".into(),
        Some(left) if left <= 0 => Text::new(left.to_string(), Mood::Bad),
        Some(left) => left.into(),
    }
}

pub async fn run(app: &App, command: Command) -> Result<()> {
    match command {
        Command::Set(set) => self::set(app, set).await,
        Command::Clear { resources, change } => clear(app, &resources, &change).await,
        Command::Get { resource } => app.out.one(&get(app, names::quota(|| app.tenant(), &resource)?).await?),
        Command::List { selector } => app.out.list("quotas", &list(app, app.tenant()?, &selector).await?),
    }
}

/// One call a resource. With several, `--request-id` gets the resource appended: one id is one body.
async fn set(app: &App, set: Set) -> Result<()> {
    if set.wanted.len() > 1 && !set.etag.is_empty() {
        return Err(Failure::usage("--etag guards one quota; set them one by one"));
    }
    if let Some(idle) = set.wanted.iter().find(|wanted| wanted.limit.is_none() && set.labels.is_empty()) {
        let resource = &idle.resource;
        return Err(Failure::usage(format!("nothing to set for {resource}: write {resource}=LIMIT, or give --label")));
    }
    if let Some(twice) = set
        .wanted
        .iter()
        .enumerate()
        .find(|(at, one)| set.wanted[..*at].iter().any(|before| before.resource == one.resource))
    {
        return Err(Failure::usage(format!("{} is there twice: one limit a resource", twice.1.resource)));
    }
    let request_id = set.change.request_id();
    for wanted in &set.wanted {
        let name = names::quota(|| app.tenant(), &wanted.resource)?;
        let mut mask = Mask::default();
        let mut quota = v1::Quota { name, ..v1::Quota::default() };
        if !set.labels.is_empty() {
            // Edits are made to what is there, and guarded by its etag.
            quota = get(app, quota.name).await?;
            set.labels.apply(&mut quota.metadata, &mut mask);
        }
        if wanted.limit.is_some() {
            quota.limit = wanted.limit;
            mask.add("limit");
        }
        if !set.etag.is_empty() {
            quota.metadata.get_or_insert_default().etag.clone_from(&set.etag);
        }
        let request_id = id_for(&request_id, &wanted.resource, set.wanted.len());
        let quota = set_one(app, quota, mask, set.change.dry_run, request_id).await?;
        let did = wanted.limit.map_or("labelled".to_owned(), |limit| format!("set to {limit}"));
        app.out.did(&quota, &set.change.say(&did))?;
        doubts::tell(app, resource(&quota.name)).await;
    }
    Ok(())
}

fn id_for(request_id: &str, resource: &str, count: usize) -> String {
    if count > 1 { format!("{request_id}-{}", resource.replace('/', "-")) } else { request_id.to_owned() }
}

/// Of `quota`, what `mask` names.
pub async fn set_one(
    app: &App,
    quota: v1::Quota,
    mask: Mask,
    validate_only: bool,
    request_id: String,
) -> Result<v1::Quota> {
    let (quota, update_mask) = (Some(quota), mask.finish()?);
    let request = v1::SetQuotaRequest { quota, update_mask, request_id, validate_only };
    app.plane()?.call(request, async |plane, r| plane.quotas().set_quota(r).await).await
}

async fn clear(app: &App, resources: &[String], change: &Change) -> Result<()> {
    let request_id = change.request_id();
    for resource in resources {
        let name = names::quota(|| app.tenant(), resource)?;
        let request_id = id_for(&request_id, resource, resources.len());
        let request = v1::ClearQuotaRequest { name, etag: String::new(), request_id, validate_only: change.dry_run };
        let quota = app.plane()?.call(request, async |plane, r| plane.quotas().clear_quota(r).await).await?;
        app.out.did(&quota, &change.say("cleared: unlimited"))?;
    }
    Ok(())
}

pub async fn get(app: &App, name: String) -> Result<v1::Quota> {
    let request = v1::GetQuotaRequest { name };
    app.plane()?.call(request, async |plane, r| plane.quotas().get_quota(r).await).await
}

async fn list(app: &App, parent: String, selector: &Selector) -> Result<Vec<v1::Quota>> {
    let plane = app.plane()?;
    let label_selector = selector.text()?;
    all_pages(async |page_token| {
        let (parent, label_selector) = (parent.clone(), label_selector.clone());
        let request = v1::ListQuotasRequest { parent, page_token, page_size: 0, label_selector };
        let page = plane.call(request, async |plane, r| plane.quotas().list_quotas(r).await).await?;
        Ok((page.quotas, page.next_page_token))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_take_sizes_where_the_resource_is_one() {
        let limit = |text: &str| wanted(text).map(|wanted| (wanted.resource, wanted.limit));
        assert_eq!(limit("vcpus=16"), Ok(("vcpus".into(), Some(16))));
        assert_eq!(limit("memory_mib=64GiB"), Ok(("memory_mib".into(), Some(65_536))));
        assert_eq!(limit("disk_gib=1TiB"), Ok(("disk_gib".into(), Some(1024))));
        let slices = "gpu_slices/h100_sxm_80gb/2g.20gb";
        assert_eq!(limit(&format!("{slices}=3")), Ok((slices.into(), Some(3))));
        assert_eq!(limit("vcpus"), Ok(("vcpus".into(), None)));
        for text in ["=1", "vcpus=", "vcpus=many", "vcpus=2GiB"] {
            assert!(limit(text).is_err(), "{text}");
        }
    }

    #[test]
    fn one_request_id_is_one_body() {
        assert_eq!(id_for("x", "vcpus", 1), "x");
        assert_eq!(id_for("x", "gpus/h100", 2), "x-gpus-h100");
    }
}
