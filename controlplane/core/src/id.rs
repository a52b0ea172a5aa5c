//! Ids are types: a tenant's id never stands where a host's is meant.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! slug {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(id: &str) -> Self {
                Self(id.to_owned())
            }
        }
    };
}

macro_rules! uid {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// Sorts by the time it was made at.
            #[must_use]
            pub fn new(now: crate::Timestamp) -> Self {
                let micros = u64::try_from(now.0).unwrap_or(0);
                let nanos = u32::try_from(micros % 1_000_000).unwrap_or(0) * 1000;
                let at = uuid::Timestamp::from_unix(uuid::NoContext, micros / 1_000_000, nanos);
                Self(Uuid::new_v7(at))
            }

            /// `None` for what is not a UUID.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                Uuid::parse_str(text).ok().map(Self)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

slug!(
    /// `acme` of `tenants/acme`; unique in the whole plane.
    TenantId
);
slug!(
    /// `h1` of `hosts/h1`
    HostId
);
slug!(
    /// `lan` of `networks/lan`
    NetworkId
);
slug!(
    /// `nic-vf` of `pools/nic-vf`
    PoolId
);
slug!(
    /// `0000:41:00.0` or `usb-0000:00:14.0-2.3` of `hosts/h1/devices/…`; unique on its host.
    DeviceId
);
slug!(
    /// `ci` of `tokens/ci`
    TokenId
);
uid!(TenantUid);
uid!(InstanceUid);
uid!(ImageUid);
uid!(OperationUid);
uid!(AuditUid);
uid!(TokenUid);
