//! What a Pi wrote to its boot partition, write by write, so that the power can be cut at every one of them.
//!
//! qemu keeps the log (its `blklogwrites` driver, in the format of Linux' dm-log-writes); a sector of 512 bytes is what
//! a disk writes whole or not at all, so the log is taken apart into those.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process;

const SECTOR: usize = 512;
const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const DISCARD: u64 = 4;
const MARK: u64 = 8;

type Sector = [u8; SECTOR];

/// The writes to a boot partition from a moment on.
#[derive(Debug)]
pub struct Recording {
    before: PathBuf,
    events: Vec<Event>,
}

#[derive(Debug)]
enum Event {
    Write(u64, Box<Sector>),
    /// All before it is on the disk; what follows may still lie in the disk's own memory.
    Flush,
}

impl Recording {
    /// Begins a recording of what is written to `image`: a copy of it, and an empty log.
    pub(crate) fn begin(image: &Path) -> Result<()> {
        process::output(
            Command::new("cp")
                .arg("--sparse=always")
                .args([image, &before(image)]),
        )?;
        fs::write(log(image), b"")?;
        Ok(())
    }

    /// Reads the recording made of `image`.
    pub(crate) fn read(image: &Path) -> Result<Recording> {
        let bytes = fs::read(log(image)).context("nothing was recorded")?;
        let events = events(&bytes).context("qemu's log of the writes")?;
        Ok(Recording {
            before: before(image),
            events,
        })
    }

    /// How many sectors were written.
    #[must_use]
    pub fn writes(&self) -> usize {
        let write = |event: &&Event| matches!(event, Event::Write(..));
        self.events.iter().filter(write).count()
    }

    /// Makes `image` what the disk held after the first `writes` of the sectors.
    ///
    /// # Errors
    /// When the image cannot be written.
    pub fn prefix(&self, writes: usize, image: &Path) -> Result<()> {
        let disk = self.disk(image)?;
        let sectors = self.events.iter().filter_map(Event::sector);
        sectors
            .take(writes)
            .try_for_each(|(at, data)| put(&disk, at, data))
    }

    /// Shows every state that a power cut may leave: what was on the disk after each single write (the number that
    /// [`Recording::prefix`] takes comes with it), and, since a disk may write what lies between two flushes in any
    /// order, each of those sectors without the others, and all of them but one.
    ///
    /// # Errors
    /// Those of `look`, and those of writing the image.
    pub fn every_power_cut(
        &self,
        image: &Path,
        mut look: impl FnMut(Cut, &Path) -> Result<()>,
    ) -> Result<()> {
        let disk = self.disk(image)?;
        look(Cut::After(0), image)?;
        let mut writes = 0;
        for epoch in self.events.split(|event| matches!(event, Event::Flush)) {
            let mut settled = BTreeMap::new();
            for (at, data) in epoch.iter().filter_map(Event::sector) {
                let old = get(&disk, at)?;
                settled.entry(at).or_insert((old, *data)).1 = *data;
                put(&disk, at, data)?;
                writes += 1;
                look(Cut::After(writes), image)?;
            }
            if settled.len() < 2 {
                continue;
            }
            for (at, (old, new)) in &settled {
                put(&disk, *at, old)?;
                look(Cut::Without(writes, *at), image)?;
                put(&disk, *at, new)?;
            }
            settled
                .iter()
                .try_for_each(|(at, (old, _))| put(&disk, *at, old))?;
            for (at, (old, new)) in &settled {
                put(&disk, *at, new)?;
                look(Cut::Only(writes, *at), image)?;
                put(&disk, *at, old)?;
            }
            settled
                .iter()
                .try_for_each(|(at, (_, new))| put(&disk, *at, new))?;
        }
        Ok(())
    }

    fn disk(&self, image: &Path) -> Result<File> {
        process::output(
            Command::new("cp")
                .arg("--sparse=always")
                .args([self.before.as_path(), image]),
        )?;
        Ok(File::options().read(true).write(true).open(image)?)
    }
}

/// When the power was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// After so many sectors.
    After(usize),
    /// After so many, but this sector, not flushed yet, was lost.
    Without(usize, u64),
    /// After so many, but of those not flushed yet only this sector came to the disk.
    Only(usize, u64),
}

impl Event {
    fn sector(&self) -> Option<(u64, &Sector)> {
        match self {
            Event::Write(at, data) => Some((*at, data)),
            Event::Flush => None,
        }
    }
}

/// The log that qemu is to write.
pub(crate) fn log(image: &Path) -> PathBuf {
    image.with_extension("writes")
}

fn before(image: &Path) -> PathBuf {
    image.with_extension("before")
}

fn put(disk: &File, at: u64, data: &Sector) -> Result<()> {
    Ok(disk.write_all_at(data, at * SECTOR as u64)?)
}

fn get(disk: &File, at: u64) -> Result<Sector> {
    let mut data = [0; SECTOR];
    disk.read_exact_at(&mut data, at * SECTOR as u64)?;
    Ok(data)
}

/// A super block (magic, version, entries, sector size), then per entry a sector with its head (where, how many sectors,
/// flags, length of a mark's text) and its data; all little-endian.
fn events(log: &[u8]) -> Result<Vec<Event>> {
    let number = |at: usize| -> Result<u64> {
        let bytes = log.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        Ok(u64::from_le_bytes(bytes.context("it is cut short")?))
    };
    ensure!(number(0)? == MAGIC, "it is none");
    let mut events = Vec::new();
    let mut at = SECTOR;
    for _ in 0..number(16)? {
        let (start, count, flags) = (number(at)?, number(at + 8)?, number(at + 16)?);
        at += SECTOR;
        // A write with a flush in it is flushed before it is written.
        if flags & FLUSH != 0 {
            events.push(Event::Flush);
        }
        ensure!(flags & (DISCARD | MARK) == 0, "an entry of another kind");
        for sector in start..start + count {
            let data = log.get(at..at + SECTOR).context("it is cut short")?;
            events.push(Event::Write(sector, Box::new(data.try_into()?)));
            at += SECTOR;
        }
    }
    Ok(events)
}
