//! The one error that crosses layers: about ten meanings, each with what a user needs to act on it.
//!
//! `rpc` maps it to a gRPC status in one exhaustive function. What only the operator should read is in
//! [`Error::Internal`]'s `cause`, which is logged and never sent.

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Machine-readable word of `google.rpc.ErrorInfo`; each has a page in docs/errors.
macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.as_str() == text)
            }
        }
    };
}

reasons! {
    NotFound = "NOT_FOUND",
    AlreadyExists = "ALREADY_EXISTS",
    InvalidArgument = "INVALID_ARGUMENT",
    QuotaExceeded = "QUOTA_EXCEEDED",
    NoCapacity = "NO_CAPACITY",
    PermissionDenied = "PERMISSION_DENIED",
    Unauthenticated = "UNAUTHENTICATED",
    Unavailable = "UNAVAILABLE",
    Internal = "INTERNAL",
    EtagMismatch = "ETAG_MISMATCH",
    RequestIdReused = "REQUEST_ID_REUSED",
    ResumeTokenTooOld = "RESUME_TOKEN_TOO_OLD",
    PageTokenInvalid = "PAGE_TOKEN_INVALID",
    TenantNotEmpty = "TENANT_NOT_EMPTY",
    ImageInUse = "IMAGE_IN_USE",
    NetworkInUse = "NETWORK_IN_USE",
    NetworkNotGranted = "NETWORK_NOT_GRANTED",
    DeviceNotGranted = "DEVICE_NOT_GRANTED",
    DeviceFaulty = "DEVICE_FAULTY",
    DeviceInUse = "DEVICE_IN_USE",
    DeviceNeedsStop = "DEVICE_NEEDS_STOP",
    PoolInUse = "POOL_IN_USE",
    ClusterInUse = "CLUSTER_IN_USE",
    ClusterUnreachable = "CLUSTER_UNREACHABLE",
    ClusterCertificateRefused = "CLUSTER_CERTIFICATE_REFUSED",
    ClusterCredentialRefused = "CLUSTER_CREDENTIAL_REFUSED",
    ClusterRightsMissing = "CLUSTER_RIGHTS_MISSING",
    ClusterPoliciesMissing = "CLUSTER_POLICIES_MISSING",
    ClusterCertificatesLongLived = "CLUSTER_CERTIFICATES_LONG_LIVED",
    HostNotEmpty = "HOST_NOT_EMPTY",
    HostInMaintenance = "HOST_IN_MAINTENANCE",
    DrainPlanChanged = "DRAIN_PLAN_CHANGED",
    FenceNotConfirmed = "FENCE_NOT_CONFIRMED",
    InstanceDeleting = "INSTANCE_DELETING",
    InstanceNotRunning = "INSTANCE_NOT_RUNNING",
    InstanceUnknown = "INSTANCE_UNKNOWN",
    AgentTooOld = "AGENT_TOO_OLD",
    EnrolmentTokenInvalid = "ENROLMENT_TOKEN_INVALID",
    HostNotEnrolled = "HOST_NOT_ENROLLED",
    ProtocolUnsupported = "PROTOCOL_UNSUPPORTED",
    OperationSuperseded = "OPERATION_SUPERSEDED",
    InstanceFailed = "INSTANCE_FAILED",
    HostFenced = "HOST_FENCED",
    HostUnreachable = "HOST_UNREACHABLE",
    TunnelFailed = "TUNNEL_FAILED",
    LastAdminToken = "LAST_ADMIN_TOKEN",
    TooManyStreams = "TOO_MANY_STREAMS",
    NodeNotJoined = "NODE_NOT_JOINED",
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Also for what exists in a tenant that the caller may not see.
    #[error("{name} does not exist")]
    NotFound { name: String },
    #[error("{name} exists already")]
    AlreadyExists { name: String },
    /// At least one violation.
    #[error("{}", join(.0))]
    Invalid(Vec<FieldViolation>),
    /// The system is not in the state that this call needs.
    #[error("{message}")]
    Precondition { reason: Reason, subject: String, message: String },
    /// Somebody else was faster; read again and decide again.
    #[error("{message}")]
    Conflict { reason: Reason, message: String },
    #[error("{}", join(.0))]
    QuotaExceeded(Vec<QuotaViolation>),
    /// No host fits; per host why not, and what would help.
    #[error("{message}")]
    NoCapacity { message: String, verdicts: Vec<crate::placement::Verdict> },
    #[error("{message}")]
    Denied { message: String },
    #[error("{message}")]
    Unauthenticated { reason: Reason, message: String },
    /// A token (of a page or a watch) that no longer leads anywhere.
    #[error("{message}")]
    OutOfRange { reason: Reason, message: String },
    /// Try again.
    #[error("{message}")]
    Unavailable { reason: Reason, message: String },
    /// Our fault. `cause` is for the log.
    #[error("internal error")]
    Internal { cause: String },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// Path in the request, for example `instance.spec.vcpus` or `instance.spec.interfaces[1].network`.
    pub field: String,
    pub description: String,
}

impl std::fmt::Display for FieldViolation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.description)
    }
}

/// One limit that the request would pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaViolation {
    pub tenant: crate::id::TenantId,
    pub resource: String,
    pub limit: i64,
    pub used: i64,
    pub requested: i64,
}

impl std::fmt::Display for QuotaViolation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { tenant, resource, limit, used, requested } = self;
        write!(f, "quota {resource} of tenants/{tenant}: limit {limit}, used {used}, requested {requested}")
    }
}

fn join<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Error {
    #[must_use]
    pub fn not_found(name: impl Into<String>) -> Self {
        Self::NotFound { name: name.into() }
    }

    #[must_use]
    pub fn invalid(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldViolation { field: field.into(), description: description.into() }])
    }

    #[must_use]
    pub fn precondition(reason: Reason, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Precondition { reason, subject: subject.into(), message: message.into() }
    }

    #[must_use]
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        Self::Internal { cause: cause.to_string() }
    }

    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::NotFound { .. } => Reason::NotFound,
            Self::AlreadyExists { .. } => Reason::AlreadyExists,
            Self::Invalid(_) => Reason::InvalidArgument,
            Self::Precondition { reason, .. }
            | Self::Conflict { reason, .. }
            | Self::Unauthenticated { reason, .. }
            | Self::OutOfRange { reason, .. }
            | Self::Unavailable { reason, .. } => *reason,
            Self::QuotaExceeded(_) => Reason::QuotaExceeded,
            Self::NoCapacity { .. } => Reason::NoCapacity,
            Self::Denied { .. } => Reason::PermissionDenied,
            Self::Internal { .. } => Reason::Internal,
        }
    }
}
