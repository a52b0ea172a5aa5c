//! The agent's metrics: what it counts itself, and what only the host knows of its guests and GPUs.
//!
//! Every series has the label `host`. What the plane knows of instances, hosts and quota, the plane exports.
//! docs/metrics.md lists every name.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use croft_proto::agent::v1::instance_observation::Phase;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::board::Board;

mod exposition;
mod gpus;
mod instances;
mod server;
mod source;

pub use server::serve;
pub use source::{Seen, Source};

type Labels = [(&'static str, &'static str); 1];
type Histograms = Family<Labels, Histogram, fn() -> Histogram>;

const PHASES: [(Phase, &str); 8] = [
    (Phase::Absent, "absent"),
    (Phase::Preparing, "preparing"),
    (Phase::Starting, "starting"),
    (Phase::Running, "running"),
    (Phase::Stopping, "stopping"),
    (Phase::Off, "off"),
    (Phase::Paused, "paused"),
    (Phase::Failed, "failed"),
];

/// Each is there from the start: a counter that begins with its first error shows no increase.
const VERBS: [&str; 15] = [
    "about",
    "attach",
    "destroy",
    "detach",
    "ensure_defined",
    "ensure_image",
    "prune_images",
    "remove",
    "replace_seed",
    "request_reboot",
    "request_shutdown",
    "reset",
    "resume",
    "start",
    "survey",
];

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    /// Empty: nobody has said.
    host: Arc<str>,
    instances: Family<Labels, Gauge>,
    hypervisor_errors: Family<Labels, Counter>,
    link_up: Gauge,
    link_dials: Family<Labels, Counter>,
    reconcile: Histograms,
    image_bytes: Counter,
    certificate_expiry: Gauge<f64, AtomicU64>,
    tunnels: Gauge,
    scrape_errors: Family<Labels, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::of_host("")
    }
}

