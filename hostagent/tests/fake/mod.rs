//! A control plane in a few words: it says what it is told to say, and remembers what it hears.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod devices;
pub mod host;
pub mod plane;
pub mod process;
pub mod tls;

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Waits for `condition`. The deadline is only there so that a failing test ends: some wait for a look of the agent, which comes
/// every 30 s.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Result<T, String>) -> T {
    let began = tokio::time::Instant::now();
    loop {
        match condition().await {
            Ok(value) => return value,
            Err(state) => assert!(began.elapsed() < Duration::from_secs(180), "{what}: {state}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Files below `root` that hold `text`, whatever else they are.
pub fn files_with(root: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        // What goes while it is looked at is not there.
        for entry in std::fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok) {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(path),
                Ok(kind) if kind.is_file() => {
                    let bytes = std::fs::read(&path).unwrap_or_default();
                    if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
                        found.push(path);
                    }
                }
                _ => {}
            }
        }
    }
    found
}
