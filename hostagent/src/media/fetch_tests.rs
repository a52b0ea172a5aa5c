//! Against a real TLS server on loopback that answers as each test tells it to.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Mutex;

use super::*;

/// One answer: the bytes that go down the connection, which is then closed.
type Answer = Vec<u8>;

struct Server {
    port: u16,
    /// The heads of all requests.
    asked: Arc<Mutex<Vec<String>>>,
    dir: tempfile::TempDir,
}

impl Server {
    /// Answers one connection after the other with `answers`, then with 404.
    fn start(answers: Vec<Answer>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder().with_no_client_auth();
        let config = Arc::new(config.with_single_cert(vec![made.cert.der().clone()], key).unwrap());
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), made.cert.pem()).unwrap();

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heads = Arc::clone(&asked);
        let mut answers = VecDeque::from(answers);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let Ok(tls) = rustls::ServerConnection::new(Arc::clone(&config)) else { return };
                let Ok(connection) = connection else { return };
                let mut stream = rustls::StreamOwned::new(tls, connection);
                let mut head = String::new();
                let mut lines = BufReader::new(&mut stream);
                while lines.read_line(&mut head).is_ok_and(|read| read > 2) {}
                if head.is_empty() {
                    continue;
                }
                heads.lock().unwrap().push(head.to_lowercase());
                let answer = answers
                    .pop_front()
                    .unwrap_or_else(|| b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec());
                let _ = stream.write_all(&answer).and_then(|()| stream.flush());
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        });
        Self { port, asked, dir }
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}/image", self.port)
    }
    fn part(&self) -> PathBuf {
        self.dir.path().join("disk.part")
    }
    fn head(&self, nth: usize) -> String {
        self.asked.lock().unwrap()[nth].clone()
    }

    async fn fetch_with(&self, allow: &[&str], url: &str, body: &[u8], max_bytes: u64) -> Result<(), Error> {
        let policy = Policy { allow: allow.iter().map(|p| p.parse().unwrap()).collect() };
        let fetcher = Fetcher::new(policy, Some(self.dir.path().join("ca.pem")));
        let sha256 = hex::encode(ring::digest::digest(&ring::digest::SHA256, body));
        let download =
            Download { url, sha256: &sha256, part: &self.part(), max_bytes, room: &|_| Ok(()), progress: &|_, _| {} };
        fetcher.fetch(&download).await
    }
    async fn fetch(&self, body: &[u8]) -> Result<(), Error> {
        self.fetch_with(&["127.0.0.1/32"], &self.url(), body, 1 << 20).await
    }
    fn leaves_nothing(&self) -> bool {
        !self.part().exists() && !note_path(&self.part()).exists()
    }
}

