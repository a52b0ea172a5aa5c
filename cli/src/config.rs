//! The config file: named contexts, one of them current. It may hold tokens, so it is written 0600 and never half.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_context: Option<String>,
    #[serde(default)]
    pub contexts: BTreeMap<String, Context>,
}

/// One plane, and who one is there. `ca` and `token` hold the text itself; the `…File` fields a path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Context {
    /// `host:port`
    pub server: String,
    /// The name that the plane's certificate must bear, where it is not the host in `server`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

impl Config {
    /// A file that is not there is an empty config.
    pub fn load(path: &Path) -> Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(Failure::local(format!("cannot read {}: {error}", path.display()))),
        };
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_yaml_ng::from_str(&text).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
    }

    /// Readers see the old file or the new one; a crash leaves either.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = serde_yaml_ng::to_string(self).map_err(|error| Failure::local(error.to_string()))?;
        write_private(path, text.as_bytes())
    }

    pub fn context(&self, name: &str) -> Result<&Context> {
        self.contexts.get(name).ok_or_else(|| {
            let known = self.contexts.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            let known = if known.is_empty() { "none".to_owned() } else { known };
            Failure::NotFound(format!(
                "no context `{name}` (there are: {known}); `croft context set {name} --server HOST:PORT …` makes it"
            ))
        })
    }
}

/// Mode 0600 from its first moment, whole or not at all.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let fail = |error: std::io::Error| Failure::local(format!("cannot write {}: {error}", path.display()));
    // Through a link to the file it names: people keep their config in a repository of dotfiles.
    let path = &std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory).map_err(fail)?;
    // tempfile makes its files 0600.
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(fail)?;
    file.write_all(bytes).map_err(fail)?;
    file.as_file().sync_all().map_err(fail)?;
    file.persist(path).map_err(|error| fail(error.error))?;
    Ok(())
}

/// `$CROFT_CONFIG`, else `croft/config.yaml` where the desktop standard puts configuration.
pub fn path(env: impl Fn(&str) -> Option<String>) -> Result<PathBuf> {
    if let Some(path) = env("CROFT_CONFIG") {
        return Ok(path.into());
    }
    if let Some(directory) = env("XDG_CONFIG_HOME") {
        return Ok(Path::new(&directory).join("croft/config.yaml"));
    }
    let home = env("HOME").ok_or_else(|| Failure::usage("neither HOME nor CROFT_CONFIG is set: no config file"))?;
    Ok(Path::new(&home).join(".config/croft/config.yaml"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn sample() -> Config {
        let context = Context {
            server: "plane:7443".into(),
            ca_file: Some("/etc/croft/ca.pem".into()),
            token: Some("croft_a_b".into()),
            ..Context::default()
        };
        Config { current_context: Some("prod".into()), contexts: [("prod".to_owned(), context)].into() }
    }

    #[test]
    fn is_private_and_reads_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/config.yaml");
        sample().save(&path).unwrap();
        assert_eq!(Config::load(&path).unwrap(), sample());
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn a_link_stays_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let (real, link) = (directory.path().join("real.yaml"), directory.path().join("config.yaml"));
        std::fs::write(&real, "").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        sample().save(&link).unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(Config::load(&real).unwrap(), sample());
    }

    #[test]
    fn a_missing_file_is_empty_and_a_wrong_one_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.yaml");
        assert_eq!(Config::load(&path).unwrap(), Config::default());
        std::fs::write(&path, "contexts: {a: {servr: x}}").unwrap();
        let message = Config::load(&path).unwrap_err().to_string();
        assert!(message.contains("servr"), "{message}");
    }

    #[test]
    fn an_unknown_context_names_the_known() {
        let message = sample().context("dev").unwrap_err().to_string();
        assert!(message.contains("there are: prod"), "{message}");
    }

    #[test]
    fn the_environment_says_where() {
        let env = |pairs: &'static [(&str, &str)]| {
            move |key: &str| pairs.iter().find(|(k, _)| *k == key).map(|(_, v)| (*v).to_owned())
        };
        assert_eq!(path(env(&[("CROFT_CONFIG", "/c"), ("HOME", "/h")])).unwrap(), Path::new("/c"));
        assert_eq!(path(env(&[("XDG_CONFIG_HOME", "/x")])).unwrap(), Path::new("/x/croft/config.yaml"));
        assert_eq!(path(env(&[("HOME", "/h")])).unwrap(), Path::new("/h/.config/croft/config.yaml"));
        assert!(path(env(&[])).is_err());
    }
}
