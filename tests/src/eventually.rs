//! Waiting on conditions.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(20);
/// Two cores, emulation beside it: generous, because only a failure waits this long.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Asks until the answer is `Ok`, and panics with the last `Err` when the deadline is over.
pub async fn eventually<T, E, F>(what: &str, ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, E>>,
    E: Debug,
{
    within(DEADLINE, what, ask).await
}

pub async fn within<T, E, F>(deadline: Duration, what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, E>>,
    E: Debug,
{
    let began = tokio::time::Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(last) if began.elapsed() > deadline => panic!("{what}: not within {deadline:?}; last seen: {last:?}"),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
