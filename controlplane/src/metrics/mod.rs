//! Numbers for Prometheus: what this process counts, and what the database says at the moment of a scrape.
//!
//! Base units, no label that a caller can make up, and nothing that is not known: what cannot be read is missing from the
//! answer and counted in `croft_scrape_errors_total`, never reported as zero. docs/metrics.md lists every name.

mod buckets;
mod clusters;
mod codes;
mod devices;
mod gpus;
pub mod http;
mod meter;
#[cfg(test)]
mod tests;
mod text;
mod truth;

use std::sync::Arc;
use std::time::Duration;

use croft_core::Timestamp;
use croft_core::instance::State;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

pub use meter::EngineMeter;
pub use text::Format;
pub use truth::{Read, Reader, Truth};

type Labels<const N: usize> = [(&'static str, &'static str); N];
type Histograms<const N: usize> = Family<Labels<N>, Histogram, fn() -> Histogram>;

/// Cheap to count into, from anywhere.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Labels<2>, Counter>,
    request_seconds: Histograms<1>,
    calls_open: Family<Labels<1>, Gauge>,
    connections_open: Gauge,
    handshakes: Family<Labels<1>, Counter>,
    placement_seconds: Histogram,
    claim_batch_size: Histogram,
    reconcile_seconds: Histogram,
    reconcile_batch_size: Histogram,
    instance_state_seconds: Histograms<1>,
    certificate_expiry: Family<Labels<1>, Gauge>,
    scrape_errors: Family<Labels<1>, Counter>,
    host_sessions: Gauge,
    agents_held: Gauge,
    streaming: std::collections::BTreeSet<String>,
}

impl Metrics {
    #[must_use]
    pub fn new() -> Arc<Self> {
        let mut metrics = Self {
            registry: Registry::with_prefix("croft"),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(buckets::quick),
            calls_open: Family::default(),
            connections_open: Gauge::default(),
            handshakes: Family::default(),
            placement_seconds: buckets::quick(),
            claim_batch_size: buckets::sizes(),
            reconcile_seconds: buckets::quick(),
            reconcile_batch_size: buckets::sizes(),
            instance_state_seconds: Family::new_with_constructor(buckets::slow),
            certificate_expiry: Family::default(),
            scrape_errors: Family::default(),
            host_sessions: Gauge::default(),
            agents_held: Gauge::default(),
            streaming: codes::streaming_methods(),
        };
        metrics.register();
        for outcome in Handshake::ALL {
            metrics.handshakes.get_or_create(&[("result", outcome.as_str())]).inc_by(0);
        }
        for family in Read::ALL {
            metrics.scrape_errors.get_or_create(&[("family", family.as_str())]).inc_by(0);
        }
        Arc::new(metrics)
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        let build = Info::new([("version", croft_program::version())]);
        r.register("build", "The croft-controlplane that runs", build);
        r.register("grpc_requests", "Calls that ended, streams too, by their gRPC code", self.requests.clone());
        let help = "From request to answer, of calls that are no streams";
        r.register_with_unit("grpc_request", help, Unit::Seconds, self.request_seconds.clone());
        let help = "Calls that are open now: streams are the watches, sessions and tunnels";
        r.register("grpc_open_requests", help, self.calls_open.clone());
        r.register("connections", "Open connections on the API port", self.connections_open.clone());
        let help = "Connections by how their TLS handshake ended: good, refused or late";
        r.register("tls_handshakes", help, self.handshakes.clone());
        let help = "From a create's arrival at the placer to its answer";
        r.register_with_unit("placement", help, Unit::Seconds, self.placement_seconds.clone());
        r.register("claim_batch_size", "Creates that shared one commit", self.claim_batch_size.clone());
        let help = "One pass of the reconciler";
        r.register_with_unit("reconcile", help, Unit::Seconds, self.reconcile_seconds.clone());
        r.register("reconcile_batch_size", "Instances looked at in one pass", self.reconcile_batch_size.clone());
        let help = "How long instances were in a state, told when they left it";
        r.register_with_unit("instance_state", help, Unit::Seconds, self.instance_state_seconds.clone());
        let help = "When a certificate of the plane ends, as a Unix time";
        let unit = Unit::Other("timestamp_seconds".to_owned());
        r.register_with_unit("certificate_expiry", help, unit, self.certificate_expiry.clone());
        let help = "Reads for a scrape that failed; the family is missing from that scrape";
        r.register("scrape_errors", help, self.scrape_errors.clone());
        let help = "Hosts whose agent is connected and was heard from within the lease";
        r.register("host_sessions", help, self.host_sessions.clone());
        let help = "1 while agents are held off after a restore";
        r.register("agents_held", help, self.agents_held.clone());
    }

    /// For `croft_rpc`: each call, once, when it ended.
    pub fn observe(&self, method: &'static str, code: tonic::Code, took: Duration) {
        self.requests.get_or_create(&[("method", method), ("code", croft_rpc::status::code_name(code))]).inc();
        if !self.streaming.contains(method) {
            self.request_seconds.get_or_create(&[("method", method)]).observe(took.as_secs_f64());
        }
    }

    /// Open until it is dropped.
    #[must_use]
    pub fn call(&self, path: &str) -> OpenCall {
        let gauge = self.calls_open.get_or_create_owned(&[("method", codes::method(path))]);
        gauge.inc();
        OpenCall(gauge)
    }

    /// Open until it is dropped.
    #[must_use]
    pub fn connection(&self) -> OpenConnection {
        self.connections_open.inc();
        OpenConnection(self.connections_open.clone())
    }

    pub fn handshake(&self, outcome: Handshake) {
        self.handshakes.get_or_create(&[("result", outcome.as_str())]).inc();
    }

    /// `which`: `ca` or `server`.
    pub fn certificate(&self, which: &'static str, not_after: Timestamp) {
        self.certificate_expiry.get_or_create(&[("certificate", which)]).set(not_after.0.div_euclid(1_000_000));
    }

    fn left(&self, state: State, spent: Duration) {
        self.instance_state_seconds.get_or_create(&[("state", state.as_str())]).observe(spent.as_secs_f64());
    }

    /// Everything, in the words of `format`.
    pub fn render(&self, truth: &Arc<Truth>, format: Format) -> Result<String, std::fmt::Error> {
        let mut said = Registry::default();
        said.register_collector(Box::new(truth.clone()));
        text::render(&[&self.registry, &said], format)
    }
}

#[derive(Debug)]
pub struct OpenCall(Gauge);

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[derive(Debug)]
pub struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// How the beginning of a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    Good,
    /// A foreign or expired certificate, or no TLS and HTTP/2 at all.
    Refused,
    Late,
}

impl Handshake {
    const ALL: [Self; 3] = [Self::Good, Self::Refused, Self::Late];

    fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Refused => "refused",
            Self::Late => "late",
        }
    }
}
