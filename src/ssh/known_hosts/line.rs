//! One line of a known_hosts file.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::hmac;
use wildmatch::WildMatch;

use crate::ssh::HostKey;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marker {
    Revoked,
    CertAuthority,
}

/// One line of a known_hosts file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) line: usize,
    pub(super) marker: Option<Marker>,
    pub(super) hosts: Hosts<'a>,
    pub(super) key: HostKey,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Hosts<'a> {
    Hashed { salt: Vec<u8>, hash: Vec<u8> },
    Patterns(&'a str),
}

impl<'a> Hosts<'a> {
    fn parse(field: &'a str) -> Option<Self> {
        match field.strip_prefix("|1|") {
            None => Some(Self::Patterns(field)),
            Some(hashed) => {
                let (salt, hash) = hashed.split_once('|')?;
                Some(Self::Hashed {
                    salt: BASE64.decode(salt).ok()?,
                    hash: BASE64.decode(hash).ok()?,
                })
            }
        }
    }

    pub(super) fn covers(&self, name: &str) -> bool {
        match self {
            Self::Hashed { salt, hash } => {
                let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
                hmac::verify(&key, name.as_bytes(), hash).is_ok()
            }
            Self::Patterns(patterns) => {
                let mut covered = false;
                for pattern in patterns.split(',') {
                    match pattern.strip_prefix('!') {
                        Some(not) if matches(not, name) => return false,
                        Some(_) => {}
                        None => covered |= matches(pattern, name),
                    }
                }
                covered
            }
        }
    }

    /// Whether it names just this host (or several, but no patterns).
    pub(super) fn names(&self, name: &str) -> bool {
        match self {
            Self::Hashed { .. } => self.covers(name),
            Self::Patterns(patterns) => !patterns.contains(['*', '?', '!']) && self.covers(name),
        }
    }
}

/// The lines that OpenSSH would understand; the others are passed over, as it does.
pub(super) fn entries(text: &str) -> impl Iterator<Item = Entry<'_>> {
    text.lines().enumerate().filter_map(|(index, line)| {
        let line = line.trim_matches([' ', '\t', '\r']);
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        let (marker, rest) = match line.strip_prefix('@') {
            None => (None, line),
            Some(marked) => {
                let (marker, rest) = marked.split_once([' ', '\t'])?;
                let marker = match marker {
                    "revoked" => Marker::Revoked,
                    "cert-authority" => Marker::CertAuthority,
                    _ => return None,
                };
                (Some(marker), rest.trim_start())
            }
        };
        let (hosts, key) = rest.split_once([' ', '\t'])?;
        Some(Entry {
            line: index + 1,
            marker,
            hosts: Hosts::parse(hosts)?,
            key: key.parse().ok()?,
        })
    })
}

/// Shell-like matching with `*` and `?`, without regard to case.
fn matches(pattern: &str, name: &str) -> bool {
    WildMatch::new_case_insensitive(pattern).matches(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matching_like_a_shell() {
        for (pattern, name, good) in [
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-d", false),
            ("**", "x", true),
            ("?", "", false),
            ("", "", true),
            ("a", "", false),
        ] {
            assert_eq!(matches(pattern, name), good, "{pattern} {name}");
        }
    }
}
