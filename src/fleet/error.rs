//! What can go wrong with one node.

use thiserror::Error;

use crate::node::reply::ReplyError;
use crate::ssh::{ConnectError, ErrorClass, ExecError, Status};

use super::TargetError;

/// Why a node's run ended early. Its text says what was tried and why it failed; [`NodeError::hint`] says what to do.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The inventory's SSH settings cannot be used.
    #[error("cannot prepare the login")]
    Target(#[from] TargetError),
    /// No session.
    #[error("cannot log in")]
    Connect(#[from] ConnectError),
    /// A script did not run.
    #[error("the script did not run on the node")]
    Exec(#[from] ExecError),
    /// The probe's reply is not whole.
    #[error("cannot read the node's answer{}", after(stderr))]
    Reply {
        /// What is wrong with it.
        #[source]
        source: ReplyError,
        /// The remote stderr's last lines.
        stderr: String,
    },
    /// The system's random number generator failed.
    #[error("this computer has no random numbers to give")]
    NoRandomness,
    /// Another run holds the node.
    #[error("another run is at work on the node: {holder}")]
    Held {
        /// Who and since when.
        holder: String,
    },
    /// The node is not as the plan saw it.
    #[error("the node has changed since the plan was made{}", after(stderr))]
    Stale {
        /// What differs.
        stderr: String,
    },
    /// sshd did not accept the new settings; they are gone again.
    #[error(
        "sshd on the node does not accept the new settings, and the old ones are back{}",
        after(stderr)
    )]
    SshdRejected {
        /// What sshd said.
        stderr: String,
    },
    /// There is no room for what is to be written; nothing was.
    #[error("the node's disk is full, and nothing was changed{}", after(stderr))]
    Full {
        /// How much is missing, and where.
        stderr: String,
    },
    /// A boot file would not be safe to write.
    #[error("the boot files were left as they are{}", after(stderr))]
    BootUnsafe {
        /// Why.
        stderr: String,
    },
    /// A boot file could neither be written nor put back.
    #[error(
        "A BOOT FILE IS DAMAGED and the node may not boot again{}",
        after(stderr)
    )]
    BootBroken {
        /// Which one, and where its copies are.
        stderr: String,
    },
    /// A step failed.
    #[error("the step '{step}' failed with {status}{}", after(stderr))]
    Step {
        /// Which one.
        step: &'static str,
        /// How the script ended.
        status: Status,
        /// The remote stderr's last lines.
        stderr: String,
    },
    /// The new settings let nobody in: the node goes back to the old ones.
    #[error("a new login with the new settings failed; {outcome}")]
    LockedOut {
        /// Why the login failed.
        #[source]
        source: Box<NodeError>,
        /// What became of the settings.
        outcome: String,
    },
    /// Passwords are to be switched off, but no key opens the door.
    #[error("refusing to switch passwords off: a login with a key alone fails")]
    NoKeyLogin {
        /// Why it fails.
        #[source]
        source: ConnectError,
    },
    /// The plan itself refuses.
    #[error("not applied: {0}")]
    Refused(String),
    /// The reaper cannot do its work.
    #[error("cannot look for ghosts: {why}")]
    CannotHeal {
        /// Why.
        why: String,
        /// What the user can do.
        hint: &'static str,
    },
    /// The node did not come back from a reboot.
    #[error("the node did not come back within {seconds} s of its reboot{}", last_try.as_deref().map_or(String::new(), |last| format!(" (last try: {last})")))]
    NotBack {
        /// How long was waited.
        seconds: u64,
        /// What the last try to reach it said.
        last_try: Option<String>,
        /// How the user gets it back.
        way_back: String,
    },
    /// The node's trial boot with a new command line failed, and it went back by itself.
    #[error(
        "the Pi rejected this command line and is on the old one: its trial boot failed, and {current} is what it was"
    )]
    TrialRejected {
        /// The file that it boots from.
        current: String,
    },
    /// The node came back, but its kernel is not what the command line asks for.
    #[error("rebooted, but {missing}")]
    NotInEffect {
        /// What is missing.
        missing: String,
        /// How the user gets the old line back.
        way_back: String,
    },
    /// It is not its turn: an earlier reboot went wrong.
    #[error("not rebooted, because the reboot of {0} went wrong")]
    RebootsStopped(String),
    /// k3s does not start on this kernel.
    #[error("the kernel has no memory controller, and k3s does not start without it")]
    NoMemoryCgroup,
    /// k3s, or what it runs, did not come up.
    #[error("{what}{}", after(said))]
    NotUp {
        /// What did not.
        what: String,
        /// The last lines of its journal.
        said: String,
    },
    /// The server knows the node's name with another password.
    #[error("the server refuses this node: it knows one of this name with another password")]
    PasswordRejected,
    /// A node that was said to be gone lives.
    #[error("{0} is not gone: the cluster says that it is ready")]
    StillThere(String),
    /// The server that this node joins is not up.
    #[error("not joined, because {0} is not up")]
    NoServer(String),
    /// The server runs an older k3s than this node would.
    #[error(
        "not touched, because {server} runs k3s {version}, and no node may be newer than its server"
    )]
    NewerThanServer {
        /// The server.
        server: String,
        /// What it runs.
        version: String,
    },
    /// The server that this node belongs to cannot be asked.
    #[error("cannot log in to {server}, the server of this node's cluster")]
    ServerUnreachable {
        /// The server.
        server: String,
        /// Why.
        #[source]
        source: ConnectError,
    },
    /// The node's pods did not leave it.
    #[error("its pods did not leave, and it takes new ones again")]
    NotDrained {
        /// What kubectl said.
        #[source]
        source: Box<NodeError>,
    },
    /// What was applied did not hold.
    #[error("after applying, these still differ: {0}")]
    NotConverged(String),
    /// The run took too long.
    #[error("the run took longer than {seconds} s (ssh.run_timeout)")]
    RunTimeout {
        /// How long was allowed.
        seconds: u64,
    },
    /// The user asked to stop.
    #[error("stopped on request; the next apply goes on from here")]
    Interrupted,
}

