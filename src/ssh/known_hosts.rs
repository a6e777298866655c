//! OpenSSH's known_hosts files: who has which host key.
//!
//! Reading follows sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT": hashed names, `[host]:port`, wildcards, negation,
//! `@revoked`. `@cert-authority` lines are never taken for host keys (certificates are not asked for).

mod line;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use camino::{Utf8Path, Utf8PathBuf};
use ring::hmac;

use line::{Marker, entries};

use super::error::Place;
use super::record::Record;
use super::{Hop, HostKey, home};

/// The files to consult.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownHosts {
    /// The user's files. New keys go into the first.
    pub user: Vec<Utf8PathBuf>,
    /// The system's files, only read.
    pub system: Vec<Utf8PathBuf>,
    /// Write new names hashed (HashKnownHosts).
    pub hash: bool,
}

impl KnownHosts {
    /// The files that OpenSSH uses when it is not told otherwise.
    #[must_use]
    pub fn of_user() -> Self {
        Self {
            user: home()
                .map(|home| home.join(".ssh/known_hosts"))
                .into_iter()
                .collect(),
            system: vec!["/etc/ssh/ssh_known_hosts".into()],
            hash: false,
        }
    }

    /// Just one file.
    #[must_use]
    pub fn file(path: impl Into<Utf8PathBuf>) -> Self {
        Self {
            user: vec![path.into()],
            ..Self::default()
        }
    }

    /// All that the files say about a host. A file that does not exist says nothing; one that cannot be read is an
    /// error, as it might revoke a key.
    pub(super) fn look_up(&self, hop: &Hop) -> Result<Record, (Utf8PathBuf, io::Error)> {
        let names = Names::of(hop);
        let mut record = Record::default();
        for file in self.user.iter().chain(&self.system) {
            let text = match fs::read(file) {
                Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err((file.clone(), error)),
            };
            for entry in entries(&text) {
                let place = || Place::Line(file.clone(), entry.line);
                let exact = entry.hosts.covers(&names.full);
                match entry.marker {
                    Some(Marker::Revoked) if exact || entry.hosts.covers(&names.bare) => {
                        record.revoked.push((entry.key.clone(), place()));
                    }
                    None if exact => record.keys.push((entry.key.clone(), place())),
                    None if entry.hosts.covers(&names.bare) => {
                        record.without_port.push(entry.key.clone());
                    }
                    _ => {}
                }
            }
        }
        Ok(record)
    }

    /// Adds a host's key to the user's first file, which is made (0600, its folder 0700) if need be.
    ///
    /// # Errors
    /// The file that could not be written, and why.
    pub fn remember(&self, hop: &Hop, key: &HostKey) -> Result<(), (Utf8PathBuf, io::Error)> {
        let Some(file) = self.user.first() else {
            let error = io::Error::other("no known_hosts file of the user's is configured");
            return Err((Utf8PathBuf::new(), error));
        };
        let name = Names::of(hop).full;
        let written = (|| {
            let name = if self.hash { hashed(&name)? } else { name };
            append(file, &format!("{name} {key}\n"))
        })();
        written.map_err(|error| (file.clone(), error))
    }

    /// Removes all of a host's keys from the user's files; the files keep their mode. Lines with wildcards or a marker
    /// stay. Returns how many lines went.
    ///
    /// # Errors
    /// The file that could not be rewritten, and why.
    pub fn forget(&self, hop: &Hop) -> Result<usize, (Utf8PathBuf, io::Error)> {
        let name = Names::of(hop).full;
        let mut gone = 0;
        for file in &self.user {
            gone += remove(file, &name).map_err(|error| (file.clone(), error))?;
        }
        Ok(gone)
    }
}

/// The names under which a server may be on record.
struct Names {
    /// `host`, or `[host]:port` for a port other than 22.
    full: String,
    /// `host` alone.
    bare: String,
}

impl Names {
    fn of(hop: &Hop) -> Self {
        if let Some(alias) = &hop.host_key_alias {
            // An alias stands for host and port.
            let alias = alias.to_ascii_lowercase();
            return Self {
                full: alias.clone(),
                bare: alias,
            };
        }
        let bare = hop.host.to_ascii_lowercase();
        let full = if hop.port == 22 {
            bare.clone()
        } else {
            format!("[{bare}]:{}", hop.port)
        };
        Self { full, bare }
    }
}

fn hashed(name: &str) -> io::Result<String> {
    let mut salt = [0; 20];
    getrandom::fill(&mut salt).map_err(io::Error::other)?;
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt);
    let hash = hmac::sign(&key, name.as_bytes());
    Ok(format!(
        "|1|{}|{}",
        BASE64.encode(salt),
        BASE64.encode(hash)
    ))
}

fn append(file: &Utf8Path, line: &str) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    let mut options = fs::OpenOptions::new();
    let mut open = options
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(file)?;
    // A last line without an end would swallow ours.
    let whole = fs::read(file)?;
    let break_first = whole.last().is_some_and(|last| *last != b'\n');
    let text = if break_first {
        format!("\n{line}")
    } else {
        line.to_owned()
    };
    open.write_all(text.as_bytes())
}

fn remove(file: &Utf8Path, name: &str) -> io::Result<usize> {
    let bytes = match fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        read => read?,
    };
    let lossy = String::from_utf8_lossy(&bytes);
    let gone: Vec<usize> = entries(&lossy)
        .filter(|entry| entry.marker.is_none() && entry.hosts.names(name))
        .map(|entry| entry.line)
        .collect();
    if gone.is_empty() {
        return Ok(0);
    }
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let rest: Vec<u8> = (1..)
        .zip(lines)
        .filter(|(line, _)| !gone.contains(line))
        .flat_map(|(_, line)| line)
        .copied()
        .collect();
    crate::replace::replace(file, &rest)?;
    Ok(gone.len())
}
