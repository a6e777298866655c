//! A server's public key, as OpenSSH writes it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use russh::keys::{Algorithm, HashAlg, PublicKey};

/// A server's public host key. Equality is that of the key itself; the comment does not count.
#[derive(Clone, PartialEq, Eq)]
pub struct HostKey(Arc<PublicKey>);

/// A text that is not an OpenSSH public key.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("not an OpenSSH public key such as \"ssh-ed25519 AAAA…\": {0}")]
pub struct InvalidHostKey(String);

impl HostKey {
    pub(super) fn new(key: &PublicKey) -> Self {
        Self(Arc::new(PublicKey::new(key.key_data().clone(), "")))
    }

    /// The fingerprint as `ssh` shows it: `SHA256:` and unpadded base64.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.0.fingerprint(HashAlg::Sha256).to_string()
    }

    /// The key type as known_hosts names it, such as `ssh-ed25519`.
    #[must_use]
    pub fn kind(&self) -> String {
        self.algorithm().to_string()
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.0.algorithm()
    }
}

impl FromStr for HostKey {
    type Err = InvalidHostKey;

    /// Reads `TYPE BASE64 [COMMENT]`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut fields = text.split_ascii_whitespace();
        let (Some(kind), Some(blob)) = (fields.next(), fields.next()) else {
            return Err(InvalidHostKey("type and key expected".to_owned()));
        };
        let key = russh::keys::parse_public_key_base64(blob)
            .map_err(|error| InvalidHostKey(error.to_string()))?;
        if key.algorithm().as_str() != kind {
            return Err(InvalidHostKey(format!(
                "it says {kind} but holds a key of type {}",
                key.algorithm()
            )));
        }
        Ok(Self::new(&key))
    }
}

impl fmt::Display for HostKey {
    /// `TYPE BASE64`, the form of known_hosts and of the inventory's pin.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.to_openssh() {
            Ok(text) => f.write_str(text.trim_end()),
            Err(_) => Err(fmt::Error),
        }
    }
}

impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostKey({} {})", self.kind(), self.fingerprint())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

    #[test]
    fn a_key_survives_the_trip_through_text() {
        let key: HostKey = format!("{KEY} pi@jarvis").parse().unwrap();
        assert_eq!(key.to_string(), KEY);
        assert_eq!(key.kind(), "ssh-ed25519");
        assert!(key.fingerprint().starts_with("SHA256:"));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in ["", "ssh-ed25519", "ssh-ed25519 %%%", "ssh-rsa AAAA"] {
            assert!(text.parse::<HostKey>().is_err(), "{text:?}");
        }
        assert!(
            KEY.replace("ssh-ed25519", "ssh-rsa")
                .parse::<HostKey>()
                .is_err()
        );
    }
}
