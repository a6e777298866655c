//! The apt repository that the guests install from: debs of the host's mirror, indexed here, served by the launcher.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::cache::Cache;
use crate::image::{self, Image};
use crate::mirror::{self, Apt, SUITE};
use crate::process;

/// The repository for the guests of this image, fetched if the cache has none; `guest/repository.txt` lists what is in
/// it, and what those packages need beyond the image comes along.
///
/// # Errors
/// When the mirror does not answer or does not have a package.
pub fn ensure(cache: &Cache, image: &Image) -> Result<PathBuf> {
    let recipe = image.recipe.clone().with(include_str!("repository.rs"));
    cache.artefact("repository", &recipe, |out| build(image, out))
}

fn build(image: &Image, out: &Path) -> Result<()> {
    process::say("fetching the packages that a virtual Pi can install (once, some seconds)");
    let list = fs::read_to_string(image::guest_folder().join("repository.txt"))?;
    let packages: Vec<&str> = list
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(str::split_whitespace)
        .collect();

    let apt = Apt::new(
        &out.join("apt"),
        &mirror::sources_list()?,
        &image.dpkg_status()?,
    )?;
    // --reinstall: a package of the list that the image has is served all the same.
    process::output(
        apt.get()
            .args(["install", "--reinstall", "--download-only"])
            .args(packages),
    )?;

    let pool = out.join("pool");
    fs::rename(out.join("apt/archives"), &pool)?;
    fs::remove_dir_all(out.join("apt"))?;
    let mut index = String::new();
    let mut debs: Vec<PathBuf> = fs::read_dir(&pool)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    debs.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    debs.sort();
    for deb in debs {
        index += &entry(&without_escapes(deb)?)?;
    }

    let date = process::text(Command::new("date").args(["--utc", "--rfc-email"]))?;
    let binaries = out.join("dists").join(SUITE).join("main/binary-amd64");
    fs::create_dir_all(&binaries)?;
    fs::write(binaries.join("Packages"), &index)?;
    fs::write(
        out.join("dists").join(SUITE).join("Release"),
        release(&index, date.trim()),
    )?;
    Ok(())
}

/// apt stores a file with its epoch's colon escaped, and would escape the escape when it asks for it by that name.
fn without_escapes(deb: PathBuf) -> Result<PathBuf> {
    let name = deb.file_name().context("a deb has a name")?;
    let plain = deb.with_file_name(name.to_string_lossy().replace("%3a", "."));
    if plain != deb {
        fs::rename(&deb, &plain)?;
    }
    Ok(plain)
}

/// A package's paragraph in the index.
fn entry(deb: &Path) -> Result<String> {
    let control = process::text(Command::new("dpkg-deb").arg("--field").arg(deb))?;
    let content = fs::read(deb)?;
    let name = deb
        .file_name()
        .context("a deb has a name")?
        .to_string_lossy();
    let mut entry = control.trim_end().to_owned();
    write!(
        entry,
        "\nFilename: pool/{name}\nSize: {}\nSHA256: {}\n\n",
        content.len(),
        sha256(&content)
    )?;
    Ok(entry)
}

fn release(index: &str, date: &str) -> String {
    // As Debian's own says, so that "security updates only" has an origin to look at.
    format!(
        "Origin: Debian\nLabel: Debian\nSuite: oldstable\nCodename: {SUITE}\nDate: {date}\nArchitectures: amd64\nComponents: main\n\
         Description: packages for selfheal's virtual Pis\nSHA256:\n {} {} main/binary-amd64/Packages\n",
        sha256(index.as_bytes()),
        index.len(),
    )
}

fn sha256(content: &[u8]) -> String {
    Sha256::digest(content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
