//! Everything is dropped without a destructor's help, again and again, and the same files are opened again.

use croft_proto::v1::instance_status::State;
use croft_tests::{Fleet, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plane_and_agents_that_die_between_any_two_steps() {
    let mut fleet = Fleet::with_host("h1").await;
    fleet.host("h2").await;
    let mut acknowledged = Vec::new();
    for round in 0..6 {
        let id = format!("i{round}");
        let operation = fleet.api.create("acme", &id).await.expect("acknowledged");
        acknowledged.push((id, operation));
        match round % 3 {
            0 => fleet.plane_kill().await,
            1 => fleet.agent_kill("h1").await,
            _ => {
                fleet.agent_kill("h1").await;
                fleet.agent_kill("h2").await;
                fleet.plane_kill().await;
            }
        }
        fleet.revive().await;
    }
    for (id, operation) in &acknowledged {
        fleet.api.done(operation).await.expect("acknowledged work survives");
        fleet.api.until("acme", id, State::Running).await;
    }
    assert_eq!(fleet.api.used("acme", "instances").await, 6);
    for (id, _) in &acknowledged {
        let delete = fleet.api.delete("acme", id).await.expect("accepted");
        fleet.plane_kill().await;
        fleet.revive().await;
        fleet.api.done(&delete).await.expect("deleted");
    }
    eventually("nothing is left anywhere", || async {
        let left = (fleet.sim("h1").is_empty().await, fleet.sim("h2").is_empty().await);
        if left == (true, true) { Ok(()) } else { Err(left) }
    })
    .await;
    assert_eq!(fleet.api.used("acme", "instances").await, 0);
    fleet.consistent().await;
    fleet.end().await;
}
