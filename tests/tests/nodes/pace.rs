//! How often a cluster is asked.

use tokio::time::Instant;

use super::*;

impl Story {
    fn looks(&self) -> usize {
        self.fleet.cluster.state().looks
    }

    async fn looked_at(&mut self, from: usize, times: usize) {
        let is = async |fleet: &Fleet| match fleet.cluster.state().looks - from {
            looks if looks >= times => Ok(()),
            looks => Err(looks),
        };
        self.until(&format!("it is looked at {times} times"), is).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_refuses_is_asked_less_and_less_often() {
    let mut story = Story::begin().await;
    // Each try writes another end of the token into the store first.
    story.fleet.cluster.state().refuses = ["token_ensure"].into();
    story.fleet.api.create_as(story.request("web")).await.unwrap();
    let refused = async |fleet: &Fleet| {
        let node = fleet.api.get("acme", "web").await.unwrap().status.unwrap().node.unwrap();
        if node.reason == "ClusterRefused" { Ok(()) } else { Err(node) }
    };
    story.until("it is refused", refused).await;
    let (began, from) = (Instant::now(), story.looks());
    story.looked_at(from, 4).await;
    let took = began.elapsed();
    assert!(took > Duration::from_secs(4), "what the plane writes itself is no news to it: {took:?}");
    story.fleet.cluster.state().refuses.clear();
    story.ready("web").await;
    story.fleet.api.delete("acme", "web").await.unwrap();
    story.gone("web").await;
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_changed_is_looked_at_at_once() {
    let mut story = Story::begin().await;
    story.looked_at(0, 1).await;
    let began = Instant::now();
    for times in 1..=6 {
        let cluster = v1::Cluster {
            name: story.cluster.clone(),
            description: format!("changed {times} times"),
            ..Default::default()
        };
        let from = story.looks();
        let request = v1::UpdateClusterRequest { cluster: Some(cluster), ..Default::default() };
        story.fleet.api.clusters.clone().update_cluster(request).await.unwrap();
        story.looked_at(from, 1).await;
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(60), "nobody joins it, so each minute is often enough else: {took:?}");
    story.end().await;
}
