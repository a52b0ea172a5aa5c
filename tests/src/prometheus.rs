//! A real Prometheus with the configuration that the repository ships: only its targets and its pace are the test's.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::eventually::within;
use crate::process::free_port;

/// `monitoring/` of the repository.
pub fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../monitoring")
}

/// False, and says so, where Debian's package `prometheus` is not installed. In CI it must be.
pub fn is_installed() -> bool {
    let there = ["prometheus", "promtool"].iter().all(|program| {
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    });
    if !there {
        let in_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!in_ci, "prometheus and promtool (Debian package prometheus) must be there in CI");
        eprintln!("SKIPPED: prometheus is not installed; Debian has it, with promtool, in the package prometheus");
    }
    there
}

#[derive(Debug)]
pub struct Prometheus {
    address: SocketAddr,
    child: Child,
    directory: tempfile::TempDir,
}

/// One series of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub labels: serde_json::Map<String, Value>,
    pub value: f64,
}

impl Sample {
    /// Empty: it has none of that name.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).and_then(Value::as_str).unwrap_or_default()
    }
}

impl Prometheus {
    pub async fn start(plane: SocketAddr, agents: &[SocketAddr]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let here = |name: &str| directory.path().join(name);
        let config = std::fs::read_to_string(shipped().join("prometheus.yml")).expect("prometheus.yml");
        assert_eq!(config.matches(": 15s").count(), 2, "the pace that operators get");
        std::fs::write(here("prometheus.yml"), config.replace(": 15s", ": 1s")).expect("written");
        for part in ["rules", "targets"] {
            std::fs::create_dir(here(part)).expect("a directory");
        }
        for file in files("rules", "yml") {
            std::fs::copy(&file, here("rules").join(file.file_name().expect("a name"))).expect("copied");
        }
        for (file, targets) in [("controlplane.yml", &[plane][..]), ("hosts.yml", agents)] {
            assert!(shipped().join("targets").join(file).is_file(), "{file} is shipped");
            let lines: String = targets.iter().map(|target| format!("    - {target}\n")).collect();
            std::fs::write(here("targets").join(file), format!("- targets:\n{lines}")).expect("written");
        }
        let address: SocketAddr = format!("127.0.0.1:{}", free_port()).parse().expect("an address");
        let log = std::fs::File::create(here("log")).expect("a log");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", here("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", here("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("prometheus starts");
        let found = Self { address, child, directory };
        within(Duration::from_secs(180), "Prometheus is ready", || async {
            match get(address, "/-/ready").await {
                Ok((head, _)) if head.contains(" 200 ") => Ok(()),
                other => Err(format!("{other:?}\n{}", found.log())),
            }
        })
        .await;
        found
    }

    /// As it is now; `Err`: what Prometheus has against the question.
    pub async fn query(&self, expression: &str) -> Result<Vec<Sample>, String> {
        let data = self.ask(&format!("/api/v1/query?query={}", encoded(expression))).await?;
        let series = data["result"].as_array().cloned().unwrap_or_default();
        let sample = |one: Value| {
            let value = one["value"][1].as_str().and_then(|text| text.parse().ok());
            Some(Sample { labels: one["metric"].as_object()?.clone(), value: value? })
        };
        Ok(series.into_iter().filter_map(sample).collect())
    }

    /// Every rule that is loaded, with its last error and its alerts.
    pub async fn rules(&self) -> Vec<Value> {
        let data = self.ask("/api/v1/rules").await.expect("rules");
        let groups = data["groups"].as_array().cloned().unwrap_or_default();
        groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect()
    }

    async fn ask(&self, path: &str) -> Result<Value, String> {
        let (_, body) = get(self.address, path).await.map_err(|error| error.to_string())?;
        let mut answer: Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
        match answer["status"].as_str() {
            Some("success") => Ok(answer["data"].take()),
            _ => Err(answer["error"].to_string()),
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Of one part of `monitoring/`, in order.
pub fn files(part: &str, end: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(shipped().join(part)).unwrap_or_else(|error| panic!("{part}: {error}"));
    let paths = entries.flatten().map(|entry| entry.path());
    let mut files: Vec<_> = paths.filter(|path| path.extension().is_some_and(|found| found == end)).collect();
    files.sort();
    assert!(!files.is_empty(), "no file in {part}");
    files
}

/// (head, body). HTTP/1.0, so that the body ends with the connection.
pub async fn get(address: SocketAddr, path: &str) -> std::io::Result<(String, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    Ok((head.to_owned(), body.to_owned()))
}

fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() {
            out.push(byte.into())
        } else {
            out.push_str(&format!("%{byte:02X}"))
        }
        out
    })
}
