//! What the database says, read once per scrape and shared by scrapes within a second.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use croft_core::cluster::Cluster;
use croft_core::device::Record;
use croft_core::host;
use croft_core::host::Resources;
use croft_core::placement::HostView;
use croft_core::quota::{self, Quota};
use croft_store::{StateCount, Store};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use tokio::time::{Instant, timeout};

use super::{Metrics, clusters, devices, gpus};

const FRESH: Duration = Duration::from_secs(1);
/// Below every scrape timeout: what could be read in time is answered.
const READ_WITHIN: Duration = Duration::from_secs(4);

/// One read of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    Quotas,
    Hosts,
    Instances,
    Devices,
    Clusters,
}

impl Read {
    pub(super) const ALL: [Self; 5] = [Self::Quotas, Self::Hosts, Self::Instances, Self::Devices, Self::Clusters];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Quotas => "quotas",
            Self::Hosts => "hosts",
            Self::Instances => "instances",
            Self::Devices => "devices",
            Self::Clusters => "clusters",
        }
    }
}

/// `None`: could not be read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Truth {
    pub quotas: Option<Vec<Quota>>,
    pub hosts: Option<Vec<HostView>>,
    pub instances: Option<Vec<StateCount>>,
    pub devices: Option<Vec<Record>>,
    pub clusters: Option<Vec<Cluster>>,
}

/// Keeps the last read.
#[derive(Debug)]
pub struct Reader {
    store: Store,
    metrics: Arc<Metrics>,
    last: tokio::sync::Mutex<Option<(Instant, Arc<Truth>)>>,
}

impl Reader {
    #[must_use]
    pub fn new(store: Store, metrics: Arc<Metrics>) -> Self {
        Self { store, metrics, last: tokio::sync::Mutex::default() }
    }

    /// Scrapes that come while one reads wait for it and share what it found.
    pub async fn read(&self) -> Arc<Truth> {
        let mut last = self.last.lock().await;
        if let Some((at, truth)) = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            tracing::trace!(age = ?at.elapsed(), "scrape answered from memory");
            return truth.clone();
        }
        let (quotas, hosts, instances, devices, clusters) = tokio::join!(
            self.part(Read::Quotas, self.store.quota_all()),
            self.part(Read::Hosts, self.store.host_views()),
            self.part(Read::Instances, self.store.instances_by_state()),
            self.part(Read::Devices, self.store.device_all()),
            self.part(Read::Clusters, self.store.cluster_all()),
        );
        let truth = Arc::new(Truth { quotas, hosts, instances, devices, clusters });
        *last = Some((Instant::now(), truth.clone()));
        truth
    }

    async fn part<T>(&self, what: Read, read: impl Future<Output = croft_core::Result<T>>) -> Option<T> {
        let why = match timeout(READ_WITHIN, read).await {
            Ok(Ok(found)) => return Some(found),
            Ok(Err(error)) => crate::datadir::told(&error),
            Err(_) => format!("not answered within {READ_WITHIN:?}"),
        };
        tracing::warn!(family = what.as_str(), why, "missing from this scrape");
        self.metrics.scrape_errors.get_or_create(&[("family", what.as_str())]).inc();
        None
    }
}

impl Collector for Truth {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        if let Some(quotas) = &self.quotas {
            encode_quotas(&mut encoder, quotas)?;
        }
        if let Some(hosts) = &self.hosts {
            encode_hosts(&mut encoder, hosts)?;
            gpus::encode(&mut encoder, hosts)?;
        }
        if let Some(instances) = &self.instances {
            let labels =
                |one: &StateCount| [("tenant", one.tenant.0.clone()), ("state", one.state.as_str().to_owned())];
            let rows = instances.iter().map(|one| (labels(one), one.instances));
            gauges(&mut encoder, "croft_instances", "Instances by tenant and state.", rows)?;
            let rows = instances.iter().map(|one| (labels(one), one.since.0.div_euclid(1_000_000)));
            let help = "When the instance that has been in a state for longest came into it, as a Unix time.";
            gauges(&mut encoder, "croft_instances_oldest_timestamp_seconds", help, rows)?;
        }
        if let Some(devices) = &self.devices {
            devices::encode(&mut encoder, devices)?;
        }
        if let Some(known) = &self.clusters {
            clusters::encode(&mut encoder, known)?;
        }
        Ok(())
    }
}

