//! Questions to the user, asked one at a time.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;

use camino::Utf8Path;
use secrecy::SecretString;

use super::HostKey;

/// A host key seen for the first time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownHostKey {
    /// The node's name, for the question.
    pub node: String,
    /// The server's name or address.
    pub host: String,
    /// The server's port.
    pub port: u16,
    /// The key it showed.
    pub key: HostKey,
}

/// Whoever answers the questions of a login. The calls may block: they run off the async threads, and time spent in
/// them does not count against a time-out.
pub trait Prompt: Send + Sync {
    /// Is this new host key the right one?
    fn confirm_host_key(&self, unknown: &UnknownHostKey) -> bool;
    /// The passphrase of a private key file; `None` passes the key over.
    fn passphrase(&self, path: &Utf8Path) -> Option<SecretString>;
    /// The password to log in with; `None` gives up.
    fn password(&self, user: &str, node: &str) -> Option<SecretString>;
}

/// Nobody to ask: no unknown host key is accepted, no secret is given.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPrompt;

impl Prompt for NoPrompt {
    fn confirm_host_key(&self, _: &UnknownHostKey) -> bool {
        false
    }
    fn passphrase(&self, _: &Utf8Path) -> Option<SecretString> {
        None
    }
    fn password(&self, _: &str, _: &str) -> Option<SecretString> {
        None
    }
}

/// Asks at the controlling terminal. Nodes that connect at the same time queue up.
#[derive(Debug, Default)]
pub struct Terminal {
    turn: Mutex<()>,
}

impl Terminal {
    /// The terminal, if there is somebody at it: stdin and stderr must both be one.
    #[must_use]
    pub fn open() -> Option<Self> {
        (std::io::stdin().is_terminal() && std::io::stderr().is_terminal()).then(Self::default)
    }

    fn secret(&self, question: &str) -> Option<SecretString> {
        let _turn = self
            .turn
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        rpassword::prompt_password(question)
            .ok()
            .map(SecretString::from)
    }
}

impl Prompt for Terminal {
    fn confirm_host_key(&self, unknown: &UnknownHostKey) -> bool {
        let _turn = self
            .turn
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let UnknownHostKey {
            node,
            host,
            port,
            key,
        } = unknown;
        let mut stderr = std::io::stderr();
        let asked = write!(
            stderr,
            "The host key of {node} ({host}, port {port}) is not known yet:\n  {} {}\n\
             Type yes to trust it from now on: ",
            key.kind(),
            key.fingerprint()
        )
        .and_then(|()| stderr.flush());
        let mut answer = String::new();
        // As with ssh, the fingerprint itself is an answer too: pasted from elsewhere, it compares without eyes.
        asked.is_ok()
            && std::io::stdin().read_line(&mut answer).is_ok()
            && (answer.trim() == "yes" || answer.trim() == key.fingerprint())
    }

    fn passphrase(&self, path: &Utf8Path) -> Option<SecretString> {
        self.secret(&format!("Passphrase of the key {path}: "))
    }

    fn password(&self, user: &str, node: &str) -> Option<SecretString> {
        self.secret(&format!("Password of {user} on {node}: "))
    }
}
