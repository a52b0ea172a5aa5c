use super::*;
use crate::bed::Bed;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A plane that has run for two hours, and whose one remembered call is as old.
async fn two_hours() -> (Bed, Janitor) {
    let bed = Bed::new().await;
    bed.host("h1", 1).await;
    let mut janitor = Janitor::new(bed.store.clone(), bed.clock.clone());
    assert_eq!(calls_after(&bed, &mut janitor, 120 * MINUTE).await, 0);
    (bed, janitor)
}

/// How many remembered calls a pass takes after this time; they are good for a day.
async fn calls_after(bed: &Bed, janitor: &mut Janitor, span: Duration) -> u64 {
    bed.clock.advance(span);
    janitor.pass().await.unwrap().idempotency
}

#[tokio::test]
async fn what_is_old_goes() {
    let (bed, mut janitor) = two_hours().await;
    assert_eq!(calls_after(&bed, &mut janitor, 21 * 60 * MINUTE).await, 0);
    assert_eq!(calls_after(&bed, &mut janitor, 61 * MINUTE).await, 1);
}

#[tokio::test]
async fn a_clock_that_is_set_forward_makes_nothing_old_before_it_has_run_steadily() {
    let (bed, mut janitor) = two_hours().await;
    bed.set_forward(500 * DAY);
    assert_eq!(calls_after(&bed, &mut janitor, 10 * MINUTE).await, 0);
    assert_eq!(calls_after(&bed, &mut janitor, 50 * MINUTE).await, 0);
    // Set right again before the hour was over: nothing is lost.
    bed.set_back(500 * DAY);
    for _ in 0..12 {
        assert_eq!(calls_after(&bed, &mut janitor, 10 * MINUTE).await, 0);
    }
    // Set for good: it is believed after an hour.
    bed.set_forward(2 * DAY);
    for _ in 0..6 {
        assert_eq!(calls_after(&bed, &mut janitor, 10 * MINUTE).await, 0);
    }
    assert_eq!(calls_after(&bed, &mut janitor, 10 * MINUTE).await, 1);
}

#[tokio::test]
async fn a_clock_that_is_set_back_takes_nothing_and_what_is_old_goes_later() {
    let (bed, mut janitor) = two_hours().await;
    bed.set_back(DAY);
    assert_eq!(calls_after(&bed, &mut janitor, 10 * MINUTE).await, 0);
    assert_eq!(calls_after(&bed, &mut janitor, DAY).await, 0, "by that clock it is not a day old");
    assert_eq!(calls_after(&bed, &mut janitor, DAY).await, 1);
}

#[tokio::test]
async fn a_plane_that_starts_with_a_wrong_clock_trims_nothing_at_once() {
    let (bed, old) = two_hours().await;
    drop(old);
    bed.set_forward(500 * DAY);
    let mut janitor = Janitor::new(bed.store.clone(), bed.clock.clone());
    assert_eq!(calls_after(&bed, &mut janitor, Duration::ZERO).await, 0);
    assert_eq!(calls_after(&bed, &mut janitor, 59 * MINUTE).await, 0);
    assert_eq!(calls_after(&bed, &mut janitor, MINUTE).await, 1);
}

#[tokio::test]
async fn small_corrections_of_the_clock_are_not_held_against_it() {
    let (bed, mut janitor) = two_hours().await;
    for _ in 0..22 {
        bed.set_forward(2 * MINUTE);
        assert_eq!(calls_after(&bed, &mut janitor, 55 * MINUTE).await, 0);
    }
    bed.set_back(2 * MINUTE);
    assert_eq!(calls_after(&bed, &mut janitor, 2 * 61 * MINUTE).await, 1);
}
