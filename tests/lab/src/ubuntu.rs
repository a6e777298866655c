//! The image of a fresh Pi with Ubuntu's A/B boot layout (domain.md §1.3): the other image's packages and kernel, with the
//! files of `tests/lab/ubuntu` put onto its disks. Those named after Ubuntu's tools are stand-ins.

use std::path::Path;

use anyhow::Result;

use crate::cache::Cache;
use crate::image::{self, Image};
use crate::process;

/// The image, made from the other one if the cache has none (some seconds).
///
/// # Errors
/// When a tool is missing or fails.
pub(crate) fn ensure(cache: &Cache, plain: &Image) -> Result<Image> {
    let lab = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ubuntu = lab.join("ubuntu");
    let recipe = plain
        .recipe
        .clone()
        .with(include_str!("ubuntu.rs"))
        .with_path(&ubuntu)?
        .with_path(&lab.join("../fixtures/boot/ubuntu-25.10"))?;
    let disks = cache.artefact("ubuntu", &recipe, |out| {
        process::say("giving a fresh Pi the boot layout of Ubuntu (once, some seconds)");
        process::output(
            image::as_root(&ubuntu.join("image.sh"))?
                .arg(plain.disk())
                .arg(out),
        )?;
        Ok(())
    })?;
    Ok(plain.with_disks(disks, recipe))
}
