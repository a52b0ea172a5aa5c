//! A plane that says what a test told it to say, over real TLS and gRPC, and the real binary against it.

mod fake;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

pub use fake::{Fake, Say};
use tonic::transport::{Identity, Server, ServerTlsConfig};

pub const TOKEN: &str = "croft_test_secret";

/// One test's plane and its own home directory.
pub struct Stage {
    pub fake: Fake,
    pub address: SocketAddr,
    home: tempfile::TempDir,
}

/// What the binary did.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Stage {
    pub async fn new() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stage =
            Self { fake: Fake::default(), address: listener.local_addr().unwrap(), home: tempfile::tempdir().unwrap() };
        let (ca, identity) = certificates();
        std::fs::write(stage.path("ca.pem"), ca).unwrap();
        stage.serve(listener, identity);
        stage
    }

    fn serve(&self, listener: tokio::net::TcpListener, identity: Identity) {
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let routes = self.fake.routes();
        let mut server = Server::builder().tls_config(ServerTlsConfig::new().identity(identity)).unwrap();
        tokio::spawn(async move { server.add_routes(routes).serve_with_incoming(incoming).await.unwrap() });
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name).to_str().unwrap().to_owned()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_croft"));
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.home.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("CROFT_SERVER", self.address.to_string())
            .env("CROFT_CA_FILE", self.path("ca.pem"))
            .env("CROFT_TOKEN", TOKEN)
            .env("CROFT_TENANT", "acme");
        command
    }

    pub async fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(self.command(arguments), b"").await
    }

    pub async fn run_with(&self, mut command: Command, stdin: &[u8]) -> Ran {
        let stdin = stdin.to_vec();
        let ended = tokio::task::spawn_blocking(move || -> std::io::Result<Output> {
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
            let mut pipe = child.stdin.take().expect("a pipe");
            // Beside the reading of its output, or both would wait for each other; the child may end without reading.
            let writer = std::thread::spawn(move || drop(pipe.write_all(&stdin)));
            let output = child.wait_with_output();
            writer.join().expect("the writer");
            output
        });
        let output = tokio::time::timeout(std::time::Duration::from_secs(60), ended).await;
        let output = output.expect("croft did not end within a minute").unwrap().unwrap();
        Ran {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self.out
    }
}

/// A CA of this test alone, and the plane's key and certificate.
fn certificates() -> (String, Identity) {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "a test's CA");
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &ca).unwrap();
    (ca.pem(), Identity::from_pem(certificate.pem(), key.serialize_pem()))
}

/// A CA that signed nothing.
pub fn another_ca() -> String {
    certificates().0
}
