//! Starting, stopping and the like: one call each, safe to repeat.

use std::time::Duration;

use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::{Error as VirtError, ErrorNumber};
use virt_sys as sys;

use super::Libvirt;
use super::connection::{Connection, QUICK, SLOW};
use super::error::{self, failed, is};
use super::lookup::{self, ours, query};
use super::paths::Paths;
use super::reasons::{DOMAIN_NOT_RUNNING, STILL_RUNNING};
use crate::hypervisor::Error;
use crate::reasons::HYPERVISOR_ERROR;

/// How long a request to the guest is watched before it is taken as on its way: libvirt waits for the guest to be gone.
const ASKING: Duration = Duration::from_secs(3);

/// What the guest is asked.
#[derive(Debug, Clone, Copy)]
pub enum Request {
    PowerOff,
    Restart,
}

impl Libvirt {
    pub(super) async fn start_domain(&self, uid: Uuid) -> Result<(), Error> {
        self.connection
            .act("start a domain", move |connect| {
                let domain = ours(connect, uid)?;
                if domain.is_active().map_err(query)? {
                    return Ok(());
                }
                match domain.create() {
                    Ok(()) => Ok(()),
                    // Somebody was faster.
                    Err(_) if domain.is_active().unwrap_or(false) => Ok(()),
                    Err(e) => Err(error::start(&e, &Paths::emulator_log(uid))),
                }
            })
            .await
    }

    /// Returns as soon as the guest was asked. An agent that does not do as it is told is followed by the ACPI button.
    pub(super) async fn request(&self, uid: Uuid, request: Request) -> Result<(), Error> {
        let connection = self.connection.clone();
        let asked = tokio::spawn(async move {
            let by_agent =
                agent_is_connected(&connection, uid).await? && ask(&connection, uid, request, Way::Agent).await.is_ok();
            if by_agent { Ok(()) } else { ask(&connection, uid, request, Way::Acpi).await }
        });
        match tokio::time::timeout(ASKING, asked).await {
            Ok(Ok(result)) => result,
            Ok(Err(e)) => Err(Error::Failed { reason: HYPERVISOR_ERROR, message: e.to_string() }),
            Err(_) => Ok(()),
        }
    }

    pub(super) async fn reset_domain(&self, uid: Uuid) -> Result<(), Error> {
        let reset = move |connect: &Connect| {
            let domain = ours(connect, uid)?;
            must_run(&domain, uid)?;
            domain.reset().map_err(failed(HYPERVISOR_ERROR, "resetting the domain"))
        };
        self.connection.call(QUICK, "reset a domain", reset).await
    }

    pub(super) async fn destroy_domain(&self, uid: Uuid) -> Result<(), Error> {
        self.connection
            .call(SLOW, "destroy a domain", move |connect| {
                let domain = ours(connect, uid)?;
                match domain.destroy() {
                    Ok(()) => Ok(()),
                    Err(e) if is(&e, ErrorNumber::NoDomain) => Ok(()),
                    // It was not running, or ended in between.
                    Err(_) if !domain.is_active().unwrap_or(true) => Ok(()),
                    Err(e) => Err(failed(HYPERVISOR_ERROR, "destroying the domain")(e)),
                }
            })
            .await
    }

    pub(super) async fn resume_domain(&self, uid: Uuid) -> Result<(), Error> {
        self.connection
            .call(QUICK, "resume a domain", move |connect| {
                let domain = ours(connect, uid)?;
                must_run(&domain, uid)?;
                match domain.resume() {
                    Ok(()) => Ok(()),
                    Err(_) if super::survey::power(&domain)? == Some(crate::hypervisor::Power::Running) => Ok(()),
                    Err(e) => Err(failed(HYPERVISOR_ERROR, "resuming the domain")(e)),
                }
            })
            .await
    }
}

async fn agent_is_connected(connection: &Connection, uid: Uuid) -> Result<bool, Error> {
    let look = move |connect: &Connect| {
        let domain = ours(connect, uid)?;
        must_run(&domain, uid)?;
        Ok(super::guest::agent_channel_is_connected(&lookup::description(&domain)?))
    };
    connection.call(QUICK, "describe a domain", look).await
}

async fn ask(connection: &Connection, uid: Uuid, request: Request, way: Way) -> Result<(), Error> {
    let ask = move |connect: &Connect| {
        let domain = ours(connect, uid)?;
        match way.ask(&domain, request) {
            Ok(()) => Ok(()),
            // It is already as it was asked to be.
            Err(e) if is(&e, ErrorNumber::OperationInvalid) && !domain.is_active().unwrap_or(true) => Ok(()),
            Err(e) => Err(failed(HYPERVISOR_ERROR, "asking the guest")(e)),
        }
    };
    match way {
        // Waits until the guest is gone, or the agent's minute is over.
        Way::Agent => connection.ask_guest(uid, SLOW, "ask a guest's agent", ask).await,
        Way::Acpi => connection.call(QUICK, "press a guest's button", ask).await,
    }
}

/// How the guest is asked.
#[derive(Debug, Clone, Copy)]
enum Way {
    Agent,
    Acpi,
}

impl Way {
    fn ask(self, domain: &Domain, request: Request) -> Result<(), VirtError> {
        match (request, self) {
            (Request::PowerOff, Self::Agent) => domain.shutdown_flags(sys::VIR_DOMAIN_SHUTDOWN_GUEST_AGENT),
            (Request::PowerOff, Self::Acpi) => domain.shutdown_flags(sys::VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN),
            (Request::Restart, Self::Agent) => domain.reboot(sys::VIR_DOMAIN_REBOOT_GUEST_AGENT),
            (Request::Restart, Self::Acpi) => domain.reboot(sys::VIR_DOMAIN_REBOOT_ACPI_POWER_BTN),
        }
    }
}

/// For verbs that mean something only while it runs.
pub fn must_run(domain: &Domain, uid: Uuid) -> Result<(), Error> {
    if domain.is_active().map_err(query)? {
        return Ok(());
    }
    // It may run again in a moment, so this is no refusal for good.
    Err(Error::Failed { reason: DOMAIN_NOT_RUNNING, message: format!("instance {uid} does not run") })
}

/// For verbs that a running domain forbids.
pub fn refuse_running(domain: &Domain, uid: Uuid) -> Result<(), Error> {
    if domain.is_active().map_err(query)? {
        let message = format!("instance {uid} still runs; stop or destroy it first");
        return Err(Error::Failed { reason: STILL_RUNNING, message });
    }
    Ok(())
}
