//! What a server says, and no more of it than this process can hold.
//!
//! Nothing is read by kube's own verbs: they would parse whatever comes into everything that Kubernetes knows of the object (an
//! empty `{}` is three bytes, and a node in memory more than a thousand), and write what they cannot read into the log.

use http::Response;
use http_body_util::BodyExt as _;
use kube::client::Body;
use kube::core::response::Status;
use serde::de::DeserializeOwned;

/// Of one answer. A page of nodes with their lists of images is about 2 MiB.
const MAX: usize = 8 * 1024 * 1024;
/// Of a refusal.
const REFUSAL_MAX: usize = 256 * 1024;

#[derive(Debug)]
pub(crate) struct Answer {
    text: Vec<u8>,
    whole: bool,
}

impl Answer {
    /// `Err` also where the server refuses.
    pub(crate) async fn of(response: Response<Body>) -> Result<Self, kube::Error> {
        let code = response.status();
        let refused = code.is_client_error() || code.is_server_error();
        let answer = Self::receive(response.into_body(), if refused { REFUSAL_MAX } else { MAX }).await?;
        if !refused {
            return Ok(answer);
        }
        let said = answer.read::<Status>().unwrap_or_else(|_| {
            // A proxy's words, not the API server's.
            Status::failure(String::from_utf8_lossy(&answer.text).trim(), "")
        });
        Err(kube::Error::Api(said.with_code(code.as_u16()).boxed()))
    }

    async fn receive(mut body: Body, max: usize) -> Result<Self, kube::Error> {
        let mut text = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            let room = max - text.len();
            if data.len() > room {
                text.extend_from_slice(&data[..room]);
                close(&mut text);
                return Ok(Self { text, whole: false });
            }
            text.extend_from_slice(&data);
        }
        Ok(Self { text, whole: true })
    }

    /// Or the server went on after what was read.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole
    }

    /// Of one that is not whole, what had come until then.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_slice(&self.text)
    }
}

/// Ends JSON that broke off somewhere: what is not complete goes, and what is open is closed. API servers say an object's name
/// and specification before its status, and where a list goes on before its items.
fn close(text: &mut Vec<u8>) {
    let mut open = Vec::new();
    let (mut good, mut quoted, mut escaped) = (0, false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'{' | b'[' => {
                open.push(if *byte == b'{' { b'}' } else { b']' });
                good = at + 1;
            }
            b'}' | b']' => {
                _ = open.pop();
                good = at + 1;
            }
            b',' => good = at,
            _ => {}
        }
    }
    text.truncate(good);
    text.extend(open.into_iter().rev());
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn closed(text: &str) -> Value {
        let mut text = text.as_bytes().to_vec();
        close(&mut text);
        serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", String::from_utf8_lossy(&text)))
    }

    #[test]
    fn what_came_before_the_end_is_kept() {
        assert_eq!(closed(r#"{"a":"x","b":[{"c":1,"d":"y\"}"#), json!({ "a": "x", "b": [{ "c": 1 }] }));
        assert_eq!(closed(r#"{"a":[1,2],"b":tr"#), json!({ "a": [1, 2] }));
        assert_eq!(closed(r#"[{"a":1},{"#), json!([{ "a": 1 }, {}]));
    }

    #[test]
    fn wherever_it_breaks_off_it_can_be_read() {
        let whole = r#"{"metadata":{"continue":"a\\","n":-1.5e3},"items":[{"name":"{[,","x":[true,null,"é"]},{}]}"#;
        for end in 1..=whole.len() {
            let mut text = whole.as_bytes()[..end].to_vec();
            close(&mut text);
            assert!(serde_json::from_slice::<Value>(&text).is_ok(), "{end}: {}", String::from_utf8_lossy(&text));
        }
    }
}
