//! The log of a run on the workstation: every event with its time. Events carry no secrets and no file contents, so
//! neither does the log.

use std::fs::{self, File};
use std::io::{self, Write};

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;

use super::Event;

/// How many logs are kept.
const KEEP: usize = 50;

/// An open log.
#[derive(Debug)]
pub struct Log {
    path: Utf8PathBuf,
    file: File,
}

impl Log {
    /// Opens a new log in `folder`, and lets the oldest ones go.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn create(folder: &Utf8Path, command: &str) -> io::Result<Log> {
        fs::create_dir_all(folder)?;
        let now = Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
        let path = folder.join(format!("{now}-{command}-{}.log", std::process::id()));
        let file = File::create(&path)?;
        let _ = prune(folder);
        Ok(Log { path, file })
    }

    /// Where it lies.
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// Writes an event down.
    pub fn write(&mut self, event: &Event) {
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ");
        let _ = writeln!(self.file, "{now} {}: {}", event.node(), event.text());
    }
}

fn prune(folder: &Utf8Path) -> io::Result<()> {
    let mut logs: Vec<Utf8PathBuf> = folder
        .read_dir_utf8()?
        .filter_map(|entry| Some(entry.ok()?.path().to_owned()))
        .filter(|path| path.extension() == Some("log"))
        .collect();
    logs.sort();
    let excess = logs.len().saturating_sub(KEEP);
    logs.into_iter().take(excess).try_for_each(fs::remove_file)
}
