use croft_core::host::State;
use croft_core::id::HostId;

use super::*;
use crate::bed::Bed;

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

/// `heard` is heard from all the time; nobody else ever is.
fn leases(bed: &Bed, heard: &[&str]) -> Leases {
    let heard: Vec<HostId> = heard.iter().map(|id| HostId::from(*id)).collect();
    Leases::new(bed.store.clone(), bed.clock.clone(), Arc::new(move || heard.clone()), Arc::default())
}

/// What became of `h1`, who is heard from, and of `h2`, who is not, a second after each other for so long.
async fn after(bed: &Bed, leases: &Leases, seconds: u64) -> [State; 2] {
    for _ in 0..seconds {
        bed.clock.advance(SECOND);
        leases.tick().await.unwrap();
    }
    [bed.state("h1").await, bed.state("h2").await]
}

async fn two_hosts() -> (Bed, Leases) {
    let bed = Bed::new().await;
    bed.host("h1", 1).await;
    bed.host("h2", 2).await;
    let leases = leases(&bed, &["h1"]);
    leases.tick().await.unwrap();
    (bed, leases)
}

#[tokio::test]
async fn a_host_that_is_not_heard_from_is_unreachable_after_a_lease() {
    let (bed, leases) = two_hosts().await;
    assert_eq!(after(&bed, &leases, 29).await, [State::Ready, State::Ready]);
    assert_eq!(after(&bed, &leases, 1).await, [State::Ready, State::Unreachable]);
}

#[tokio::test]
async fn a_clock_that_is_set_forward_makes_nobody_unreachable() {
    let (bed, leases) = two_hosts().await;
    after(&bed, &leases, 20).await;
    for step in [HOUR, 9000 * HOUR] {
        bed.set_forward(step);
        leases.tick().await.unwrap();
        // Who is just dialling again has all the time that a lease gives.
        assert_eq!(after(&bed, &leases, 29).await, [State::Ready, State::Ready]);
    }
    assert_eq!(after(&bed, &leases, 1).await, [State::Ready, State::Unreachable]);
}

#[tokio::test]
async fn a_clock_that_is_set_back_hides_no_host_that_is_gone() {
    let (bed, leases) = two_hosts().await;
    bed.set_back(9000 * HOUR);
    leases.tick().await.unwrap();
    assert_eq!(after(&bed, &leases, 29).await, [State::Ready, State::Ready]);
    assert_eq!(after(&bed, &leases, 1).await, [State::Ready, State::Unreachable]);
}

#[tokio::test]
async fn small_corrections_of_the_clock_prolong_nothing() {
    let (bed, leases) = two_hosts().await;
    for _ in 0..5 {
        after(&bed, &leases, 6).await;
        bed.set_forward(SECOND / 10);
    }
    assert_eq!(after(&bed, &leases, 0).await, [State::Ready, State::Unreachable]);
}

#[tokio::test]
async fn a_new_plane_waits_a_lease_whatever_the_old_one_wrote() {
    let (bed, old) = two_hosts().await;
    drop(old);
    // While no plane ran, the clock was set; leases of the database are from another time.
    for set in [Bed::set_forward, Bed::set_back] {
        set(&bed, HOUR);
        let new = leases(&bed, &["h1"]);
        new.tick().await.unwrap();
        assert_eq!(after(&bed, &new, 29).await, [State::Ready, State::Ready]);
    }
    let new = leases(&bed, &["h1"]);
    new.tick().await.unwrap();
    assert_eq!(after(&bed, &new, 30).await, [State::Ready, State::Unreachable]);
}

#[tokio::test]
async fn a_process_that_was_held_up_concludes_nothing() {
    let (bed, leases) = two_hosts().await;
    after(&bed, &leases, 29).await;
    bed.clock.advance(HOUR);
    leases.resumed(HOUR);
    leases.tick().await.unwrap();
    assert_eq!(after(&bed, &leases, 29).await, [State::Ready, State::Ready]);
    assert_eq!(after(&bed, &leases, 1).await, [State::Ready, State::Unreachable]);
}
