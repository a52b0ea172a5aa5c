//! What operators do to devices: quarantine and release.

use croft_core::audit::Call;
use croft_core::device::{Record, State};
use croft_core::event::Severity;
use croft_core::id::{DeviceId, HostId};
use croft_core::{Error, Reason, Result};

use crate::call::{About, Done};
use crate::event::reason;
use crate::host;
use crate::open::Store;
use crate::sql::sql;

impl Store {
    /// Nothing new is placed on it; who holds it keeps it.
    pub async fn device_quarantine(
        &self,
        call: &Call,
        host: &HostId,
        id: &DeviceId,
        message: &str,
    ) -> Result<Done<Record>> {
        let (host, id, message) = (host.clone(), id.clone(), message.to_owned());
        let done = self
            .mutate(call, About::platform(format!("hosts/{host}/devices/{id}")), move |tx| {
                Box::pin(async move {
                    let record = super::require(&mut tx.conn, &host, &id).await?;
                    if record.quarantine.as_ref() == Some(&message) {
                        return Ok(record);
                    }
                    sql("UPDATE devices
                         SET quarantine = $3, update_time = $4
                         WHERE host = $1 AND device = $2")
                    .bind(&host)
                    .bind(&id)
                    .bind(&message)
                    .bind(tx.now)
                    .run(&mut tx.conn)
                    .await?;
                    host::moved(&mut tx.conn, &host).await?;
                    let told = if message.is_empty() { "nothing new is placed on it" } else { message.as_str() };
                    tx.event(None, &record.name(), reason::DEVICE_QUARANTINED, told, Severity::Warning);
                    super::require(&mut tx.conn, &host, &id).await
                })
            })
            .await?;
        self.device_now(done).await
    }

    /// Ends a quarantine, an operator's and the agent's own, and takes the hardware that is there now for the right one.
    /// Refused while the host finds a fault.
    pub async fn device_release(&self, call: &Call, host: &HostId, id: &DeviceId) -> Result<Done<Record>> {
        let (host, id) = (host.clone(), id.clone());
        let done = self
            .mutate(call, About::platform(format!("hosts/{host}/devices/{id}")), move |tx| {
                Box::pin(async move {
                    let record = super::require(&mut tx.conn, &host, &id).await?;
                    check_sound(&record)?;
                    // Above every earlier one, also of a row that was forgotten since.
                    let counter = tx.now.0.max(record.release_counter + 1);
                    sql("UPDATE devices
                         SET quarantine = NULL, release_counter = $3, update_time = $4
                         WHERE host = $1 AND device = $2")
                    .bind(&host)
                    .bind(&id)
                    .bind(counter)
                    .bind(tx.now)
                    .run(&mut tx.conn)
                    .await?;
                    host::moved(&mut tx.conn, &host).await?;
                    let message = "its hardware of now is taken for the right one";
                    tx.event(None, &record.name(), reason::DEVICE_RELEASED, message, Severity::Info);
                    super::require(&mut tx.conn, &host, &id).await
                })
            })
            .await?;
        self.device_now(done).await
    }

    async fn device_now(&self, done: Done<Record>) -> Result<Done<Record>> {
        let Done::Replayed(then) = done else { return Ok(done) };
        let now = self.device_get(&then.host, &then.device.id).await?;
        Ok(Done::Replayed(now.unwrap_or(then)))
    }
}

/// What a GPU reports of itself once. No look finds it again, so that nothing but a word can end it; a fault that is still
/// there is found by the next look.
const REPORTED: [&str; 3] = ["XidError", "EccUncorrected", "FellOffTheBus"];

fn check_sound(record: &Record) -> Result<()> {
    let device = &record.device;
    let faulty = match device.state {
        State::Stuck => true,
        State::Unhealthy => !REPORTED.contains(&device.reason.as_str()),
        _ => false,
    };
    if !faulty {
        return Ok(());
    }
    let why = if device.message.is_empty() { &device.reason } else { &device.message };
    let message = format!("{} is {}: {why}; mend that first", record.name(), device.state.as_str());
    Err(Error::precondition(Reason::DeviceFaulty, record.name(), message))
}
