//! What a Prometheus would read: plain HTTP from a port on this machine.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// The body of `/metrics`.
pub(super) fn fetch(port: u16) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).with_context(|| format!("no metrics on port {port}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).context("cannot set a timeout")?;
    let request = format!("GET /metrics HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n");
    stream.write_all(request.as_bytes()).context("cannot ask for metrics")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("cannot read metrics")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the metrics port does not speak HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    if !status.contains(" 200") {
        bail!("the metrics port answered {status}");
    }
    Ok(body.to_owned())
}

/// The samples whose name begins so.
pub(super) fn samples<'t>(metrics: &'t str, prefix: &str) -> Vec<&'t str> {
    metrics.lines().filter(|l| l.starts_with(prefix)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    fn answering(answer: &'static str) -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        port
    }

    #[test]
    fn samples_of_a_good_answer() {
        let port =
            answering("HTTP/1.0 200 OK\r\n\r\n# HELP croft_quota_used x\ncroft_quota_used{a=\"b\"} 2\nother 1\n");
        assert_eq!(samples(&fetch(port).unwrap(), "croft_quota_"), ["croft_quota_used{a=\"b\"} 2"]);
    }

    #[test]
    fn an_error_is_an_error() {
        let port = answering("HTTP/1.0 404 Not Found\r\n\r\n");
        assert!(fetch(port).unwrap_err().to_string().contains("404"));
    }
}
