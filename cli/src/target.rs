//! Which plane, trusted how, as whom, for which tenant: the context, with the environment and the options laid over it.

use std::path::Path;

use crate::config::{Config, Context};
use crate::failure::{Failure, Result};

pub const DEFAULT_PORT: u16 = 7443;

/// Everything that a connection needs.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// `https://host:port`
    pub url: String,
    /// What the plane's certificate must bear.
    pub server_name: String,
    pub ca_pem: Vec<u8>,
    pub token: String,
}

/// The chosen context and what overrides it; nothing is read or required until a command asks for it.
#[derive(Debug, Clone, Default)]
pub struct Chosen {
    pub context_name: Option<String>,
    context: Context,
    tenant: Option<String>,
}

impl Chosen {
    /// Options win over the environment, the environment over the context.
    pub fn new(
        config: &Config,
        context: Option<&str>,
        tenant: Option<&str>,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let named = context.map(str::to_owned).or_else(|| env("CROFT_CONTEXT"));
        let context_name = named.or_else(|| config.current_context.clone());
        let mut context = match &context_name {
            Some(name) => config.context(name)?.clone(),
            None => Context::default(),
        };
        if let Some(server) = env("CROFT_SERVER") {
            context.server = server;
            context.server_name = None;
        }
        if let Some(file) = env("CROFT_CA_FILE") {
            (context.ca, context.ca_file) = (None, Some(file.into()));
        }
        if let Some(token) = env("CROFT_TOKEN") {
            (context.token, context.token_file) = (Some(token), None);
        }
        let tenant = tenant.map(str::to_owned).or_else(|| env("CROFT_TENANT")).or_else(|| context.tenant.clone());
        Ok(Self { context_name, context, tenant })
    }

    /// `tenants/acme`, or an error that says how to name one.
    pub fn tenant(&self) -> Result<String> {
        self.tenant_if_any()?.ok_or_else(|| {
            Failure::usage("which tenant? use --tenant, CROFT_TENANT, or `croft context set NAME --tenant T`")
        })
    }

    pub fn tenant_if_any(&self) -> Result<Option<String>> {
        self.tenant
            .as_deref()
            .filter(|text| !text.is_empty())
            .map(|text| crate::names::top("tenants", text))
            .transpose()
    }

    pub fn target(&self) -> Result<Target> {
        if self.context.server.is_empty() {
            return Err(Failure::usage(
                "no context is current; `croft context set NAME --server HOST:PORT --ca-file F --token-file F` makes one, \
                 or set CROFT_SERVER, CROFT_CA_FILE and CROFT_TOKEN",
            ));
        }
        let (host, port) = host_and_port(&self.context.server)?;
        let ca_pem = match (&self.context.ca, &self.context.ca_file) {
            (Some(pem), _) => pem.clone().into_bytes(),
            (None, Some(file)) => {
                let pem = read(file, "the CA certificate")?;
                if !String::from_utf8_lossy(&pem).contains("BEGIN CERTIFICATE") {
                    return Err(Failure::local(format!("{} holds no certificate (PEM)", file.display())));
                }
                pem
            }
            (None, None) => {
                return Err(Failure::usage(
                    "no CA certificate; set the context's --ca-file (the plane's data directory holds ca.pem) or CROFT_CA_FILE",
                ));
            }
        };
        let token = match (&self.context.token, &self.context.token_file) {
            (Some(token), _) => token.clone(),
            (None, Some(file)) => String::from_utf8_lossy(&read(file, "the token")?).into_owned(),
            (None, None) => return Err(Failure::usage("no token; set the context's --token-file or CROFT_TOKEN")),
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        Ok(Target {
            url: format!("https://{host}:{port}"),
            server_name: self.context.server_name.clone().unwrap_or_else(|| bare.to_owned()),
            ca_pem,
            token: token.trim().to_owned(),
        })
    }
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| Failure::local(format!("cannot read {what} {}: {error}", path.display())))
}

