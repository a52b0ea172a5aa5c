//! What the command line and the environment may say.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand};
use croft_core::join::seed::Recipes;

use crate::datadir::DataDir;
use crate::logs;
use crate::pki::{AuthorityFiles, HOST_LIFE_DAYS};

pub const DATA_DIR: &str = "/var/lib/croft/controlplane";

/// The control plane of Croft: tenants, quota, placement, and the API for all of it.
#[derive(Debug, Parser)]
#[command(name = "croft-controlplane", version = croft_program::version(), max_term_width = 100)]
pub struct Arguments {
    #[command(flatten)]
    pub logs: logs::Options,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the control plane until SIGTERM or SIGINT.
    Serve(Config),
    /// What only somebody with the data directory in his hands may do; all of it works while the plane runs, too.
    #[command(subcommand)]
    Admin(Admin),
    /// Write man pages and completions into a directory.
    #[command(hide = true)]
    Manual(croft_program::Manual),
}

#[derive(Debug, Subcommand)]
pub enum Admin {
    /// Give the token `admin` a new secret: print it once, and write it to admin.token.
    ResetToken(Place),
    /// Copy database, CA and keys, all of one moment, into a directory that does not exist yet.
    Backup {
        #[command(flatten)]
        place: Place,
        /// The new directory; it holds every secret of the plane, mode 0700.
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
    /// Make a data directory from a backup. The plane started on it holds agents off until `admin release-agents`.
    Restore {
        #[arg(long, env = "CROFT_DATA_DIR", value_name = "DIR", default_value = DATA_DIR)]
        data_dir: PathBuf,
        /// A directory that `admin backup` made.
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
    },
    /// Let agents talk to a plane that was restored from a backup.
    ReleaseAgents(Place),
    /// Print which schema this program makes and which one the database has; changes nothing.
    Schema(Place),
    /// Hold what is counted against what exists; each difference is a line, and none is success.
    Check(Place),
}

/// Which plane is meant.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// Database, CA, keys and the admin's token; mode 0700.
    #[arg(long, env = "CROFT_DATA_DIR", value_name = "DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
    /// `sqlite:PATH`; without it, croft.db in the data directory.
    #[arg(long, env = "CROFT_DATABASE", value_name = "URL")]
    pub database: Option<String>,
}

/// All of `serve`.
#[derive(Debug, Clone, Args)]
pub struct Config {
    #[command(flatten)]
    pub place: Place,
    /// Where API and agents come in (TLS).
    #[arg(long, env = "CROFT_LISTEN", value_name = "ADDRESS", default_value = "0.0.0.0:7443")]
    pub listen: SocketAddr,
    /// Where Prometheus comes in (no TLS, no password: keep it on loopback or behind a firewall).
    #[arg(long, env = "CROFT_METRICS_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:9643")]
    pub metrics_listen: SocketAddr,
    /// A DNS name or address under which clients and agents reach the plane; may be given several times.
    #[arg(long = "public-name", env = "CROFT_PUBLIC_NAME", value_name = "NAME", value_delimiter = ',')]
    pub public_names: Vec<String>,
    /// Your own CA in the place of the built-in one: certificates in PEM, one of which belongs to --ca-key.
    #[arg(long, env = "CROFT_CA_CERT", value_name = "FILE", requires = "ca_key")]
    pub ca_cert: Option<PathBuf>,
    /// The key of your own CA, PKCS#8 in PEM.
    #[arg(long, env = "CROFT_CA_KEY", value_name = "FILE", requires = "ca_cert")]
    pub ca_key: Option<PathBuf>,
    /// How long a host's certificate is valid; agents renew it at two thirds of that.
    #[arg(long, env = "CROFT_HOST_CERTIFICATE_DAYS", value_name = "DAYS", default_value_t = HOST_LIFE_DAYS,
          value_parser = clap::value_parser!(u32).range(1..=397))]
    pub host_certificate_days: u32,
    /// Connections at a time; more wait. The limit of open files is raised to fit where it may be.
    #[arg(long, env = "CROFT_MAX_CONNECTIONS", value_name = "N", default_value_t = 16_384,
          value_parser = clap::value_parser!(u32).range(16..=1_000_000))]
    pub max_connections: u32,
    /// A prefix such as 127.0.0.0/8 that tenants' Kubernetes clusters may be at, though it is loopback, link-local or the like;
    /// may be given several times. The platform's clusters may be anywhere.
    #[arg(long = "tenant-cluster-allow-prefix", env = "CROFT_TENANT_CLUSTER_ALLOW_PREFIX", value_name = "PREFIX",
          value_delimiter = ',', value_parser = croft_kube::prefix)]
    pub tenant_cluster_allow_prefixes: Vec<croft_kube::Prefix>,
    /// A folder of recipes by which guests join Kubernetes clusters, NAME.sh each, besides the built-in ones.
    #[arg(long, env = "CROFT_JOIN_RECIPES", value_name = "DIR")]
    pub join_recipes: Option<PathBuf>,
    /// How long calls may take to finish after SIGTERM.
    #[arg(long, env = "CROFT_SHUTDOWN_GRACE", value_name = "SECONDS", default_value_t = 10)]
    pub shutdown_grace: u64,
}