impl NodeError {
    /// The exit code's class (design.md §1).
    pub fn class(&self) -> Class {
        let ssh = |class| match class {
            ErrorClass::Unreachable => Class::Unreachable,
            ErrorClass::Refused => Class::LoginRefused,
            ErrorClass::Failed => Class::Failed,
        };
        match self {
            NodeError::Connect(error) => ssh(error.class()),
            NodeError::Exec(error) => ssh(error.class()),
            NodeError::NotBack { .. } => Class::Unreachable,
            NodeError::Held { .. } => Class::Held,
            NodeError::Interrupted => Class::Interrupted,
            NodeError::Target(_)
            | NodeError::Reply { .. }
            | NodeError::NoRandomness
            | NodeError::Stale { .. }
            | NodeError::SshdRejected { .. }
            | NodeError::Full { .. }
            | NodeError::BootUnsafe { .. }
            | NodeError::BootBroken { .. }
            | NodeError::TrialRejected { .. }
            | NodeError::NotInEffect { .. }
            | NodeError::Step { .. }
            | NodeError::LockedOut { .. }
            | NodeError::NoKeyLogin { .. }
            | NodeError::CannotHeal { .. }
            | NodeError::Refused(_)
            | NodeError::RebootsStopped(_)
            | NodeError::RunTimeout { .. }
            | NodeError::NoMemoryCgroup
            | NodeError::NotUp { .. }
            | NodeError::PasswordRejected
            | NodeError::StillThere(_)
            | NodeError::NoServer(_)
            | NodeError::NewerThanServer { .. }
            | NodeError::ServerUnreachable { .. }
            | NodeError::NotDrained { .. }
            | NodeError::NotConverged(_) => Class::Failed,
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            NodeError::Connect(error) => return error.hint(),
            NodeError::Exec(error) => return error.hint(),
            NodeError::Held { .. } => {
                "wait for it to end; a lease of a run that died ends by itself within two minutes"
            }
            NodeError::Stale { .. } => {
                "run again: the plan is made anew from the node as it is now"
            }
            NodeError::SshdRejected { .. } => {
                "correct [hardening.sshd] in the inventory; `ssh NODE sudo sshd -T` shows what is in force"
            }
            NodeError::Full { .. } => {
                "free some space (`sudo apt-get clean`, `sudo journalctl --vacuum-size=50M`), then apply again"
            }
            NodeError::LockedOut { .. } => {
                "correct [hardening.sshd] or [hardening.firewall] in the inventory and apply again"
            }
            NodeError::NoKeyLogin { .. } => {
                "set ssh.identity or hardening.authorized_keys to a key you hold, or keep password_authentication = true"
            }
            NodeError::NotBack { way_back, .. } | NodeError::NotInEffect { way_back, .. } => {
                return Some(way_back.clone());
            }
            NodeError::TrialRejected { .. } => {
                "the node stands as before and takes SSH; change [boot] in the inventory and apply again (the same line is \
                 not tried again)"
            }
            NodeError::BootUnsafe { .. } => "put that right, then apply again",
            NodeError::BootBroken { .. } => {
                "put one of these copies in its place before the node reboots"
            }
            NodeError::NoMemoryCgroup => {
                "let the node reboot onto its new command line (without --no-reboot), or leave boot.memory_cgroup on"
            }
            NodeError::NotUp { .. } => {
                "look at it on the node: `sudo systemctl status k3s k3s-agent`, `sudo journalctl -u k3s -u k3s-agent`; then \
                 apply again"
            }
            NodeError::PasswordRejected => {
                "if the node was flashed anew, apply again: its old object is removed first; else another machine has its \
                 name"
            }
            NodeError::StillThere(_) => {
                "find out why selfheal cannot log in to it, and remove it without --gone, so that its pods end"
            }
            NodeError::NewerThanServer { .. } => "upgrade the server first: apply without --on",
            NodeError::NoServer(_) | NodeError::ServerUnreachable { .. } => {
                "put that server right, then apply again"
            }
            NodeError::NotDrained { .. } => {
                "`kubectl get pods -A -o wide` shows what stayed; move it, or give it longer (k3s.drain_timeout)"
            }
            NodeError::CannotHeal { hint, .. } => hint,
            NodeError::RebootsStopped(_) => "put that node right, then apply again",
            NodeError::NotConverged(_) => {
                "something on the node sets it otherwise; `selfheal plan` shows what differs"
            }
            NodeError::Reply { .. } => {
                "log in by hand and look: a full disk, a login shell that exits, or a forced command do this"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }

    /// The error with all its causes in one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            let cause_text = without_number(cause.to_string());
            if !text.contains(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            source = cause.source();
        }
        text
    }
}

/// What the system says, without its number for it: "Connection refused (os error 111)" tells nobody more.
fn without_number(text: String) -> String {
    match text.split_once(" (os error ") {
        Some((said, number)) if number.ends_with(')') => said.to_owned(),
        _ => text,
    }
}

/// Classes of outcome, in the order in which they win when nodes fare differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// The user asked to stop.
    Interrupted,
    /// Another run holds the node.
    Held,
    /// Host key or login refused.
    LoginRefused,
    /// No answer.
    Unreachable,
    /// Anything else that failed.
    Failed,
}

/// The last lines of a remote stderr, trimmed: what a user wants to see of it.
pub fn last_lines(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
        .collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

fn after(stderr: &str) -> String {
    match stderr.lines().count() {
        0 => String::new(),
        1 => format!(": {stderr}"),
        _ => format!("; it said:\n    {}", stderr.replace('\n', "\n    ")),
    }
}
