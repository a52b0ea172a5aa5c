//! Guest agents that do not answer: a guest's own business, and nobody else's.

use std::time::{Duration, Instant};

use croft_hostagent::hypervisor::{Hypervisor, Power};

use crate::lab::{Lab, NO_TENANT};

/// libvirtd serves five requests of one client at a time and then stops reading, keepalives too.
#[tokio::test(flavor = "multi_thread")]
async fn agents_that_hang_hold_nobody_else_up() {
    let Some(lab) = Lab::new().await else { return };
    let (uid, mut shell) = lab.boot(&lab.instance("hung", NO_TENANT)).await;
    lab.until_agent(uid).await;
    shell.run("killall -STOP tiny-agent acpid").await;
    let other = lab.define(&lab.instance("web", NO_TENANT)).await;
    let asked = futures::future::join_all((0..12).map(|_| lab.libvirt.request_shutdown(uid))).await;
    assert!(asked.iter().all(Result::is_ok), "{asked:?}");
    let until = Instant::now() + Duration::from_secs(25);
    while Instant::now() < until {
        let began = Instant::now();
        assert_eq!(lab.power(uid).await, Some(Power::Running));
        lab.libvirt.destroy(other).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    drop(shell);
    lab.clear(&[uid, other]).await;
}
