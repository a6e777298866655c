//! What makes a node a part of a cluster: files of a release, tokens, and no trace of a node that had its name before.

use std::collections::BTreeSet;

use camino::Utf8PathBuf;

use super::Resource;
use super::change::{Action, Change, Phase, Verb, View};
use super::compare::simple;
use super::consequence;
use crate::node::ledger::{Before, Id, Kind, LayerName};
use crate::node::snapshot::Snapshot;

/// Where k3s keeps what it knows (domain.md §4.1).
const DATA: &str = "/var/lib/rancher/k3s";

/// A file of a release of k3s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asset {
    /// The program.
    Program,
    /// The images of k3s's own pods.
    Images,
}

/// A file of a release, brought from the workstation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedAsset {
    /// Which one.
    pub asset: Asset,
    /// Where it lies on the node.
    pub path: Utf8PathBuf,
    /// The release's tag.
    pub version: String,
    /// The tag of the one that is there.
    pub found: Option<String>,
}

/// Where a token comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The inventory names it, or else the node makes one up. One that is there stays.
    Own,
    /// A server has it in this file; the one here has to be the same.
    Server {
        /// The server's name.
        server: String,
        /// The file there.
        path: Utf8PathBuf,
        /// Its hash, if that is known before the run.
        sha256: Option<String>,
    },
}

/// A file that holds a token, for root only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedSecret {
    /// Where it lies.
    pub path: Utf8PathBuf,
    /// Where its content comes from.
    pub origin: Origin,
}

pub(super) fn asset(
    resource: &Resource,
    wanted: &WantedAsset,
    snapshot: &Snapshot,
) -> Option<Change> {
    if wanted.found.as_ref() == Some(&wanted.version) {
        return None;
    }
    let (verb, before) = match &wanted.found {
        Some(version) => (Verb::Update, version.as_str()),
        None => (Verb::Create, "absent"),
    };
    let action = Action::InstallAsset(wanted.clone());
    Some(Change {
        effects: consequence::effects(&wanted.path, snapshot),
        ..simple(
            resource,
            verb,
            before,
            &wanted.version,
            vec![action],
            Before::Nothing,
        )
    })
}

pub(super) fn secret(
    resource: &Resource,
    wanted: &WantedSecret,
    snapshot: &Snapshot,
) -> Option<Change> {
    let found = snapshot.secret(&wanted.path);
    let closed = found.is_some_and(|secret| secret.mode == 0o600 && secret.owner == "root");
    let same = match (&wanted.origin, found) {
        (
            Origin::Server {
                sha256: Some(hash), ..
            },
            Some(found),
        ) => found.sha256 == *hash,
        // Nobody can say what it has to be, so the one that is there is left alone.
        (_, found) => found.is_some(),
    };
    if same && closed {
        return None;
    }
    let (verb, before, after) = match (&wanted.origin, found) {
        (_, Some(_)) if same => (
            Verb::Update,
            "open to others".to_owned(),
            "for root only".to_owned(),
        ),
        (Origin::Own, _) => (
            Verb::Create,
            "absent".to_owned(),
            "a secret token".to_owned(),
        ),
        (Origin::Server { server, .. }, found) => {
            let before = if found.is_some() {
                "another cluster's token"
            } else {
                "absent"
            };
            let verb = if found.is_some() {
                Verb::Update
            } else {
                Verb::Create
            };
            (verb, before.to_owned(), format!("the token of {server}"))
        }
    };
    let action = if same {
        Action::CloseSecret(wanted.path.clone())
    } else {
        Action::PutSecret(wanted.clone())
    };
    let effects = if same {
        BTreeSet::new()
    } else {
        consequence::effects(&wanted.path, snapshot)
    };
    Some(Change {
        effects,
        ..simple(
            resource,
            verb,
            &before,
            &after,
            vec![action],
            Before::Nothing,
        )
    })
}

/// A node of this name is in the cluster, but this one was never there: it was flashed anew, and k3s refuses it until
/// the old one is gone (domain.md §4.4).
pub(super) fn stale_node(resource: &Resource, name: &str) -> Change {
    Change {
        owns: Vec::new(),
        ..simple(
            resource,
            Verb::Remove,
            "the node of before it was flashed anew",
            "gone, so that this one can join under its name",
            vec![Action::ForgetNode(name.to_owned())],
            Before::Nothing,
        )
    }
}

/// What k3s keeps of a cluster goes with it, so that the node can join as a new one. What may be the user's stays, set
/// aside: a server's datastore with its tokens and certificates, and the volumes of the local storage.
pub fn leave_cluster() -> Change {
    let view = View::Value {
        before: "there".to_owned(),
        after: format!("gone, but for volumes and a server's datastore ({DATA}/aside-*)"),
    };
    Change {
        layer: LayerName::K3s,
        id: Id::new(Kind::ClusterData, DATA),
        verb: Verb::Remove,
        view,
        phase: Phase::Removals,
        actions: vec![Action::LeaveCluster],
        effects: BTreeSet::new(),
        reboot: None,
        trial: None,
        owns: Vec::new(),
        releases: Vec::new(),
    }
}

impl WantedAsset {
    pub(super) fn id(&self) -> Id {
        Id::new(Kind::Asset, self.path.as_str())
    }
}
