//! The address of an API server, as it comes into files that guests read.

const MAX: usize = 300;

/// Nothing but a scheme, a host and a port: recipes put it between quotes as it is.
#[must_use]
pub fn is_server(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("https://").filter(|_| text.len() <= MAX) else { return false };
    let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (host, Some(rest.strip_prefix(':').unwrap_or_default())),
        None => rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
    };
    let bracketed = rest.starts_with('[');
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-') || bracketed && c == ':';
    !host.is_empty()
        && host.chars().all(plain)
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_scheme_a_host_and_a_port() {
        for good in ["https://10.0.0.1:6443", "https://api.example.org", "https://[fd00::1]:6443", "https://[fd00::1]"]
        {
            assert!(is_server(good), "{good}");
        }
        for wrong in [
            "http://a",
            "a:6443",
            "https://",
            "https://a/x",
            "https://a/",
            "https://u@a",
            "https://a?x",
            "https://a b",
            "https://a'",
            "https://a\"",
            "https://{a}",
            "https://a:",
            "https://a:0",
            "https://a:66666",
            "https://a:x",
            "https://:1",
            "https://[fd00::1",
            "https://[fd00::1]x",
            "https://a:1:2",
        ] {
            assert!(!is_server(wrong), "{wrong}");
        }
    }
}
