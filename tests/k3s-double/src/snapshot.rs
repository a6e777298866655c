//! `k3s etcd-snapshot save|ls`: the double has no etcd, so a snapshot is a copy of its one file.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::{durable, log, place};

pub fn run(arguments: &[String]) -> Result<()> {
    match arguments.first().map(String::as_str) {
        Some("save") => save(arguments),
        Some("ls" | "list") => list(),
        _ => bail!("usage: k3s etcd-snapshot save [--name NAME] | ls"),
    }
}

fn save(arguments: &[String]) -> Result<()> {
    let named = arguments.iter().enumerate().find_map(|(at, argument)| {
        match argument.strip_prefix("--name") {
            Some("") => arguments.get(at + 1).map(String::as_str),
            Some(rest) => rest.strip_prefix('='),
            None => None,
        }
    });
    let host = fs::read_to_string("/proc/sys/kernel/hostname")?;
    let second = jiff::Timestamp::now().as_second();
    let name = format!("{}-{}-{second}", named.unwrap_or("on-demand"), host.trim());
    let content = fs::read(place::STATE).context("there is nothing to take a snapshot of")?;
    durable::write(Path::new(place::SNAPSHOTS).join(&name), content, 0o600)?;
    log::info(format!("Snapshot {name} saved."));
    Ok(())
}

fn list() -> Result<()> {
    println!("Name Location Size Created");
    for entry in fs::read_dir(place::SNAPSHOTS)
        .into_iter()
        .flatten()
        .flatten()
    {
        let size = entry.metadata()?.len();
        let name = entry.file_name();
        let name = name.to_string_lossy();
        println!("{name} file://{} {size}", entry.path().display());
    }
    Ok(())
}
