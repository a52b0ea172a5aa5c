//! Images that nobody really fetches: what is checked is what a host would check before the first byte.

use croft_proto::agent::v1::{DesiredImage, desired_image};
use croft_proto::v1::{DiskImage, ImageFile};
use uuid::Uuid;

use super::rules::refused;
use super::state::Image;
use super::{Simulated, broken};
use crate::hypervisor::Error;
use crate::hypervisor::libvirt::reasons::SPEC_INVALID;
use crate::reasons;

/// As large as a small cloud image.
const BYTES: u64 = 64 << 20;
const STEPS: u64 = 8;

impl Simulated {
    pub(super) async fn fetch_image(
        &self,
        image: &DesiredImage,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<(), Error> {
        let uid = Uuid::try_parse(&image.uid)
            .map_err(|error| refused(SPEC_INVALID, format!("image uid {:?}: {error}", image.uid)))?;
        let (files, root) = match &image.boot {
            Some(desired_image::Boot::Disk(disk)) => (vec![&disk.file], Some(disk)),
            Some(desired_image::Boot::Kernel(kernel)) => (vec![&kernel.kernel, &kernel.initrd], kernel.root.as_ref()),
            None => return Err(refused(SPEC_INVALID, format!("image {} has nothing to boot from", image.name))),
        };
        for file in files.into_iter().flatten().chain(root.and_then(|root| root.file.as_ref())) {
            may_fetch(file, image.platform)?;
        }
        if self.lock().images.contains_key(&uid) {
            progress(BYTES, BYTES);
            return Ok(());
        }
        for step in 0..=STEPS {
            progress(BYTES / STEPS * step, BYTES);
            tokio::task::yield_now().await;
        }
        let fetched = Image { uid, min_disk_gib: root.map_or(0, min_disk_gib) };
        self.lock().put_image(&self.directory, fetched).map_err(broken)
    }

    pub(super) fn drop_images(&self, keep: &[Uuid]) -> Result<(), Error> {
        let mut state = self.lock();
        let used = |uid: &Uuid| keep.contains(uid) || state.domains.values().any(|domain| domain.image == Some(*uid));
        let unused: Vec<Uuid> = state.images.keys().filter(|uid| !used(uid)).copied().collect();
        for uid in unused {
            state.remove_image(&self.directory, uid).map_err(broken)?;
        }
        Ok(())
    }
}

fn min_disk_gib(disk: &DiskImage) -> u64 {
    u64::try_from(disk.min_disk_gib).unwrap_or(0)
}

fn may_fetch(file: &ImageFile, platform: bool) -> Result<(), Error> {
    let allowed = file.uri.starts_with("https://") || (platform && file.uri.starts_with("file:///"));
    if !allowed {
        return Err(refused(reasons::IMAGE_SOURCE_REFUSED, format!("{:?} is no source for this image", file.uri)));
    }
    let digest = file.sha256.len() == 64 && file.sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !digest {
        return Err(refused(reasons::IMAGE_DIGEST_MISMATCH, format!("{:?} is no sha256", file.sha256)));
    }
    Ok(())
}
