//! A fleet in which everything has happened once, and a Prometheus that has watched it happen.

use std::time::Duration;

use croft_gpu::pci::PciAddress;
use croft_proto::v1;
use croft_proto::v1::device_request::{MigSlice, Wanted as Piece, WholeGpu};
use croft_proto::v1::host;
use croft_proto::v1::instance_status::State;
use croft_tests::eventually::within;
use croft_tests::fleet::{FAULTS, REFUSE_DEFINE};
use croft_tests::prometheus::Prometheus;
use croft_tests::{Fleet, Wanted};
use tonic::Code;

/// Of a `devbox`: a GPU for a display, beside an H100 that is cut.
pub const DISPLAY: &str = "0000:61:00.0";
pub const H100: &str = "h100_sxm_80gb";
/// Two processors, and everybody works.
const PATIENCE: Duration = Duration::from_secs(180);
const PAST_THE_LEASE: Duration = Duration::from_secs(45);

#[derive(Debug)]
pub struct Site {
    pub fleet: Fleet,
    pub prometheus: Prometheus,
}

impl Site {
    pub async fn open() -> Self {
        let mut fleet = Fleet::start().await;
        fleet.host_with_devices("h1", "devbox").await;
        fleet.host("h2").await;
        fleet.host("h3").await;
        fleet.host("h4").await;
        fleet.register_cluster("prod").await;
        let api = fleet.api.clone();
        api.drain("h4").await.expect("drained");
        api.tenant("beta", Some("acme")).await;
        for (tenant, resource, limit) in [
            ("acme", "vcpus", 8),
            ("acme", "instances", 20),
            ("acme", "gpus", 1),
            ("beta", "vcpus", 2),
            ("acme", &format!("gpu_slices/{H100}/1g.10gb"), 4),
        ] {
            api.quota(tenant, resource, limit).await;
        }
        // Before anything happens: a rate needs to see it.
        let prometheus = Prometheus::start(fleet.plane_metrics(), &fleet.agents_metrics()).await;
        let mut site = Self { fleet, prometheus };
        for wave in 0..2 {
            site.wave(wave).await;
            site.has_seen(&format!(r#"croft_instances{{state="RUNNING"}} >= {}"#, wave + 1)).await;
        }
        site.misfortunes().await;
        site
    }

    /// Instances of every kind, more than once: they come and go, and some are refused.
    async fn wave(&self, wave: u32) {
        let api = &self.fleet.api;
        let named = |what: &str| format!("{what}-{wave}");
        api.running("acme", &named("web")).await;
        api.running("beta", &named("db")).await;
        api.running("acme", &named("gone")).await;
        api.done(&api.stop("acme", &named("gone")).await.expect("accepted")).await.expect("stopped");
        api.done(&api.delete("acme", &named("gone")).await.expect("accepted")).await.expect("deleted");
        self.with(
            "acme",
            &named("infer"),
            Piece::Mig(MigSlice { profile: "1g.10gb".to_owned(), model: String::new() }),
        )
        .await;
        let refused = Wanted { vcpus: 4, ..Wanted::default() }.request("beta", &named("large"));
        assert_eq!(api.create_as(refused).await.unwrap_err().code(), Code::ResourceExhausted);
    }

    async fn with(&self, tenant: &str, id: &str, piece: Piece) {
        let devices = vec![v1::DeviceRequest { id: "gpu".to_owned(), wanted: Some(piece), ..Default::default() }];
        let request = Wanted { devices, ..Wanted::default() }.request(tenant, id);
        self.fleet.api.done(&self.fleet.api.create_as(request).await.expect("create")).await.expect("created");
        self.fleet.api.until(tenant, id, State::Running).await;
    }

    /// A host that is not heard from, an instance that fails, a GPU that falls off the bus under its guest.
    async fn misfortunes(&mut self) {
        let fleet = &mut self.fleet;
        std::fs::write(fleet.directory().join("h2").join(FAULTS), REFUSE_DEFINE).expect("a fault");
        std::fs::write(fleet.directory().join("h1").join(FAULTS), REFUSE_DEFINE).expect("a fault");
        fleet.agent_kill("h3").await;
        fleet.advance(PAST_THE_LEASE).await;
        fleet.api.host_until("h3", host::State::Unreachable).await;
        // They were silent for as long by that clock, and are heard from again.
        for host in ["h1", "h2"] {
            fleet.api.host_until(host, host::State::Ready).await;
        }
        let _accepted = fleet.api.create("acme", "doomed").await.expect("accepted");
        fleet.api.until("acme", "doomed", State::Failed).await;
        std::fs::write(fleet.directory().join("h1").join(FAULTS), "{}").expect("no fault");
        let model = fleet.api.device("h1", DISPLAY).await.gpu.expect("a GPU").model;
        self.with("acme", "desk", Piece::Gpu(WholeGpu { model })).await;
        let address: PciAddress = DISPLAY.parse().expect("an address");
        self.fleet.machine("h1").host.surprise_remove(address).expect("it fell off");
        self.fleet.api.device_until("h1", DISPLAY, v1::device::State::Missing).await;
        self.has_seen(&format!(r#"croft:gpu_healthy:by_holder{{host_bdf="{DISPLAY}", instance="desk"}} == 0"#)).await;
        self.has_seen(r#"croft_cluster_reachable == 1"#).await;
    }

    /// Until Prometheus finds something.
    pub async fn has_seen(&self, expression: &str) {
        within(PATIENCE, expression, || async {
            match self.prometheus.query(expression).await {
                Ok(found) if !found.is_empty() => Ok(()),
                other => Err(other),
            }
        })
        .await;
    }

    /// (whose, page): of the plane, and of two agents.
    pub async fn pages(&self) -> Vec<(&'static str, String)> {
        vec![
            ("plane", self.fleet.metrics().await),
            ("agent", self.fleet.agent_metrics("h1").await),
            ("agent", self.fleet.agent_metrics("h2").await),
        ]
    }

    pub async fn close(self) {
        self.fleet.end().await;
    }
}
