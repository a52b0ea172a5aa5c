//! Flat package repositories, and the web server that machines without any other network fetch them from.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::network::CONTROLLER;
use crate::guest_image::sha256;
use crate::run::{Run, last_lines};

/// Where each lies below the server's root.
pub(super) const DEBIAN: &str = "debian";
pub(super) const CROFT: &str = "croft";

/// Ends with this value.
#[derive(Debug)]
pub(super) struct Server(Child);

/// Copies these packages into a repository and writes its lists anew. What is there already stays: apt may choose.
pub(super) fn offer(repository: &Path, packages: &Path) -> Result<()> {
    fs::create_dir_all(repository).with_context(|| format!("cannot make {}", repository.display()))?;
    let entries = fs::read_dir(packages).with_context(|| format!("cannot list {}", packages.display()))?;
    for file in entries.flatten().map(|entry| entry.path()) {
        if let Some(name) = file.file_name().filter(|_| file.extension().is_some_and(|e| e == "deb")) {
            fs::copy(&file, repository.join(name)).with_context(|| format!("cannot copy {}", file.display()))?;
        }
    }
    let list = Run::new("dpkg-scanpackages").args(["--multiversion", "."]).dir(repository).stdout()?;
    if list.trim().is_empty() {
        bail!("{} has no package", packages.display());
    }
    let index = repository.join("Packages");
    fs::write(&index, &list).with_context(|| format!("cannot write {}", index.display()))?;
    // Without it apt tells of a repository that is not one.
    let date = Run::new("date").args(["--utc", "--rfc-email"]).stdout()?;
    let release = format!(
        "Date: {}\nSuite: ./\nSHA256:\n {} {} Packages\n",
        date.trim().replace("+0000", "UTC"),
        sha256(&index)?,
        list.len()
    );
    let file = repository.join("Release");
    fs::write(&file, release).with_context(|| format!("cannot write {}", file.display()))
}

/// Serves what is below this directory, on the controller's address.
pub(super) fn serve(root: &Path, log: &Path) -> Result<Server> {
    let file = fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let child = Command::new("python3")
        .args(["-m", "http.server", "80", "--bind", CONTROLLER, "--directory"])
        .arg(root)
        .stdin(Stdio::null())
        .stdout(file.try_clone().context("cannot copy a file handle")?)
        .stderr(file)
        .spawn()
        .context("cannot start python3")?;
    let mut server = Server(child);
    let began = Instant::now();
    while std::net::TcpStream::connect((CONTROLLER, 80)).is_err() {
        if server.0.try_wait().is_ok_and(|ended| ended.is_some()) || began.elapsed() > Duration::from_secs(60) {
            bail!("the web server does not answer: {}", last_lines(log, 3));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(server)
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
