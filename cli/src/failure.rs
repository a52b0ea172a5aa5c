//! Why a command failed, and how it is told: a few readable lines, or one JSON object, always on stderr.

use std::fmt::Write as _;
use std::io::Write as _;

use croft_proto::v1;
use prost::Message as _;
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::exit::Exit;
use crate::output::{Format, proto_json};

pub type Result<T, E = Failure> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line, a file or the configuration is wrong.
    #[error("{0}")]
    Usage(String),
    /// The plane said no, or an operation ended badly.
    #[error("{}", .0.message())]
    Refused(Box<Status>),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Timeout(String),
    #[error("{0}")]
    Unavailable(String),
    /// This machine's fault: files, terminals, sockets.
    #[error("{0}")]
    Local(String),
    /// The reader of our output went away (`croft … | head`): not worth a word.
    #[error("stdout was closed")]
    StdoutClosed,
}

impl Failure {
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    pub fn local(message: impl Into<String>) -> Self {
        Self::Local(message.into())
    }

    /// How an operation ended that is done and failed. `Error` is `google.rpc.Status` byte for byte.
    pub fn operation(error: &v1::Error) -> Self {
        let details = error.encode_to_vec();
        Self::Refused(Box::new(Status::with_details(Code::from_i32(error.code), &error.message, details.into())))
    }

    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::Refused(status) => Exit::of(status.code()),
            Self::NotFound(_) => Exit::NotFound,
            Self::Timeout(_) => Exit::Timeout,
            Self::Unavailable(_) => Exit::Unavailable,
            Self::Local(_) => Exit::Error,
            Self::StdoutClosed => Exit::Ok,
        }
    }

    /// Nothing can be done about a closed stderr.
    pub fn report(&self, format: Format) {
        if matches!(self, Self::StdoutClosed) {
            return;
        }
        let text = match format {
            Format::Json => format!("{}\n", self.json()),
            Format::Table | Format::Wide | Format::Yaml | Format::Name => self.text(),
        };
        let _ = std::io::stderr().write_all(text.as_bytes());
    }

    fn text(&self) -> String {
        match self {
            Self::Refused(status) => refusal(status),
            _ => format!("error: {self}\n"),
        }
    }

    /// As Google's JSON errors look: the status' name beside the code, details with their `@type`.
    fn json(&self) -> Value {
        let mut error = json!({ "message": self.to_string(), "exitCode": self.exit() as u8 });
        if let Self::Refused(status) = self {
            error["code"] = json!(status.code() as i32);
            error["status"] = json!(code_name(status.code()));
            if let Some(info) = status.get_details_error_info() {
                error["reason"] = json!(info.reason);
            }
            let details = tonic_types::pb::Status::decode(status.details()).unwrap_or_default().details;
            error["details"] = details.iter().map(detail).collect();
        }
        json!({ "error": error })
    }
}

fn detail(any: &prost_types::Any) -> Value {
    proto_json::to_value("google.protobuf.Any", any)
        .unwrap_or_else(|_| json!({ "@type": any.type_url, "hex": hex::encode(&any.value) }))
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

/// The sentence, then one line per thing to look at that it does not say already, then where to read on.
fn refusal(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info();
    let word = info.map_or_else(|| code_name(status.code()), |info| info.reason.as_str());

    let mut lines = Vec::new();
    for violation in details.bad_request().into_iter().flat_map(|all| &all.field_violations) {
        lines.push(format!("{}: {}", violation.field, violation.description));
    }
    for violation in details.quota_failure().into_iter().flat_map(|all| &all.violations) {
        lines.push(quota_line(violation));
    }
    for violation in details.precondition_failure().into_iter().flat_map(|all| &all.violations) {
        lines.push(format!("{} ({}): {}", violation.subject, violation.r#type, violation.description));
    }
    let mut message = status.message().to_owned();
    let said = |line: &String| line.split_once(": ").is_some_and(|(_, what)| message.contains(what));
    if lines.iter().all(said) {
        if let [_, _, ..] = lines[..] {
            // All in one line, and each again below, would be hard to read.
            message = format!("{} things are in the way", lines.len());
        } else {
            lines.clear();
        }
    }
    if let Some(delay) = details.retry_info().and_then(|info| info.retry_delay) {
        lines.push(format!("try again in {} s", delay.as_secs().max(1)));
    }
    if status.code() == Code::Unauthenticated {
        lines.push("which token: CROFT_TOKEN, else the token of the context (`croft context current`)".to_owned());
    }
    if let Some(info) = info.filter(|info| info.domain == croft_proto::DOMAIN) {
        lines.push(format!("see docs/errors/{}.md", info.reason));
    }
    let mut text = format!("error: {word}: {message}\n");
    for line in lines {
        // A String takes everything.
        let _ = writeln!(text, "  {line}");
    }
    text
}

/// `tenants/acme vcpus: limit 4, used 4, requested 2`, whichever of the two ways the numbers came.
fn quota_line(violation: &tonic_types::QuotaViolation) -> String {
    let mut text = violation.subject.clone();
    if !violation.quota_metric.is_empty() && !text.ends_with(&violation.quota_metric) {
        let _ = write!(text, " {}", violation.quota_metric);
    }
    let number = |key: &str| violation.quota_dimensions.get(key);
    match (number("used"), number("requested")) {
        (Some(used), Some(requested)) => {
            let _ = write!(text, ": limit {}, used {used}, requested {requested}", violation.quota_value);
        }
        _ => {
            let _ = write!(text, ": {}", violation.description);
        }
    }
    text
}

/// `ResourceExhausted` as the wire's documentation spells it: `RESOURCE_EXHAUSTED`.
#[must_use]
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
#[path = "failure_tests.rs"]
mod tests;
