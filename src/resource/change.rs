//! The difference between a node and what is wanted of it, as plain data.

use std::collections::BTreeSet;
use std::fmt;

use camino::Utf8PathBuf;
use serde::{Serialize, Serializer};

use super::k3s::{WantedAsset, WantedSecret};
use super::node_object::ObjectEdit;
use crate::node::ledger::{Entry, Id, LayerName};

/// What must be at a path before it is written: a plan gone stale stops here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Absent,
    /// A regular file with this sha256.
    Sha256(String),
}

/// A file to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileWrite {
    /// Absolute path on the node.
    pub path: Utf8PathBuf,
    /// All of the new content.
    pub content: Vec<u8>,
    /// Permission bits, from the file's first moment on.
    pub mode: u32,
    /// Owner's name.
    pub owner: String,
    /// Group's name.
    pub group: String,
    /// What is there now.
    pub expect: Expect,
}

/// What one step on a node does. All of them may be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Installs a Debian package.
    InstallPackage(String),
    /// Holds a package back from upgrades.
    Hold(String),
    /// Lifts a hold.
    Unhold(String),
    /// Keeps the user's file below the originals before its first change.
    KeepOriginal(Utf8PathBuf),
    /// Keeps a copy of a file of selfheal's that somebody changed.
    SetAside(Utf8PathBuf),
    /// Writes a file atomically.
    Write(FileWrite),
    /// Makes a folder, 0755 and root's.
    MakeDirectory(Utf8PathBuf),
    /// Removes a folder, if it is empty.
    RemoveDirectory(Utf8PathBuf),
    /// Removes a file.
    Remove(Utf8PathBuf, Expect),
    /// Puts the user's original back.
    RestoreOriginal(Utf8PathBuf, Expect),
    /// Writes a file of the boot partition, the vfat-safe way (domain.md §1.2).
    WriteBoot(Utf8PathBuf, Vec<u8>, Expect),
    /// Has Ubuntu's second set of boot files made, unless one waits already, and writes its command line: the next boot
    /// tries it (domain.md §1.3).
    TryBoot {
        /// Where the boot partition is mounted.
        folder: Utf8PathBuf,
        /// All of `new/cmdline.txt`.
        content: Vec<u8>,
        /// The sha256 of `current/cmdline.txt`, which stays as it is.
        current: String,
        /// The sha256 of the `new/cmdline.txt` that waits for its trial already.
        waiting: Option<String>,
    },
    /// Sets a sysctl's runtime value.
    SetSysctl(String, String),
    /// Loads a kernel module.
    LoadModule(String),
    /// Lets a unit start at boot.
    Enable(String),
    /// Keeps a unit from starting at boot.
    Disable(String),
    /// Starts a unit.
    Start(String),
    /// Stops a unit.
    Stop(String),
    /// Sets the host name, now and for the next boot.
    SetHostname(String),
    /// Puts a file of a release in the place of the one that is there, which is kept beside it.
    InstallAsset(WantedAsset),
    /// Removes a file of a release or a token, and what was kept beside it.
    Discard(Utf8PathBuf),
    /// Writes a token into a file, for root only.
    PutSecret(WantedSecret),
    /// Takes the rights of others from a file with a token.
    CloseSecret(Utf8PathBuf),
    /// Removes the object of a node that was flashed anew, through a server.
    ForgetNode(String),
    /// Changes a node's object, through a server.
    EditNodeObject(ObjectEdit),
    /// Takes away what k3s keeps of its cluster; see [`super::k3s::leave_cluster`].
    LeaveCluster,
    /// Takes all swap out of use.
    SwapOff,
    /// Takes the configured swap into use again.
    SwapOn,
}

/// What has to happen once, at the end of a step, for its files to take effect.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// systemd reads its unit files again.
    DaemonReload,
    /// systemd starts anew, in place, and reads its own settings.
    DaemonReexec,
    /// A unit reads its configuration again, if it runs.
    Reload(String),
    /// A unit is restarted, if it runs.
    Restart(String),
}

