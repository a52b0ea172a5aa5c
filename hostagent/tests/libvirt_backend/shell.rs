//! Typing into a guest's serial console and reading what it says.

use croft_hostagent::hypervisor::Duplex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::lab::PATIENCE;

pub struct Shell {
    console: Box<dyn Duplex>,
}

/// What a command in the guest said, and how it ended.
#[derive(Debug)]
pub struct Said {
    pub text: String,
    pub status: i32,
}

impl Said {
    pub fn ok(&self) -> bool {
        self.status == 0
    }
}

impl Shell {
    pub fn new(console: Box<dyn Duplex>) -> Self {
        Self { console }
    }

    /// Runs one line. The quotes keep the markers out of the terminal's echo.
    pub async fn run(&mut self, line: &str) -> Said {
        self.console.write_all(format!("echo __BE'GIN'; {line}; echo __$?_'END'\n").as_bytes()).await.unwrap();
        let mut heard = Vec::new();
        let read = async {
            loop {
                let text = String::from_utf8_lossy(&heard).replace('\r', "");
                if let Some(said) = parse(&text) {
                    return said;
                }
                let mut block = [0; 4096];
                let count = self.console.read(&mut block).await.unwrap();
                assert!(count > 0, "the console ended: {text}");
                heard.extend_from_slice(&block[..count]);
            }
        };
        match tokio::time::timeout(PATIENCE, read).await {
            Ok(said) => said,
            Err(_) => panic!("`{line}` did not end: {}", String::from_utf8_lossy(&heard)),
        }
    }

    /// Types a line whose end nobody will hear.
    pub async fn type_line(&mut self, line: &str) {
        self.console.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }
}

fn parse(text: &str) -> Option<Said> {
    let (_, after) = text.split_once("__BEGIN\n")?;
    let end = after.find("_END")?;
    let status = after[..end].rfind("__")?;
    Some(Said { text: after[..status].trim().to_owned(), status: after[status + 2..end].parse().ok()? })
}
