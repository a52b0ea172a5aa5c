//! The NoCloud seed: three texts that cloud-init reads at first boot, and files beside them. Secret, because user data often
//! holds secrets.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::CloudInit;
use crate::id::InstanceUid;

pub const TEXT_MAX: usize = 64 * 1024;

/// What an agent says of itself that puts [`Seed::files`] on the volume, and replaces them under a guest that runs.
pub const FILES_FEATURE: &str = "seed.files";

/// As the host fetches it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    #[serde(rename = "meta-data")]
    pub meta_data: String,
    #[serde(rename = "user-data")]
    pub user_data: String,
    #[serde(rename = "network-config", skip_serializing_if = "Option::is_none")]
    pub network_config: Option<String>,
    /// By name, at the root of the volume; plain names of [a-z0-9.-]. cloud-init reads `vendor-data` and no other. Needs an
    /// agent that knows [`FILES_FEATURE`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(secret)")
    }
}

impl Seed {
    /// `instance-id` is the uid: a re-created instance of the same name boots as a new one.
    #[must_use]
    pub fn compose(uid: InstanceUid, id: &str, cloud_init: &CloudInit, user_data: &str) -> Self {
        let hostname = if cloud_init.hostname.is_empty() { id } else { &cloud_init.hostname };
        // YAML is a superset of JSON, so JSON needs no quoting rules of our own.
        let meta_data = serde_json::json!({
            "instance-id": uid.to_string(),
            "local-hostname": hostname,
            "public-keys": cloud_init.ssh_authorized_keys,
        });
        Self {
            meta_data: format!("{meta_data}\n"),
            user_data: if user_data.is_empty() { "#cloud-config\n{}\n".to_owned() } else { user_data.to_owned() },
            network_config: Some(cloud_init.network_config.clone()).filter(|text| !text.is_empty()),
            files: BTreeMap::new(),
        }
    }

    /// What [`Seed::encode`] made.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        // The position of the fault, and nothing of the text: it is secret.
        serde_json::from_slice(bytes).map_err(|why| format!("not a seed: line {} column {}", why.line(), why.column()))
    }

    /// The bytes and their digest, `sha256:…`.
    #[must_use]
    pub fn encode(&self) -> (Vec<u8>, String) {
        // A struct of strings always serialises.
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        let digest = digest(&bytes);
        (bytes, digest)
    }
}

/// `sha256:` and 64 hex digits.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// What cloud-init would silently ignore is refused here, where somebody reads the error.
pub fn check_user_data(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    if text.len() > TEXT_MAX {
        return Err(format!("{} bytes; at most {TEXT_MAX}", text.len()));
    }
    if text.contains('\0') {
        return Err("holds a NUL byte: not a text".to_owned());
    }
    let body = text.strip_prefix("## template: jinja\n").unwrap_or(text);
    if body.starts_with("#cloud-config") {
        // Jinja is rendered in the guest before it becomes YAML: only plain text can be checked.
        return if body.len() == text.len() { check_mapping(body) } else { Ok(()) };
    }
    const OTHERS: [&str; 8] = [
        "#!",
        "#include",
        "#cloud-boothook",
        "#part-handler",
        "#cloud-config-archive",
        "Content-Type:",
        "MIME-Version:",
        "From ",
    ];
    if OTHERS.iter().any(|start| body.starts_with(start)) {
        return Ok(());
    }
    let first: String = text.lines().next().unwrap_or_default().chars().take(40).collect();
    Err(format!("its first line, `{first}`, tells cloud-init nothing: begin with `#cloud-config` or `#!`"))
}

pub fn check_network_config(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    if text.len() > TEXT_MAX {
        return Err(format!("{} bytes; at most {TEXT_MAX}", text.len()));
    }
    check_mapping(text)?;
    let has_version =
        text.lines().any(|line| line.trim_start().trim_start_matches(['{', ' ', '"']).starts_with("version"))
            || text.trim_start().starts_with("network:");
    if has_version { Ok(()) } else { Err("needs `version: 1` or `version: 2`".to_owned()) }
}

fn check_mapping(text: &str) -> Result<(), String> {
    match serde_yaml_ng::from_str::<serde_yaml_ng::Value>(text) {
        Ok(serde_yaml_ng::Value::Mapping(_) | serde_yaml_ng::Value::Null) => Ok(()),
        Ok(_) => Err("not a mapping of keys to values".to_owned()),
        Err(why) => Err(format!("not YAML: {why}")),
    }
}

/// `type base64 [comment]`, of a type that sshd knows.
#[must_use]
pub fn is_public_key(line: &str) -> bool {
    let known = |kind: &str| {
        matches!(kind, "ssh-ed25519" | "ssh-rsa" | "sk-ssh-ed25519@openssh.com" | "sk-ecdsa-sha2-nistp256@openssh.com")
            || kind.starts_with("ecdsa-sha2-nistp")
    };
    let base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    let mut words = line.split(' ');
    line.len() <= 16 * 1024
        && !line.chars().any(char::is_control)
        && words.next().is_some_and(known)
        && words.next().is_some_and(|data| data.starts_with("AAAA") && data.chars().all(base64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_data_that_cloud_init_would_ignore_is_refused() {
        for good in
            ["", "#cloud-config\nusers: []\n", "#!/bin/sh\ntrue\n", "## template: jinja\n#cloud-config\na: {{b}}\n"]
        {
            assert_eq!(check_user_data(good), Ok(()), "{good}");
        }
        for bad in ["users: []", "#cloud-config\n- a\n", "#cloud-config\na: [", "#cloud-config\n\0"] {
            assert!(check_user_data(bad).is_err(), "{bad}");
        }
        assert!(check_network_config("ethernets: {}").is_err());
        assert_eq!(check_network_config("version: 2\nethernets: {}\n"), Ok(()));
    }

    #[test]
    fn the_seed_is_named_after_the_uid_and_never_shown() {
        let uid = InstanceUid::parse("01890000-0000-7000-8000-000000000001").unwrap();
        let keys = vec!["ssh-ed25519 AAAAC3 me".to_owned()];
        let seed = Seed::compose(uid, "web", &CloudInit { ssh_authorized_keys: keys, ..CloudInit::default() }, "");
        let meta: serde_json::Value = serde_json::from_str(&seed.meta_data).unwrap();
        assert_eq!(meta["instance-id"], uid.to_string());
        assert_eq!(meta["local-hostname"], "web");
        assert_eq!(format!("{seed:?}"), "Seed(secret)");
    }

    #[test]
    fn a_seed_without_files_is_what_it_was_before_there_were_any() {
        let uid = InstanceUid::parse("01890000-0000-7000-8000-000000000001").unwrap();
        let mut seed = Seed::compose(uid, "web", &CloudInit::default(), "");
        let (bytes, _) = seed.encode();
        assert!(!String::from_utf8(bytes.clone()).unwrap().contains("files"));
        assert_eq!(Seed::decode(&bytes), Ok(seed.clone()));
        seed.files.insert("vendor-data".to_owned(), "#!/bin/sh\n".to_owned());
        assert_eq!(Seed::decode(&seed.encode().0), Ok(seed));
        assert_eq!(Seed::decode(b"{\"token\": abcdef}"), Err("not a seed: line 1 column 11".to_owned()));
    }
}
