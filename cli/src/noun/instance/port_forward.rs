//! `croft instance port-forward`: local ports that lead into the guest, each connection a call of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use clap::Args;
use serde_json::json;
use tokio::net::TcpListener;

use super::stream::{TunnelError, tunnel};
use crate::app::App;
use crate::failure::{Failure, Result};
use crate::names;
use crate::output::{self, Format, note};
use crate::plane::Plane;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  croft instance port-forward web 8080:80\n  \
    croft instance port-forward web :22            # some free port, which is printed\n  \
    croft instance port-forward web 0.0.0.0:8080:80 5432")]
pub struct PortForward {
    instance: String,
    /// On which local port (0 or nothing: a free one) to reach which port of the guest; loopback unless BIND says otherwise
    #[arg(value_name = "[BIND:]LOCAL:REMOTE", required_unless_present = "stdio")]
    ports: Vec<Forward>,
    /// Join stdin and stdout to this port of the guest (for ssh's ProxyCommand)
    #[arg(long, value_name = "REMOTE", conflicts_with = "ports")]
    stdio: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Forward {
    local: SocketAddr,
    remote: u16,
}

impl FromStr for Forward {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not [BIND:]LOCAL:REMOTE, for example 8080:80, :22 or 0.0.0.0:8080:80");
        let port = |text: &str| text.parse::<u16>().map_err(|_| wrong());
        let (left, remote) = text.rsplit_once(':').unwrap_or((text, text));
        let remote = port(remote).and_then(|port| if port == 0 { Err(wrong()) } else { Ok(port) })?;
        let (bind, local) = match left.rsplit_once(':') {
            Some((bind, local)) => (bind.trim_start_matches('[').trim_end_matches(']'), local),
            None => ("", left),
        };
        let ip: IpAddr = match bind {
            "" | "localhost" => Ipv4Addr::LOCALHOST.into(),
            _ => bind.parse().map_err(|_| wrong())?,
        };
        let local = if local.is_empty() { 0 } else { port(local)? };
        Ok(Self { local: SocketAddr::new(ip, local), remote })
    }
}

pub async fn run(app: &App, forward: PortForward) -> Result<()> {
    let name = super::name(app, &forward.instance)?;
    let plane = app.plane()?;
    if let Some(port) = forward.stdio {
        let tunnel = tunnel(plane, name, port, tokio::io::stdin(), tokio::io::stdout());
        return tunnel.await.map_err(|error| match error {
            TunnelError::Plane(status) => plane.explain(*status),
            TunnelError::Local(error) => Failure::local(error.to_string()),
        });
    }
    // Told now, not at the first connection.
    super::get(app, name.clone()).await?;
    let mut listeners = Vec::new();
    for forward in &forward.ports {
        let listener = TcpListener::bind(forward.local)
            .await
            .and_then(|listener| Ok((listener.local_addr()?, listener)))
            .map_err(|error| Failure::local(format!("cannot listen on {}: {error}", forward.local)))?;
        listeners.push((listener, forward.remote));
    }
    for ((address, _), remote) in &listeners {
        announce(app, &name, *address, *remote)?;
    }
    let accepting = listeners.into_iter().map(|((_, listener), remote)| accept(plane, &name, listener, remote));
    futures::future::join_all(accepting).await;
    Ok(())
}

fn announce(app: &App, name: &str, local: SocketAddr, remote: u16) -> Result<()> {
    match app.out.format {
        Format::Json | Format::Yaml => {
            output::line(&json!({ "instance": name, "local": local.to_string(), "remote": remote }).to_string())
        }
        Format::Name => output::line(&local.to_string()),
        Format::Table | Format::Wide => output::line(&format!("{local} -> {}:{remote}", names::id(name))),
    }
}

async fn accept(plane: &Plane, name: &str, listener: TcpListener, remote: u16) {
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => {
                let (plane, name) = (plane.clone(), name.to_owned());
                tokio::spawn(async move {
                    // A keystroke must not wait for the next one.
                    let _ = socket.set_nodelay(true);
                    let (reader, writer) = socket.into_split();
                    let ended = tunnel(&plane, name, remote, reader, writer).await;
                    if let Err(error) = ended
                        && !error.is_hang_up()
                    {
                        note(&format!("{peer} -> {remote}: {error}"));
                    }
                });
            }
            // Out of file descriptors, most likely: those in use come back.
            Err(error) => {
                note(&format!("cannot accept: {error}"));
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        for (text, local, remote) in [
            ("2222:22", "127.0.0.1:2222", 22),
            (":22", "127.0.0.1:0", 22),
            ("0:22", "127.0.0.1:0", 22),
            ("80", "127.0.0.1:80", 80),
            ("0.0.0.0:8080:80", "0.0.0.0:8080", 80),
            ("localhost:1:2", "127.0.0.1:1", 2),
            ("[::1]:8080:80", "[::1]:8080", 80),
            ("0.0.0.0::80", "0.0.0.0:0", 80),
        ] {
            let forward: Forward = text.parse().unwrap();
            assert_eq!((forward.local.to_string().as_str(), forward.remote), (local, remote), "{text}");
        }
        for text in ["", ":", "a:b", "1:0", "70000:1", "example.org:1:2", "1:2:3:4:5x"] {
            assert!(text.parse::<Forward>().is_err(), "{text}");
        }
    }
}
