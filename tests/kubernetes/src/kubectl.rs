//! Asking the cluster by its own client, so that a test does not judge Croft's client by itself.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// kubectl as somebody.
#[derive(Debug, Clone)]
pub struct Kubectl {
    pub(crate) program: PathBuf,
    pub(crate) kubeconfig: PathBuf,
    /// Its own: the one in the home directory may remember another cluster on the same port.
    pub(crate) cache: PathBuf,
}

impl Kubectl {
    /// What it printed, or what it complained of.
    pub async fn run(&self, arguments: &[&str]) -> Result<String, String> {
        self.fed("", arguments).await
    }

    /// The same, as JSON.
    pub async fn get(&self, arguments: &[&str]) -> Result<Value, String> {
        let text = self.run(&[&["get", "-o", "json"], arguments].concat()).await?;
        serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
    }

    /// Creates what this manifest holds; YAML or JSON.
    pub async fn create(&self, manifest: &str) -> Result<String, String> {
        self.fed(manifest, &["create", "-f", "-"]).await
    }

    async fn fed(&self, input: &str, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(&self.program);
        command.arg("--kubeconfig").arg(&self.kubeconfig).arg("--cache-dir").arg(&self.cache).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| format!("{}: {error}", self.program.display()))?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that ends before it has read everything says why on its standard error.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        let output = child.wait_with_output().await.map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}
