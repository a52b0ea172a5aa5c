//! Downloads an image over `https://`, and takes up again where it was interrupted.
//!
//! What arrives goes to a `.part` file; beside it lies a note of what it is a part *of* (address, validator), so that a
//! later try asks only for the rest, and only if the server still has the same thing (`If-Range`). The digest is taken
//! over the whole file as it lies on the disk. A wrong digest leaves nothing behind.
//!
//! Refuses every scheme but https, every address that [`super::address`] does not permit (at each redirect too), names
//! and passwords in URLs, and bodies above the limit. Never decompresses: the digest is of the bytes as served.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, IF_RANGE, LAST_MODIFIED, RANGE};
use reqwest::{Client, Response, StatusCode, Url, redirect};
use serde::{Deserialize, Serialize};
use tokio::fs::OpenOptions;
use tokio::io::AsyncWriteExt;

use super::address::{Policy, Refused, Resolver};
use super::source::{self, UrlRefused, shown, shown_text};
use super::{Error, Verdict, durable, reasons};
use crate::reasons::{IMAGE_DIGEST_MISMATCH, IMAGE_FETCH_FAILED, IMAGE_SOURCE_REFUSED};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two pieces of the body.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
const REDIRECTS: usize = 5;
/// Tries in a row that brought next to nothing: a server that hands out single bytes must not keep a host busy for ever.
const BARREN_TRIES: u32 = 4;
const FERTILE: u64 = 16 << 10;
const BACK_OFF: Duration = Duration::from_millis(500);
/// How often the room on the disk is looked at.
const ROOM_EVERY: u64 = 64 << 20;

/// Downloads for one host: one client, one policy.
#[derive(Debug)]
pub struct Fetcher {
    policy: Policy,
    /// Further certificate authorities, PEM: for private mirrors.
    ca_file: Option<PathBuf>,
    client: OnceLock<Client>,
}

/// One download.
pub struct Download<'a> {
    pub url: &'a str,
    /// 64 hex digits.
    pub sha256: &'a str,
    /// Where the bytes go. The file is whole and verified when [`Fetcher::fetch`] returned Ok; the caller renames it.
    pub part: &'a Path,
    pub max_bytes: u64,
    /// Asked before so many more bytes are written.
    pub room: &'a (dyn Fn(u64) -> Result<(), Error> + Send + Sync),
    /// (done, total) bytes; total is 0 while it is not known.
    pub progress: &'a (dyn Fn(u64, u64) + Send + Sync),
}

impl std::fmt::Debug for Download<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Download").field("url", &shown_text(self.url)).field("part", &self.part).finish_non_exhaustive()
    }
}

/// Of what the part is a part.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    url: String,
    /// A strong ETag, else Last-Modified.
    validator: String,
}

/// How one try ended early.
enum Cut {
    /// Another try may go on.
    Again(Error),
    Final(Error),
}

impl Fetcher {
    #[must_use]
    pub fn new(policy: Policy, ca_file: Option<PathBuf>) -> Self {
        Self { policy, ca_file, client: OnceLock::new() }
    }

    /// Brings the whole file, or says why not. Dropping the future keeps what has arrived for the next try.
    pub async fn fetch(&self, download: &Download<'_>) -> Result<(), Error> {
        let url = self.permitted(download.url)?;
        let mut barren = 0;
        let mut resumed = false;
        loop {
            let before = length(download.part).await;
            match self.attempt(&url, download, &mut resumed).await {
                Ok(()) => match verify(download).await {
                    // The rest may have come from another version of the file than the beginning.
                    Err(error) if resumed && error.reason == IMAGE_DIGEST_MISMATCH => resumed = false,
                    result => return result,
                },
                Err(Cut::Final(error)) => {
                    // What is refused is never taken up again, and a full disk needs its room back.
                    if error.verdict == Verdict::Refused {
                        discard(download.part)?;
                    }
                    return Err(error);
                }
                Err(Cut::Again(error)) => {
                    let brought = length(download.part).await.saturating_sub(before);
                    barren = if brought >= FERTILE { 0 } else { barren + 1 };
                    if barren >= BARREN_TRIES {
                        return Err(error);
                    }
                    tracing::info!(url = shown(&url), %error, "image download was cut; going on");
                    tokio::time::sleep(BACK_OFF * 2u32.pow(barren)).await;
                }
            }
        }
    }

