//! A cluster that answers and refuses one thing, or is away at the wrong moment: nobody waits for it for ever, and nothing is started
//! that nobody wants.

use super::*;

impl Story {
    async fn said(&mut self, id: &str, reason: &str) -> v1::NodeStatus {
        let is = async |fleet: &Fleet| {
            let node = fleet.api.get("acme", id).await.unwrap().status.unwrap().node.unwrap();
            if node.reason == reason { Ok(node) } else { Err(node) }
        };
        self.until(&format!("{id} says {reason}"), is).await
    }

    async fn gone_here(&mut self, id: &str) {
        let is = async |fleet: &Fleet| match fleet.api.state("acme", id).await {
            None => Ok(()),
            state => Err(state),
        };
        self.until(&format!("{id} is gone"), is).await;
    }

    async fn delete_forced(&self, id: &str) {
        let name = format!("tenants/acme/instances/{id}");
        let request = v1::DeleteInstanceRequest { name, force: true, ..Default::default() };
        self.fleet.api.instances.clone().delete_instance(request).await.unwrap();
    }

    async fn left_behind(&self, id: &str) -> String {
        let target = format!("tenants/acme/instances/{id}");
        let page = croft_store::Page::first(1000);
        let (events, ..) = self.fleet.store().events_list(None, Some(&target), &page).await.expect("events");
        let event = events.into_iter().find(|event| event.reason == "NodeLeftBehind");
        event.expect("what is left is told").message
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_cluster_refuses_holds_up_no_leave_for_ever() {
    let mut story = Story::begin().await;
    story.fleet.api.create_as(story.request("web")).await.unwrap();
    let ready = story.ready("web").await;
    let (name, uid) = (node_of(&ready), uid_of(&ready));
    {
        let mut state = story.fleet.cluster.state();
        state.run(&name, "db-0");
        state.refuses = ["node_change", "evict"].into();
    }
    let stop = story.fleet.api.stop("acme", "web").await.unwrap();
    let said = story.said("web", "ClusterRefused").await;
    assert!(said.message.contains("node_change"), "{}", said.message);
    assert!(story.fleet.sim("h1").is_running(&uid).await, "its pod has its time");
    let mut looks = 0;
    let left = async |fleet: &Fleet| {
        // Again where the drain had not begun to count.
        if looks % 200 == 0 {
            fleet.live(Duration::from_secs(601)).await;
        }
        looks += 1;
        fleet.cluster.left()
    };
    story.until("its Node goes all the same", left).await;
    story.fleet.api.done(&stop).await.expect("stopped");
    story.phase("web", Phase::Left).await;

    // With force, what may not be deleted stays, and is named.
    story.fleet.cluster.state().refuses.clear();
    story.fleet.api.start("acme", "web").await.unwrap();
    story.ready("web").await;
    story.fleet.cluster.state().refuses = ["node_delete"].into();
    story.delete_forced("web").await;
    story.gone_here("web").await;
    assert!(story.left_behind("web").await.contains(&name));
    assert!(story.fleet.cluster.state().nodes.contains_key(&name));
    assert!(story.fleet.sim("h1").is_empty().await);
    story.end().await;
}

/// Root on a node may put a finalizer on it, and its cluster then says yes to a delete and keeps it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_a_finalizer_keeps_does_not_keep_its_machine() {
    let mut story = Story::begin().await;
    story.fleet.api.create_as(story.request("web")).await.unwrap();
    let ready = story.ready("web").await;
    let (name, uid) = (node_of(&ready), uid_of(&ready));
    story.fleet.cluster.state().keeps_nodes = true;
    story.fleet.api.stop("acme", "web").await.unwrap();
    let said = story.said("web", "ClusterRefused").await;
    assert!(said.message.contains(&name) && said.message.contains("finalizer"), "{}", said.message);
    let mut looks = 0;
    let off = async |fleet: &Fleet| {
        if looks % 200 == 0 {
            fleet.live(Duration::from_secs(601)).await;
        }
        looks += 1;
        if fleet.sim("h1").is_running(&uid).await { Err("it still runs") } else { Ok(()) }
    };
    story.until("its machine is off all the same", off).await;
    assert!(story.left_behind("web").await.contains(&name));

    story.fleet.cluster.state().keeps_nodes = false;
    story.phase("web", Phase::Left).await;
    story.fleet.api.delete("acme", "web").await.unwrap();
    story.gone("web").await;
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_cannot_be_deleted_is_named_and_ends_by_itself() {
    let mut story = Story::begin().await;
    story.fleet.cluster.state().no_kubelets = true;
    story.fleet.api.create_as(story.request("web")).await.unwrap();
    story.phase("web", Phase::Booting).await;
    story.fleet.cluster.state().refuses = ["token_delete"].into();
    let token = story.fleet.cluster.state().tokens.keys().next().expect("a token").clone();
    story.fleet.api.delete("acme", "web").await.unwrap();
    story.said("web", "ClusterRefused").await;
    story.delete_forced("web").await;
    story.gone_here("web").await;
    let told = story.left_behind("web").await;
    assert!(told.contains(&token) && told.contains("10 min"), "{told}");
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_its_token_is_not_started_by_its_stop_or_delete() {
    let mut story = Story::begin().await;
    // The store has its token, and the cluster never got it.
    story.fleet.cluster.state().refuses = ["token_ensure"].into();
    let mut uids = Vec::new();
    for id in ["stopped", "deleted"] {
        story.fleet.api.create_as(story.request(id)).await.unwrap();
        story.said(id, "ClusterRefused").await;
        uids.push(uid_of(&story.fleet.api.get("acme", id).await.unwrap()));
    }
    story.fleet.cluster.state().away = true;
    let stop = story.fleet.api.stop("acme", "stopped").await.unwrap();
    story.fleet.api.delete("acme", "deleted").await.unwrap();
    story.fleet.api.done(&stop).await.expect("nothing was there to be drained");
    story.phase("stopped", Phase::Leaving).await;
    story.phase("deleted", Phase::Leaving).await;
    let start = story.fleet.api.start("acme", "stopped").await.unwrap();
    for uid in &uids {
        assert_eq!(story.fleet.sim("h1").starts(uid).await, 0, "it would have found no token that is good");
    }
    {
        let mut state = story.fleet.cluster.state();
        (state.away, state.refuses) = (false, BTreeSet::new());
    }
    story.gone_here("deleted").await;
    story.ready("stopped").await;
    story.fleet.api.done(&start).await.expect("started");
    assert_eq!(story.fleet.sim("h1").starts(&uids[0]).await, 1);
    story.fleet.api.delete("acme", "stopped").await.unwrap();
    story.gone("stopped").await;
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_that_cannot_be_opened_holds_up_nobody_else() {
    use sqlx::Connection as _;
    let mut story = Story::begin().await;
    story.fleet.cluster.state().away = true;
    story.fleet.api.create_as(story.request("lost")).await.unwrap();
    story.said("lost", "CLUSTER_UNREACHABLE").await;
    let file = story.fleet.data_dir().join("croft.db");
    let mut conn = sqlx::AnyConnection::connect(&format!("sqlite:{}?mode=rw", file.display())).await.unwrap();
    sqlx::query("UPDATE secrets SET key_id = 'lost' WHERE digest IN (SELECT seed_digest FROM instances)")
        .execute(&mut conn)
        .await
        .unwrap();
    conn.close().await.unwrap();
    story.fleet.cluster.state().away = false;
    story.fleet.api.create_as(story.request("web")).await.unwrap();
    story.ready("web").await;
    story.said("lost", "SeedUnreadable").await;
    for id in ["lost", "web"] {
        story.fleet.api.delete("acme", id).await.unwrap();
        story.gone_here(id).await;
    }
    story.until("nothing is left in the cluster", async |fleet: &Fleet| fleet.cluster.left()).await;
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_deleted_before_it_was_ready_fails_the_create() {
    let mut story = Story::begin().await;
    story.fleet.cluster.state().no_kubelets = true;
    let create = story.fleet.api.create_as(story.request("web")).await.unwrap();
    let name = node_of(&story.phase("web", Phase::Booting).await);
    story.fleet.cluster.state().no_kubelets = false;
    let registered = async |fleet: &Fleet| {
        let mut state = fleet.cluster.state();
        // And says no more.
        state.no_kubelets = state.nodes.contains_key(&name);
        if state.no_kubelets { Ok(()) } else { Err(state.nodes.len()) }
    };
    story.until("its kubelet registers", registered).await;
    story.phase("web", Phase::Joined).await;
    story.fleet.cluster.state().nodes.remove(&name);
    story.said("web", "NodeMissing").await;
    let error = story.fleet.api.done(&create).await.expect_err("nobody makes it again");
    assert!(error.message.contains("NodeMissing"), "{}", error.message);
    story.fleet.cluster.state().no_kubelets = false;
    story.fleet.api.delete("acme", "web").await.unwrap();
    story.gone("web").await;
    story.end().await;
}
