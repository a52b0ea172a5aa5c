//! A card that is told of under another address, while its old name is closed or claimed: it has one owner, or none.

use croft_core::Reason;
use croft_core::device::{Device, State as DeviceState};
use croft_store::Page;

use super::GPU;
use crate::bed::{Bed, call, h, refused};
use crate::boards::{gpu, h100};

/// Where the card sits once buses are counted anew.
const NOW: &str = "0000:42:00.0";

/// The same card at any address.
fn card(id: &str) -> Device {
    let mut card = Device { serial: "58-a1".to_owned(), ..h100(id) };
    card.gpu.as_mut().unwrap().uuid = "GPU-58-a1".to_owned();
    card
}

fn another(id: &str) -> Device {
    Device { serial: "58-a2".to_owned(), ..h100(id) }
}

async fn bed() -> Bed {
    let bed = Bed::with_devices(vec![card(GPU)]).await;
    bed.limit("acme", "gpus", 4).await;
    bed
}

async fn quarantine(bed: &Bed, id: &str) {
    bed.store.device_quarantine(&call(), &h("h1"), &id.into(), "smells").await.unwrap();
}

async fn release(bed: &Bed, id: &str) {
    bed.store.device_release(&call(), &h("h1"), &id.into()).await.unwrap();
}

#[tokio::test]
async fn a_quarantine_goes_where_the_card_goes() {
    let bed = bed().await;
    quarantine(&bed, GPU).await;
    bed.devices("h1", vec![card(NOW)]).await;
    assert_eq!(refused(bed.have("vm", vec![gpu("gpu")]).await).reason(), Reason::NoCapacity);
    let now = bed.record("h1", NOW).await.device;
    assert_eq!((now.state, now.reason.as_str()), (DeviceState::Changed, "DeviceChanged"));
    assert!(now.message.contains("known as 0000:41:00.0") && now.message.contains("release h1/0000:41"), "{now:?}");
    let events = bed.store.events_list(None, Some("hosts/h1/devices/0000:42:00.0"), &Page::first(9)).await.unwrap().0;
    assert!(events.last().unwrap().message.starts_with("AVAILABLE to CHANGED: it is the card"), "{events:?}");
    // Whoever releases the name of now has not said that the closed card is fine.
    release(&bed, NOW).await;
    bed.devices("h1", vec![card(NOW)]).await;
    assert_eq!(refused(bed.have("vm", vec![gpu("gpu")]).await).reason(), Reason::NoCapacity);
    // It is free at once, and not only when the host speaks again.
    release(&bed, GPU).await;
    assert_eq!(bed.record("h1", NOW).await.device.state, DeviceState::Available);
    bed.have("vm", vec![gpu("gpu")]).await.unwrap();
    bed.devices("h1", vec![card(NOW)]).await;
    assert_eq!(bed.store.device_get(&h("h1"), &GPU.into()).await.unwrap(), None, "one card, one name");
    bed.consistent().await;
}

#[tokio::test]
async fn a_card_that_comes_back_to_its_old_address_is_closed_there_again_and_nowhere_else() {
    let bed = bed().await;
    quarantine(&bed, GPU).await;
    bed.devices("h1", vec![card(NOW)]).await;
    bed.devices("h1", vec![card(GPU), another(NOW)]).await;
    let is = async |id| {
        let record = bed.record("h1", id).await;
        (record.device.state, record.quarantine.is_some())
    };
    assert_eq!(is(GPU).await, (DeviceState::Available, true));
    assert_eq!(is(NOW).await, (DeviceState::Available, false), "it is another card");
    bed.have("vm", vec![gpu("gpu")]).await.unwrap();
    assert_eq!(refused(bed.have("two", vec![gpu("gpu")]).await).reason(), Reason::NoCapacity);
}

/// The host remembers who was there, and says so of the address; the card itself it takes for a free one elsewhere.
#[tokio::test]
async fn a_closed_card_is_not_free_because_another_one_is_in_its_place() {
    let bed = bed().await;
    quarantine(&bed, GPU).await;
    bed.devices("h1", vec![Device { state: DeviceState::Changed, ..card(GPU) }, card(NOW)]).await;
    assert_eq!(refused(bed.have("vm", vec![gpu("gpu")]).await).reason(), Reason::NoCapacity);
    assert_eq!(bed.record("h1", NOW).await.device.state, DeviceState::Changed);
}

/// Claimed by an instance of which the host has not heard yet: it knows of nobody who holds the card.
#[tokio::test]
async fn a_card_is_not_claimed_by_two_names() {
    let bed = bed().await;
    let vm = bed.have("vm", vec![gpu("gpu")]).await.unwrap();
    bed.devices("h1", vec![card(NOW)]).await;
    assert_eq!(refused(bed.have("two", vec![gpu("gpu")]).await).reason(), Reason::NoCapacity);
    let (now, before) = (bed.record("h1", NOW).await, bed.record("h1", GPU).await);
    assert_eq!((now.device.state, now.holders.len()), (DeviceState::Changed, 0));
    assert!(now.device.message.contains("claim") && now.device.message.contains(GPU), "{}", now.device.message);
    assert_eq!((before.device.state, before.holders.len()), (DeviceState::Missing, 1), "its holder keeps it");
    bed.delete(&vm).await;
    bed.have("two", vec![gpu("gpu")]).await.unwrap();
    bed.consistent().await;
}

/// The driver of a GPU knows a name of it that the card itself does not tell.
#[tokio::test]
async fn a_gpu_is_known_again_by_any_word_of_its_own() {
    let bed = bed().await;
    quarantine(&bed, GPU).await;
    bed.devices("h1", vec![Device { serial: "GPU-58-a1".to_owned(), ..card(NOW) }]).await;
    assert_eq!(bed.record("h1", NOW).await.device.state, DeviceState::Changed);
}

/// The functions of a card say the same of themselves, and one of them may be closed alone.
#[tokio::test]
async fn other_functions_of_a_closed_card_are_others() {
    let function = |id: &str| Device {
        serial: "58-a1".to_owned(),
        ..crate::boards::device(id, croft_core::device::Kind::Function)
    };
    let bed = Bed::with_devices(vec![function("0000:01:00.0"), function("0000:01:00.1")]).await;
    quarantine(&bed, "0000:01:00.1").await;
    bed.devices("h1", vec![function("0000:02:00.0"), function("0000:02:00.1")]).await;
    assert_eq!(bed.record("h1", "0000:02:00.0").await.device.state, DeviceState::Available);
    assert_eq!(bed.record("h1", "0000:02:00.1").await.device.state, DeviceState::Changed);
    let host = bed.store.host_view(&h("h1")).await.unwrap().unwrap();
    let closed = host.devices.0.values().filter(|view| view.closed().is_some()).count();
    assert_eq!((host.devices.0.len(), closed), (3, 2), "it, and what is left of its old name");
}
