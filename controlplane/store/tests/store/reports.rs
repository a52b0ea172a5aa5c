//! What a host can make the database keep, whatever it says of its devices.

use croft_core::device::Device;

use crate::bed::{Bed, h, told};
use crate::boards::h100;

/// As many as a report can have, none of them known from before.
fn made_up(round: usize) -> Vec<Device> {
    let mut card = h100("0000:41:00.0");
    card.gpu = None;
    (0..5000).map(|at| Device { id: format!("{round}-{at}").as_str().into(), ..card.clone() }).collect()
}

#[tokio::test]
async fn a_host_that_makes_up_devices_fills_no_database() {
    let bed = Bed::with_devices(vec![h100("0000:41:00.0")]).await;
    for round in 0..3 {
        assert!(bed.store.device_report(&h("h1"), told(Some(made_up(round)))).await.unwrap());
        let kept = bed.store.device_all().await.unwrap().len();
        assert!(kept <= 5001 + 5000, "{kept} after {round}");
    }
    // Again with the first ones: what was missing and held by nobody has made room.
    bed.store.device_report(&h("h1"), told(Some(made_up(9)))).await.unwrap();
    assert_eq!(bed.store.device_all().await.unwrap().len(), 5000);
}
