//! A node on a host under maintenance: its pods leave first, and it joins again afterwards.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_moves_the_pods_first_and_the_node_comes_back_afterwards() {
    let mut story = Story::begin().await;
    story.fleet.api.create_as(story.request("train")).await.unwrap();
    let ready = story.ready("train").await;
    let (name, uid) = (node_of(&ready), uid_of(&ready));
    {
        let mut state = story.fleet.cluster.state();
        state.run(&name, "db-0");
        state.blocked = true;
    }
    story.fleet.api.drain("h1").await.unwrap();
    let blocked = async |fleet: &Fleet| {
        let node = fleet.api.get("acme", "train").await.unwrap().status.unwrap().node.unwrap();
        if node.reason == "DrainBlocked" { Ok(()) } else { Err(node) }
    };
    story.until("a budget keeps its pod", blocked).await;
    assert!(story.fleet.sim("h1").is_running(&uid).await, "its pod still runs");
    let request = v1::ExplainHostDrainRequest { name: "hosts/h1".to_owned() };
    let plan = story.fleet.api.hosts.clone().explain_host_drain(request).await.unwrap().into_inner();
    assert!(plan.steps[0].message.contains("default/db"), "{plan:?}");
    assert!(story.fleet.cluster.state().nodes[&name].cordoned);

    // Taken back: it is the same Node, and takes pods again.
    story.fleet.api.undrain("h1").await.unwrap();
    story.phase("train", Phase::Joined).await;
    let open = async |fleet: &Fleet| if fleet.cluster.state().nodes[&name].cordoned { Err("cordoned") } else { Ok(()) };
    story.until("its cordon is gone", open).await;
    assert_eq!(story.fleet.sim("h1").starts(&uid).await, 1, "it was never stopped");

    story.fleet.cluster.state().blocked = false;
    story.fleet.api.drain("h1").await.unwrap();
    story.phase("train", Phase::Left).await;
    story.until("nothing is left in the cluster", async |fleet: &Fleet| fleet.cluster.left()).await;
    let drained = async |fleet: &Fleet| {
        let phase = fleet.api.host("h1").await.maintenance.unwrap_or_default().phase();
        if phase == v1::host_maintenance::Phase::Drained { Ok(()) } else { Err(phase) }
    };
    story.until("its host is drained", drained).await;
    assert!(!story.fleet.sim("h1").is_running(&uid).await);
    story.fleet.api.undrain("h1").await.unwrap();
    let again = story.ready("train").await;
    assert_eq!((node_of(&again), story.fleet.sim("h1").starts(&uid).await), (name, 2));
    story.end().await;
}
