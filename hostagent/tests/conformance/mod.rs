//! What every hypervisor must do, whichever it is: the driver of an instance relies on exactly this.
//!
//! Run for the simulated machine by `simulated_backend.rs` and for libvirtd and QEMU by `libvirt_backend/`.

use std::time::Duration;

use croft_hostagent::hypervisor::{Domain, Error, Figures, Hypervisor, OffReason, Power, Seed};
use croft_proto::agent::v1::desired_image::Boot;
use croft_proto::agent::v1::desired_interface::{Bridge, Network};
use croft_proto::agent::v1::{DesiredDisk, DesiredImage, DesiredInstance, DesiredInterface, NumaPin};
use uuid::Uuid;

/// A hypervisor without any domain of ours, and an instance that it can run: a platform image from a file, one disk, no
/// interface.
pub async fn every_verb(hypervisor: &dyn Hypervisor, desired: &DesiredInstance) {
    let bench = Bench { hypervisor, uid: desired.uid.parse().expect("uid") };
    bench.nobody_is_known().await;
    bench.what_cannot_be_is_refused(desired).await;
    bench.a_whole_life(desired).await;
    // The same uid again is a new life.
    bench.a_whole_life(desired).await;
    bench.images_stay_while_they_are_used(desired).await;
}

struct Bench<'a> {
    hypervisor: &'a dyn Hypervisor,
    uid: Uuid,
}

/// Matched by the reason; that it may pass is part of the answer, because a refusal is not tried again for minutes.
#[track_caller]
fn failed(outcome: Result<(), Error>, reason: &str) {
    match outcome {
        Err(Error::Failed { reason: found, .. }) if found == reason => {}
        other => panic!("Failed with {reason} was expected, not {other:?}"),
    }
}

#[track_caller]
fn refused(outcome: Result<(), Error>, reason: &str) {
    match outcome {
        Err(Error::Refused { reason: found, .. }) if found == reason => {}
        other => panic!("Refused with {reason} was expected, not {other:?}"),
    }
}

#[track_caller]
fn not_found(outcome: Result<(), Error>) {
    assert!(matches!(outcome, Err(Error::NotFound(_))), "NotFound was expected, not {outcome:?}");
}

