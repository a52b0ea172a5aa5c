//! A control plane in a few words: it says what it is told to say, and remembers what it hears.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod devices;
pub mod host;
pub mod plane;
pub mod process;
pub mod tls;

use std::time::Duration;

/// Waits for `condition`. The deadline is only there so that a failing test ends: some wait for a look of the agent, which comes
/// every 30 s.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Result<T, String>) -> T {
    let began = tokio::time::Instant::now();
    loop {
        match condition().await {
            Ok(value) => return value,
            Err(state) => assert!(began.elapsed() < Duration::from_secs(180), "{what}: {state}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
