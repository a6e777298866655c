//! `[ssh]`: how the nodes are reached.

use std::fmt;
use std::str::FromStr;

use camino::{Utf8Path, Utf8PathBuf};

use super::address::{Jump, Port};
use super::define::{section, serialized_as_shown, text};
use super::diagnostic::Wrong;
use super::name::UserName;
use super::quantity::{DAY, HOUR, MINUTE, Period};
use super::secret::Secret;
use super::setting::Text;

section! {
    /// How the nodes are reached over SSH: for all nodes in `[ssh]`, for one in `[nodes.NAME.ssh]`.
    /// What is not said here comes from `~/.ssh/config`.
    pub struct Ssh {
        /// Who to log in as.
        user: UserName = UserName::literal("pi"),
        /// The port of sshd.
        port: Port = Port::SSH,
        /// The private keys to offer, in this order. None here means those of `~/.ssh/config`, or else the usual ones.
        identity: Vec<LocalPath> = Vec::new(),
        /// Whether to ask the SSH agent for keys.
        agent: bool = true,
        /// The jump hosts on the way, the first one first: `["me@bastion:22"]`.
        jump: Vec<Jump> = Vec::new(),
        /// A command whose stdin and stdout are the connection; `%h`, `%p` and `%r` stand for host, port and user.
        /// `none` takes back one that `[ssh]` set.
        proxy_command: ProxyCommand = ProxyCommand::None,
        /// How long connecting and logging in may take, for each hop.
        connect_timeout: Period<1, { 10 * MINUTE }> = Period::clamped(15),
        /// How long one command on a node may take.
        exec_timeout: Period<10, { 4 * HOUR }> = Period::clamped(10 * MINUTE),
        /// How long one run of selfheal may take on a node.
        run_timeout: Period<MINUTE, DAY> = Period::clamped(2 * HOUR),
        /// Where the password for sudo comes from. Without it sudo has to work without one.
        sudo_password: Option<Secret> = None,
        /// Where the login password for the first contact comes from: it installs your key, and is not used again.
        login_password: Option<Secret> = None,
    }
}

/// A file of the workstation: absolute, in the home folder (`~/`), or relative to the inventory's folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalPath(Utf8PathBuf);

impl LocalPath {
    /// The path, for people: `~/` as it is.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The path to open, given the home folder that `~/` stands for.
    pub fn expand(&self, home: &Utf8Path) -> Utf8PathBuf {
        match self.0.strip_prefix("~") {
            Ok(rest) => home.join(rest),
            Err(_) => self.0.clone(),
        }
    }

    /// The same file, seen from where `folder` is named from.
    pub(crate) fn under(self, folder: &Utf8Path) -> Self {
        if self.0.starts_with("~") {
            self
        } else {
            Self(folder.join(self.0))
        }
    }
}

impl Ssh {
    /// Lets relative paths start at the inventory's folder.
    pub(crate) fn under(self, folder: &Utf8Path) -> Self {
        Self {
            identity: self
                .identity
                .into_iter()
                .map(|path| path.under(folder))
                .collect(),
            sudo_password: self.sudo_password.map(|secret| secret.under(folder)),
            login_password: self.login_password.map(|secret| secret.under(folder)),
            ..self
        }
    }
}

impl fmt::Display for LocalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0.as_str())
    }
}

serialized_as_shown!(LocalPath);

impl FromStr for LocalPath {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        if text.trim().is_empty() {
            return Err(Wrong::new("the path is empty").help("like `~/.ssh/id_ed25519`"));
        }
        if text.contains("PRIVATE KEY") {
            return Err(Wrong::new("this is a key, and not a path to one")
                .help("keep keys out of the inventory; write the path: `~/.ssh/id_ed25519`"));
        }
        if text.chars().any(char::is_control) {
            return Err(Wrong::new("the path has a control character in it"));
        }
        if text.starts_with('~') && text != "~" && !text.starts_with("~/") {
            return Err(Wrong::new("only `~/`, your own home folder, is understood")
                .help("write the whole path"));
        }
        Ok(Self(text.into()))
    }
}

impl Text for LocalPath {
    const EXPECTED: &'static str = "a path";
}

/// A command that carries the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyCommand {
    /// None: the connection is TCP.
    None,
    /// The command line, for the shell of the workstation.
    Command(Line),
}

impl ProxyCommand {
    /// The command line, where there is one.
    pub fn command(&self) -> Option<&str> {
        match self {
            Self::None => None,
            Self::Command(line) => Some(line.as_str()),
        }
    }
}

impl fmt::Display for ProxyCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.command().unwrap_or("none"))
    }
}

serialized_as_shown!(ProxyCommand);

impl FromStr for ProxyCommand {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        Ok(if text == "none" {
            Self::None
        } else {
            Self::Command(text.parse()?)
        })
    }
}

impl Text for ProxyCommand {
    const EXPECTED: &'static str = "a command";
}

text! {
    /// A text of one line, not empty, without control characters.
    pub struct Line: "a text", None, line;
}

pub(crate) fn line(text: &str) -> Result<String, Wrong> {
    if text.trim().is_empty() {
        Err(Wrong::new("this is empty"))
    } else if text.chars().any(|c| c.is_control() && c != '\t') {
        Err(
            Wrong::new("this has a line break or another control character in it")
                .help("write it on one line"),
        )
    } else {
        Ok(text.to_owned())
    }
}