    /// The URL, when it is one that hosts fetch from as far as it can be told without asking the name server.
    fn permitted(&self, text: &str) -> Result<Url, Error> {
        let refuse =
            |why: String| Error::refused(IMAGE_SOURCE_REFUSED, format!("the image's address is refused: {why}"));
        let url = Url::parse(text).map_err(|e| refuse(format!("{e} in `{text}`")))?;
        source::check(&url, &self.policy).map_err(|e| refuse(e.to_string()))?;
        Ok(url)
    }

    fn client(&self) -> Result<&Client, Error> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = self.build()?;
        Ok(self.client.get_or_init(|| client))
    }

    fn build(&self) -> Result<Client, Error> {
        let failed = |what: String| Error::failed(IMAGE_FETCH_FAILED, what);
        // The binary installs one at start; a test may not have.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let policy = self.policy.clone();
        let redirects = redirect::Policy::custom(move |attempt| {
            if attempt.previous().len() > REDIRECTS {
                return attempt.error(UrlRefused::Redirects);
            }
            match source::check(attempt.url(), &policy) {
                Ok(()) => attempt.follow(),
                Err(refused) => attempt.error(refused),
            }
        });
        let mut builder = Client::builder()
            .user_agent(format!("croft-hostagent/{}", croft_program::version()))
            .https_only(true)
            // A proxy would dial for us, unchecked.
            .no_proxy()
            .referer(false)
            .redirect(redirects)
            .dns_resolver(Arc::new(Resolver(self.policy.clone())))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .pool_max_idle_per_host(0);
        if let Some(path) = &self.ca_file {
            let what = |e: &dyn std::fmt::Display| failed(format!("--image-ca-file {}: {e}", path.display()));
            let pem = std::fs::read(path).map_err(|e| what(&e))?;
            let roots = reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| what(&e))?;
            builder = builder.tls_certs_merge(roots);
        }
        builder.build().map_err(|e| failed(format!("cannot set up TLS for image downloads: {}", chain(&e))))
    }

    async fn attempt(&self, url: &Url, download: &Download<'_>, resumed: &mut bool) -> Result<(), Cut> {
        let client = self.client().map_err(Cut::Final)?;
        let note_path = note_path(download.part);
        let note = std::fs::read(&note_path).ok().and_then(|bytes| serde_json::from_slice::<Note>(&bytes).ok());
        let (have, validator) = match note.filter(|note| note.url == url.as_str()) {
            Some(note) => (length(download.part).await, note.validator),
            None => (0, String::new()),
        };
        let mut request = client.get(url.clone()).header(ACCEPT_ENCODING, "identity");
        if have > 0 {
            request = request.header(RANGE, format!("bytes={have}-")).header(IF_RANGE, &validator);
        }
        let response = request.send().await.map_err(|e| cut(url, e))?;
        let start = match response.status() {
            StatusCode::PARTIAL_CONTENT if range_start(response.headers()) == Some(have) => {
                *resumed = true;
                have
            }
            StatusCode::OK => 0,
            // Ours is as long as theirs, or longer: begin anew.
            StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::PARTIAL_CONTENT => {
                discard(download.part).map_err(Cut::Final)?;
                return Err(Cut::Again(failed(url, "the server does not have the rest that was asked for")));
            }
            // The client follows what it can; the rest it hands out as it is.
            status if status.is_redirection() => {
                let message = format!("{} is refused: it redirects to something that is not https", shown(url));
                return Err(Cut::Final(Error::refused(IMAGE_SOURCE_REFUSED, message)));
            }
            status => {
                let error = failed(url, format!("the server answered {status}"));
                let passing = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
                return Err(if passing { Cut::Again(error) } else { Cut::Final(error) });
            }
        };
        if start == 0 {
            discard(download.part).map_err(Cut::Final)?;
            if let Some(validator) = validator_of(response.headers()) {
                let note = serde_json::to_vec(&Note { url: url.to_string(), validator }).unwrap_or_default();
                durable::write(&note_path, &note, 0o600).map_err(Cut::Final)?;
            }
        }
        receive(url, download, response, start).await
    }
}

