//! `croft context`: the planes that this machine knows. Works without a plane.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use crate::app::config_path;
use crate::args::Global;
use crate::config::{Config, Context};
use crate::failure::{Failure, Result};
use crate::keys::read_text;
use crate::output::{self, Format, Output};
use crate::target;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a context or change what is given of one; the first one becomes current
    #[command(after_help = "Examples:\n  \
        croft context set prod --server plane.example.org:7443 --ca-file ca.pem --token-file admin.token\n  \
        croft context set prod --tenant acme\n  \
        croft context set laptop --server plane:7443 --ca-file ca.pem --token-file token --embed --use")]
    Set(Set),
    /// Make a context the current one
    Use { name: String },
    /// Show all contexts
    List,
    /// Forget a context
    Delete { name: String },
    /// Print the current context's name
    Current,
}

#[derive(Debug, Args)]
pub struct Set {
    name: String,
    /// HOST:PORT of the plane
    #[arg(long)]
    server: Option<String>,
    /// The name in the plane's certificate, where it is not the host in --server
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// The CA that signed the plane's certificate; nothing else is trusted
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// The file that holds the token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The token itself; `-` reads it from stdin, which keeps it out of the shell's history
    #[arg(long, conflicts_with = "token_file")]
    token: Option<String>,
    /// Copy what the files hold into the config instead of naming them
    #[arg(long)]
    embed: bool,
    /// Make it the current one
    #[arg(long = "use")]
    make_current: bool,
}

pub fn run(global: &Global, command: Command) -> Result<()> {
    let path = config_path()?;
    let mut config = Config::load(&path)?;
    let out = Output::new(global.output);
    match command {
        Command::Set(set) => {
            let name = set.name.clone();
            let verb = change(&mut config, set, global.tenant.as_deref())?;
            config.save(&path)?;
            let current = if config.current_context.as_ref() == Some(&name) { ", current" } else { "" };
            out.did_to(&name, &format!("{verb}{current}"))
        }
        Command::Use { name } => {
            config.context(&name)?;
            config.current_context = Some(name.clone());
            config.save(&path)?;
            out.did_to(&name, "is current")
        }
        Command::List => list(&config, &out),
        Command::Delete { name } => {
            config.context(&name)?;
            config.contexts.remove(&name);
            if config.current_context.as_ref() == Some(&name) {
                config.current_context = None;
            }
            config.save(&path)?;
            out.did_to(&name, "deleted")
        }
        Command::Current => match global.context.clone().or(config.current_context) {
            Some(name) if out.is_table() => output::line(&name),
            Some(name) => out.did_to(&name, ""),
            None => Err(Failure::NotFound("no context is current; `croft context use NAME` makes one so".to_owned())),
        },
    }
}

/// What is not given stays as it was.
fn change(config: &mut Config, set: Set, tenant: Option<&str>) -> Result<&'static str> {
    let is_new = !config.contexts.contains_key(&set.name);
    let mut context = config.contexts.get(&set.name).cloned().unwrap_or_default();
    if let Some(server) = set.server {
        target::host_and_port(&server)?;
        context.server = server;
    }
    if context.server.is_empty() {
        return Err(Failure::usage(format!("context {} is new: it needs --server HOST:PORT", set.name)));
    }
    if let Some(name) = set.server_name {
        context.server_name = Some(name).filter(|name| !name.is_empty());
    }
    if let Some(file) = set.ca_file {
        let text = read_text(&file.to_string_lossy(), "the CA certificate")?;
        if !text.contains("-----BEGIN CERTIFICATE-----") {
            return Err(Failure::usage(format!("{} holds no certificate in PEM", file.display())));
        }
        (context.ca, context.ca_file) = either(set.embed, text, &file)?;
    }
    if let Some(file) = set.token_file {
        let text = read_text(&file.to_string_lossy(), "the token")?;
        (context.token, context.token_file) = either(set.embed, text.trim().to_owned(), &file)?;
    }
    if let Some(token) = set.token {
        let token = if token == "-" { read_text("-", "the token")? } else { token };
        (context.token, context.token_file) = (Some(token.trim().to_owned()), None);
    }
    if let Some(tenant) = tenant {
        context.tenant = Some(tenant.to_owned()).filter(|tenant| !tenant.is_empty());
    }
    config.contexts.insert(set.name.clone(), context);
    if set.make_current || config.current_context.is_none() {
        config.current_context = Some(set.name);
    }
    Ok(if is_new { "created" } else { "updated" })
}

