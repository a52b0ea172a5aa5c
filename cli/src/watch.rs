//! Following a resumable watch across connections: nothing lost, nothing doubled.
//!
//! ```text
//!  open(token) ──► messages, each with the token to go on from ──► broken ──► wait, open(last token)
//!                                          └─► RESUME_TOKEN_TOO_OLD: the caller lists again, then follows from there
//! ```

use tonic::{Code, Response, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::failure::Result;
use crate::output::note;
use crate::plane::Plane;
use crate::retry::{self, Backoff};

/// Why following ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The history no longer reaches back to the token.
    TooOld,
    /// `each` had seen enough.
    Enough,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    More,
    Enough,
}

/// Hands every message to `each` once, reconnecting for ever once it was connected. `token_of` is where to go on after
/// a message; an empty one keeps the last.
pub async fn follow<T>(
    plane: &Plane,
    token: &mut String,
    open: impl AsyncFn(Plane, String) -> Result<Response<Streaming<T>>, Status>,
    token_of: impl Fn(&T) -> &str,
    mut each: impl FnMut(T) -> Result<Next>,
) -> Result<End> {
    let mut backoff = Backoff::default();
    let mut connected = false;
    loop {
        let opened = if connected {
            open(plane.clone(), token.clone()).await
        } else {
            // A plane that was never there gets the same patience as any other call.
            retry::while_away(async || open(plane.clone(), token.clone()).await).await
        };
        let broken = match opened {
            Err(status) => status,
            Ok(response) => {
                let mut stream = response.into_inner();
                connected = true;
                loop {
                    match stream.message().await {
                        Ok(Some(message)) => {
                            backoff.reset();
                            let next = token_of(&message).to_owned();
                            if each(message)? == Next::Enough {
                                return Ok(End::Enough);
                            }
                            if !next.is_empty() {
                                *token = next;
                            }
                        }
                        // The plane closes watches when it stops.
                        Ok(None) => break Status::unavailable("the plane closed the watch"),
                        Err(status) => break status,
                    }
                }
            }
        };
        if is_too_old(&broken) {
            return Ok(End::TooOld);
        }
        if !connected || !retry::is_away(&broken) || retry::tls_problem(&broken).is_some() {
            return Err(plane.explain(broken));
        }
        if backoff.is_fresh() {
            note("connection lost; watching again from the last change seen");
        }
        backoff.wait().await;
    }
}

fn is_too_old(status: &Status) -> bool {
    status.code() == Code::OutOfRange
        && status.get_details_error_info().is_none_or(|info| info.reason == "RESUME_TOKEN_TOO_OLD")
}
