//! OpenSSH's known_hosts files: who has which host key.
//!
//! Reading follows sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT": hashed names, `[host]:port`, wildcards, negation,
//! `@revoked`. `@cert-authority` lines are never taken for host keys (certificates are not asked for).

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use camino::{Utf8Path, Utf8PathBuf};
use ring::hmac;

use super::error::Place;
use super::{Hop, HostKey};

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
        let home = etcetera::home_dir()
            .ok()
            .and_then(|home| Utf8PathBuf::try_from(home).ok());
        Self {
            user: home
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

/// What known_hosts says about one host.
#[derive(Debug, Clone, Default)]
pub(super) struct Record {
    pub(super) keys: Vec<(HostKey, Place)>,
    pub(super) revoked: Vec<(HostKey, Place)>,
    /// Keys on record for the host's name on port 22, when the port is another. As with ssh, such a key is good, but
    /// its absence means nothing.
    without_port: Vec<HostKey>,
}

/// What becomes of a key that a server shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Known,
    Unknown,
    Changed(Vec<(HostKey, Place)>),
    Revoked(Place),
}

impl Record {
    /// A pinned key is the only good one, but known_hosts may still revoke it.
    pub(super) fn pinned(key: HostKey, revoked: Vec<(HostKey, Place)>) -> Self {
        Self {
            keys: vec![(key, Place::Pin)],
            revoked,
            without_port: Vec::new(),
        }
    }

    pub(super) fn judge(&self, offered: &HostKey) -> Verdict {
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    Revoked,
    CertAuthority,
}

/// One line of a known_hosts file.
#[derive(Debug, PartialEq, Eq)]
struct Entry<'a> {
    line: usize,
    marker: Option<Marker>,
    hosts: Hosts<'a>,
    key: HostKey,
}

#[derive(Debug, PartialEq, Eq)]
enum Hosts<'a> {
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

    fn covers(&self, name: &str) -> bool {
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
    fn names(&self, name: &str) -> bool {
        match self {
            Self::Hashed { .. } => self.covers(name),
            Self::Patterns(patterns) => !patterns.contains(['*', '?', '!']) && self.covers(name),
        }
    }
}

