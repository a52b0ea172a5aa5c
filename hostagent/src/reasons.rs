//! Every machine word that the agent puts into a status, a condition or an image's copy.
//!
//! Each has a page in `docs/errors/`; a test at the end of this file checks it. Whoever adds a word adds it to [`ALL`] and
//! writes its page. Words never change their meaning: alerts and scripts match on them.

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $word:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = $word;)*
        /// All of them.
        pub const ALL: &[&str] = &[$($word),*];
    };
}

reasons! {
    // ---- the agent itself
    /// The desired object requires something that this agent cannot do.
    FEATURE_MISSING = "FeatureMissing";
    /// The journal of this instance could not be read.
    JOURNAL_CORRUPT = "JournalCorrupt";
    /// The journal could not be written (a full or read-only disk).
    JOURNAL_UNWRITABLE = "JournalUnwritable";
    /// The plane neither lists nor tombstones it: left alone.
    NOT_DESIRED = "NotDesired";
    /// The machine restarted; nothing starts before the plane confirmed the host's epoch.
    AWAITING_EPOCH = "AwaitingEpoch";
    /// The plane is not connected, and something must be fetched from it.
    PLANE_UNREACHABLE = "PlaneUnreachable";
    /// The seed that was fetched is not what its digest says, or is no seed.
    SEED_INVALID = "SeedInvalid";
    /// The new seed does not fit where the old one lies, and the guest cannot be given another volume.
    SEED_TOO_LARGE = "SeedTooLarge";
    /// The agent's own task for this instance panicked; it begins anew.
    AGENT_FAULT = "AgentFault";
    /// The machine is on its way down; nothing starts.
    HOST_STOPPING = "HostStopping";

    // ---- the life of a guest
    /// The last run failed; the next start waits.
    RESTART_BACK_OFF = "RestartBackOff";
    /// The guest powered itself off and its policy lets it rest.
    GUEST_POWERED_OFF = "GuestPoweredOff";
    /// The guest crashed and its policy lets it rest.
    GUEST_CRASHED = "GuestCrashed";
    /// Asked to stop; the plug is pulled at the deadline.
    STOP_REQUESTED = "StopRequested";
    /// Asked to restart; the reset button is pressed at the deadline.
    REBOOT_REQUESTED = "RebootRequested";
    /// The guest agent answers.
    GUEST_AGENT_ANSWERS = "GuestAgentAnswers";
    /// The guest agent does not answer (yet).
    GUEST_AGENT_SILENT = "GuestAgentSilent";
    /// The guest is not running.
    NOT_RUNNING = "NotRunning";
    /// Paused by the hypervisor: the host's disk is full.
    OUT_OF_SPACE = "OutOfSpace";
    /// Paused by the hypervisor: an I/O error.
    IO_ERROR = "IoError";
    /// Paused by somebody.
    PAUSED = "Paused";

    // ---- the hypervisor
    /// The hypervisor answers.
    HYPERVISOR_ANSWERS = "HypervisorAnswers";
    /// The hypervisor does not answer.
    HYPERVISOR_UNAVAILABLE = "HypervisorUnavailable";
    /// What is asked for is held by somebody else.
    HYPERVISOR_BUSY = "HypervisorBusy";
    /// The hypervisor failed at something; its own words are in the message.
    HYPERVISOR_ERROR = "HypervisorError";
    /// The domain is gone though nobody was asked to remove it.
    DOMAIN_MISSING = "DomainMissing";
    /// A domain with the name or uid of this one is there and is not this one.
    DOMAIN_CONFLICT = "DomainConflict";
    /// Removed, and still seen.
    REMOVE_INCOMPLETE = "RemoveIncomplete";
    /// The host cannot give this instance its memory now.
    INSUFFICIENT_MEMORY = "InsufficientMemory";
    /// Larger than this host.
    HOST_TOO_SMALL = "HostTooSmall";
    /// The network or bridge is not on this host.
    NETWORK_UNKNOWN = "NetworkUnknown";
    /// The instance's disk is not where it should be.
    DISK_MISSING = "DiskMissing";
    /// The disk is smaller than the image needs.
    DISK_TOO_SMALL = "DiskTooSmall";

    // ---- images
    /// The image is not on this host yet.
    IMAGE_MISSING = "ImageMissing";
    /// The image could not be fetched; it is tried again.
    IMAGE_FETCH_FAILED = "ImageFetchFailed";
    /// What was fetched is not what the digest says.
    IMAGE_DIGEST_MISMATCH = "ImageDigestMismatch";
    /// The image's source is not one that hosts may fetch from.
    IMAGE_SOURCE_REFUSED = "ImageSourceRefused";
    /// The image's format or header is refused.
    IMAGE_FORMAT_REFUSED = "ImageFormatRefused";

    // ---- devices; planners and GPUs have words of their own (`croft_gpu`)
    /// All of the instance's devices are in its guest.
    DEVICES_ATTACHED = "DevicesAttached";
    /// Not all of them are yet.
    DEVICES_PENDING = "DevicesPending";
    /// There was a look at all devices of the host.
    DEVICES_SEEN = "DevicesSeen";
    /// There was none.
    DEVICES_UNSEEN = "DevicesUnseen";
    /// Not there now, or not to be read.
    DEVICE_MISSING = "DeviceMissing";
    /// Other hardware than the one that was placed or remembered.
    DEVICE_CHANGED = "DeviceChanged";
    /// It has not said since the host's last start who it is.
    DEVICE_UNPROVEN = "DeviceUnproven";
    /// Closed by somebody, or in doubt.
    DEVICE_QUARANTINED = "DeviceQuarantined";
    /// A write to it never returned.
    DEVICE_STUCK = "DeviceStuck";
    /// Used by what is not Croft's.
    DEVICE_FOREIGN = "DeviceForeign";
    /// A change did not work; the device is as before.
    DEVICE_STEP_FAILED = "DeviceStepFailed";
    /// A change did not work and could not be taken back.
    DEVICE_NOT_RESTORED = "DeviceNotRestored";
    /// What its last guest left in it may still be there.
    DEVICE_NOT_CLEANED = "DeviceNotCleaned";
    /// The guest does not let go of it.
    DEVICE_NOT_RELEASED = "DeviceNotReleased";
    /// It cannot be given to a running guest.
    DEVICE_NEEDS_RESTART = "DeviceNeedsRestart";
    /// A fault without a word of its own.
    DEVICE_FAULTY = "DeviceFaulty";
    /// The hypervisor does not take it.
    DEVICE_REFUSED = "DeviceRefused";
    /// The card of a virtual function is switched off.
    DEVICE_CARD_DOWN = "DeviceCardDown";

    // ---- the host
    /// Free disk space is below the reserve.
    DISK_RESERVE_REACHED = "DiskReserveReached";
    /// Free disk space is above the reserve.
    DISK_RESERVE_FREE = "DiskReserveFree";
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::ALL;

    #[test]
    fn every_reason_has_a_page() {
        let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/errors");
        let missing: Vec<_> = ALL.iter().filter(|word| !pages.join(format!("{word}.md")).is_file()).collect();
        assert!(missing.is_empty(), "no page in docs/errors for {missing:?}");
    }

    #[test]
    fn words_are_unique_and_upper_camel_case() {
        for (at, word) in ALL.iter().enumerate() {
            assert!(!ALL[..at].contains(word), "{word} twice");
            assert!(word.starts_with(|c: char| c.is_ascii_uppercase()), "{word}");
            assert!(word.chars().all(|c| c.is_ascii_alphanumeric()), "{word}");
        }
    }
}
