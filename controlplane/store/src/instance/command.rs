//! Start, stop, reboot, reset, rebuild, delete: each writes intent and opens an operation; the host carries it out.

use std::time::Duration;

use croft_core::audit::Call;
use croft_core::id::{OperationUid, TenantId};
use croft_core::instance::machine::is_buried;
use croft_core::instance::rebuild::{self, Where};
use croft_core::instance::{Instance, Power, State};
use croft_core::join::machine::tell_power;
use croft_core::operation::{Operation, Verb};
use croft_core::{Error, Reason, Result, Timestamp};

use super::Settled;
use super::update::deleting;
use crate::call::{About, Done};
use crate::change;
use crate::host;
use crate::open::Store;
use crate::operation;
use crate::sql::sql;
use crate::tx::Tx;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Start,
    /// `None`: the instance's own stop timeout.
    Stop {
        timeout: Option<Duration>,
    },
    Reboot,
    Reset,
    /// Another root disk.
    Rebuild,
    /// The same on another host; `room`: why none takes it, where none does.
    RebuildElsewhere {
        room: Result<()>,
    },
    /// `force`: pull the plug.
    Delete {
        force: bool,
    },
}

impl Command {
    fn verb(&self) -> Verb {
        match self {
            Self::Start => Verb::Start,
            Self::Stop { .. } => Verb::Stop,
            Self::Reboot => Verb::Reboot,
            Self::Reset => Verb::Reset,
            Self::Rebuild | Self::RebuildElsewhere { .. } => Verb::Rebuild,
            Self::Delete { .. } => Verb::Delete,
        }
    }

    /// Writes it into the intent; returns the counter that says when it is done.
    fn apply(&self, instance: &mut Instance, now: Timestamp) -> Result<i64> {
        let power = match self {
            Self::Start | Self::Stop { .. } => {
                let intent = &mut instance.intent;
                intent.power_generation += 1;
                (intent.power, intent.stop_timeout_once) = match self {
                    Self::Stop { timeout } => (Power::Stopped, *timeout),
                    _ => (Power::Running, None),
                };
                intent.power_generation
            }
            Self::Reboot => {
                check_running(instance)?;
                instance.intent.reboot_generation += 1;
                instance.intent.reboot_generation
            }
            Self::Reset => {
                check_running(instance)?;
                instance.intent.reset_generation += 1;
                instance.intent.reset_generation
            }
            Self::Rebuild => rebuild::ask(instance, Where::Here),
            Self::RebuildElsewhere { room } => {
                room.clone()?;
                rebuild::ask(instance, Where::Elsewhere)
            }
            Self::Delete { force } => {
                instance.meta.delete_time = Some(now);
                instance.intent.delete_force = *force;
                0
            }
        };
        instance.meta.generation += 1;
        instance.meta.update_time = now;
        Ok(power)
    }
}

/// An agent that does not know of it would refuse the instance as a whole.
pub(super) async fn check_rebuild(tx: &mut Tx, instance: &Instance) -> Result<()> {
    rebuild::check(instance)?;
    let Some(id) = instance.host() else { return Ok(()) };
    let (host, name) = (host::require(&mut tx.conn, id).await?, instance.name());
    if host.state == croft_core::host::State::Unreachable {
        let message =
            format!("{name}: {} is not heard from; wait for it, or fence it if it is off for certain", host.name());
        return Err(Error::precondition(Reason::InstanceUnknown, name, message));
    }
    if host.can(rebuild::FEATURE) {
        return Ok(());
    }
    let message = format!("{name}: the agent of hosts/{id} lacks {}: upgrade croft-hostagent there", rebuild::FEATURE);
    Err(Error::precondition(Reason::AgentTooOld, name, message))
}

fn check_running(instance: &Instance) -> Result<()> {
    if instance.intent.power == Power::Running && instance.status.state != State::Stopped {
        return Ok(());
    }
    let name = instance.name();
    let message = format!("{name} is not running; start it instead");
    Err(Error::precondition(Reason::InstanceNotRunning, name, message))
}

/// From here on its host is told to remove it. What was seen before says nothing about what is left after.
pub(super) fn bury(instance: &mut Instance) {
    instance.status.observed = None;
    instance.status.observed_time = None;
}

