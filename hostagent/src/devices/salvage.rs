//! Reading the journal of devices, damage or none.
//!
//! What is said of one device and cannot be read puts that device into quarantine, and no other. What cannot be told to be of
//! one device condemns them all: the caller's answer to an error.

use croft_gpu::gpu::Fault;
use croft_gpu::pci::PciAddress;
use croft_gpu::plan::{Mode, Wish};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::record::{Cleaned, FORMAT, Hold, Known, Mark, MarkKind, Record};
use crate::reasons;

/// The record, and what of it was lost.
pub fn read(text: &[u8]) -> Result<(Record, Vec<String>), String> {
    let corrupt = |error: serde_json::Error| format!("is corrupt: {error}");
    let mut fields: Map<String, Value> = serde_json::from_slice(text).map_err(corrupt)?;
    match fields.get("format").and_then(Value::as_u64) {
        Some(format) if format == u64::from(FORMAT) => {}
        Some(other) => return Err(format!("is of format {other}, this agent reads {FORMAT}")),
        None => return Err("is corrupt: it does not say its format".to_owned()),
    }
    let mut damage = Damage::default();
    damage.sift("known", &mut fields, readable::<String, Known>);
    damage.sift("marks", &mut fields, readable::<String, Mark>);
    damage.sift("releases", &mut fields, readable::<String, i64>);
    damage.sift("modes", &mut fields, readable::<PciAddress, Mode>);
    damage.sift("functions", &mut fields, readable::<PciAddress, Wish>);
    damage.sift("unreturned", &mut fields, readable::<String, Vec<Wish>>);
    damage.sift("left", &mut fields, readable::<String, Vec<croft_gpu::apply::Left>>);
    damage.sift("faults", &mut fields, readable::<PciAddress, Vec<Fault>>);
    damage.sift("resets", &mut fields, readable::<String, Cleaned>);
    damage.sift_holds(&mut fields)?;
    let mut record: Record = serde_json::from_value(Value::Object(fields)).map_err(corrupt)?;
    let mut lost = Vec::new();
    for (device, what) in damage.0 {
        let message =
            format!("what the journal says of it is damaged ({what}); see that nobody has it, and release it");
        lost.push(format!("{device}: {what}"));
        // When that was, nobody knows.
        let mark = Mark { kind: MarkKind::Quarantined, reason: reasons::JOURNAL_CORRUPT.to_owned(), message, time: 0 };
        record.marks.insert(device, mark);
    }
    Ok((record, lost))
}

/// Devices, and what cannot be read of each.
#[derive(Default)]
struct Damage(Vec<(String, String)>);

impl Damage {
    /// Takes the entries out that cannot be read, each of a device by its name.
    fn sift(
        &mut self,
        field: &str,
        fields: &mut Map<String, Value>,
        readable: impl Fn(&str, &Value) -> Result<(), serde_json::Error>,
    ) {
        let Some(Value::Object(entries)) = fields.get_mut(field) else { return };
        entries.retain(|device, value| match readable(device, value) {
            Ok(()) => true,
            Err(error) => {
                self.0.push((device.clone(), format!("{field}: {error}")));
                false
            }
        });
    }

    /// A hold that still says of which device it is.
    fn sift_holds(&mut self, fields: &mut Map<String, Value>) -> Result<(), String> {
        let Some(Value::Object(instances)) = fields.get_mut("holds") else { return Ok(()) };
        for (uid, holds) in instances.iter_mut() {
            let of_whom = || format!("is corrupt: it does not say what instance {uid} holds");
            Uuid::try_parse(uid).map_err(|_| of_whom())?;
            let Value::Object(holds) = holds else { return Err(of_whom()) };
            let mut nameless = false;
            holds.retain(|id, hold| match serde_json::from_value::<Hold>(hold.clone()) {
                Ok(_) => true,
                Err(error) => {
                    match hold.get("device").and_then(Value::as_str) {
                        Some(device) => self.0.push((device.to_owned(), format!("{id} of instance {uid}: {error}"))),
                        None => nameless = true,
                    }
                    false
                }
            });
            if nameless {
                return Err(of_whom());
            }
        }
        Ok(())
    }
}

/// Is it one entry of such a map?
fn readable<K, V>(key: &str, value: &Value) -> Result<(), serde_json::Error>
where
    std::collections::BTreeMap<K, V>: DeserializeOwned,
{
    let entry = Value::Object(Map::from_iter([(key.to_owned(), value.clone())]));
    serde_json::from_value::<std::collections::BTreeMap<K, V>>(entry).map(drop)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const ONE: &str = "0000:41:00.0";
    const OTHER: &str = "0000:61:00.0";

    /// Two devices, of which everything is known, as JSON.
    fn journal() -> Value {
        let uid = Uuid::from_u128(7);
        let hold = |device: &str| Hold { device: device.to_owned(), taken: Vec::new() };
        let cleaned = Cleaned { method: "flr".to_owned(), time: 1, clean: true, message: String::new() };
        let mut record = Record { boot_id: "b".to_owned(), ..Record::default() };
        for (id, device) in [("a", ONE), ("b", OTHER)] {
            record.holds.entry(uid).or_default().insert(id.to_owned(), hold(device));
            record.resets.insert(device.to_owned(), cleaned.clone());
            record.modes.insert(device.parse().unwrap(), Mode::Idle);
            record.unreturned.insert(device.to_owned(), Vec::new());
        }
        serde_json::to_value(&record).unwrap()
    }

    fn read(journal: &Value) -> Result<(Record, Vec<String>), String> {
        super::read(journal.to_string().as_bytes())
    }

    #[test]
    fn a_whole_journal_is_read_as_it_is() {
        let (record, lost) = read(&journal()).unwrap();
        assert!(lost.is_empty() && record.marks.is_empty() && record.modes.len() == 2);
    }

    #[test]
    fn what_is_damaged_of_one_device_condemns_that_one() {
        let uid = Uuid::from_u128(7).to_string();
        for path in [
            vec!["holds", &uid, "a", "taken"],
            vec!["resets", ONE, "clean"],
            vec!["modes", ONE],
            vec!["unreturned", ONE],
        ] {
            let mut journal = journal();
            *path.iter().fold(&mut journal, |at, key| &mut at[*key]) = "\u{0}".into();
            let (record, lost) = read(&journal).unwrap();
            assert_eq!(lost.len(), 1, "{path:?}: {lost:?}");
            let marks: BTreeMap<_, _> =
                record.marks.iter().map(|(id, mark)| (id.as_str(), mark.reason.as_str())).collect();
            assert_eq!(marks, BTreeMap::from([(ONE, "JournalCorrupt")]), "{path:?}");
            assert!(record.holds[&Uuid::from_u128(7)].contains_key("b") && record.resets.contains_key(OTHER));
        }
    }

    #[test]
    fn what_may_be_of_any_device_condemns_them_all() {
        let uid = Uuid::from_u128(7).to_string();
        let mut nameless = journal();
        nameless["holds"][&uid]["a"] = 7.into();
        let mut no_instance = journal();
        no_instance["holds"]["x"] = serde_json::json!({});
        let mut no_layout = journal();
        no_layout["layout"] = "x".into();
        for damaged in [nameless, no_instance, no_layout] {
            assert!(read(&damaged).unwrap_err().contains("is corrupt"), "{damaged}");
        }
        assert!(super::read(b"{\"format\": 1").is_err() && super::read(b"").is_err());
        assert!(super::read(b"{\"format\": 9}").unwrap_err().contains("format 9"));
    }
}
