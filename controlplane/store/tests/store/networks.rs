use croft_core::instance::Interface;
use croft_core::meta::{Labels, Meta};
use croft_core::network::Network;
use croft_core::ports::NewInstance;
use croft_core::{Clock, Error, Reason};
use croft_store::Page;

use crate::bed::{Bed, call, refused, small, t};

fn lan(bed: &Bed, granted: &[&str]) -> Network {
    Network {
        id: "lan".into(),
        meta: Meta::new(
            "01890000-0000-7000-8000-00000000abcd".to_owned(),
            Labels::new(),
            Labels::new(),
            bed.clock.now(),
        ),
        description: "the lab".to_owned(),
        bridge: "br0".to_owned(),
        vlan: 7,
        granted_tenants: granted.iter().map(|id| t(id)).collect(),
    }
}

fn on_lan(id: &str, tenant: &str) -> NewInstance {
    let mut new = small(tenant, id);
    new.spec.interfaces = vec![Interface { network: "default".into() }, Interface { network: "lan".into() }];
    new
}

#[tokio::test]
async fn a_grant_holds_for_a_tenant_and_those_below() {
    let bed = Bed::furnished().await;
    bed.tenant("child", Some("acme")).await;
    bed.tenant("other", None).await;
    let network = lan(&bed, &["acme"]);
    bed.store.network_create(&call(), network.clone()).await.unwrap();
    assert_eq!(bed.store.network_get(&"lan".into()).await.unwrap(), Some(network.clone()));
    for (tenant, granted) in [("acme", true), ("child", true), ("other", false)] {
        assert_eq!(bed.store.network_granted(&"lan".into(), &t(tenant)).await.unwrap(), granted, "{tenant}");
    }
    let unknown = refused(
        bed.store
            .network_update(&call(), &"lan".into(), "", |network| {
                network.granted_tenants.push(t("nobody"));
                Ok(())
            })
            .await,
    );
    assert!(unknown.to_string().starts_with("network.granted_tenants[1]"), "{unknown}");

    bed.claim(call(), on_lan("vm", "child")).await.unwrap();
    let not_granted = refused(bed.claim(call(), on_lan("vm", "other")).await);
    assert_eq!(not_granted.reason(), Reason::NetworkNotGranted);
    let mut nowhere = small("acme", "nowhere");
    nowhere.spec.interfaces = vec![Interface { network: "wan".into() }];
    let unknown = refused(bed.claim(call(), nowhere).await);
    assert!(unknown.to_string().starts_with("instance.spec.interfaces[0].network"), "{unknown}");
}

#[tokio::test]
async fn a_grant_taken_away_stops_new_ones_and_a_used_network_stays() {
    let bed = Bed::furnished().await;
    bed.store.network_create(&call(), lan(&bed, &["acme"])).await.unwrap();
    let (_, instance) = bed.claim(call(), on_lan("vm", "acme")).await.unwrap();
    let ungrant = |network: &mut Network| {
        network.granted_tenants.clear();
        Ok(())
    };
    let updated = bed.store.network_update(&call(), &"lan".into(), "", ungrant).await.unwrap().into_inner();
    assert_eq!(updated.meta.generation, 2);
    assert_eq!(refused(bed.claim(call(), on_lan("more", "acme")).await).reason(), Reason::NetworkNotGranted);
    let desired = bed.store.host_desired(&"h1".into()).await.unwrap();
    assert_eq!(desired.instances[0].3, [updated], "what is attached stays attached");

    assert_eq!(refused(bed.store.network_delete(&call(), &"lan".into(), "").await).reason(), Reason::NetworkInUse);
    bed.delete(&instance).await;
    bed.store.network_delete(&call(), &"lan".into(), "").await.unwrap();
    assert_eq!(bed.store.network_list(&Page::first(5)).await.unwrap(), (vec![], None));
    let gone = refused(bed.store.network_delete(&call(), &"lan".into(), "").await);
    assert_eq!(gone, Error::not_found("networks/lan"));
}

#[tokio::test]
async fn a_tenant_that_comes_again_has_not_its_grants() {
    let bed = Bed::furnished().await;
    bed.tenant("child", Some("acme")).await;
    bed.store.network_create(&call(), lan(&bed, &["child"])).await.unwrap();
    bed.store.tenant_delete(&call(), &t("child"), "").await.unwrap();
    bed.tenant("child", Some("acme")).await;
    assert!(!bed.store.network_granted(&"lan".into(), &t("child")).await.unwrap());
}
