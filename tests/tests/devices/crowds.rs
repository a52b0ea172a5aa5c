//! Many who want the same: each piece has one owner, and whoever is refused hears why.

use std::collections::BTreeMap;

use croft_proto::v1::device::State as DeviceState;
use tonic::{Code, Status};

use super::shared::*;

/// Every word that says why, of all who were refused.
fn refusal(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_tenants_ask_for_the_last_slice() {
    let fleet = devbox().await;
    let api = &fleet.api;
    api.tenant("zeta", None).await;
    for tenant in ["acme", "zeta"] {
        api.quota(tenant, "gpu_memory_mib", 1 << 30).await;
    }
    let other = fleet.another_client();
    let ask = |tenant: &'static str| asking(tenant, "last", &[("slice", mig("4g.40gb"))]);
    let (mine, theirs) = tokio::join!(api.create_as(ask("acme")), other.create_as(ask("zeta")));
    let (winner, loser) = match (mine, theirs) {
        (Ok(operation), Err(status)) | (Err(status), Ok(operation)) => (operation, status),
        both => panic!("exactly one: {both:?}"),
    };
    assert_eq!(loser.code(), Code::ResourceExhausted, "{loser}");
    assert!(loser.message().contains("4g.40gb") && loser.message().contains(GPU), "it says why: {loser}");
    api.done(&winner).await.expect("runs");
    let holders = api.device("h1", GPU).await.holders;
    assert_eq!(holders.len(), 1, "{holders:?}");
    assert_eq!(holders[0].instance, winner.target);
    fleet.consistent().await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_clients_ask_for_thirty_two_slices_of_two_gpus() {
    let mut fleet = devbox().await;
    fleet.host_with_devices("h2", "devbox").await;
    fleet.api.device_until("h2", GPU, DeviceState::Available).await;
    let before = [fleet.machine("h1").layout(), fleet.machine("h2").layout()];
    fleet.api.quota("acme", "gpu_memory_mib", 1 << 30).await;
    let clients = (0..8).map(|client| {
        let api = fleet.another_client();
        async move {
            let mut answers = Vec::new();
            for n in 0..4 {
                let id = format!("i{client}-{n}");
                let profile = if n % 2 == 0 { "2g.20gb" } else { "1g.10gb" };
                let answer = api.create_as(asking("acme", &id, &[("slice", mig(profile))])).await;
                answers.push((id, answer));
            }
            answers
        }
    });
    let answers: Vec<_> = futures::future::join_all(clients).await.into_iter().flatten().collect();
    let mut owners = BTreeMap::new();
    let (mut accepted, mut refused) = (Vec::new(), 0);
    for (id, answer) in answers {
        match answer {
            Ok(operation) => accepted.push((id, operation)),
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "{id}: {}", refusal(&status));
                refused += 1;
            }
        }
    }
    for (id, operation) in &accepted {
        fleet.api.done(operation).await.expect("it runs");
        for assignment in given(&fleet.api.get("acme", id).await.unwrap()) {
            for atom in &assignment.atoms {
                let other = owners.insert((assignment.device.clone(), atom.clone()), id.clone());
                assert_eq!(other, None, "{atom} of {} has two owners, {id} too", assignment.device);
            }
        }
    }
    assert!(accepted.len() >= 8 && refused >= 8, "{} and {refused}", accepted.len());
    fleet.consistent().await;
    let compute = |host: &str| {
        let device = format!("hosts/{host}/devices/{GPU}");
        owners.keys().filter(|(of, atom)| *of == device && atom.starts_with('c')).count()
    };
    for host in ["h1", "h2"] {
        assert!(compute(host) >= 6, "{host} is not full: {owners:?}");
        // What the boards have is what was promised.
        let on_board = fleet.machine(host).tree().matches(&format!("gpu {GPU} instance profile")).count();
        let holders = fleet.api.device(host, GPU).await.holders;
        assert_eq!(on_board, holders.len(), "{host}");
        let atoms: usize = holders.iter().map(|holder| holder.atoms.len()).sum();
        let known = owners.keys().filter(|(of, _)| of.starts_with(&format!("hosts/{host}/"))).count();
        assert_eq!(atoms, known, "{host}");
    }
    let mut going = Vec::new();
    for (id, _) in &accepted {
        going.push(fleet.api.delete("acme", id).await.expect("accepted"));
    }
    for operation in &going {
        fleet.api.done(operation).await.expect("deleted");
    }
    is_as_before(&fleet, "h1", &before[0]).await;
    is_as_before(&fleet, "h2", &before[1]).await;
    assert_eq!(fleet.api.used("acme", "gpu_memory_mib").await, 0);
    fleet.consistent().await;
    fleet.end().await;
}
