//! What a fake node is like, what it is asked and what it answers.

use std::fmt;
use std::sync::Arc;

use anyhow::Result;
use russh::keys::{Algorithm, EcdsaCurve, PrivateKey};

/// What a fake node is like. The default: user `pi`, one ed25519 host key, and one authorized key whose private half
/// lies at [`FakeNode::identity`].
#[derive(Debug, Clone)]
pub struct Config {
    /// What becomes of a command.
    pub shell: Shell,
    /// The sudo that a [`Shell::Sh`] finds.
    pub sudo: Sudo,
    /// Public keys in OpenSSH's format that are let in besides the identity.
    pub authorized_keys: Vec<String>,
    /// Let nobody in by key.
    pub no_public_keys: bool,
    /// Let this password in.
    pub password: Option<String>,
    /// Ask for the password by keyboard-interactive, not by the password method.
    pub keyboard_interactive: bool,
    /// Refused logins after which the connection is cut, as sshd's MaxAuthTries.
    pub max_auth_tries: usize,
    /// The host keys' types.
    pub host_keys: Vec<KeyKind>,
    /// Serve as a jump host.
    pub forwarding: bool,
    /// Do not remember what came on stdin: it is big.
    pub forget_stdin: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            shell: Shell::Sh("sh".to_owned()),
            sudo: Sudo::Passwordless,
            authorized_keys: Vec::new(),
            no_public_keys: false,
            password: None,
            keyboard_interactive: false,
            max_auth_tries: 6,
            host_keys: vec![KeyKind::Ed25519],
            forwarding: false,
            forget_stdin: false,
        }
    }
}

/// Types of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// ssh-ed25519
    Ed25519,
    /// ecdsa-sha2-nistp256
    Ecdsa,
    /// ssh-rsa (slow to make)
    Rsa,
}

impl KeyKind {
    /// A new private key.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn generate(self) -> Result<PrivateKey> {
        let algorithm = match self {
            Self::Ed25519 => Algorithm::Ed25519,
            Self::Ecdsa => Algorithm::Ecdsa {
                curve: EcdsaCurve::NistP256,
            },
            Self::Rsa => Algorithm::Rsa { hash: None },
        };
        Ok(PrivateKey::random(
            &mut russh::keys::key::safe_rng(),
            algorithm,
        )?)
    }
}

/// A closure that stands for a node's shell.
pub type Answer = dyn Fn(&Exec) -> Reply + Send + Sync;

/// What becomes of a command.
#[derive(Clone)]
pub enum Shell {
    /// It runs as `SHELL -c COMMAND` on this machine, as under sshd.
    Sh(String),
    /// All of stdin is read, then the closure says what comes back.
    Answer(Arc<Answer>),
}

impl fmt::Debug for Shell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sh(shell) => f.debug_tuple("Sh").field(shell).finish(),
            Self::Answer(_) => f.write_str("Answer"),
        }
    }
}

/// How the stand-in for sudo behaves.
#[derive(Debug, Clone)]
pub enum Sudo {
    /// It asks for nothing.
    Passwordless,
    /// It wants a password, and says something first (the lecture).
    Password {
        /// The right one.
        password: String,
        /// Printed on stderr before the prompt; empty: nothing.
        lecture: String,
    },
    /// It refuses with this text.
    Refuse(String),
}

/// One exec request and its stdin so far.
#[derive(Debug, Clone, Default)]
pub struct Exec {
    /// The command line.
    pub command: String,
    /// Everything that came on stdin.
    pub stdin: Vec<u8>,
}

impl Exec {
    /// The script: stdin, or what follows the marker line when a sudo password went before.
    #[must_use]
    pub fn script(&self) -> String {
        let stdin = String::from_utf8_lossy(&self.stdin).into_owned();
        match stdin.find("selfheal-script-") {
            Some(at) => stdin[at..]
                .split_once('\n')
                .map_or(String::new(), |(_, script)| script.to_owned()),
            None => stdin,
        }
    }
}

/// What a closure answers.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// To stdout.
    pub stdout: Vec<u8>,
    /// To stderr.
    pub stderr: Vec<u8>,
    /// The exit status.
    pub exit: u32,
}

impl Reply {
    /// Exit 0 and this on stdout.
    #[must_use]
    pub fn ok(stdout: impl Into<Vec<u8>>) -> Self {
        Self {
            stdout: stdout.into(),
            ..Self::default()
        }
    }
}

/// A fault that strikes connections made from now on (and, where it says so, those that are).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Accept TCP, then say nothing.
    Stall,
    /// Accept TCP and close it.
    HangUp,
    /// Talk, but not SSH.
    NotSsh,
    /// Close the connection when a command is to be run.
    CutAtExec,
    /// Close the connection after so many bytes of stdin.
    CutAfterStdin(usize),
    /// Close the connection after so many bytes of stdout.
    CutInReply(usize),
    /// Take the command and its stdin and never answer; the connection lives.
    NoReply,
    /// The line goes dead when a command is to be run: no close, no answer, not even to a keep-alive.
    GoDead,
    /// Refuse to run commands.
    RefuseExec,
}