impl Bench<'_> {
    async fn seen(&self) -> Option<Domain> {
        let survey = self.hypervisor.survey().await.expect("survey");
        survey.ours.into_iter().find(|domain| domain.uid == self.uid)
    }

    async fn is(&self, power: Power) {
        let seen = self.seen().await.expect("the domain is not there");
        assert_eq!(seen.power, power);
    }

    async fn fetch(&self, image: &DesiredImage) -> Result<(), Error> {
        self.hypervisor.ensure_image(image, &|_, _| {}).await
    }

    async fn define(&self, desired: &DesiredInstance) -> Result<(), Error> {
        let text = format!("instance-id: {}\n", self.uid);
        let seed = Seed { meta_data: text, ..Seed::default() };
        self.hypervisor.ensure_defined(desired, &seed, &[]).await
    }

    async fn replace_seed(&self) {
        let files = [("vendor-data".to_owned(), "#!/bin/sh\n".to_owned())].into();
        let seed = Seed { meta_data: format!("instance-id: {}\n", self.uid), files, ..Seed::default() };
        for _ in 0..2 {
            self.hypervisor.replace_seed(self.uid, &seed).await.expect("another seed");
        }
    }

    async fn figures(&self) -> Option<Figures> {
        let told = self.hypervisor.figures().await.expect("figures");
        told.into_iter().find(|figures| figures.uid == self.uid)
    }

    async fn tells_what_it_uses(&self, desired: &DesiredInstance) {
        let mib = |bytes: u64| i64::try_from(bytes >> 20).expect("it fits");
        let seen = self.figures().await.expect("it runs");
        assert_eq!((i32::try_from(seen.vcpus), mib(seen.memory_bytes)), (Ok(desired.vcpus), desired.memory_mib));
        assert!(seen.resident_bytes.is_some_and(|bytes| bytes > 0) && seen.cpu_wait.is_some(), "{seen:?}");
        let disks: Vec<_> = seen.disks.iter().filter(|disk| disk.name == "vda").collect();
        assert!(
            disks.len() == desired.disks.len() && disks.iter().all(|disk| disk.capacity_bytes > Some(0)),
            "{seen:?}"
        );
        let later = tokio::time::timeout(Duration::from_secs(60), async {
            loop {
                let now = self.figures().await.expect("it runs");
                if now.cpu > seen.cpu {
                    return now;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        let later = later.await.expect("its CPU time does not grow");
        assert!(later.disks.iter().zip(&seen.disks).all(|(now, then)| now.read.bytes >= then.read.bytes), "{later:?}");
    }

    async fn connect(&self) -> Result<(), Error> {
        self.hypervisor.connect(self.uid, 9).await.map(drop)
    }

    async fn nobody_is_known(&self) {
        let Self { hypervisor, uid } = *self;
        assert!(!hypervisor.about().await.expect("about").hypervisor.expect("a version").is_empty());
        assert_eq!(hypervisor.boot_id().await.expect("boot"), hypervisor.boot_id().await.expect("boot"));
        assert_eq!(self.seen().await, None);
        not_found(hypervisor.start(uid).await);
        not_found(hypervisor.request_shutdown(uid).await);
        not_found(hypervisor.request_reboot(uid).await);
        not_found(hypervisor.reset(uid).await);
        not_found(hypervisor.destroy(uid).await);
        not_found(hypervisor.resume(uid).await);
        not_found(hypervisor.guest(uid).await.map(drop));
        not_found(self.connect().await);
        assert!(hypervisor.console(uid).await.is_err());
        assert!(hypervisor.replace_seed(uid, &Seed::default()).await.is_err());
        assert_eq!(hypervisor.console_log(uid).await.expect("log"), [""; 0].map(std::path::PathBuf::from));
        for _ in 0..2 {
            hypervisor.remove(uid).await.expect("nothing of it is there");
        }
    }

    async fn what_cannot_be_is_refused(&self, desired: &DesiredInstance) {
        let image = desired.image.clone().expect("an image");
        failed(self.define(desired).await, "ImageMissing");
        let tenants = DesiredImage { platform: false, ..image.clone() };
        refused(self.fetch(&tenants).await, "ImageSourceRefused");
        refused(self.fetch(&with_uri(&image, "http://images.example/x")).await, "ImageSourceRefused");
        for _ in 0..2 {
            self.fetch(&image).await.expect("a platform image");
        }
        let with = async |change: &dyn Fn(&mut DesiredInstance)| {
            let mut changed = desired.clone();
            change(&mut changed);
            self.define(&changed).await
        };
        refused(with(&|d| d.uid = "web".to_owned()).await, "SpecInvalid");
        refused(with(&|d| d.vcpus = 0).await, "SpecInvalid");
        refused(with(&|d| d.memory_mib = 0).await, "SpecInvalid");
        refused(with(&|d| d.memory_mib = 1 << 40).await, "HostTooSmall");
        refused(with(&|d| d.disks.push(DesiredDisk { size_gib: 1, ..DesiredDisk::default() })).await, "SpecInvalid");
        refused(with(&|d| d.numa = vec![NumaPin { cell: 4711, ..NumaPin::default() }]).await, "CpuUnavailable");
        let network = Some(Network::Bridge(Bridge { bridge: "no-such-bridge".to_owned(), vlan: 0 }));
        let interface = DesiredInterface { mac: "02:00:00:00:00:01".to_owned(), network };
        refused(with(&|d| d.interfaces = vec![interface.clone()]).await, "NetworkUnknown");
        assert_eq!(self.seen().await, None, "what was refused is not there");
        self.hypervisor.remove(self.uid).await.expect("what was made on the way goes");
    }

    async fn a_whole_life(&self, desired: &DesiredInstance) {
        let Self { hypervisor, uid } = *self;
        let mut events = hypervisor.events();
        for _ in 0..2 {
            self.define(desired).await.expect("define");
            self.is(Power::Off(OffReason::Unknown)).await;
        }
        assert_eq!(self.seen().await.expect("seen").generation, desired.generation);
        self.rests().await;
        self.replace_seed().await;
        self.is(Power::Off(OffReason::Unknown)).await;

        for _ in 0..2 {
            hypervisor.start(uid).await.expect("start");
            self.is(Power::Running).await;
        }
        let told = async { while events.recv().await.expect("events") != Some(uid) {} };
        tokio::time::timeout(Duration::from_secs(30), told).await.expect("no event of it");

        self.tells_what_it_uses(desired).await;
        self.replace_seed().await;
        self.is(Power::Running).await;

        // While it runs it is not removed, and a newer definition waits for the next start.
        let newer = DesiredInstance { generation: desired.generation + 1, ..desired.clone() };
        for _ in 0..2 {
            self.define(&newer).await.expect("define");
            failed(hypervisor.remove(uid).await, "StillRunning");
        }
        let seen = self.seen().await.expect("seen");
        assert_eq!((seen.power, seen.generation), (Power::Running, newer.generation));
        for _ in 0..2 {
            hypervisor.reset(uid).await.expect("reset");
            hypervisor.resume(uid).await.expect("resume");
            self.is(Power::Running).await;
        }
        failed(self.connect().await, "GuestUnreachable");
        self.one_holds_the_console().await;

        for _ in 0..2 {
            hypervisor.destroy(uid).await.expect("destroy");
            self.is(Power::Off(OffReason::Destroyed)).await;
        }
        assert_eq!(self.figures().await, None, "what does not run uses nothing");
        self.rests().await;
        let rebuilt = DesiredInstance { disk_generation: 2, ..newer.clone() };
        for _ in 0..2 {
            self.define(&rebuilt).await.expect("define");
            assert_eq!(self.seen().await.expect("seen").disk_generation, 2);
        }
        hypervisor.start(uid).await.expect("start");
        assert_eq!(self.seen().await.expect("seen").disk_generation, 2);
        failed(self.define(&DesiredInstance { disk_generation: 3, ..newer }).await, "StillRunning");
        assert_eq!(self.seen().await.expect("seen").disk_generation, 2);
        hypervisor.destroy(uid).await.expect("destroy");
        for _ in 0..2 {
            hypervisor.remove(uid).await.expect("remove");
            assert_eq!(self.seen().await, None);
        }
        not_found(hypervisor.start(uid).await);
        not_found(hypervisor.destroy(uid).await);
    }

    /// Defined and off.
    async fn rests(&self) {
        let Self { hypervisor, uid } = *self;
        failed(hypervisor.request_shutdown(uid).await, "DomainNotRunning");
        failed(hypervisor.request_reboot(uid).await, "DomainNotRunning");
        failed(hypervisor.reset(uid).await, "DomainNotRunning");
        failed(hypervisor.resume(uid).await, "DomainNotRunning");
        failed(self.connect().await, "DomainNotRunning");
        assert!(hypervisor.console(uid).await.is_err());
        let guest = hypervisor.guest(uid).await.expect("guest");
        assert!(!guest.agent && guest.addresses.is_empty(), "{guest:?}");
        hypervisor.destroy(uid).await.expect("nothing to do");
    }

    async fn one_holds_the_console(&self) {
        let Self { hypervisor, uid } = *self;
        for _ in 0..2 {
            let began = std::time::Instant::now();
            let held = loop {
                match hypervisor.console(uid).await {
                    Ok(console) => break console,
                    Err(error) => assert!(began.elapsed() < Duration::from_secs(30), "{error}"),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            assert!(matches!(hypervisor.console(uid).await, Err(Error::Busy(_))));
            drop(held);
        }
    }

    async fn images_stay_while_they_are_used(&self, desired: &DesiredInstance) {
        let Self { hypervisor, uid } = *self;
        self.define(desired).await.expect("define");
        for _ in 0..2 {
            hypervisor.prune_images(&[]).await.expect("prune");
        }
        hypervisor.start(uid).await.expect("its image is still there");
        hypervisor.destroy(uid).await.expect("destroy");
        hypervisor.remove(uid).await.expect("remove");
        let image = desired.image.as_ref().expect("an image");
        hypervisor.prune_images(&[image.uid.parse().expect("uid")]).await.expect("prune");
        self.define(desired).await.expect("what is to be kept is kept");
        hypervisor.remove(uid).await.expect("remove");
        hypervisor.prune_images(&[]).await.expect("prune");
        failed(self.define(desired).await, "ImageMissing");
        hypervisor.remove(uid).await.expect("remove");
    }
}

/// The same image, fetched from elsewhere.
fn with_uri(image: &DesiredImage, uri: &str) -> DesiredImage {
    let mut image = DesiredImage { uid: Uuid::now_v7().to_string(), ..image.clone() };
    let file = match &mut image.boot {
        Some(Boot::Disk(disk)) => disk.file.as_mut(),
        Some(Boot::Kernel(kernel)) => kernel.kernel.as_mut(),
        None => None,
    };
    uri.clone_into(&mut file.expect("a file").uri);
    image
}
