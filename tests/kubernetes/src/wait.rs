//! Waiting on conditions.

use std::future::Future;
use std::time::{Duration, Instant};

/// Generous: two cores, and other things run beside it. Only a failure waits this long.
pub const DEADLINE: Duration = Duration::from_secs(180);

const PAUSE: Duration = Duration::from_millis(200);

/// Asks until the answer is `Ok`, and panics with the last `Err` when the deadline is over.
pub async fn until<T, F>(what: &str, ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    within(DEADLINE, what, ask).await
}

/// The same, for what takes longer than most.
pub async fn within<T, F>(deadline: Duration, what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let began = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(last) => assert!(began.elapsed() < deadline, "{what}: not within {deadline:?}; last seen: {last}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
