//! `grpc.health.v1`: SERVING once the database is open and the engine runs, and no longer from the moment of a stop.

use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// Services that a prober may ask for by name; the empty one stands for all.
fn services() -> impl Iterator<Item = &'static str> {
    let paths = croft_proto::PERMISSIONS.iter().filter_map(|(path, _)| path.strip_prefix('/')?.split_once('/'));
    let mut services: Vec<_> = paths.map(|(service, _)| service).collect();
    services.dedup();
    std::iter::once("").chain(services)
}

#[derive(Debug, Clone)]
pub struct Health(HealthReporter);

impl Health {
    /// Not serving, until told otherwise.
    pub async fn add_to(routes: Routes) -> (Self, Routes) {
        let (reporter, service) = tonic_health::server::health_reporter();
        let health = Self(reporter);
        health.set(ServingStatus::NotServing).await;
        (health, routes.add_service(service))
    }

    pub async fn serving(&self) {
        self.set(ServingStatus::Serving).await;
    }

    /// Tells whoever watches, and ends their streams: they would keep a graceful stop waiting for ever.
    pub async fn stop(mut self) {
        self.set(ServingStatus::NotServing).await;
        for service in services() {
            self.0.clear_service_status(service).await;
        }
    }

    async fn set(&self, status: ServingStatus) {
        for service in services() {
            self.0.set_service_status(service, status).await;
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_service_is_named_once() {
        let services: Vec<_> = super::services().collect();
        assert!(services.contains(&"") && services.contains(&"croft.v1.Instances"), "{services:?}");
        assert_eq!(services.iter().filter(|name| **name == "croft.agent.v1.Agent").count(), 1);
    }
}
