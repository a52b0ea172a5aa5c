//! Hearing that it is worth to look again: the kernel's own messages, or the files of a simulated one.

use std::path::Path;
use std::time::{Duration, SystemTime};

use croft_gpu::apply::Site;
use croft_gpu::uevent::{Uevent, Uevents};
use tokio::sync::mpsc;

/// A card with 256 functions says so 512 times: one look after all of them.
const SETTLES: Duration = Duration::from_millis(300);
const SIMULATED_EVERY: Duration = Duration::from_millis(200);
/// What the inventory shows.
const SUBSYSTEMS: [&str; 4] = ["pci", "usb", "mdev", "vfio"];

#[derive(Debug)]
pub(super) struct Bell(mpsc::Receiver<()>);

impl Bell {
    /// One that cannot be hung says so once, and is silent: looks go on by the timer.
    pub(super) fn hang(site: &Site) -> Bell {
        let (ring, bell) = mpsc::channel(1);
        if site.simulated {
            tokio::spawn(watch_simulated(site.root.join("run/croft-sim/kernel.json"), ring));
        } else if site.root == Path::new("/") {
            // Blocks in the kernel between messages; a thread of its own costs less than a runtime that waits for one.
            let listen = std::thread::Builder::new().name("uevents".to_owned()).spawn(move || listen(&ring));
            if let Err(error) = listen {
                tracing::warn!("changes of devices are seen by the timer alone: {error}");
            }
        }
        Bell(bell)
    }

    pub(super) async fn rung(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(SETTLES).await;
        while self.0.try_recv().is_ok() {}
    }
}

fn listen(ring: &mpsc::Sender<()>) {
    let events = match Uevents::open() {
        Ok(events) => events,
        Err(error) => return tracing::warn!("changes of devices are seen by the timer alone: {error}"),
    };
    for event in events {
        let rings = match event {
            Ok(Uevent::Missed) => true,
            Ok(Uevent::Device(event)) => SUBSYSTEMS.contains(&event.subsystem.as_str()),
            Err(error) => return tracing::warn!("changes of devices are seen by the timer alone: {error}"),
        };
        // Full: it rings already.
        if rings && let Err(mpsc::error::TrySendError::Closed(())) = ring.try_send(()) {
            return;
        }
    }
}

async fn watch_simulated(kernel: std::path::PathBuf, ring: mpsc::Sender<()>) {
    let changed = || -> Option<SystemTime> { std::fs::metadata(&kernel).ok()?.modified().ok() };
    let mut last = changed();
    while !ring.is_closed() {
        tokio::time::sleep(SIMULATED_EVERY).await;
        let now = changed();
        if now != last {
            last = now;
            // Full: it rings already.
            let _ = ring.try_send(());
        }
    }
}
