//! What a user may change of an instance that exists: not its shape.

use croft_core::audit::Call;
use croft_core::id::TenantId;
use croft_core::instance::Instance;
use croft_core::{Error, Reason, Result};

use super::Settled;
use crate::call::{About, Done};
use crate::open::Store;
use crate::sql::sql;

impl Store {
    /// Of what `change` does, labels, annotations, intent and the repair of a node count.
    pub async fn instance_update(
        &self,
        call: &Call,
        tenant: &TenantId,
        id: &str,
        etag: &str,
        change: impl FnOnce(&mut Instance) -> Result<()> + Send + 'static,
    ) -> Result<Done<Instance>> {
        let (tenant, id, etag) = (tenant.clone(), id.to_owned(), etag.to_owned());
        let about = About::tenant(&tenant, format!("tenants/{tenant}/instances/{id}"));
        let done = self
            .mutate(call, about, move |tx| {
                Box::pin(async move {
                    let mut instance = super::require(&mut tx.conn, &tenant, &id).await?;
                    let name = instance.name();
                    instance.meta.check_etag(&etag, &name)?;
                    if instance.meta.delete_time.is_some() {
                        return Err(deleting(name));
                    }
                    let spec = instance.spec.clone();
                    change(&mut instance)?;
                    instance.meta.generation += 1;
                    instance.meta.update_time = tx.now;
                    super::write(&mut tx.conn, &instance, Settled::No).await?;
                    if instance.spec != spec {
                        super::write_spec(&mut tx.conn, &instance).await?;
                    }
                    sql("DELETE FROM instance_labels WHERE instance_uid = $1")
                        .bind(instance.uid)
                        .run(&mut tx.conn)
                        .await?;
                    super::write_labels(&mut tx.conn, &instance).await?;
                    tx.instance_written(&instance, false);
                    Ok(instance)
                })
            })
            .await?;
        match done {
            Done::Replayed(then) => Ok(Done::Replayed(self.instance_by_uid(then.uid).await?.unwrap_or(then))),
            new => Ok(new),
        }
    }
}

pub(super) fn deleting(name: String) -> Error {
    let message = format!("{name} is being deleted");
    Error::precondition(Reason::InstanceDeleting, name, message)
}
