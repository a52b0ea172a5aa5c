//! The guest that becomes a node: made once per content of its recipe, of its options and of its kubelet.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{cache, forget, recipe};
use crate::guest_image::sha256;
use crate::recipe::{key, lock};
use crate::run::{Run, user_id};

const PARTS: [&str; 3] = ["guest.sh", "oci.sh", "guest"];

/// What guest.sh reads from the environment.
const OPTIONS: [&str; 3] = ["SUITE", "MIRROR", "SIZE"];

/// The directory with disk, kernel and initramfs. Needs root (or sudo) only to make it.
pub(super) fn ensure(kubelet: &Path) -> Result<PathBuf> {
    let mut options: Vec<(&str, String)> = OPTIONS
        .iter()
        .filter_map(|name| Some((*name, env::var(format!("CROFT_KUBERNETES_GUEST_{name}")).ok()?)))
        .collect();
    let mut build = Run::new(recipe().join("guest.sh")).with_root();
    for (name, value) in &options {
        build = build.env(name, value);
    }
    options.push(("kubelet", sha256(kubelet)?));
    let cache = cache()?;
    let dir = cache.join(format!("guest-{}", key(&recipe(), &PARTS, &options)?));
    if dir.is_dir() {
        return Ok(dir);
    }
    let _lock = lock(&cache)?;
    if dir.is_dir() {
        return Ok(dir);
    }
    println!("--> making the guest that becomes a node: a minute or two, and only this once");
    // Other recipes' too: hundreds of megabytes each, and asked for by nobody.
    forget(&cache, "guest-", true)?;
    build.arg(kubelet).arg(&dir).logged(&cache.join("guest.log")).context("cannot make the guest")?;
    if user_id() != 0 {
        // It lies in the user's own cache.
        Run::new("chown").arg("-R").arg(user_id().to_string()).arg(&dir).with_root().stdout()?;
    }
    Ok(dir)
}