/// The text itself, or where it is, from wherever croft is run.
fn either(embed: bool, text: String, file: &Path) -> Result<(Option<String>, Option<PathBuf>)> {
    if embed {
        return Ok((Some(text), None));
    }
    let absolute =
        std::path::absolute(file).map_err(|error| Failure::local(format!("where is {}? {error}", file.display())))?;
    Ok((None, Some(absolute)))
}

fn list(config: &Config, out: &Output) -> Result<()> {
    let is_current = |name: &String| config.current_context.as_ref() == Some(name);
    match out.format {
        Format::Name => config.contexts.keys().try_for_each(|name| output::line(name)),
        // Secrets stay in the file.
        Format::Json | Format::Yaml => {
            let contexts: Vec<_> = config
                .contexts
                .iter()
                .map(|(name, context)| {
                    json!({
                        "name": name, "current": is_current(name), "server": context.server,
                        "tenant": context.tenant, "caFile": context.ca_file, "tokenFile": context.token_file,
                    })
                })
                .collect();
            out.document(&json!({ "contexts": contexts }))
        }
        Format::Table | Format::Wide => {
            let rows = config.contexts.iter().map(|(name, context)| row(name, context, is_current(name)));
            output::text(&output::table::plain(&["CURRENT", "NAME", "SERVER", "TENANT"], rows.collect()))
        }
    }
}

fn row(name: &str, context: &Context, current: bool) -> Vec<String> {
    let mark = if current { "*" } else { " " };
    vec![mark.to_owned(), name.to_owned(), context.server.clone(), context.tenant.clone().unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str) -> Set {
        Set {
            name: name.into(),
            server: None,
            server_name: None,
            ca_file: None,
            token_file: None,
            token: None,
            embed: false,
            make_current: false,
        }
    }

    #[test]
    fn the_first_context_is_current_and_later_ones_are_not() {
        let mut config = Config::default();
        change(&mut config, Set { server: Some("a:1".into()), ..set("a") }, Some("acme")).unwrap();
        change(&mut config, Set { server: Some("b:1".into()), ..set("b") }, None).unwrap();
        assert_eq!(config.current_context.as_deref(), Some("a"));
        assert_eq!(config.contexts["a"].tenant.as_deref(), Some("acme"));
        change(&mut config, Set { make_current: true, ..set("b") }, None).unwrap();
        assert_eq!(config.current_context.as_deref(), Some("b"));
    }

    #[test]
    fn what_is_not_given_stays() {
        let mut config = Config::default();
        let first = Set { server: Some("a:1".into()), token: Some("croft_a_b".into()), ..set("a") };
        assert_eq!(change(&mut config, first, None).unwrap(), "created");
        assert_eq!(change(&mut config, set("a"), Some("acme")).unwrap(), "updated");
        let context = &config.contexts["a"];
        assert_eq!((context.server.as_str(), context.token.as_deref()), ("a:1", Some("croft_a_b")));
    }

    #[test]
    fn embedding_and_naming_exclude_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        std::fs::write(&file, "croft_a_b\n").unwrap();
        let mut config = Config::default();
        let named = Set { server: Some("a:1".into()), token_file: Some(file.clone()), ..set("a") };
        change(&mut config, named, None).unwrap();
        assert_eq!(config.contexts["a"].token_file.as_deref(), Some(file.as_path()));
        change(&mut config, Set { token_file: Some(file), embed: true, ..set("a") }, None).unwrap();
        assert_eq!(config.contexts["a"].token.as_deref(), Some("croft_a_b"));
        assert_eq!(config.contexts["a"].token_file, None);
    }

    #[test]
    fn mistakes_are_told_before_they_are_stored() {
        let mut config = Config::default();
        assert!(change(&mut config, set("a"), None).unwrap_err().to_string().contains("--server"));
        let plain = Set { server: Some("http://a:1".into()), ..set("a") };
        assert!(change(&mut config, plain, None).is_err());
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        std::fs::write(&file, "hello").unwrap();
        let wrong = Set { server: Some("a:1".into()), ca_file: Some(file), ..set("a") };
        assert!(change(&mut config, wrong, None).unwrap_err().to_string().contains("no certificate"));
        assert_eq!(config, Config::default());
    }
}
