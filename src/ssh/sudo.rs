//! The commands that turn a script on stdin into a root shell, and what sudo says when it will not.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::target::Sudo;

/// Why sudo did not let us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SudoRefusal {
    /// It wants a password and none is configured.
    PasswordRequired,
    /// The password is wrong.
    WrongPassword,
    /// The user may not use sudo (for this).
    NotAllowed,
    /// `Defaults requiretty`.
    TtyRequired,
    /// The account or its password has expired.
    Expired,
    /// There is no sudo on the node.
    NotInstalled,
    /// Anything else; stderr tells.
    Other,
}

impl fmt::Display for SudoRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PasswordRequired => "sudo asks for a password",
            Self::WrongPassword => "sudo refused the password",
            Self::NotAllowed => "the user may not use sudo",
            Self::TtyRequired => "sudo insists on a terminal (requiretty)",
            Self::Expired => "the user's account or password has expired",
            Self::NotInstalled => "there is no sudo",
            Self::Other => "sudo failed",
        })
    }
}

impl SudoRefusal {
    pub(super) fn hint(self) -> &'static str {
        match self {
            Self::PasswordRequired => {
                "say in [ssh] where its password comes from, like `sudo_password = { env = \"PI_SUDO\" }`, or let the user use sudo without one"
            }
            Self::WrongPassword => "check the sudo password's source in the inventory",
            Self::NotAllowed => "add the user to the group sudo on the node",
            Self::TtyRequired => "remove `Defaults requiretty` from the node's sudoers",
            Self::Expired => "log in by hand and set a new password",
            Self::NotInstalled => "install sudo on the node, or log in as root",
            Self::Other => "try `sudo -v` on the node",
        }
    }

    /// Reads sudo's stderr, from sudo or from sudo-rs, in the C locale.
    pub(super) fn recognize(exit: Option<u32>, stderr: &str) -> Self {
        // Order matters: an expired password says "try again", a wrong one "no password was provided", too.
        const SAYINGS: [(&str, SudoRefusal); 16] = [
            ("password has expired", SudoRefusal::Expired),
            ("password expired", SudoRefusal::Expired),
            ("password is expired", SudoRefusal::Expired),
            ("account has expired", SudoRefusal::Expired),
            ("account validation failure", SudoRefusal::Expired),
            ("try again", SudoRefusal::WrongPassword),
            ("incorrect password attempt", SudoRefusal::WrongPassword),
            (
                "incorrect authentication attempt",
                SudoRefusal::WrongPassword,
            ),
            ("must have a tty", SudoRefusal::TtyRequired),
            ("not in the sudoers file", SudoRefusal::NotAllowed),
            ("is not allowed to", SudoRefusal::NotAllowed),
            ("may not run sudo", SudoRefusal::NotAllowed),
            ("I'm afraid I can't do that", SudoRefusal::NotAllowed),
            ("a password is required", SudoRefusal::PasswordRequired),
            (
                "interactive authentication is required",
                SudoRefusal::PasswordRequired,
            ),
            ("no password was provided", SudoRefusal::PasswordRequired),
        ];
        SAYINGS
            .iter()
            .find(|(saying, _)| stderr.contains(saying))
            .map(|(_, refusal)| *refusal)
            .unwrap_or(if exit == Some(127) {
                Self::NotInstalled
            } else {
                Self::Other
            })
    }
}

/// Random words that no output contains by chance.
#[derive(Debug, Clone)]
pub(super) struct Words {
    /// Printed on stdout, on a line of its own, as soon as the shell runs.
    pub(super) ready: String,
    /// sudo's prompt: seen twice, the password was wrong, whatever the language.
    pub(super) prompt: String,
    /// The line on stdin after which the script begins.
    pub(super) marker: String,
}

impl Words {
    /// Words for one exec. An error means that the system has no randomness.
    pub(super) fn random() -> Result<Self, getrandom::Error> {
        let nonce = getrandom::u64()?;
        Ok(Self {
            ready: format!("selfheal-ready-{nonce:016x}"),
            prompt: format!("selfheal-password-{nonce:016x}"),
            marker: format!("selfheal-script-{:016x}", getrandom::u64()?),
        })
    }
}

/// What a command finds on its stdin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// A script, to the end.
    Script,
    /// A line that holds a script ([`script_line`]), and behind it a stream that belongs to the script's commands.
    ScriptThenStream,
}

