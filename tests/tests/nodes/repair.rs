//! A node that is not well: its machine is restarted or rebuilt where its user says so, and the Node's own events tell what happened.

use croft_proto::v1::node_wish::Repair;

use super::*;

fn repairs(instance: &v1::Instance) -> usize {
    let node = instance.status.as_ref().and_then(|status| status.node.as_ref());
    node.expect("a node").repair_times.len()
}

impl Story {
    /// Of the Node of this name, by what the cluster keeps.
    async fn tells(&mut self, name: &str, wanted: &str, instance: &str) {
        let told = async |fleet: &Fleet| {
            let state = fleet.cluster.state();
            let words: Vec<_> = state.events.iter().filter(|event| event.node == name).cloned().collect();
            let found = words.iter().any(|event| event.reason == wanted && event.message.contains(instance));
            if found { Ok(()) } else { Err(words) }
        };
        self.until(&format!("the node's events have {wanted}"), told).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_silent_while_its_machine_runs_is_restarted_and_comes_back() {
    let mut story = Story::begin().await;
    let mut request = story.request("web");
    let wish = request.instance.as_mut().and_then(|instance| instance.spec.as_mut()?.node.as_mut()).expect("a wish");
    wish.repair = Repair::Restart.into();
    story.fleet.api.create_as(request).await.unwrap();
    let ready = story.ready("web").await;
    let (name, uid) = (node_of(&ready), uid_of(&ready));
    assert_eq!(story.fleet.sim("h1").starts(&uid).await, 1);

    story.fleet.live(Duration::from_secs(60)).await;
    {
        let mut state = story.fleet.cluster.state();
        state.no_kubelets = true;
        state.nodes.get_mut(&name).expect("its node").ready = Ready::Silent;
    }
    let unsure = async |fleet: &Fleet| {
        let instance = fleet.api.get("acme", "web").await.unwrap();
        let condition = joined(&instance).expect("a condition").clone();
        if condition.status() == Status::Unknown { Ok(()) } else { Err(condition) }
    };
    story.until("its silence is seen", unsure).await;
    let mut looks = 0;
    let restarted = async |fleet: &Fleet| {
        // Ten minutes; again where the host was not heard from for a moment, since then they begin anew.
        if looks % 400 == 0 {
            fleet.live(Duration::from_secs(601)).await;
        }
        looks += 1;
        let instance = fleet.api.get("acme", "web").await.unwrap();
        if repairs(&instance) == 1 { Ok(()) } else { Err(instance.status) }
    };
    story.until("it is restarted", restarted).await;
    let boots = async |fleet: &Fleet| match fleet.sim("h1").starts(&uid).await {
        2 => Ok(()),
        times => Err(times),
    };
    story.until("its guest boots again", boots).await;
    story.tells(&name, "VmRestarted", "tenants/acme/instances/web").await;
    story.fleet.cluster.state().no_kubelets = false;
    let back = story.ready("web").await;
    assert_eq!((node_of(&back), repairs(&back)), (name.clone(), 1), "the same node, restarted once");
    let events = story.events("web").await;
    assert_eq!(events.iter().filter(|event| *event == "NodeRestarted").count(), 1, "{events:?}");

    // Its user would rather look himself.
    let mut update = back.clone();
    let wish = update.spec.as_mut().and_then(|spec| spec.node.as_mut()).expect("a wish");
    assert_eq!(wish.repair(), Repair::Restart);
    wish.repair = Repair::None.into();
    let request = v1::UpdateInstanceRequest { instance: Some(update), ..Default::default() };
    let updated = story.fleet.api.instances.clone().update_instance(request).await.unwrap().into_inner();
    assert_eq!(updated.spec.unwrap().node.unwrap().repair(), Repair::None);

    // A host that is not heard from is told to those who look at the node, once.
    story.fleet.agent_kill("h1").await;
    story.fleet.advance(Duration::from_secs(60)).await;
    story.tells(&name, "VmUnknown", "HOST_UNREACHABLE").await;
    story.fleet.agent_start("h1").await;
    story.ready("web").await;
    story.fleet.api.delete("acme", "web").await.unwrap();
    story.gone("web").await;
    let unknown = story.fleet.cluster.state().events.iter().filter(|event| event.reason == "VmUnknown").count();
    assert_eq!(unknown, 1);
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_machine_is_rebuilt_is_drained_leaves_and_joins_again_under_its_name() {
    let mut story = Story::begin().await;
    let request = story.request("web");
    story.fleet.api.create_as(request).await.unwrap();
    let ready = story.ready("web").await;
    let (name, uid) = (node_of(&ready), uid_of(&ready));
    let disk = story.fleet.sim("h1").disk(&uid);
    let operation = story.fleet.api.rebuild("acme", "web", false).await.unwrap();
    let rebuilt = async |fleet: &Fleet| {
        let request = v1::GetOperationRequest { name: operation.name.clone() };
        let operation = fleet.api.operations.clone().get_operation(request).await.unwrap().into_inner();
        if operation.done { Ok(operation.error) } else { Err(operation.progress) }
    };
    assert_eq!(story.until("it is rebuilt", rebuilt).await, None);
    let back = story.ready("web").await;
    assert_eq!((node_of(&back), story.fleet.sim("h1").starts(&uid).await), (name, 2));
    assert_ne!(story.fleet.sim("h1").disk(&uid), disk);
    let events = story.events("web").await;
    let way: Vec<&str> = events.iter().map(String::as_str).skip_while(|event| *event != "NodeLeaving").collect();
    assert_eq!(way, ["NodeLeaving", "NodeLeft", "NodeJoining", "NodeJoined", "NodeReady"], "{events:?}");
    story.fleet.api.delete("acme", "web").await.unwrap();
    story.gone("web").await;
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_restart_does_not_mend_is_rebuilt_where_its_user_allows_it() {
    let mut story = Story::begin().await;
    let mut request = story.request("web");
    let wish = request.instance.as_mut().and_then(|instance| instance.spec.as_mut()?.node.as_mut()).expect("a wish");
    wish.repair = Repair::Replace.into();
    story.fleet.api.create_as(request).await.unwrap();
    let ready = story.ready("web").await;
    let (name, uid) = (node_of(&ready), uid_of(&ready));
    let disk = story.fleet.sim("h1").disk(&uid);
    story.fleet.live(Duration::from_secs(60)).await;
    {
        let mut state = story.fleet.cluster.state();
        state.no_kubelets = true;
        state.nodes.get_mut(&name).expect("its node").ready = Ready::Silent;
    }
    for (times, patience) in [(1, 601), (2, 1201)] {
        let mut looks = 0;
        let done = async |fleet: &Fleet| {
            if looks % 400 == 0 {
                fleet.live(Duration::from_secs(patience)).await;
            }
            looks += 1;
            let instance = fleet.api.get("acme", "web").await.unwrap();
            if repairs(&instance) == times { Ok(()) } else { Err(instance.status) }
        };
        story.until(&format!("remedy {times}"), done).await;
    }
    let another = async |fleet: &Fleet| match fleet.sim("h1").disk(&uid) {
        now if now != disk && now.is_some() => Ok(()),
        _ => Err(fleet.api.get("acme", "web").await.unwrap().status),
    };
    story.until("it has another disk", another).await;
    story.fleet.cluster.state().no_kubelets = false;
    let back = story.ready("web").await;
    let node = back.status.as_ref().and_then(|status| status.node.clone()).expect("a node");
    assert_eq!((node.name.as_str(), node.repair_times.len(), node.rebuild_times.len()), (name.as_str(), 2, 1));
    let events = story.events("web").await;
    let count = |what: &str| events.iter().filter(|event| *event == what).count();
    assert_eq!((count("NodeRestarted"), count("NodeRebuilt")), (1, 1), "{events:?}");
    story.fleet.api.delete("acme", "web").await.unwrap();
    story.gone("web").await;
    story.end().await;
}