impl Config {
    /// On loopback, on ports that the kernel chooses: for planes that live inside of a test.
    #[must_use]
    pub fn local(data_dir: &Path) -> Self {
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            place: Place { data_dir: data_dir.to_owned(), database: None },
            listen: anywhere,
            metrics_listen: anywhere,
            public_names: Vec::new(),
            ca_cert: None,
            ca_key: None,
            host_certificate_days: HOST_LIFE_DAYS,
            max_connections: 1024,
            tenant_cluster_allow_prefixes: Vec::new(),
            join_recipes: None,
            shutdown_grace: 10,
        }
    }

    /// The built-in ones, and yours. Read once: a recipe that changes meanwhile is taken at the next start.
    pub fn recipes(&self) -> Result<Recipes> {
        let Some(folder) = &self.join_recipes else { return Ok(Recipes::built_in()) };
        let recipes = Recipes::read(folder).context("--join-recipes")?;
        tracing::info!(folder = %folder.display(), "recipes of joins: {}", recipes.names().collect::<Vec<_>>().join(", "));
        Ok(recipes)
    }

    /// Yours if you brought one.
    #[must_use]
    pub fn authority(&self, data_dir: &DataDir) -> AuthorityFiles {
        match (&self.ca_cert, &self.ca_key) {
            (Some(certificate), Some(key)) => {
                AuthorityFiles { certificate: certificate.clone(), key: key.clone(), make: false }
            }
            _ => AuthorityFiles { certificate: data_dir.ca_pem(), key: data_dir.ca_key(), make: true },
        }
    }
}

impl Place {
    /// The URL of an SQLite database; `None`: the one in the data directory.
    pub fn database(&self) -> Result<Option<&str>> {
        match self.database.as_deref() {
            None => Ok(None),
            Some(url) if url.strip_prefix("sqlite:").is_some_and(|path| !path.is_empty()) => Ok(Some(url)),
            Some(url) if url.starts_with("postgres:") || url.starts_with("postgresql:") => {
                bail!("--database: PostgreSQL is not supported yet; leave the option out, or use sqlite:PATH")
            }
            // Not repeated: a URL may hold a password.
            Some(_) => bail!("--database: not of the form sqlite:PATH"),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn serve(arguments: &[&str]) -> Result<Config, clap::Error> {
        let words = ["croft-controlplane", "serve"].iter().chain(arguments);
        match Arguments::try_parse_from(words)?.command {
            Command::Serve(config) => Ok(config),
            Command::Admin(_) | Command::Manual(_) => unreachable!(),
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
        let config = serve(&["--public-name", "a.example,b.example", "--public-name", "10.0.0.1"]).unwrap();
        assert_eq!(config.public_names, ["a.example", "b.example", "10.0.0.1"]);
        assert_eq!(config.listen.port(), 7443);
        assert_eq!(config.metrics_listen.to_string(), "127.0.0.1:9643");
    }

    #[test]
    fn half_a_ca_and_absurd_numbers_are_refused() {
        for wrong in [
            &["--ca-cert", "x"][..],
            &["--ca-key", "x"],
            &["--host-certificate-days", "0"],
            &["--listen", "7443"],
            &["--max-connections", "1"],
        ] {
            let error = serve(wrong).unwrap_err().to_string();
            assert!(error.contains(wrong[0]) || error.contains("--ca-"), "{error}");
        }
    }

    #[test]
    fn recipes_are_read_at_the_start_and_a_bad_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let config = serve(&["--join-recipes", folder.path().to_str().unwrap()]).unwrap();
        assert_eq!(config.recipes().unwrap(), Recipes::built_in());
        std::fs::write(folder.path().join("flatcar.sh"), "#!/bin/sh\n").unwrap();
        assert!(config.recipes().unwrap().get("flatcar").is_some());
        std::fs::write(folder.path().join("notes.txt"), "").unwrap();
        let error = format!("{:#}", config.recipes().unwrap_err());
        assert!(error.starts_with("--join-recipes: ") && error.contains("notes.txt"), "{error}");
    }

    #[test]
    fn what_is_not_sqlite_is_refused_by_name() {
        let database = |url: &str| {
            let config = serve(&["--database", url]).unwrap();
            config.place.database().map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!(database("sqlite:/var/lib/croft.db"), Ok(()));
        for url in ["postgres://croft:secret@db/croft", "postgresql://db"] {
            let error = database(url).unwrap_err();
            assert!(error.contains("not supported yet") && !error.contains("secret"), "{error}");
        }
        for url in ["mysql://croft:secret@db", "sqlite:", "/var/lib/croft.db"] {
            let error = database(url).unwrap_err();
            assert!(error.contains("sqlite:PATH") && !error.contains("secret"), "{error}");
        }
    }
}