impl Metrics {
    #[must_use]
    pub fn of_host(host: &str) -> Self {
        let mut registry = Registry::with_prefix_and_labels("croft_hostagent", host_label(host));
        let instances = Family::<Labels, Gauge>::default();
        let hypervisor_errors = Family::<Labels, Counter>::default();
        let link_up = Gauge::default();
        let link_dials = Family::<Labels, Counter>::default();
        // 1 ms to about a quarter of an hour: a journal note to the first fetch of an image.
        let reconcile = Histograms::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 4.0, 11)));
        let image_bytes = Counter::default();
        let certificate_expiry = Gauge::default();
        let tunnels = Gauge::default();
        let scrape_errors = Family::<Labels, Counter>::default();
        scrape_errors.get_or_create(&[("family", "instances")]).inc_by(0);
        for verb in VERBS {
            hypervisor_errors.get_or_create(&[("verb", verb)]).inc_by(0);
        }
        let build = Family::<Labels, Gauge>::default();
        build.get_or_create(&[("version", croft_program::version())]).set(1);

        registry.register("build_info", "The version of this agent; always 1", build);
        registry.register("instances", "Instances of Croft's on this host by phase", instances.clone());
        registry.register(
            "hypervisor_errors",
            "Calls to the hypervisor that failed, by verb",
            hypervisor_errors.clone(),
        );
        registry.register("link_up", "1 while a session with the control plane is open", link_up.clone());
        registry.register("link_dials", "Attempts to reach the control plane, by result", link_dials.clone());
        registry.register(
            "reconcile_duration_seconds",
            "Time that one step of an instance's driver took, by action",
            reconcile.clone(),
        );
        registry.register("image_fetch_bytes", "Bytes of images that were fetched", image_bytes.clone());
        registry.register(
            "certificate_expiry_timestamp_seconds",
            "When this host's certificate ends, in seconds since 1970; 0: it has none",
            certificate_expiry.clone(),
        );
        registry.register("tunnels", "Consoles, logs and port-forwards that are open", tunnels.clone());
        let help = "Reads for a scrape that failed; the family is missing from that scrape";
        registry.register("scrape_errors", help, scrape_errors.clone());
        Self {
            registry: Arc::new(registry),
            host: host.into(),
            instances,
            hypervisor_errors,
            link_up,
            link_dials,
            reconcile,
            image_bytes,
            certificate_expiry,
            tunnels,
            scrape_errors,
        }
    }

    pub fn hypervisor_error(&self, verb: &'static str) {
        debug_assert!(VERBS.contains(&verb), "{verb} is not in VERBS");
        self.hypervisor_errors.get_or_create(&[("verb", verb)]).inc();
    }

    fn scrape_error(&self, family: &'static str) {
        self.scrape_errors.get_or_create(&[("family", family)]).inc();
    }

    pub fn reconciled(&self, action: &'static str, took: Duration) {
        self.reconcile.get_or_create(&[("action", action)]).observe(took.as_secs_f64());
    }

    pub fn image_fetched(&self, bytes: u64) {
        self.image_bytes.inc_by(bytes);
    }

    pub fn link_up(&self, up: bool) {
        self.link_up.set(i64::from(up));
    }

    pub fn dialled(&self, result: &'static str) {
        self.link_dials.get_or_create(&[("result", result)]).inc();
    }

    pub fn certificate_ends(&self, unix_seconds: i64) {
        self.certificate_expiry.set(unix_seconds as f64);
    }

    /// Counts one while it lives.
    #[must_use]
    pub fn tunnel(&self) -> impl Drop + Send + 'static {
        struct Open(Gauge);
        impl Drop for Open {
            fn drop(&mut self) {
                self.0.dec();
            }
        }
        self.tunnels.inc();
        Open(self.tunnels.clone())
    }

    #[must_use]
    pub fn tunnels_open(&self) -> usize {
        usize::try_from(self.tunnels.get()).unwrap_or(0)
    }

    /// Everything, in Prometheus' text format 0.0.4.
    #[must_use]
    pub fn render(&self, board: &Board, seen: &Seen) -> String {
        let facts = board.facts();
        for (phase, word) in PHASES {
            let count = facts.instances.values().filter(|instance| instance.phase() == phase).count();
            self.instances.get_or_create(&[("phase", word)]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let mut now = Registry::with_prefix_and_labels("croft", host_label(&self.host));
        if let Some(instances) = &seen.instances {
            now.register_collector(Box::new(instances::Instances(instances.clone())));
        }
        if let Some(gpus) = &seen.gpus {
            now.register_collector(Box::new(gpus::Gpus(gpus.clone())));
        }
        exposition::render(&self.registry) + &exposition::render(&now)
    }
}

fn host_label(host: &str) -> impl Iterator<Item = (Cow<'static, str>, Cow<'static, str>)> {
    Some(host).filter(|host| !host.is_empty()).map(|host| ("host".into(), host.to_owned().into())).into_iter()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn promtool_finds_nothing_to_say() {
        let metrics = Metrics::default();
        metrics.hypervisor_error("start");
        metrics.reconciled("start", Duration::from_millis(3));
        metrics.image_fetched(7);
        metrics.dialled("ok");
        let text = metrics.render(&Board::default(), &Seen::default());
        assert!(text.contains("# TYPE croft_hostagent_image_fetch_bytes_total counter\n"), "{text}");
        assert!(text.contains("croft_hostagent_image_fetch_bytes_total 7\n"), "{text}");
        assert!(text.contains("croft_hostagent_instances{phase=\"running\"} 0\n"), "{text}");

        let promtool =
            Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let Ok(mut promtool) = promtool else {
            assert!(std::env::var_os("CI").is_none(), "promtool is missing: apt-get install prometheus");
            eprintln!("skipped: promtool is not installed");
            return;
        };
        promtool.stdin.take().expect("stdin").write_all(text.as_bytes()).expect("write");
        let output = promtool.wait_with_output().expect("promtool");
        assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
    }
}