impl Effect {
    /// The effect as it stands in the pending-restart file.
    pub fn parse(line: &str) -> Option<Effect> {
        match line.split_once(' ') {
            None if line == "daemon-reload" => Some(Effect::DaemonReload),
            None if line == "daemon-reexec" => Some(Effect::DaemonReexec),
            Some(("reload", unit)) => Some(Effect::Reload(unit.to_owned())),
            Some(("restart", unit)) => Some(Effect::Restart(unit.to_owned())),
            _ => None,
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Effect::DaemonReexec => formatter.write_str("daemon-reexec"),
            Effect::DaemonReload => formatter.write_str("daemon-reload"),
            Effect::Reload(unit) => write!(formatter, "reload {unit}"),
            Effect::Restart(unit) => write!(formatter, "restart {unit}"),
        }
    }
}

impl Serialize for Effect {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How a change looks to the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum View {
    /// A text before and after: shown as a unified diff.
    Text {
        /// As it is; `None` when it is not there.
        before: Option<String>,
        /// As it will be; `None` when it goes.
        after: Option<String>,
    },
    /// A value before and after.
    Value {
        /// As it is.
        before: String,
        /// As it will be.
        after: String,
    },
    /// Something that is not shown, and why.
    Hidden(&'static str),
}

/// A command line that gets a trial boot: the node keeps it if it comes up with it, else it goes back by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriedLine {
    /// Where the boot partition is mounted.
    pub folder: Utf8PathBuf,
    /// The sha256 of `new/cmdline.txt`, which holds it.
    pub sha256: String,
}

/// What a change does to its resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// It was not there.
    Create,
    /// It was different.
    Update,
    /// It left the inventory: what was there before comes back.
    Remove,
    /// It is right already, but something has to happen for it to take effect.
    Finish,
}

/// When within a node's run a change is made. Each phase with changes is one exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Packages, since files and units may need them.
    Packages,
    /// Everything that cannot lock anybody out.
    Settings,
    /// What can lock out: behind the dead man's switch.
    Guarded,
    /// What left the inventory.
    Removals,
    /// The boot partition.
    Boot,
    /// k3s: after the reboot, without which it may not start.
    Cluster,
    /// The node's object in Kubernetes, once the node is a part of the cluster.
    Registration,
}

impl Phase {
    /// Whether it comes after the reboot, in step with the other nodes.
    pub fn is_of_the_cluster(self) -> bool {
        matches!(self, Phase::Cluster | Phase::Registration)
    }
}

impl Phase {
    /// All phases in sequence.
    pub const ALL: [Phase; 7] = [
        Phase::Packages,
        Phase::Settings,
        Phase::Guarded,
        Phase::Removals,
        Phase::Boot,
        Phase::Cluster,
        Phase::Registration,
    ];

    /// The phase's name for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Packages => "packages",
            Phase::Settings => "settings",
            Phase::Guarded => "guarded settings",
            Phase::Removals => "removals",
            Phase::Boot => "boot files",
            Phase::Cluster => "k3s",
            Phase::Registration => "labels and taints",
        }
    }
}

/// One change to one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The layer that wants it.
    pub layer: LayerName,
    /// What is changed.
    pub id: Id,
    /// What happens to it.
    pub verb: Verb,
    /// How it is shown.
    pub view: View,
    /// When it is made.
    pub phase: Phase,
    /// How it is made.
    pub actions: Vec<Action>,
    /// What must follow in the same step.
    pub effects: BTreeSet<Effect>,
    /// Why the node has to reboot for it, if so.
    pub reboot: Option<String>,
    /// What that reboot tries out before the node keeps it.
    pub trial: Option<TriedLine>,
    /// What selfheal owns from the moment the change begins.
    pub owns: Vec<(Id, Entry)>,
    /// What selfheal no longer owns once the change is made.
    pub releases: Vec<Id>,
}

/// Something that is wanted but must not or cannot be done on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The layer that wants it.
    pub layer: LayerName,
    /// What is refused.
    pub what: String,
    /// Why.
    pub reason: String,
    /// What the user can do.
    pub hint: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.what, self.reason)
    }
}

impl Change {
    /// Whether something is written for it; a change without work only waits for a reboot.
    pub fn has_work(&self) -> bool {
        !self.actions.is_empty()
            || !self.owns.is_empty()
            || !self.releases.is_empty()
            || !self.effects.is_empty()
    }
}
