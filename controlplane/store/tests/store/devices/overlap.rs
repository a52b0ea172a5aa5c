//! The database refuses an overlap by itself: the rows are inserted behind the code's back.

use croft_core::Reason;
use croft_core::device::{Atom, Kind};
use croft_core::instance::Instance;

use super::GPU;
use crate::bed::{Bed, call, h, refused};
use crate::boards::{device, gpu, h100, mig, nic, of_pool, pool, vgpu};

/// Device and atom.
type Row = (&'static str, String);

const SOUND: &str = "0000:41:00.1";
const CARD: &str = "0000:01:00.0";
const FUNCTION: &str = "0000:01:10.0";
const STORAGE: &str = "0000:01:00.1";

fn rows(device: &'static str, atoms: impl IntoIterator<Item = impl ToString>) -> Vec<Row> {
    atoms.into_iter().map(|atom| (device, atom.to_string())).collect()
}

/// A GPU that has a sound function in its IOMMU group, and a network card that has a storage function in its.
async fn bed() -> Bed {
    let (mut card, mut sound) = (h100(GPU), device(SOUND, Kind::Function));
    card.companions = vec![sound.id.clone()];
    sound.companions = vec![card.id.clone()];
    let mut storage = device(STORAGE, Kind::Function);
    storage.companions = vec![CARD.into()];
    Bed::with_devices([card, sound, storage].into_iter().chain(nic()).collect()).await
}

impl Bed {
    /// All that there is of it.
    async fn all_of(&self, device: &'static str) -> Vec<Row> {
        let view = self.store.host_view(&h("h1")).await.unwrap().unwrap();
        rows(device, view.devices.0[&device.into()].whole())
    }

    /// What each of these inserts in turn, in one transaction that is never kept. `false`: the last one was refused, because
    /// something of it has an owner.
    async fn insert(&self, owners: &[(&Instance, &[Row])]) -> bool {
        use sqlx::Connection as _;
        let url = format!("sqlite:{}", self.dir.path().join("croft.db").display());
        let mut conn = sqlx::AnyConnection::connect(&url).await.unwrap();
        let mut tx = conn.begin().await.unwrap();
        let mut refused = None;
        'all: for (turn, (owner, rows)) in owners.iter().enumerate() {
            for (device, atom) in *rows {
                let text = "INSERT INTO device_claims (host, device, atom, instance_uid) VALUES ('h1', $1, $2, $3)";
                let row = sqlx::query(text).bind((*device).to_owned()).bind(atom.clone());
                if let Err(error) = row.bind(owner.uid.to_string()).execute(&mut *tx).await {
                    assert_eq!(turn + 1, owners.len(), "only the last one is in anybody's way: {error}");
                    refused = Some(error);
                    break 'all;
                }
            }
        }
        tx.rollback().await.unwrap();
        let Some(error) = refused else { return true };
        assert!(error.as_database_error().unwrap().is_unique_violation(), "{error}");
        false
    }
}

/// Whoever was first, and whoever comes second.
#[tokio::test]
async fn whole_slice_function_and_companion_never_share_a_device() {
    let bed = bed().await;
    let (one, two) = (bed.instance("acme", "one").await, bed.instance("acme", "two").await);
    let (all, card) = (bed.all_of(GPU).await, bed.all_of(CARD).await);
    assert_eq!((all.len(), card.len()), (1 + 16 + 8 + 7 + 1, 1 + 7));
    let gpu = [
        ("a whole GPU", all.clone()),
        ("a slice", rows(GPU, ["m4", "m5", "c3", "c4", "vf3"])),
        ("a function, as a time-sliced vGPU has one", rows(GPU, ["vf3"])),
        ("what has the GPU for a companion", [rows(SOUND, ["whole"]), all].concat()),
    ];
    let network = [
        ("a whole card", card.clone()),
        ("its function", [rows(FUNCTION, ["whole"]), rows(CARD, ["vf0"])].concat()),
        ("what has the card for a companion", [rows(STORAGE, ["whole"]), card].concat()),
    ];
    for kinds in [&gpu[..], &network] {
        for (first, held) in kinds {
            assert!(bed.insert(&[(&one, held)]).await, "{first} alone");
            for (second, wanted) in kinds {
                assert!(!bed.insert(&[(&one, held), (&two, wanted)]).await, "{second} beside {first}");
            }
        }
    }
    // What does not overlap goes in: it is the overlap that is refused.
    for (_, held) in &gpu {
        for (_, wanted) in &network {
            assert!(bed.insert(&[(&one, held), (&two, wanted)]).await);
        }
    }
    let (low, high) = (rows(GPU, ["m0", "m1", "c0", "c1", "vf0"]), rows(GPU, ["m4", "m5", "c3", "c4", "vf3"]));
    assert!(bed.insert(&[(&one, &low), (&two, &high)]).await, "two slices beside each other");
    for shared in ["m4", "c3", "vf3"] {
        assert!(!bed.insert(&[(&one, &high), (&two, &rows(GPU, [shared]))]).await, "{shared}");
    }
}

/// The rows above are what the store writes.
#[tokio::test]
async fn what_the_store_wrote_shuts_out_whoever_goes_round_it() {
    let bed = bed().await;
    for (id, kind, pci) in [("vfs", Kind::VirtualFunction, "8086:10ca"), ("nics", Kind::Function, "8086:10c9")] {
        bed.store.pool_create(&call(), pool(id, kind, pci)).await.unwrap();
        bed.limit("acme", &format!("devices/{id}"), 8).await;
    }
    let other = bed.instance("acme", "other").await;
    let (all, card) = (bed.all_of(GPU).await, bed.all_of(CARD).await);

    let owner = bed.have("whole", vec![gpu("gpu")]).await.unwrap();
    assert_eq!(owner.placement.as_ref().unwrap().devices[0].companions, [(SOUND.into(), vec![Atom::Whole])]);
    for row in all.iter().chain(&rows(SOUND, ["whole"])) {
        assert!(!bed.insert(&[(&other, std::slice::from_ref(row))]).await, "{row:?} beside a whole GPU");
    }
    let error = refused(bed.have("sound", vec![of_pool("nic", "nics"), of_pool("nic-2", "nics")]).await);
    assert_eq!(error.reason(), Reason::NoCapacity, "nor has the pool anything of it");
    bed.delete(&owner).await;

    for wish in [mig("d", "3g.40gb"), vgpu("d", "H100XM-20C")] {
        let owner = bed.have("slice", vec![wish]).await.unwrap();
        let piece = &owner.placement.as_ref().unwrap().devices[0];
        for row in rows(GPU, &piece.atoms) {
            assert!(!bed.insert(&[(&other, std::slice::from_ref(&row))]).await, "{row:?} twice");
        }
        assert!(!bed.insert(&[(&other, &all)]).await);
        bed.delete(&owner).await;
    }

    let owner = bed.have("function", vec![of_pool("nic", "vfs")]).await.unwrap();
    assert!(!bed.insert(&[(&other, &card)]).await);
    assert!(!bed.insert(&[(&other, &rows(FUNCTION, ["whole"]))]).await);
    bed.delete(&owner).await;
    bed.store.device_quarantine(&call(), &h("h1"), &STORAGE.into(), "").await.unwrap();
    bed.have("card", vec![of_pool("nic", "nics")]).await.unwrap();
    assert!(!bed.insert(&[(&other, &rows(CARD, ["vf0"]))]).await, "a function of a card that is taken whole");
    bed.consistent().await;
}