/// The lines that OpenSSH would understand; the others are passed over, as it does.
fn entries(text: &str) -> impl Iterator<Item = Entry<'_>> {
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
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // Where to go on after a mismatch: behind the last star, one character further.
    let mut retry = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, n + 1));
                p += 1;
            }
            Some(c) if *c == b'?' || c.eq_ignore_ascii_case(&name[n]) => {
                p += 1;
                n += 1;
            }
            _ => match retry {
                Some((star, from)) => {
                    (p, n) = (star, from);
                    retry = Some((star, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
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
    // Through a link, as the file may live in a repository of dotfiles.
    let file = file.canonicalize_utf8()?;
    let folder = file.parent().unwrap_or(Utf8Path::new("."));
    let mut fresh = tempfile::NamedTempFile::new_in(folder)?;
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        if !gone.contains(&(index + 1)) {
            fresh.write_all(line)?;
        }
    }
    let mode = fs::metadata(&file)?.permissions().mode();
    fresh
        .as_file()
        .set_permissions(fs::Permissions::from_mode(mode))?;
    fresh.as_file().sync_all()?;
    fresh.persist(&file).map_err(|error| error.error)?;
    Ok(gone.len())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ED25519: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const OTHER: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGGAcaSJIvx88Y0Ff6zAQX3GWwk5nS+7bHnXZNcGnzwN";

    fn key(text: &str) -> HostKey {
        text.parse().unwrap()
    }

    fn hop(host: &str, port: u16) -> Hop {
        let mut hop = Hop::new(host, "pi");
        hop.port = port;
        hop
    }

    fn judge(text: &str, hop: &Hop) -> Verdict {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::try_from(folder.path().join("known_hosts")).unwrap();
        fs::write(&path, text).unwrap();
        KnownHosts::file(path)
            .look_up(hop)
            .unwrap()
            .judge(&key(ED25519))
    }

    #[test]
    fn names_ports_wildcards_and_negations() {
        let good = |hosts: &str, host: &str, port| {
            judge(&format!("{hosts} {ED25519} a comment\n"), &hop(host, port)) == Verdict::Known
        };
        assert!(good("jarvis", "jarvis", 22));
        assert!(good("jarvis", "JARVIS", 22));
        assert!(good("a,jarvis,b", "jarvis", 22));
        assert!(good("[jarvis]:2222", "jarvis", 2222));
        assert!(
            good("jarvis", "jarvis", 2222),
            "ssh takes a key on record without the port, too"
        );
        assert!(good("*.home", "jarvis.home", 22));
        assert!(good("[*.home]:*", "jarvis.home", 2222));
        assert!(good("pi-?", "pi-3", 22));
        assert!(!good("*.home,!jarvis.home", "jarvis.home", 22));
        assert!(!good("[jarvis]:2222", "jarvis", 22));
        assert!(!good("jarvis", "jarvis.home", 22));
        assert!(!good("pi-?", "pi-33", 22));
    }

    #[test]
    fn hashed_names() {
        // From `ssh-keygen -H` on a line for jarvis.
        let text =
            format!("|1|9G/QfuvI8DWDBPQ2I7qHZYv1gYI=|2XQvFarw89gE9a0WhXnqr9MvH9k= {ED25519}\n");
        let name = hashed("jarvis").unwrap();
        assert_eq!(
            judge(&format!("{name} {ED25519}\n"), &hop("jarvis", 22)),
            Verdict::Known
        );
        assert_eq!(
            judge(&format!("{name} {ED25519}\n"), &hop("ultron", 22)),
            Verdict::Unknown
        );
        assert_eq!(judge(&text, &hop("jarvis", 22)), Verdict::Known);
        assert_eq!(judge(&text, &hop("ultron", 22)), Verdict::Unknown);
    }

    #[test]
    fn another_key_is_a_changed_key() {
        let text = format!("# mine\n\nultron {ED25519}\njarvis {OTHER}\n");
        let Verdict::Changed(recorded) = judge(&text, &hop("jarvis", 22)) else {
            unreachable!("{:?}", judge(&text, &hop("jarvis", 22)));
        };
        let [(on_record, Place::Line(_, 4))] = recorded.as_slice() else {
            unreachable!("{recorded:?}");
        };
        assert_eq!(*on_record, key(OTHER));
        // Two keys on record: either is good.
        assert_eq!(
            judge(&format!("{text}jarvis {ED25519}\n"), &hop("jarvis", 22)),
            Verdict::Known
        );
        // On record without the port, another key means nothing.
        assert_eq!(judge(&text, &hop("jarvis", 2222)), Verdict::Unknown);
    }

    #[test]
    fn revoked_is_revoked_and_authorities_are_no_host_keys() {
        let text = format!("jarvis {ED25519}\n@revoked * {ED25519}\n");
        assert!(matches!(
            judge(&text, &hop("jarvis", 22)),
            Verdict::Revoked(Place::Line(_, 2))
        ));
        assert!(matches!(
            judge(&text, &hop("jarvis", 2222)),
            Verdict::Revoked(_)
        ));
        let text = format!("@cert-authority * {ED25519}\n");
        assert_eq!(judge(&text, &hop("jarvis", 22)), Verdict::Unknown);
    }

    #[test]
    fn an_alias_stands_for_host_and_port() {
        let mut hop = hop("10.0.0.1", 2222);
        hop.host_key_alias = Some("jarvis".to_owned());
        assert_eq!(judge(&format!("jarvis {ED25519}\n"), &hop), Verdict::Known);
        assert_eq!(
            judge(&format!("[10.0.0.1]:2222 {ED25519}\n"), &hop),
            Verdict::Unknown
        );
    }

    #[test]
    fn odd_lines_are_passed_over() {
        let text = format!(
            "jarvis\n@revoked\n@x jarvis {ED25519}\njarvis ssh-rsa %%%\n|1|x jarvis\n|1|a|b {ED25519}\n\tjarvis\t{ED25519}\n"
        );
        assert_eq!(
            judge(
                &text.replace(
                    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7",
                    "ssh-ed25519\tAAAAC3NzaC1lZDI1NTE5AAAAIJdD7"
                ),
                &hop("jarvis", 22)
            ),
            Verdict::Known
        );
    }

    #[test]
    fn a_key_is_remembered_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::try_from(folder.path().join(".ssh/known_hosts")).unwrap();
        let mut known_hosts = KnownHosts::file(&path);
        let (jarvis, ultron) = (hop("jarvis", 22), hop("ultron", 2222));
        known_hosts.remember(&jarvis, &key(ED25519)).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            format!("jarvis {ED25519}\n")
        );
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            fs::metadata(path.parent().unwrap())
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o700
        );

        // A file that somebody left without a last line break, in a mode of their own.
        fs::write(
            &path,
            format!("jarvis {ED25519}\n* {OTHER}\nodd \u{fffd}\n@revoked jarvis {OTHER}"),
        )
        .unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        known_hosts.hash = true;
        known_hosts.remember(&ultron, &key(OTHER)).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.lines().last().unwrap().starts_with("|1|"), "{text}");
        assert_eq!(
            known_hosts.look_up(&ultron).unwrap().judge(&key(OTHER)),
            Verdict::Known
        );

        assert_eq!(known_hosts.forget(&jarvis).unwrap(), 1);
        assert_eq!(known_hosts.forget(&ultron).unwrap(), 1);
        assert_eq!(known_hosts.forget(&ultron).unwrap(), 0);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            format!("* {OTHER}\nodd \u{fffd}\n@revoked jarvis {OTHER}\n")
        );
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o644
        );
    }

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