/// Appends the body to the part.
async fn receive(url: &Url, download: &Download<'_>, mut response: Response, start: u64) -> Result<(), Cut> {
    let total = response.content_length().map(|rest| start + rest);
    let within = |bytes: u64| {
        if bytes <= download.max_bytes {
            return Ok(());
        }
        let limit = download.max_bytes;
        Err(Cut::Final(Error::refused(
            reasons::IMAGE_TOO_LARGE,
            format!("{} is refused: more than {limit} bytes long, which is the limit for it", shown(url)),
        )))
    };
    within(total.unwrap_or(0))?;
    (download.room)(total.map_or(0, |total| total - start)).map_err(Cut::Final)?;

    let part = download.part;
    let io = |e: std::io::Error| Cut::Final(Error::io("write", part, &e));
    let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(part).await.map_err(io)?;
    let mut done = start;
    let mut looked = start;
    (download.progress)(done, total.unwrap_or(0));
    while let Some(bytes) = response.chunk().await.map_err(|e| cut(url, e))? {
        done += bytes.len() as u64;
        within(done)?;
        if done - looked >= ROOM_EVERY {
            looked = done;
            (download.room)(0).map_err(Cut::Final)?;
        }
        file.write_all(&bytes).await.map_err(io)?;
        (download.progress)(done, total.unwrap_or(0));
    }
    file.flush().await.map_err(io)?;
    file.sync_all().await.map_err(io)?;
    match total {
        Some(total) if done < total => Err(Cut::Again(failed(url, format!("it ended after {done} of {total} bytes")))),
        _ => Ok(()),
    }
}

/// Takes the digest of what lies on the disk. Whatever it says, the note has done its work.
async fn verify(download: &Download<'_>) -> Result<(), Error> {
    let path = download.part.to_owned();
    let hashed = tokio::task::spawn_blocking(move || super::local::sha256(&path)).await;
    let actual = hashed.unwrap_or_else(|e| Err(Error::failed(reasons::MEDIA_IO, format!("hashing stopped: {e}"))))?;
    if actual == download.sha256 {
        return durable::remove(&note_path(download.part));
    }
    discard(download.part)?;
    Err(Error::refused(
        IMAGE_DIGEST_MISMATCH,
        format!(
            "what {} serves has the sha256 {actual}, and {} was registered; the file there has changed, or the digest is \
             wrong: register a new image",
            shown_text(download.url),
            download.sha256
        ),
    ))
}

/// A failed request: refused by us somewhere inside the client, or by the network.
fn cut(url: &Url, error: reqwest::Error) -> Cut {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(cause) = source {
        if cause.is::<UrlRefused>() || cause.is::<Refused>() {
            let message = format!(
                "the image's address is refused: {} leads to something that is not fetched: {cause}",
                shown(url)
            );
            return Cut::Final(Error::refused(IMAGE_SOURCE_REFUSED, message));
        }
        source = cause.source();
    }
    let what = chain(&error.without_url());
    Cut::Again(failed(url, what))
}

fn failed(url: &Url, what: impl std::fmt::Display) -> Error {
    Error::failed(IMAGE_FETCH_FAILED, format!("cannot fetch {}: {what}", shown(url)))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// A strong ETag, else the date: what If-Range takes.
fn validator_of(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    text(ETAG).filter(|tag| !tag.starts_with("W/")).or_else(|| text(LAST_MODIFIED))
}

/// `bytes 5-9/10` → 5
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    value.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

fn note_path(part: &Path) -> PathBuf {
    let mut name = part.file_name().unwrap_or_default().to_os_string();
    name.push(".json");
    part.with_file_name(name)
}

/// Removes the part and its note.
pub(super) fn discard(part: &Path) -> Result<(), Error> {
    durable::remove(&note_path(part))?;
    durable::remove(part)
}

async fn length(path: &Path) -> u64 {
    tokio::fs::metadata(path).await.map_or(0, |meta| meta.len())
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
