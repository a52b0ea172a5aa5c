//! Looking at the devices: on a timer, when the kernel says that something changed, and when the plane wants something else.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use croft_gpu::gpu::Mig;
use croft_gpu::nvml::GpuEvent;
use croft_gpu::plan::MigPiece;
use croft_proto::agent::v1::HostPolicy;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use super::Inner;
use super::bell::Bell;
use super::obstacle::Obstacle;
use super::record::{Layout, Piece};
use super::report::Report;
use super::session::Session;

const EVERY: Duration = Duration::from_secs(30);

pub(super) async fn run(devices: Arc<Inner>, mut policy: watch::Receiver<HostPolicy>) {
    let mut bell = Bell::hang(&devices.config.site);
    let mut silence = String::new();
    let mut events = devices.events.lock().unwrap_or_else(PoisonError::into_inner).take();
    // Until the plane has spoken, the journal knows what it wanted.
    let mut told = false;
    loop {
        let wanted = policy.borrow_and_update().clone();
        let wanted = (told || wanted != HostPolicy::default()).then_some(wanted);
        told |= wanted.is_some();
        let problems = look(&devices, wanted.as_ref()).await;
        tell(problems.as_ref().err(), &mut silence);
        devices.publish().await;
        if let (Ok(problems), Some(wanted)) = (problems, wanted) {
            devices.report.send_if_modified(|known| {
                let report = Report { problems, layout_generation: wanted.layout_generation, ..Report::clone(known) };
                let differs = **known != report;
                *known = Arc::new(report);
                differs
            });
        }
        devices.ready.send_replace(true);
        let later = devices.clock.steady().plus(EVERY);
        tokio::select! {
            () = devices.clock.sleep_until(later) => {}
            () = bell.rung() => {}
            () = devices.nudge.notified() => {}
            Ok(()) = policy.changed() => {}
            Some(event) = next(&mut events) => hear(&devices, &event).await,
        }
    }
}

/// Answers what of the layout is not so.
async fn look(devices: &Inner, policy: Option<&HostPolicy>) -> Result<Vec<String>, Obstacle> {
    if let Some(policy) = policy
        && devices.record.read().await.corrupt.is_none()
    {
        let layout = Layout::of(policy);
        devices.note(|record| record.layout = layout.after(std::mem::take(&mut record.layout))).await?;
    }
    let mut session = Session::begin(devices).await?;
    if let Some(policy) = policy {
        session.release(policy).await?;
    }
    let problems = session.lay_out().await?;
    // Still nobody else changes anything.
    if session.host().gpus.devices.iter().any(|gpu| gpu.name.is_some()) {
        devices.ear.listen().await;
    }
    Ok(problems)
}

async fn next(events: &mut Option<mpsc::Receiver<GpuEvent>>) -> Option<GpuEvent> {
    match events {
        Some(events) => events.recv().await,
        None => None,
    }
}

/// What a GPU says of itself is kept: no look finds it again.
async fn hear(devices: &Inner, event: &GpuEvent) {
    let Some(mut fault) = event.fault() else {
        let (holder, kind) = (holder(devices, event).await, event.kind);
        return tracing::info!(gpu = %event.gpu, ?holder, ?kind, "a program on a GPU went wrong; the GPU did not");
    };
    fault.message.push_str("; until a reset, another boot or somebody's release");
    tracing::error!(gpu = %event.gpu, reason = fault.reason, "{}", fault.message);
    let kept = devices.note(|record| {
        let faults = record.faults.entry(event.gpu).or_default();
        if !faults.iter().any(|known| known.reason == fault.reason) {
            faults.push(fault);
        }
    });
    if let Err(obstacle) = kept.await {
        tracing::error!("{}", obstacle.message);
    }
}

/// Whose piece of the GPU it is about.
async fn holder(devices: &Inner, event: &GpuEvent) -> Option<Uuid> {
    let seen = devices.seen.borrow().clone()?.ok()?;
    let gpu = seen.host.gpus.devices.iter().find(|gpu| gpu.address == event.gpu)?;
    let Mig::Supported(mig) = &gpu.mig else { return None };
    let instance = mig.instances.iter().find(|instance| Some(instance.id) == event.gpu_instance)?;
    let piece = MigPiece { profile: instance.profile.clone(), placement: instance.placement };
    let piece = Piece::GpuInstance { gpu: event.gpu, piece };
    let record = devices.record.read().await;
    record.pieces().find(|(_, _, held)| **held == piece).map(|(uid, ..)| uid)
}

/// Once for each reason: a host whose devices cannot be looked at for a night must not fill a disk with saying so.
fn tell(obstacle: Option<&Obstacle>, silence: &mut String) {
    match obstacle {
        None if silence.is_empty() => {}
        None => {
            silence.clear();
            tracing::info!("the devices can be looked at again");
        }
        Some(obstacle) if obstacle.message == *silence => {}
        Some(obstacle) => {
            silence.clone_from(&obstacle.message);
            tracing::warn!(reason = obstacle.reason, "the devices can not be looked after: {}", obstacle.message);
        }
    }
}
