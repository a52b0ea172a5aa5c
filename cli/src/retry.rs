//! When a call is worth repeating, and how long to wait in between.

use std::error::Error;
use std::time::Duration;

use tonic::{Code, Status};

/// Waits before the second and later tries: three seconds in all, enough for a plane that restarts.
const WAITS: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1500),
];

/// Calls until there is an answer that time will not change.
pub async fn while_away<A>(call: impl AsyncFn() -> Result<A, Status>) -> Result<A, Status> {
    with_waits(&WAITS, call).await
}

async fn with_waits<A>(waits: &[Duration], call: impl AsyncFn() -> Result<A, Status>) -> Result<A, Status> {
    let mut waits = waits.iter();
    loop {
        match call().await {
            Err(status) if is_away(&status) && tls_problem(&status).is_none() => match waits.next() {
                Some(wait) => tokio::time::sleep(*wait).await,
                None => return Err(status),
            },
            answer => return answer,
        }
    }
}

/// Waits that grow to five seconds, for whoever never gives up (a watch, a wait).
#[derive(Debug, Default)]
pub struct Backoff(u32);

impl Backoff {
    pub fn reset(&mut self) {
        self.0 = 0;
    }

    /// Nothing was waited for since the last success.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.0 == 0
    }

    pub async fn wait(&mut self) {
        tokio::time::sleep(self.step()).await;
    }

    fn step(&mut self) -> Duration {
        let wait = Duration::from_millis(100 << self.0.min(6)).min(Duration::from_secs(5));
        self.0 += 1;
        wait
    }
}

/// The plane is away or went away in the middle of a call.
#[must_use]
pub fn is_away(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable => true,
        // What tonic makes of a connection that broke under a call depends on where it broke.
        Code::Unknown | Code::Internal | Code::Cancelled => is_local(status),
        _ => false,
    }
}

/// Made on this side: a status from the wire has no source.
#[must_use]
pub fn is_local(status: &Status) -> bool {
    status.source().is_some()
}

/// A certificate that does not fit will not fit at the next try either.
#[must_use]
pub fn tls_problem(status: &Status) -> Option<String> {
    let mut next = status.source();
    while let Some(error) = next {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls = inner.and_then(|inner| inner.downcast_ref()).or_else(|| error.downcast_ref::<rustls::Error>());
        if let Some(tls) = tls {
            return Some(tls.to_string());
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn a_plane_that_comes_back_is_not_noticed() {
        let tries = Cell::new(0);
        let answer = with_waits(&[Duration::ZERO; 5], async || {
            tries.set(tries.get() + 1);
            if tries.get() < 4 { Err(Status::unavailable("away")) } else { Ok(tries.get()) }
        });
        assert_eq!(answer.await.unwrap(), 4);
    }

    #[tokio::test]
    async fn a_plane_that_stays_away_is_given_up() {
        let tries = Cell::new(0);
        let answer = with_waits(&[Duration::ZERO; 5], async || -> Result<(), Status> {
            tries.set(tries.get() + 1);
            Err(Status::unavailable("away"))
        });
        assert_eq!(answer.await.unwrap_err().code(), Code::Unavailable);
        assert_eq!(tries.get(), 6);
    }

    #[tokio::test]
    async fn an_answer_is_an_answer() {
        for code in [Code::NotFound, Code::Internal, Code::Unknown, Code::Cancelled] {
            let tries = Cell::new(0);
            let answer = with_waits(&[Duration::ZERO; 5], async || -> Result<(), Status> {
                tries.set(tries.get() + 1);
                Err(Status::new(code, "no"))
            });
            assert_eq!(answer.await.unwrap_err().code(), code);
            assert_eq!(tries.get(), 1, "{code:?}");
        }
    }

    #[test]
    fn waits_grow_to_a_bound() {
        let mut backoff = Backoff::default();
        let steps: Vec<_> = (0..10).map(|_| backoff.step().as_millis()).collect();
        assert_eq!(steps, [100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000, 5000]);
        backoff.reset();
        assert_eq!(backoff.step().as_millis(), 100);
    }
}
