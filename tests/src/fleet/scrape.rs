//! The metrics pages of a fleet, as Prometheus finds them.

use std::net::SocketAddr;

use super::Fleet;

impl Fleet {
    /// The text of the plane's metrics page.
    pub async fn metrics(&self) -> String {
        page(self.plane_metrics()).await
    }

    /// The text of an agent's.
    pub async fn agent_metrics(&self, id: &str) -> String {
        page(self.hosts[id].metrics.expect("its agent runs")).await
    }

    pub fn plane_metrics(&self) -> SocketAddr {
        self.plane.as_ref().expect("the plane runs").metrics_addr
    }

    /// Where agents answer, or answered before they were killed.
    pub fn agents_metrics(&self) -> Vec<SocketAddr> {
        self.hosts.values().filter_map(|member| member.metrics).collect()
    }
}

async fn page(address: SocketAddr) -> String {
    let (head, body) = crate::prometheus::get(address, "/metrics").await.expect("a metrics page");
    assert!(head.starts_with("HTTP/1.0 200") || head.starts_with("HTTP/1.1 200"), "{head}");
    body
}
