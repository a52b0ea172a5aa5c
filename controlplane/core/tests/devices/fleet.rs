//! Many hosts, and any history.

use std::collections::BTreeSet;

use croft_core::device::{Assignment, Atom, Wanted};
use croft_core::placement;
use proptest::prelude::*;

use super::fixtures::{any_gpu, give, h100, host, mig, plain, roomy, vgpu, wishes};

#[test]
fn a_fleet_opens_a_gpu_only_when_no_opened_one_has_room_and_spares_hosts_with_gpus() {
    let mut fleet = [
        roomy("h1", vec![h100("0000:41:00.0", "vendor")]),
        roomy("h2", vec![h100("0000:41:00.0", "vendor")]),
        roomy("h3", vec![]),
    ];
    let mut create = |wanted: &[Wanted]| {
        let request = plain(wishes(wanted));
        let placement = placement::place(&fleet, &request).unwrap();
        let host = fleet.iter_mut().find(|host| host.id == placement.host).unwrap();
        host.apply(&request, &placement);
        placement.host.to_string()
    };
    let first = create(&[mig("2g.20gb")]);
    for _ in 0..2 {
        assert_eq!(create(&[mig("2g.20gb")]), first, "though the other host is emptier");
    }
    assert_ne!(create(&[mig("3g.40gb")]), first, "full for this one");
    for _ in 0..16 {
        assert_eq!(create(&[]), "h3");
    }
}

fn wanted() -> impl Strategy<Value = Wanted> {
    prop_oneof![
        1 => Just(any_gpu()),
        6 => prop::sample::select(vec!["1g.10gb", "1g.10gb+me", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"])
            .prop_map(mig),
        3 => prop::sample::select(vec!["H100XM-20C", "H100XM-40C"]).prop_map(vgpu),
    ]
}

proptest! {
    /// Any history of creates and deletes: no atom has two owners, and at the end everything is as it was.
    #[test]
    fn no_piece_ever_has_two_owners(history in prop::collection::vec((prop::collection::vec(wanted(), 1..4), any::<bool>(), any::<usize>()), 1..40)) {
        let mut host = host(vec![h100("0000:41:00.0", "vendor"), h100("0000:42:00.0", "vendor")]);
        let untouched = host.clone();
        let mut held: Vec<Vec<Assignment>> = Vec::new();
        for (wanted, give_back, victim) in history {
            if give_back && !held.is_empty() {
                for one in held.swap_remove(victim % held.len()) {
                    let claims = host.devices.claims(&one);
                    host.devices.give_back(&claims);
                }
            }
            if let Ok(given) = give(&mut host, &wanted) {
                prop_assert_eq!(given.len(), wanted.len());
                held.push(given);
            }
            let mut owned = BTreeSet::new();
            for one in held.iter().flatten() {
                for atom in &one.atoms {
                    prop_assert!(owned.insert((one.device.clone(), *atom)), "{} of {} twice", atom, one.device);
                }
            }
            for view in host.devices.0.values() {
                let of_it: BTreeSet<Atom> = owned.iter().filter(|(id, _)| *id == view.device.id).map(|(_, atom)| *atom).collect();
                prop_assert_eq!(&view.taken, &of_it);
                prop_assert!(view.framebuffer_used_mib >= 0 && view.framebuffer_used_mib <= 81920);
            }
        }
        for one in held.iter().flatten() {
            let claims = host.devices.claims(one);
            host.devices.give_back(&claims);
        }
        prop_assert_eq!(host, untouched);
    }
}
