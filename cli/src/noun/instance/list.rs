//! `croft instance list`, and with `--watch` what follows.

use clap::Args;
use croft_proto::v1;

use super::watch;
use crate::app::App;
use crate::failure::Result;
use crate::flags::all_pages;
use crate::labels::Selector;
use crate::names;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  croft instance list -l tier=front\n  croft instance list -A --host h1 -o wide\n  \
    croft instance list -o json | jq -r '.instances[].status.addresses[].ip'"
)]
pub struct List {
    #[command(flatten)]
    pub filter: Filter,
    /// Go on with every change from now on
    #[arg(short, long)]
    watch: bool,
}

/// Which instances.
#[derive(Debug, Clone, Default, Args)]
pub struct Filter {
    /// Of all tenants, not only of the context's
    #[arg(short = 'A', long)]
    pub all: bool,
    #[command(flatten)]
    pub selector: Selector,
    /// Only those placed on this host
    #[arg(long)]
    pub host: Option<String>,
}

impl Filter {
    pub fn parent(&self, app: &App) -> Result<String> {
        app.tenant_or_all(self.all, "tenants/-")
    }

    pub fn host_name(&self) -> Result<String> {
        self.host.as_deref().map(|host| names::top("hosts", host)).transpose().map(Option::unwrap_or_default)
    }

    /// What the plane does for a list, for a watch, which has no filter.
    pub fn matches(&self, instance: &v1::Instance, host: &str) -> bool {
        let labels = instance.metadata.as_ref().map(|metadata| &metadata.labels);
        let labelled = |(key, value): &(String, String)| labels.is_some_and(|labels| labels.get(key) == Some(value));
        let placed = || instance.status.as_ref().is_some_and(|status| status.host == host);
        self.selector.pairs.iter().all(labelled) && (host.is_empty() || placed())
    }
}

pub async fn run(app: &App, list: List) -> Result<()> {
    if list.watch {
        return watch::follow(app, list.filter, None).await;
    }
    let (parent, host) = (list.filter.parent(app)?, list.filter.host_name()?);
    let label_selector = list.filter.selector.text()?;
    let plane = app.plane()?;
    let instances = all_pages(async |page_token| {
        let request = v1::ListInstancesRequest {
            parent: parent.clone(),
            label_selector: label_selector.clone(),
            host: host.clone(),
            page_token,
            page_size: 0,
        };
        let page = plane.call(request, async |plane, r| plane.instances().list_instances(r).await).await?;
        Ok((page.instances, page.next_page_token))
    });
    app.out.list("instances", &instances.await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_filters_as_the_plane_does() {
        let instance = v1::Instance {
            metadata: Some(v1::Metadata {
                labels: [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())].into(),
                ..v1::Metadata::default()
            }),
            status: Some(v1::InstanceStatus { host: "hosts/h1".into(), ..v1::InstanceStatus::default() }),
            ..v1::Instance::default()
        };
        let filter = |pairs: &[(&str, &str)]| Filter {
            selector: Selector {
                pairs: pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            },
            ..Filter::default()
        };
        assert!(filter(&[]).matches(&instance, ""));
        assert!(filter(&[("a", "1"), ("b", "2")]).matches(&instance, "hosts/h1"));
        assert!(!filter(&[("a", "1"), ("b", "3")]).matches(&instance, ""));
        assert!(!filter(&[]).matches(&instance, "hosts/h2"));
        assert!(!filter(&[("a", "1")]).matches(&v1::Instance::default(), ""));
        assert_eq!(filter(&[("b", "2"), ("a", "1")]).selector.text().ok().as_deref(), Some("a=1,b=2"));
    }
}
