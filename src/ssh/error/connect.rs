//! Why there is no session.

use std::fmt;
use std::io;
use std::time::Duration;

use camino::Utf8PathBuf;

use super::{Cause, ErrorClass, LastLines, Peer, Place, Stage};
use crate::ssh::HostKey;

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Name resolution or TCP failed.
    #[error("{peer}: cannot connect")]
    Unreachable {
        /// The server.
        peer: Box<Peer>,
        /// What the system said.
        source: io::Error,
    },
    /// It took too long.
    #[error("{peer}: {stage} took longer than {}", humantime::format_duration(*after))]
    Timeout {
        /// The server.
        peer: Box<Peer>,
        /// What did not come.
        stage: Stage,
        /// How long we waited.
        after: Duration,
    },
    /// Something answered, but no SSH session came of it.
    #[error("{peer}: the SSH handshake failed")]
    Handshake {
        /// The server.
        peer: Box<Peer>,
        /// Why.
        source: Cause,
    },
    /// First contact, and nobody vouched for the key.
    #[error("{peer}: the host key {} {} is not known and was not confirmed", key.kind(), key.fingerprint())]
    HostKeyUnknown {
        /// The server.
        peer: Box<Peer>,
        /// The key it showed.
        key: HostKey,
    },
    /// The server shows another key than the one on record.
    #[error("{peer}: the host key has changed: it is now {} {}, on record is {}", offered.kind(), offered.fingerprint(), OnRecord(recorded))]
    HostKeyChanged {
        /// The server.
        peer: Box<Peer>,
        /// The key it showed.
        offered: HostKey,
        /// The keys on record, and where.
        recorded: Vec<(HostKey, Place)>,
    },
    /// The server shows a key that is marked as revoked.
    #[error("{peer}: the host key {} {} is revoked ({place})", key.kind(), key.fingerprint())]
    HostKeyRevoked {
        /// The server.
        peer: Box<Peer>,
        /// The key it showed.
        key: HostKey,
        /// Where it is revoked.
        place: Place,
    },
    /// A known_hosts file could not be read or written.
    #[error("{peer}: cannot use the known_hosts file {file}")]
    KnownHosts {
        /// The server.
        peer: Box<Peer>,
        /// The file.
        file: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The server lets us in with nothing we have.
    #[error("{peer}: the login was refused; {}", Tried(tried))]
    LoginRefused {
        /// The server.
        peer: Box<Peer>,
        /// What was offered, and what became of it, in order.
        tried: Vec<String>,
        /// Keys left out because the server would have cut the connection.
        left_out: usize,
        /// The methods that the server would still take.
        methods: Vec<String>,
    },
    /// The ProxyCommand could not be run or gave up.
    #[error("{peer}: the ProxyCommand {command:?} failed{}", LastLines(stderr))]
    ProxyCommand {
        /// The server behind it.
        peer: Box<Peer>,
        /// The command, tokens expanded.
        command: String,
        /// What it wrote to stderr.
        stderr: String,
        /// Why.
        source: Cause,
    },
    /// The jump host would not connect us on.
    #[error("{peer}: the jump host {jump_host} could not open the way to it")]
    Jump {
        /// The server behind the jump host.
        peer: Box<Peer>,
        /// The jump host.
        jump_host: String,
        /// What the jump host said.
        source: Cause,
    },
}

impl ConnectError {
    /// The server it is about.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        match self {
            Self::Unreachable { peer, .. }
            | Self::Timeout { peer, .. }
            | Self::Handshake { peer, .. }
            | Self::HostKeyUnknown { peer, .. }
            | Self::HostKeyChanged { peer, .. }
            | Self::HostKeyRevoked { peer, .. }
            | Self::KnownHosts { peer, .. }
            | Self::LoginRefused { peer, .. }
            | Self::ProxyCommand { peer, .. }
            | Self::Jump { peer, .. } => peer,
        }
    }

    /// For the exit code.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Handshake { .. }
            | Self::ProxyCommand { .. }
            | Self::Jump { .. } => ErrorClass::Unreachable,
            Self::HostKeyUnknown { .. }
            | Self::HostKeyChanged { .. }
            | Self::HostKeyRevoked { .. }
            | Self::LoginRefused { .. } => ErrorClass::Refused,
            Self::KnownHosts { .. } => ErrorClass::Failed,
        }
    }

    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let Peer {
            node,
            user,
            host,
            port,
            jump,
        } = self.peer();
        Some(match self {
            Self::Unreachable { source, .. } => match source.kind() {
                io::ErrorKind::ConnectionRefused => {
                    format!(
                        "{host} is up but nothing listens on port {port}: is ssh enabled there, and the port right?"
                    )
                }
                _ => {
                    format!("is {host} switched on, on the network, and its name or address right?")
                }
            },
            Self::Timeout { .. } => format!(
                "try `ssh -v -p {port} {user}@{host}`; a node that is just booting needs a minute"
            ),
            Self::Handshake { .. } => format!(
                "is it an SSH server that listens on port {port}? try `ssh -v -p {port} {user}@{host}`; after failed \
                 logins sshd turns an address away for a while (PerSourcePenalties, sshd_config(5))"
            ),
            Self::HostKeyUnknown { .. } => format!(
                "compare the fingerprint with the one on {host}, then run again at a terminal and confirm it, or run `selfheal trust {node}`"
            ),
            Self::HostKeyChanged { .. } if *jump => format!(
                "if {host} was reinstalled, remove the old key with `ssh-keygen -R`; if not, somebody may be in between: do not connect"
            ),
            Self::HostKeyChanged { .. } => format!(
                "if {node} was re-flashed, run `selfheal trust {node}`; if not, somebody may be in between: do not connect"
            ),
            Self::HostKeyRevoked { .. } => {
                "give the server a new host key; a revoked one is never accepted".to_owned()
            }
            Self::KnownHosts { .. } => {
                "make the file readable and writable for you, and its folder too".to_owned()
            }
            Self::LoginRefused { left_out, .. } if *left_out > 0 => format!(
                "{left_out} more keys were not offered, as the server cuts off after too many: name the right one as the node's identity"
            ),
            Self::LoginRefused { .. } => {
                format!(
                    "try `ssh -v -p {port} {user}@{host}`; name the right user and identity in the inventory"
                )
            }
            Self::ProxyCommand { .. } => {
                "run the command by hand; it must speak SSH on its stdin and stdout".to_owned()
            }
            Self::Jump { .. } => format!(
                "is {host}, port {port}, reachable from the jump host, and does its sshd allow TCP forwarding?"
            ),
        })
    }
}

struct OnRecord<'a>(&'a [(HostKey, Place)]);

impl fmt::Display for OnRecord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, (key, place)) in self.0.iter().enumerate() {
            let comma = if nth == 0 { "" } else { ", " };
            write!(f, "{comma}{} {} ({place})", key.kind(), key.fingerprint())?;
        }
        Ok(())
    }
}

struct Tried<'a>(&'a [String]);

impl fmt::Display for Tried<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("there was no key and no password to offer"),
            tried => write!(f, "tried {}", tried.join(", ")),
        }
    }
}
