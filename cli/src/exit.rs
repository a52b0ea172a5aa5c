//! The exit codes that scripts may rely on, and which gRPC code ends in which of them.

use std::process::ExitCode;

use tonic::Code;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Ok = 0,
    Error = 1,
    Usage = 2,
    NotFound = 3,
    Denied = 4,
    Timeout = 5,
    Unavailable = 6,
}

impl Exit {
    /// A field that the plane refuses is as much a wrong request as an option that clap refuses.
    #[must_use]
    pub fn of(code: Code) -> Self {
        match code {
            Code::Ok => Self::Ok,
            Code::InvalidArgument => Self::Usage,
            Code::NotFound => Self::NotFound,
            Code::PermissionDenied | Code::Unauthenticated | Code::ResourceExhausted => Self::Denied,
            Code::DeadlineExceeded => Self::Timeout,
            Code::Unavailable => Self::Unavailable,
            Code::Cancelled
            | Code::Unknown
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Internal
            | Code::DataLoss => Self::Error,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_can_tell_refusals_apart() {
        for (code, exit) in [
            (Code::Ok, 0),
            (Code::Internal, 1),
            (Code::FailedPrecondition, 1),
            (Code::InvalidArgument, 2),
            (Code::NotFound, 3),
            (Code::PermissionDenied, 4),
            (Code::Unauthenticated, 4),
            (Code::ResourceExhausted, 4),
            (Code::DeadlineExceeded, 5),
            (Code::Unavailable, 6),
        ] {
            assert_eq!(Exit::of(code) as u8, exit, "{code:?}");
        }
    }
}