fn answer(status: &str, headers: &str, body: &[u8]) -> Answer {
    let mut bytes = format!("HTTP/1.1 {status}\r\n{headers}connection: close\r\n\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}
fn whole(body: &[u8]) -> Answer {
    answer("200 OK", &format!("content-length: {}\r\netag: \"v1\"\r\n", body.len()), body)
}
fn body() -> Vec<u8> {
    (0..100_000u32).map(|n| (n % 251) as u8).collect()
}

#[tokio::test]
async fn fetches_and_verifies() {
    let server = Server::start(vec![whole(&body())]);
    server.fetch(&body()).await.unwrap();
    assert_eq!(std::fs::read(server.part()).unwrap(), body());
    assert!(!note_path(&server.part()).exists());
    assert!(server.head(0).contains("accept-encoding: identity"));
}

#[tokio::test]
async fn goes_on_where_it_was_cut() {
    let body = body();
    let cut = answer("200 OK", "content-length: 100000\r\netag: \"v1\"\r\n", &body[..60_000]);
    let rest = answer(
        "206 Partial Content",
        "content-length: 40000\r\ncontent-range: bytes 60000-99999/100000\r\n",
        &body[60_000..],
    );
    let server = Server::start(vec![cut, rest]);
    server.fetch(&body).await.unwrap();
    assert_eq!(std::fs::read(server.part()).unwrap(), body);
    assert!(server.head(1).contains("range: bytes=60000-") && server.head(1).contains("if-range: \"v1\""));
}

#[tokio::test]
async fn a_server_that_hands_out_single_bytes_is_given_up() {
    let trickle = |_| answer("200 OK", "content-length: 100000\r\n", b"x");
    let server = Server::start((0..20).map(trickle).collect());
    assert_eq!(server.fetch(&body()).await.unwrap_err().reason, "ImageFetchFailed");
    assert!(server.asked.lock().unwrap().len() < 10);
}

#[tokio::test]
async fn begins_anew_when_the_file_changed_in_between() {
    let body = body();
    let old = vec![0u8; 60_000];
    let cut = answer("200 OK", "content-length: 100000\r\netag: \"v0\"\r\n", &old);
    let server = Server::start(vec![cut, whole(&body)]);
    server.fetch(&body).await.unwrap();
    assert_eq!(std::fs::read(server.part()).unwrap(), body);
}

#[tokio::test]
async fn a_rest_that_does_not_fit_costs_one_more_download() {
    let body = body();
    let cut = answer("200 OK", "content-length: 100000\r\netag: \"v0\"\r\n", &[0; 60_000]);
    let rest = answer(
        "206 Partial Content",
        "content-length: 40000\r\ncontent-range: bytes 60000-99999/100000\r\n",
        &body[60_000..],
    );
    let server = Server::start(vec![cut, rest, whole(&body)]);
    server.fetch(&body).await.unwrap();
    assert_eq!(std::fs::read(server.part()).unwrap(), body);
}

#[tokio::test]
async fn a_wrong_digest_is_refused_and_leaves_nothing() {
    let server = Server::start(vec![whole(b"something else")]);
    let error = server.fetch(&body()).await.unwrap_err();
    assert_eq!(error.reason, "ImageDigestMismatch");
    assert!(server.leaves_nothing());
}

#[tokio::test]
async fn an_endless_body_is_cut_at_the_limit() {
    // No length is announced.
    let server = Server::start(vec![answer("200 OK", "", &vec![0; 2 << 20])]);
    let error = server.fetch(&body()).await.unwrap_err();
    assert_eq!(error.reason, "ImageTooLarge");
    assert!(server.leaves_nothing(), "what was refused keeps its room");
    let announced = Server::start(vec![answer("200 OK", "content-length: 9999999999\r\n", b"")]);
    assert_eq!(announced.fetch(&body()).await.unwrap_err().reason, "ImageTooLarge");
    assert!(announced.leaves_nothing());
}

#[tokio::test]
async fn a_full_disk_gives_back_what_was_taken() {
    let server = Server::start(vec![whole(&body())]);
    std::fs::write(server.part(), "from before").unwrap();
    let fetcher =
        Fetcher::new(Policy { allow: vec!["127.0.0.1/32".parse().unwrap()] }, Some(server.dir.path().join("ca.pem")));
    let (url, part) = (server.url(), server.part());
    let full = |_| Err(Error::refused(reasons::DISK_FULL, "full"));
    let download =
        Download { url: &url, sha256: "", part: &part, max_bytes: 1 << 20, room: &full, progress: &|_, _| {} };
    assert_eq!(fetcher.fetch(&download).await.unwrap_err().reason, "DiskFull");
    assert!(server.leaves_nothing());
}

#[tokio::test]
async fn addresses_of_the_host_and_its_networks_are_refused() {
    let server = Server::start(vec![whole(&body())]);
    // Written as an address, as a name that resolves to one, and in disguise.
    for host in
        ["127.0.0.1", "localhost", "127.1", "0x7f000001", "[::ffff:127.0.0.1]", "[::1]", "169.254.169.254", "10.0.0.1"]
    {
        let url = format!("https://{host}:{}/image", server.port);
        let error = server.fetch_with(&[], &url, &body(), 1 << 20).await.unwrap_err();
        assert_eq!(
            (error.reason, error.verdict),
            ("ImageSourceRefused", super::super::Verdict::Refused),
            "{host}: {error}"
        );
    }
    assert!(server.asked.lock().unwrap().is_empty(), "somebody was asked");
}

#[tokio::test]
async fn redirects_are_held_to_the_same_rules() {
    for to in [
        "https://10.0.0.1/",
        "https://169.254.169.254/latest",
        "http://127.0.0.1/",
        "https://localhost/",
        "file:///etc/shadow",
    ] {
        let server = Server::start(vec![answer("302 Found", &format!("location: {to}\r\ncontent-length: 0\r\n"), b"")]);
        // Only the server's own address is allowed; localhost resolves to it or to ::1, so leave that one out.
        let error = server.fetch(&body()).await.unwrap_err();
        if to == "https://localhost/" {
            assert!(["ImageSourceRefused", "ImageFetchFailed"].contains(&error.reason));
            continue;
        }
        assert_eq!(error.reason, "ImageSourceRefused", "{to}: {error}");
        assert!(error.message.contains("/image"), "names the registered address: {error}");
    }
    let round = |_| answer("302 Found", "location: /image\r\ncontent-length: 0\r\n", b"");
    let server = Server::start((0..20).map(round).collect());
    assert_eq!(server.fetch(&body()).await.unwrap_err().reason, "ImageSourceRefused");
}

#[tokio::test]
async fn other_schemes_and_credentials_are_refused() {
    let server = Server::start(vec![]);
    for url in [
        "http://images.example/x",
        "ftp://images.example/x",
        "https://u:p@images.example/x",
        "file:///x",
        "images",
        "https://",
    ] {
        let error = server.fetch_with(&[], url, b"", 1).await.unwrap_err();
        assert_eq!(error.reason, "ImageSourceRefused", "{url}");
    }
}

#[tokio::test]
async fn a_missing_file_says_so_at_once() {
    let server = Server::start(vec![]);
    let error = server.fetch(&body()).await.unwrap_err();
    assert_eq!(error.reason, "ImageFetchFailed");
    assert!(error.message.contains("404"), "{error}");
    assert_eq!(server.asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn an_unknown_authority_is_not_believed() {
    let server = Server::start(vec![whole(&body())]);
    let other = Server::start(vec![]);
    std::fs::copy(other.dir.path().join("ca.pem"), server.dir.path().join("ca.pem")).unwrap();
    let error = server.fetch(&body()).await.unwrap_err();
    assert_eq!(error.reason, "ImageFetchFailed");
    assert!(server.leaves_nothing());
}
