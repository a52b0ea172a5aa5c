//! SSH public keys and other texts that options name by file or give literally.

use std::io::Read;

use crate::failure::{Failure, Result};

const KEY_TYPES: [&str; 4] = ["ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-"];

/// A literal key, or every key in a file (an `authorized_keys` will do).
pub fn ssh_keys(text: &str) -> Result<Vec<String>> {
    if is_key(text) {
        return Ok(vec![text.trim().to_owned()]);
    }
    let content = read_text(text, "the SSH key")?;
    if content.contains("PRIVATE KEY-----") {
        return Err(Failure::usage(format!("{text} is a private key; give the public one ({text}.pub)")));
    }
    let keys: Vec<_> =
        content.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    match keys.iter().find(|line| !is_key(line)) {
        Some(line) => {
            let start: String = line.chars().take(20).collect();
            Err(Failure::usage(format!("{text}: `{start}…` is no SSH public key")))
        }
        None if keys.is_empty() => Err(Failure::usage(format!("{text} holds no SSH public key"))),
        None => Ok(keys.into_iter().map(str::to_owned).collect()),
    }
}

fn is_key(text: &str) -> bool {
    KEY_TYPES.iter().any(|kind| text.trim_start().starts_with(kind)) && text.trim().contains(' ')
}

/// More than any request may hold; a device or a wrong file must not fill the memory.
const TEXT_MAX: u64 = 16 << 20;

/// A file, or stdin for `-`.
pub fn read_text(path: &str, what: &str) -> Result<String> {
    let fail = |error: std::io::Error| Failure::usage(format!("cannot read {what} {path}: {error}"));
    let mut source: Box<dyn Read> = match path {
        "-" => Box::new(std::io::stdin()),
        path => Box::new(std::fs::File::open(path).map_err(fail)?),
    };
    let mut text = String::new();
    let length = source.by_ref().take(TEXT_MAX + 1).read_to_string(&mut text).map_err(fail)?;
    if length as u64 > TEXT_MAX {
        return Err(Failure::usage(format!("{what} {path} is larger than {} MiB", TEXT_MAX >> 20)));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ me@here";

    #[test]
    fn literal_or_file() {
        assert_eq!(ssh_keys(KEY).unwrap(), [KEY]);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("authorized_keys");
        std::fs::write(&path, format!("# mine\n{KEY}\n\necdsa-sha2-nistp256 AAAA other\n")).unwrap();
        assert_eq!(ssh_keys(path.to_str().unwrap()).unwrap().len(), 2);
    }

    #[test]
    fn mistakes_are_caught_before_they_reach_a_guest() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("id");
        let name = path.to_str().unwrap();
        std::fs::write(&path, "-----BEGIN OPENSSH PRIVATE KEY-----\n").unwrap();
        assert!(ssh_keys(name).unwrap_err().to_string().contains("private key"));
        std::fs::write(&path, "hello\n").unwrap();
        assert!(ssh_keys(name).unwrap_err().to_string().contains("no SSH public key"));
        std::fs::write(&path, "\n").unwrap();
        assert!(ssh_keys(name).unwrap_err().to_string().contains("holds no"));
        assert!(ssh_keys("/nowhere/id.pub").unwrap_err().to_string().contains("/nowhere/id.pub"));
    }
}
