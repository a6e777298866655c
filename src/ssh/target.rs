//! Where and how to log in.

use std::time::Duration;

use camino::Utf8PathBuf;
use secrecy::SecretString;

use super::HostKey;
use super::known_hosts::KnownHosts;

/// A node as SSH reaches it. All values are resolved; nothing is looked up later.
#[derive(Debug, Clone)]
pub struct Target {
    /// The node's name in the inventory, for messages.
    pub node: String,
    /// The node itself.
    pub destination: Hop,
    /// Jump hosts on the way, the nearest first; each one is verified and logged into like the node.
    pub jump: Vec<Hop>,
    /// OpenSSH's ProxyCommand; its stdio carries the first leg (to the first jump host, or to the node without one).
    pub proxy_command: Option<String>,
    /// How a script becomes root.
    pub sudo: Sudo,
    /// How long to wait for what.
    pub timeouts: Timeouts,
}

/// One SSH server: where it is, who we are there, how we know it.
#[derive(Debug, Clone)]
pub struct Hop {
    /// Name or address to connect to.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The user to log in as.
    pub user: String,
    /// Private key files, tried in this order. A file that does not exist is passed over.
    pub identities: Vec<Utf8PathBuf>,
    /// Offer only `identities` (from the agent or from the file), not the agent's other keys.
    pub identities_only: bool,
    /// The ssh-agent.
    pub agent: Agent,
    /// A password for the login. Without one the user is asked, if there is a terminal.
    pub login_password: Option<SecretString>,
    /// The only host key to accept, whatever known_hosts says.
    pub host_key: Option<HostKey>,
    /// OpenSSH's HostKeyAlias: the name under which known_hosts knows the host.
    pub host_key_alias: Option<String>,
    /// The known_hosts files to consult when there is no pinned key.
    pub known_hosts: KnownHosts,
}

impl Hop {
    /// A server on port 22 with the user's own agent and known_hosts, and no key files.
    #[must_use]
    pub fn new(host: impl Into<String>, user: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            port: 22,
            user: user.into(),
            identities: Vec::new(),
            identities_only: false,
            agent: Agent::from_env(),
            login_password: None,
            host_key: None,
            host_key_alias: None,
            known_hosts: KnownHosts::of_user(),
        }
    }
}

impl Target {
    /// A directly reachable node with sudo that asks for no password and the usual time-outs.
    #[must_use]
    pub fn new(node: impl Into<String>, destination: Hop) -> Self {
        Self {
            node: node.into(),
            destination,
            jump: Vec::new(),
            proxy_command: None,
            sudo: Sudo::Passwordless,
            timeouts: Timeouts::default(),
        }
    }
}

/// The ssh-agent to ask for keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Agent {
    /// None.
    None,
    /// The agent that listens on this socket.
    Socket(Utf8PathBuf),
}

impl Agent {
    /// The agent that `SSH_AUTH_SOCK` names.
    #[must_use]
    pub fn from_env() -> Self {
        match std::env::var("SSH_AUTH_SOCK") {
            Ok(socket) if !socket.is_empty() => Self::Socket(socket.into()),
            _ => Self::None,
        }
    }
}

/// How a script becomes root on the node.
#[derive(Debug, Clone)]
pub enum Sudo {
    /// The login user is root.
    AlreadyRoot,
    /// `sudo -n`.
    Passwordless,
    /// `sudo -S`, the password over stdin.
    Password(SecretString),
}

/// How long to wait for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For the way to a hop: TCP, handshake and login. Time in which the user is asked something does not count.
    pub connect: Duration,
    /// After this silence the server is asked for a sign of life; three unanswered ones end the connection.
    pub keepalive: Duration,
}

impl Timeouts {
    /// How many signs of life may stay out.
    pub(super) const KEEPALIVES: usize = 3;

    /// After this silence a connection is dead: the unanswered questions and the time after the last.
    pub(super) fn until_dead(&self) -> Duration {
        self.keepalive * 4
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            keepalive: Duration::from_secs(10),
        }
    }
}
