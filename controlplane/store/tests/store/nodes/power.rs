//! What a host is told while its user says otherwise: what it was told last, until the node lets more through.

use super::*;

#[tokio::test]
async fn what_was_not_told_to_run_is_stopped_at_once_and_a_second_stop_tells_nothing_new() {
    let bed = bed().await;
    let vm = bed.joins("vm").await;
    bed.see(vm.uid, Phase::Off).await;
    let (stop, _) = bed.command(&vm, Command::Stop { timeout: None }).await.unwrap();
    bed.enters(&vm, NodePhase::Leaving).await;
    assert_eq!(bed.told(&vm).await, Some((Power::Stopped, 2)), "nothing ever ran there");
    bed.see(vm.uid, Phase::Off).await;
    assert_eq!(bed.settle(vm.uid).await.after, Some(State::Stopped));
    assert!(bed.operation(&stop).await.done);
    bed.command(&vm, Command::Start).await.unwrap();
    assert_eq!(bed.told(&vm).await, Some((Power::Stopped, 2)), "it leaves still, and has no token that is good");
    bed.enters(&vm, NodePhase::Waiting).await;
    bed.enters(&vm, NodePhase::Booting).await;
    assert_eq!(bed.told(&vm).await, Some((Power::Running, 3)));
    bed.enters(&vm, NodePhase::Joined).await;
    for _ in 0..2 {
        bed.command(&vm, Command::Stop { timeout: None }).await.unwrap();
        assert_eq!(bed.told(&vm).await, Some((Power::Running, 3)), "it is drained; nobody asked for a start");
    }
    bed.consistent().await;
    let never = bed.joins("never").await;
    bed.command(&never, Command::Delete { force: false }).await.unwrap();
    assert_eq!(bed.told(&never).await, None);
    bed.consistent().await;
}
