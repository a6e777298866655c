//! What this computer knows of a server's host key, and what becomes of the key that the server shows.

use std::io;

use camino::Utf8PathBuf;

use super::error::Place;
use super::{Hop, HostKey};

/// What is on record about one server's host key.
#[derive(Debug, Clone, Default)]
pub struct Record {
    pub(super) keys: Vec<(HostKey, Place)>,
    pub(super) revoked: Vec<(HostKey, Place)>,
    /// Keys on record for the host's name on port 22, when the port is another. As with ssh, such a key is good, but
    /// its absence means nothing.
    pub(super) without_port: Vec<HostKey>,
}

/// What becomes of a key that a server shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is on record.
    Known,
    /// No key is on record.
    Unknown,
    /// Other keys are on record, at these places.
    Changed(Vec<(HostKey, Place)>),
    /// It is marked as revoked there.
    Revoked(Place),
}

impl Record {
    /// What is on record about `hop`: its pin, or else what known_hosts says. A pinned key is the only good one, but
    /// known_hosts may still revoke it.
    ///
    /// # Errors
    /// The known_hosts file that cannot be read, and why.
    pub fn of(hop: &Hop) -> Result<Self, (Utf8PathBuf, io::Error)> {
        let known = hop.known_hosts.look_up(hop)?;
        Ok(match &hop.host_key {
            Some(pin) => Self {
                keys: vec![(pin.clone(), Place::Pin)],
                revoked: known.revoked,
                without_port: Vec::new(),
            },
            None => known,
        })
    }

    /// The keys on record, and where.
    #[must_use]
    pub fn keys(&self) -> &[(HostKey, Place)] {
        &self.keys
    }

    /// What becomes of `offered`.
    #[must_use]
    pub fn judge(&self, offered: &HostKey) -> Verdict {
        if let Some((_, place)) = self.revoked.iter().find(|(key, _)| key == offered) {
            Verdict::Revoked(place.clone())
        } else if self.keys.iter().any(|(key, _)| key == offered) {
            Verdict::Known
        } else if !self.keys.is_empty() {
            // Known types are asked for first: a server that shows another one has lost the key we know.
            Verdict::Changed(self.keys.clone())
        } else if self.without_port.contains(offered) {
            Verdict::Known
        } else {
            Verdict::Unknown
        }
    }

    /// Puts a confirmed key on record for the rest of the connection.
    pub(super) fn accept(&mut self, key: HostKey) {
        self.keys.push((key, Place::Confirmed));
    }

    /// The keys whose types the server should be asked for first.
    pub(super) fn expected(&self) -> impl Iterator<Item = &HostKey> {
        self.keys
            .iter()
            .map(|(key, _)| key)
            .chain(&self.without_port)
    }
}
