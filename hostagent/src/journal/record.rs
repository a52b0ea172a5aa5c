//! What the agent must still know after a crash about one instance.

use std::time::Duration;

use base64::engine::general_purpose::STANDARD as BASE64;
use croft_proto::agent::v1::{DesiredInstance, Tombstone};
use croft_proto::v1::exit;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::clock::{Moment, Wall};
use crate::hypervisor::Seed;

/// Raised when a reader of the old form would misunderstand the new one.
pub const FORMAT: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub format: u32,
    /// Intent, as the plane last told it. `None`: only a tombstone is known, or the journal was corrupt.
    #[serde(default, with = "wire")]
    pub desired: Option<DesiredInstance>,
    /// The plane's last Sync or a later Change mentioned it. When not, it is left alone.
    #[serde(default)]
    pub listed: bool,
    #[serde(default)]
    pub seed: Option<KeptSeed>,
    #[serde(default)]
    pub done: Done,
    /// A run that has not ended as far as the agent knows.
    #[serde(default)]
    pub run: Option<Run>,
    /// The guest was asked to stop, and has not ended since.
    #[serde(default)]
    pub stop: Option<Stop>,
    /// The guest was asked to restart, and has not been seen to.
    #[serde(default)]
    pub reboot: Option<Reboot>,
    /// How the last run ended.
    #[serde(default)]
    pub ended: Option<Ended>,
    /// Starts by the restart policy, ever.
    #[serde(default)]
    pub restarts: i32,
    /// Ends in a row that the policy answered with a restart, none of which ran for long.
    #[serde(default)]
    pub streak: u32,
    #[serde(default)]
    pub tombstone: Option<Grave>,
    /// Wanted again on this host, once nothing is left of what was buried (a fenced instance that was placed anew).
    #[serde(default, with = "wire")]
    pub after: Option<DesiredInstance>,
    #[serde(default)]
    pub corrupt: Option<Corrupt>,
}

/// The seed's texts, secret: the file is 0600.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptSeed {
    pub digest: String,
    pub seed: Seed,
}

/// The last of each counter that was carried out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    pub power: i64,
    pub reboot: i64,
    pub reset: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub began: Moment,
    pub time: Wall,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// First asked; the deadline counts from here.
    pub asked: Moment,
    /// On whose behalf.
    pub power_generation: i64,
    /// The plug was pulled.
    pub pulled: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reboot {
    pub asked: Moment,
    pub generation: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub kind: End,
    pub message: String,
    pub time: Wall,
    /// For the back-off.
    pub moment: Moment,
    /// What had been carried out when it ended: a higher power_generation overrules the restart policy.
    pub power_generation: i64,
    /// A run began since: no reason to rest any more.
    pub answered: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    GuestPoweroff,
    Stopped,
    Killed,
    Crashed,
    HostShutdown,
}

/// The plane's tombstone, and how far it got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grave {
    /// Of the delete that it answers to; 0: it was fenced.
    #[serde(default)]
    pub generation: i64,
    pub force: bool,
    pub stop_timeout_seconds: i64,
    /// Removed, and a survey after that did not see it. It may still hold devices, which the journal knows.
    #[serde(default)]
    pub removed: bool,
    /// And holds nothing any more.
    pub gone: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Corrupt {
    /// What was wrong with the file, and where it is kept.
    pub message: String,
    /// The first that the plane told after; a higher one is somebody's decision to go on.
    pub power_generation: Option<i64>,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            format: FORMAT,
            desired: None,
            listed: false,
            seed: None,
            done: Done::default(),
            run: None,
            stop: None,
            reboot: None,
            ended: None,
            restarts: 0,
            streak: 0,
            tombstone: None,
            after: None,
            corrupt: None,
        }
    }
}

impl Record {
    /// A new wish. Imperatives that were asked for before this agent knew the instance have nothing to act on.
    #[must_use]
    pub fn new(desired: DesiredInstance) -> Self {
        let done = Done { power: 0, reboot: desired.reboot_generation, reset: desired.reset_generation };
        Self { desired: Some(desired), listed: true, done, ..Self::default() }
    }

    /// Takes over what the plane says now.
    pub fn set_desired(&mut self, desired: DesiredInstance) {
        self.listed = true;
        if let Some(corrupt) = &mut self.corrupt {
            // What was done is not known any more: imperatives up to now are never repeated.
            self.done = Done { power: 0, reboot: desired.reboot_generation, reset: desired.reset_generation };
            let known = *corrupt.power_generation.get_or_insert(desired.power_generation);
            if desired.power_generation > known {
                self.corrupt = None;
            }
        }
        self.desired = Some(desired);
    }

    /// From now on it must not be. A tombstone that is already being carried out only gets more urgent.
    pub fn bury(&mut self, tombstone: &Tombstone, force: bool) {
        let Tombstone { stop_timeout_seconds, generation, .. } = *tombstone;
        match &mut self.tombstone {
            Some(grave) => {
                grave.force |= force;
                grave.stop_timeout_seconds = grave.stop_timeout_seconds.min(stop_timeout_seconds);
                grave.generation = grave.generation.max(generation);
            }
            None => {
                self.tombstone = Some(Grave { generation, force, stop_timeout_seconds, removed: false, gone: false })
            }
        }
        // Whatever was to follow is what this buries.
        self.after = None;
    }

    /// Of what the truth about it answers to.
    #[must_use]
    pub fn generation(&self) -> i64 {
        let desired = self.desired.as_ref().filter(|_| self.listed).map_or(0, |desired| desired.generation);
        self.tombstone.as_ref().map_or(desired, |grave| desired.max(grave.generation))
    }

    /// There is a tombstone that has not been carried out.
    #[must_use]
    pub fn is_buried(&self) -> bool {
        self.tombstone.as_ref().is_some_and(|grave| !grave.gone)
    }

    /// There is a tombstone, and something of a domain may be left.
    #[must_use]
    pub fn may_run(&self) -> bool {
        self.tombstone.as_ref().is_some_and(|grave| !grave.gone && !grave.removed)
    }

    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.tombstone.as_ref().is_some_and(|grave| grave.gone)
    }

    /// How long the guest may take to stop, as asked now.
    #[must_use]
    pub fn stop_timeout(&self) -> Duration {
        let seconds = match (&self.tombstone, &self.desired) {
            (Some(grave), _) => grave.stop_timeout_seconds,
            (None, Some(desired)) => desired.stop_timeout_seconds,
            (None, None) => 0,
        };
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }
}

impl End {
    #[must_use]
    pub fn wire(self) -> exit::Kind {
        match self {
            Self::GuestPoweroff => exit::Kind::GuestPoweroff,
            Self::Stopped => exit::Kind::Stopped,
            Self::Killed => exit::Kind::Killed,
            Self::Crashed => exit::Kind::Crashed,
            Self::HostShutdown => exit::Kind::HostShutdown,
        }
    }
}

/// The desired object is kept in its wire form: nothing of it can get lost between two notations.
mod wire {
    use base64::Engine as _;
    use prost::Message as _;

    use super::{BASE64, Deserialize, Deserializer, DesiredInstance, Serialize, Serializer};

    pub fn serialize<S: Serializer>(desired: &Option<DesiredInstance>, to: S) -> Result<S::Ok, S::Error> {
        desired.as_ref().map(|desired| BASE64.encode(desired.encode_to_vec())).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<DesiredInstance>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
        let bytes = BASE64.decode(text).map_err(serde::de::Error::custom)?;
        DesiredInstance::decode(bytes.as_slice()).map(Some).map_err(serde::de::Error::custom)
    }
}