impl Reading {
    /// What the root shell does.
    fn shell(self) -> &'static str {
        match self {
            Self::Script => "exec sh -s",
            // A shell that runs a script from its stdin reads ahead in blocks (dash does), and so the stream's first
            // bytes would be lost to it; `head -c` (uutils) reads ahead as well. Only the built-in `read` may not take a
            // byte more than its line (POSIX). As an argument the script would be seen by every user, and by sudo's log.
            // A line that was cut off is not run: `read` fails then.
            Self::ScriptThenStream => {
                "IFS= read -r script && eval \"$(printf %s \"$script\" | base64 -d)\""
            }
        }
    }
}

/// The command that reads a script from stdin. It is quoted so that sh, bash, zsh, fish and csh all take it the same
/// way, and says a ready word first, which tells the script's output from a shell's chatter and sudo's refusal from the
/// script's own failure.
pub(super) fn command(sudo: Option<&Sudo>, words: &Words, reading: Reading) -> String {
    let Words {
        ready,
        prompt,
        marker,
    } = words;
    let shell = reading.shell();
    match sudo {
        None | Some(Sudo::AlreadyRoot) => {
            format!("env LC_ALL=C sh -c 'echo {ready}; {shell}'")
        }
        Some(Sudo::Passwordless) => {
            format!("env LC_ALL=C sudo -n sh -c 'echo {ready}; {shell}'")
        }
        // sudo reads the password line only if it wants one: the loop throws away what it left.
        Some(Sudo::Password(_)) => format!(
            "env LC_ALL=C sudo -S -p {prompt} sh -c 'echo {ready}; \
             while IFS= read -r line; do if [ \"$line\" = {marker} ]; then {shell}; exit; fi; done; exit 125'"
        ),
    }
}

/// A script as one line.
pub(super) fn script_line(script: &str) -> String {
    format!("{}\n", BASE64_STANDARD.encode(script))
}

/// The line that answers sudo's prompt. A password cannot hold a line break: what follows one is cut off.
pub(super) fn password_line(password: &SecretString) -> Zeroizing<Vec<u8>> {
    let line = password.expose_secret().lines().next().unwrap_or_default();
    // Reserved in full, so that no reallocation leaves a copy behind.
    let mut bytes = Vec::with_capacity(line.len() + 1);
    bytes.extend_from_slice(line.as_bytes());
    bytes.push(b'\n');
    Zeroizing::new(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn sudo_and_sudo_rs_are_understood() {
        for (stderr, refusal) in [
            (
                "sudo: a password is required",
                SudoRefusal::PasswordRequired,
            ),
            (
                "sudo: interactive authentication is required",
                SudoRefusal::PasswordRequired,
            ),
            (
                "Sorry, try again.\nsudo: no password was provided\nsudo: 1 incorrect password attempt",
                SudoRefusal::WrongPassword,
            ),
            (
                "sudo: Authentication failed, try again.",
                SudoRefusal::WrongPassword,
            ),
            ("pi is not in the sudoers file.", SudoRefusal::NotAllowed),
            (
                "sudo: I'm sorry pi. I'm afraid I can't do that",
                SudoRefusal::NotAllowed,
            ),
            (
                "Sorry, user pi is not allowed to execute '/usr/bin/sh' as root on jarvis.",
                SudoRefusal::NotAllowed,
            ),
            (
                "sudo: sorry, you must have a tty to run sudo",
                SudoRefusal::TtyRequired,
            ),
            (
                "sudo: Account or password is expired, reset your password and try again",
                SudoRefusal::Expired,
            ),
            (
                "sudo: account validation failure, is your account locked?",
                SudoRefusal::Expired,
            ),
            ("sudo: unable to open /etc/sudoers", SudoRefusal::Other),
        ] {
            assert_eq!(SudoRefusal::recognize(Some(1), stderr), refusal, "{stderr}");
        }
        assert_eq!(
            SudoRefusal::recognize(Some(127), ""),
            SudoRefusal::NotInstalled
        );
    }

    #[test]
    fn a_password_is_one_line() {
        assert_eq!(
            password_line(&"s3cret\r\nrm -rf /".into()).as_slice(),
            b"s3cret\n"
        );
        assert_eq!(password_line(&"".into()).as_slice(), b"\n");
    }

    #[test]
    fn no_secret_in_the_command() {
        let words = Words::random().unwrap();
        for reading in [Reading::Script, Reading::ScriptThenStream] {
            let command = command(Some(&Sudo::Password("s3cret".into())), &words, reading);
            assert!(!command.contains("s3cret"));
        }
    }
}
