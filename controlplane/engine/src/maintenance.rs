//! Notices that a host under maintenance is drained. Whether it is, is decided by `croft_core::maintenance`, in the commit that
//! says so; here is only when somebody looks.

use std::sync::Arc;
use std::time::Duration;

use croft_core::Result;
use croft_store::Store;

use crate::dirty::Dirty;

/// For lost wakes, and what another replica wrote.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Between two looks, however many touch whatever.
const SPACING: Duration = Duration::from_millis(200);

pub async fn run(store: Store, dirty: Arc<Dirty>) {
    let mut touched = dirty.touched();
    loop {
        touched.mark_unchanged();
        if let Err(error) = look(&store).await {
            tracing::warn!(%error, "hosts that are being drained are not looked at now; trying again");
        }
        tokio::time::sleep(SPACING).await;
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            // Its sender lives as long as this engine.
            _ = touched.changed() => {}
        }
    }
}

async fn look(store: &Store) -> Result<()> {
    for host in store.host_draining().await? {
        if store.host_drained(&host).await? {
            tracing::info!(%host, "a host is drained");
        }
    }
    Ok(())
}