/// The first snapshot that can show what this transaction writes.
pub(super) async fn note_delete(tx: &mut Tx, instance: &Instance) -> Result<()> {
    let before = change::revision(&mut tx.conn).await?;
    sql("UPDATE instances
         SET delete_revision = $2
         WHERE uid = $1")
    .bind(instance.uid)
    .bind(before + 1)
    .run(&mut tx.conn)
    .await?;
    Ok(())
}

/// A second delete is the same delete; it may pull the plug that the first one did not.
async fn delete_again(tx: &mut Tx, mut instance: Instance, force: bool) -> Result<(Operation, Instance)> {
    let open = operation::open(&mut tx.conn, &[instance.uid]).await?;
    let Some(operation) = open.into_iter().find(|operation| operation.verb == Verb::Delete) else {
        return Err(Error::internal(format!("{} is being deleted without an operation", instance.name())));
    };
    if force && !instance.intent.delete_force {
        instance.intent.delete_force = true;
        instance.meta.generation += 1;
        instance.meta.update_time = tx.now;
        super::write(&mut tx.conn, &instance, Settled::No).await?;
        tx.instance_written(&instance, false);
    }
    Ok((operation, instance))
}

async fn carry_out(
    tx: &mut Tx,
    call: &Call,
    mut instance: Instance,
    command: &Command,
) -> Result<(Operation, Instance)> {
    if matches!(command, Command::Rebuild | Command::RebuildElsewhere { .. }) {
        check_rebuild(tx, &instance).await?;
    }
    let counter = command.apply(&mut instance, tx.now)?;
    let operation = Operation {
        uid: OperationUid::new(tx.now),
        tenant: instance.tenant.clone(),
        target: instance.name(),
        target_uid: instance.uid,
        verb: command.verb(),
        counter,
        subject: String::new(),
        actor: call.principal.actor(),
        labels: instance.meta.labels.clone(),
        annotations: instance.meta.annotations.clone(),
        create_time: tx.now,
        progress: "waits for the host".to_owned(),
        done: false,
        failure: None,
        end_time: None,
    };
    tell_power(&mut instance);
    let buried = is_buried(&instance);
    if buried {
        bury(&mut instance);
    }
    super::write(&mut tx.conn, &instance, Settled::No).await?;
    if buried {
        note_delete(tx, &instance).await?;
    }
    operation::write(&mut tx.conn, std::slice::from_ref(&operation)).await?;
    tx.instance_written(&instance, false);
    Ok((operation, instance))
}

impl Store {
    /// `etag`: empty matches everything.
    pub async fn instance_command(
        &self,
        call: &Call,
        tenant: &TenantId,
        id: &str,
        etag: &str,
        command: Command,
    ) -> Result<Done<(Operation, Instance)>> {
        let (tenant, id, etag) = (tenant.clone(), id.to_owned(), etag.to_owned());
        let about = About::tenant(&tenant, format!("tenants/{tenant}/instances/{id}"));
        let caller = call.clone();
        let done = self
            .mutate(call, about, move |tx| {
                Box::pin(async move {
                    let instance = super::require(&mut tx.conn, &tenant, &id).await?;
                    let name = instance.name();
                    match command {
                        Command::Delete { force } if instance.meta.delete_time.is_some() => {
                            delete_again(tx, instance, force).await
                        }
                        _ if instance.meta.delete_time.is_some() => Err(deleting(name)),
                        _ => {
                            instance.meta.check_etag(&etag, &name)?;
                            carry_out(tx, &caller, instance, &command).await
                        }
                    }
                })
            })
            .await?;
        self.operation_now(done).await
    }

    /// A replayed answer as both are now; as they were then when they are gone.
    pub(super) async fn operation_now(&self, done: Done<(Operation, Instance)>) -> Result<Done<(Operation, Instance)>> {
        let Done::Replayed((operation, instance)) = done else { return Ok(done) };
        let operation = self.operation_get(operation.uid).await?.unwrap_or(operation);
        let instance = self.instance_by_uid(instance.uid).await?.unwrap_or(instance);
        Ok(Done::Replayed((operation, instance)))
    }
}
