//! What can go wrong between here and a script's exit status, and what to do about it.

mod connect;
mod exec;

use std::fmt;

use camino::Utf8PathBuf;

pub use connect::ConnectError;
pub use exec::ExecError;

/// The cause as the SSH library or the system told it.
pub(super) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Which server an error is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The node that was to be reached.
    pub node: String,
    /// The login user.
    pub user: String,
    /// The server's name or address.
    pub host: String,
    /// The server's port.
    pub port: u16,
    /// It is a jump host on the way to the node.
    pub jump: bool,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            node,
            user,
            host,
            port,
            jump,
        } = self;
        let via = if *jump { "jump host " } else { "" };
        write!(f, "{node} ({via}{user}@{host}, port {port})")
    }
}

/// Sorts errors for the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The node cannot be reached, or the line went dead.
    Unreachable,
    /// A host key or a login was refused, by us or by the node.
    Refused,
    /// Anything else.
    Failed,
}

/// The part of a connection attempt that took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Until the TCP connection (or the jump host's, or the ProxyCommand) stood.
    Dial,
    /// Until keys were exchanged.
    Handshake,
    /// Until we were let in.
    Login,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dial => "the connection",
            Self::Handshake => "the SSH handshake",
            Self::Login => "the login",
        })
    }
}

/// Where a host key is on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Pinned in the inventory.
    Pin,
    /// Confirmed by the user a moment ago.
    Confirmed,
    /// A line of a known_hosts file, counted from 1.
    Line(Utf8PathBuf, usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pin => f.write_str("pinned in the inventory"),
            Self::Confirmed => f.write_str("just confirmed"),
            Self::Line(file, line) => write!(f, "{file}:{line}"),
        }
    }
}

/// The end of a remote stderr, on lines of its own.
struct LastLines<'a>(&'a str);

impl fmt::Display for LastLines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 5;
        let lines: Vec<&str> = self
            .0
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        for line in &lines[lines.len().saturating_sub(SHOWN)..] {
            write!(f, "\n  | ")?;
            // Remote text must not move our cursor.
            for c in line.chars().take(300).filter(|c| !c.is_control()) {
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}