fn encode_quotas(encoder: &mut DescriptorEncoder<'_>, quotas: &[Quota]) -> fmt::Result {
    let labels = |quota: &'_ Quota| [("tenant", quota.tenant.0.clone()), ("resource", quota.resource.clone())];
    let limits = quotas.iter().filter_map(|quota| Some((labels(quota), quota.limit?)));
    let help = "What a tenant and all below it may use; no series: unlimited there.";
    gauges(encoder, "croft_quota_limit", help, limits)?;
    let used = quotas.iter().map(|quota| (labels(quota), quota.used));
    gauges(encoder, "croft_quota_used", "What a tenant and all below it use.", used)
}

fn encode_hosts(encoder: &mut DescriptorEncoder<'_>, hosts: &[HostView]) -> fmt::Result {
    // Every state is there: none is zero hosts, not nothing known.
    let mut by_state: BTreeMap<_, i64> = host::State::ALL.iter().map(|state| (state.as_str(), 0)).collect();
    for host in hosts {
        *by_state.entry(host.state.as_str()).or_default() += 1;
    }
    let rows = by_state.into_iter().map(|(state, n)| ([("state", state)], n));
    gauges(encoder, "croft_hosts", "Hosts by state.", rows)?;
    let states = hosts.iter().map(|host| ([("host", host.id.as_str()), ("state", host.state.as_str())], 1));
    gauges(encoder, "croft_host_state", "1 for the state that a host is in.", states)?;
    let cordoned = hosts.iter().map(|host| ([("host", host.id.as_str())], i64::from(host.cordoned)));
    gauges(encoder, "croft_host_cordoned", "1 while nothing new is placed on a host.", cordoned)?;
    let phases = hosts.iter().filter_map(|host| Some((host.id.as_str(), host.maintenance?.as_str())));
    let phases = phases.map(|(host, phase)| ([("host", host), ("phase", phase)], 1));
    let help = "1 for the phase of a host's maintenance; no series: it is not under maintenance.";
    gauges(encoder, "croft_host_maintenance", help, phases)?;
    let instances = hosts.iter().map(|host| ([("host", host.id.as_str())], host.instances));
    gauges(encoder, "croft_host_instances", "Instances that hold a claim on a host.", instances)?;
    resources(encoder, "croft_host_capacity", "What a host has.", hosts, |host| Resources {
        vcpus: host.capacity.vcpus,
        memory_mib: host.capacity.memory_mib,
        disk_gib: host.capacity.disk_gib,
    })?;
    let help = "What instances were promised on a host, dedicated CPUs, huge pages and overhead included.";
    resources(encoder, "croft_host_claimed", help, hosts, claimed)?;
    let help = "What domains hold on a host that are not Croft's.";
    resources(encoder, "croft_host_foreign", help, hosts, |host| host.foreign)?;
    let help = "What an operator keeps free on a host.";
    resources(encoder, "croft_host_reserve", help, hosts, |host| host.reserve)?;
    let help = "What can still be placed on a host, CPU overcommit included, huge pages not.";
    resources(encoder, "croft_host_free", help, hosts, HostView::free)
}

fn claimed(host: &HostView) -> Resources {
    let dedicated = i64::try_from(host.dedicated.len()).unwrap_or(i64::MAX);
    let huge: i64 = host.huge_claimed.values().sum();
    host.claimed + Resources { vcpus: dedicated, memory_mib: huge, disk_gib: 0 }
}

fn resources(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    hosts: &[HostView],
    of: impl Fn(&HostView) -> Resources,
) -> fmt::Result {
    let rows = hosts.iter().flat_map(|host| {
        let found = of(host);
        [(quota::VCPUS, found.vcpus), (quota::MEMORY_MIB, found.memory_mib), (quota::DISK_GIB, found.disk_gib)]
            .map(|(resource, amount)| ([("host", host.id.as_str()), ("resource", resource)], amount))
    });
    gauges(encoder, name, help, rows)
}

/// A family of gauges: one series for each set of labels.
pub(super) fn gauges<V: prometheus_client::encoding::EncodeLabelValue, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: impl Iterator<Item = ([(&'static str, V); N], i64)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in rows {
        metric.encode_family(&labels)?.encode_gauge(&value)?;
    }
    Ok(())
}
