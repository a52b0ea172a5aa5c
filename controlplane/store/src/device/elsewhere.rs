//! One card, two rows: it sits at another address than before, and what is said of the old name is said of the card.
//!
//! The host knows of no quarantine and of no claim that it has not carried out yet, so it takes such a card for a free one. The
//! plane does not: as long as the old row is closed or claimed, and the card is not where that row says, the new one is CHANGED.
//! Decided at every read and written nowhere: the moment the old row is released or given back, the new one is free.

use std::collections::{BTreeMap, BTreeSet};

use croft_core::Result;
use croft_core::device::{Device, Kind, State};
use croft_core::id::HostId;
use sqlx::AnyConnection;

use super::{Row, of, select_devices};
use crate::host::claimed::CPU;
use crate::sql::sql;

/// The agent's word for the same, which has a page.
const CHANGED: &str = "DeviceChanged";

/// By (host, device).
type Names = BTreeSet<(String, String)>;
type Who = (String, String, String);

/// What hardware says of itself: by each of these words alone it is known again. Empty: it says nothing.
///
/// A card's functions all say the same, and are told apart by their numbers; a GPU's driver adds a word of its own.
pub(super) fn who(device: &Device) -> BTreeSet<Who> {
    let number = |id: &str| id.rsplit_once('.').map(|(_, number)| number.to_owned()).unwrap_or_default();
    let part = match (&device.physical, device.kind) {
        (_, Kind::Usb) => String::new(),
        (Some((physical, index)), _) => format!("{}/{index}", number(physical.as_str())),
        (None, Kind::Gpu | Kind::Function | Kind::VirtualFunction) => number(device.id.as_str()),
    };
    let words = [Some(&device.serial), device.gpu.as_ref().map(|gpu| &gpu.uuid)];
    let words = words.into_iter().flatten().filter(|word| !word.is_empty());
    words.map(|word| (device.pci_id.clone(), part.clone(), word.clone())).collect()
}

/// The cards that are spoken for by a name under which they are not there.
#[derive(Debug, Default)]
pub(crate) struct Elsewhere(BTreeMap<(String, Who), Spoken>);

#[derive(Debug, Clone)]
struct Spoken {
    device: String,
    quarantined: bool,
}

impl Elsewhere {
    /// Of one host, or of all.
    pub async fn read(conn: &mut AnyConnection, host: Option<&HostId>) -> Result<Self> {
        let spoken_for = sql(select_devices!(
            "WHERE (quarantine IS NOT NULL
                    OR EXISTS (SELECT 1 FROM device_claims
                               WHERE device_claims.host = devices.host AND device_claims.device = devices.device))"
        ));
        let rows: Vec<Row> = of(spoken_for, host).all(conn).await?;
        let rows: Vec<(Row, Device)> = rows.into_iter().map(Row::with_device).collect::<Result<_>>()?;
        Ok(Self::new(absent(&rows)))
    }

    /// The same, of rows that were read already. Where all are in their places it asks the database nothing.
    pub async fn among(conn: &mut AnyConnection, rows: &[(Row, Device)], host: Option<&HostId>) -> Result<Self> {
        if absent(rows).next().is_none() {
            return Ok(Self::default());
        }
        let claims = sql("SELECT DISTINCT host, device FROM device_claims WHERE device <> ").push_bind(CPU);
        let held: Vec<(String, String)> = of(claims, host).all(conn).await?;
        let held: Names = held.into_iter().collect();
        let is_spoken_for =
            |row: &Row| row.quarantine.is_some() || held.contains(&(row.host.clone(), row.device.clone()));
        Ok(Self::new(absent(rows).filter(|(row, _)| is_spoken_for(row))))
    }

    fn new<'a>(rows: impl Iterator<Item = &'a (Row, Device)>) -> Self {
        let words = rows.flat_map(|(row, device)| {
            let spoken = Spoken { device: row.device.clone(), quarantined: row.quarantine.is_some() };
            who(device).into_iter().map(move |who| ((row.host.clone(), who), spoken.clone()))
        });
        Self(words.collect())
    }

    /// As it is to be read. What the host itself finds wrong with it is worth more.
    pub fn mark(&self, host: &str, device: Device) -> Device {
        if device.state != State::Available || self.0.is_empty() {
            return device;
        }
        let mut spoken = who(&device).into_iter().filter_map(|who| self.0.get(&(host.to_owned(), who)));
        let Some(Spoken { device: before, quarantined }) = spoken.next() else { return device };
        let why = if *quarantined {
            format!("that is quarantined; `croft device release {host}/{before}` ends that")
        } else {
            format!("an instance has a claim on that; detach {host}/{before} from it, or delete it")
        };
        let message = format!("it is the card that was known as {before}, and {why}");
        Device { state: State::Changed, reason: CHANGED.to_owned(), message, ..device }
    }
}

/// Not where their rows say: not seen, or another card is there.
fn absent(rows: &[(Row, Device)]) -> impl Iterator<Item = &(Row, Device)> {
    rows.iter().filter(|(_, device)| matches!(device.state, State::Missing | State::Changed))
}