/// `plane`, `plane:7443`, `[::1]:7443`, `https://plane:7443`; the host keeps its brackets.
pub fn host_and_port(server: &str) -> Result<(String, u16)> {
    let wrong = || {
        Failure::usage(format!(
            "`{server}` is no server; write HOST:PORT, for example plane.example.org:{DEFAULT_PORT}"
        ))
    };
    if server.starts_with("http://") {
        return Err(Failure::usage(format!(
            "`{server}`: a plane speaks TLS only; write HOST:PORT or https://HOST:PORT"
        )));
    }
    let text = server.strip_prefix("https://").unwrap_or(server).trim_end_matches('/');
    let in_brackets = text.rfind(']').map_or(0, |at| at + 1);
    let (host, port) = match text[in_brackets..].rfind(':') {
        Some(at) => (&text[..in_brackets + at], text[in_brackets + at + 1..].parse().map_err(|_| wrong())?),
        None => (text, DEFAULT_PORT),
    };
    let plain = !host.is_empty() && !host.contains(['/', '@', ' ']);
    if !plain || (host.contains(':') && in_brackets == 0) {
        return Err(wrong());
    }
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let context = Context {
            server: "plane:1".into(),
            ca: Some("CA".into()),
            token: Some("croft_a_b\n".into()),
            tenant: Some("acme".into()),
            ..Context::default()
        };
        Config { current_context: Some("prod".into()), contexts: [("prod".to_owned(), context)].into() }
    }

    fn env(pairs: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        move |key| pairs.iter().find(|(k, _)| *k == key).map(|(_, v)| (*v).to_owned())
    }

    #[test]
    fn the_current_context_is_taken() {
        let chosen = Chosen::new(&config(), None, None, env(&[])).unwrap();
        let target = chosen.target().unwrap();
        assert_eq!((target.url.as_str(), target.token.as_str()), ("https://plane:1", "croft_a_b"));
        assert_eq!(chosen.tenant().unwrap(), "tenants/acme");
    }

    #[test]
    fn options_win_over_environment_over_context() {
        let vars = env(&[("CROFT_TENANT", "envy"), ("CROFT_SERVER", "other:2"), ("CROFT_TOKEN", "t")]);
        let chosen = Chosen::new(&config(), None, None, &vars).unwrap();
        assert_eq!(chosen.tenant().unwrap(), "tenants/envy");
        assert_eq!(chosen.target().unwrap().url, "https://other:2");
        assert_eq!(chosen.target().unwrap().token, "t");
        let chosen = Chosen::new(&config(), None, Some("opt"), &vars).unwrap();
        assert_eq!(chosen.tenant().unwrap(), "tenants/opt");
    }

    #[test]
    fn without_any_context_the_environment_is_enough() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        std::fs::write(&file, "-----BEGIN CERTIFICATE-----").unwrap();
        let path = file.to_str().unwrap().to_owned();
        let vars = move |key: &str| match key {
            "CROFT_SERVER" => Some("[::1]".to_owned()),
            "CROFT_CA_FILE" => Some(path.clone()),
            "CROFT_TOKEN" => Some("t".to_owned()),
            _ => None,
        };
        let target = Chosen::new(&Config::default(), None, None, vars).unwrap().target().unwrap();
        assert_eq!((target.url.as_str(), target.server_name.as_str()), ("https://[::1]:7443", "::1"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let chosen = Chosen::new(&Config::default(), None, None, env(&[])).unwrap();
        assert!(matches!(chosen.target(), Err(Failure::Usage(m)) if m.contains("croft context set")));
        assert!(matches!(chosen.tenant(), Err(Failure::Usage(m)) if m.contains("--tenant")));
        assert!(matches!(Chosen::new(&config(), Some("dev"), None, env(&[])), Err(Failure::NotFound(_))));
    }

    #[test]
    fn servers() {
        for (text, host, port) in [
            ("plane", "plane", 7443),
            ("plane:1", "plane", 1),
            ("https://plane:1/", "plane", 1),
            ("[::1]:5", "[::1]", 5),
            ("[::1]", "[::1]", 7443),
            ("127.0.0.1:9", "127.0.0.1", 9),
        ] {
            assert_eq!(host_and_port(text).unwrap(), (host.to_owned(), port), "{text}");
        }
        for text in ["", "http://plane", "::1", "plane:x", "a b:1", "https://u@h:1", ":1"] {
            assert!(host_and_port(text).is_err(), "{text}");
        }
    }
}
