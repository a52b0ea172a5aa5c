//! The lab host as a member of a fleet: its agent under systemd, the control plane outside.
