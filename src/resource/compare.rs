//! What is wanted against what is there.

use std::collections::BTreeSet;
use std::time::Duration;

use camino::Utf8Path;

use super::change::{Action, Change, Effect, Expect, FileWrite, Phase, Refusal, Verb, View};
use super::{Resource, Wanted, consequence, k3s, node_object};
use crate::node::file::{Content, FileState, RegularFile};
use crate::node::ledger::{Before, Entry, Id, LayerName, original_of};
use crate::node::sha256;
use crate::node::snapshot::Snapshot;

/// The change that makes `resource` so, or `None` when it is so already.
///
/// # Errors
/// A [`Refusal`] when it must not or cannot be done on this node.
pub fn compare(resource: &Resource, snapshot: &Snapshot) -> Result<Option<Change>, Refusal> {
    let value = |verb, before: &str, after: &str, actions, undo| {
        Ok(Some(simple(resource, verb, before, after, actions, undo)))
    };
    match &resource.wanted {
        Wanted::File {
            path,
            content,
            mode,
        } => {
            let write = NewFile {
                path,
                content,
                mode: *mode,
                owner: "root",
                group: "root",
                enforce: true,
            };
            file(resource, &write, snapshot)
        }
        Wanted::Edit {
            path,
            content,
            mode,
            owner,
        } => {
            let (owner, group, mode) = match snapshot.file(path) {
                FileState::Regular(file) => (file.owner.as_str(), file.group.as_str(), file.mode),
                _ => (owner.as_str(), owner.as_str(), *mode),
            };
            file(
                resource,
                &NewFile {
                    path,
                    content,
                    mode,
                    owner,
                    group,
                    enforce: false,
                },
                snapshot,
            )
        }
        Wanted::Directory(path) if *snapshot.file(path) == FileState::Absent => value(
            Verb::Create,
            "absent",
            "folder",
            vec![Action::MakeDirectory(path.clone())],
            Before::Nothing,
        ),
        Wanted::Sysctl(key, wanted) => match snapshot.sysctl(key) {
            Some(current) if current != wanted => {
                let actions = vec![Action::SetSysctl(key.clone(), wanted.clone())];
                value(
                    Verb::Update,
                    current,
                    wanted,
                    actions,
                    Before::Value(current.to_owned()),
                )
            }
            _ => Ok(None),
        },
        Wanted::Systemd(property, wanted) => Ok(systemd(resource, snapshot, property, *wanted)),
        Wanted::Package(name) if snapshot.package(name).is_none() => value(
            Verb::Create,
            "absent",
            "installed",
            vec![Action::InstallPackage(name.clone())],
            Before::Nothing,
        ),
        Wanted::Hold(name) if snapshot.package(name).is_some_and(|package| !package.held) => value(
            Verb::Create,
            "upgradable",
            "held",
            vec![Action::Hold(name.clone())],
            Before::Nothing,
        ),
        Wanted::Module(name) if !snapshot.module(name) => value(
            Verb::Create,
            "not loaded",
            "loaded",
            vec![Action::LoadModule(name.clone())],
            Before::Nothing,
        ),
        Wanted::Running(name) => Ok(unit(resource, snapshot, name, true, Some(true))),
        Wanted::Enabled(name) => Ok(unit(resource, snapshot, name, true, None)),
        Wanted::Stopped(name) if snapshot.unit(name).loaded => {
            Ok(unit(resource, snapshot, name, false, Some(false)))
        }
        Wanted::Hostname(name) => {
            let current = snapshot.facts.hostname.as_str();
            let stored = snapshot
                .content("/etc/hostname".into())
                .map(<[u8]>::trim_ascii);
            if current == name && stored == Some(name.as_bytes()) {
                return Ok(None);
            }
            let actions = vec![Action::SetHostname(name.clone())];
            value(
                Verb::Update,
                current,
                name,
                actions,
                Before::Value(current.to_owned()),
            )
        }
        Wanted::NoSwap if !snapshot.facts.swaps.is_empty() => {
            let current = snapshot.facts.swaps.join(", ");
            value(
                Verb::Update,
                &current,
                "off",
                vec![Action::SwapOff],
                Before::Value(current.clone()),
            )
        }
        Wanted::Evidence(_, said) if snapshot.ledger.get(&resource.id()).is_none() => value(
            Verb::Create,
            "unknown",
            said,
            Vec::new(),
            Before::Value(said.clone()),
        ),
        Wanted::BootTokens { edit, try_first } => {
            super::boot::compare(resource.layer, edit, *try_first, snapshot)
        }
        Wanted::Asset(wanted) => Ok(k3s::asset(resource, wanted, snapshot)),
        Wanted::Secret(wanted) => Ok(k3s::secret(resource, wanted, snapshot)),
        Wanted::NoStaleNode(name) => Ok(Some(k3s::stale_node(resource, name))),
        Wanted::NodeObject(wanted) => Ok(node_object::compare(resource.layer, wanted)),
        Wanted::BootConfig(lines) => super::boot_config::compare(resource.layer, lines, snapshot),
        Wanted::Directory(_)
        | Wanted::Package(_)
        | Wanted::Hold(_)
        | Wanted::Module(_)
        | Wanted::Stopped(_)
        | Wanted::Evidence(..)
        | Wanted::NoSwap => Ok(None),
    }
}

/// What systemd did not say cannot be compared.
fn systemd(
    resource: &Resource,
    snapshot: &Snapshot,
    property: &str,
    wanted: Duration,
) -> Option<Change> {
    let current = *snapshot.manager.get(property)?;
    let shown = |time: Duration| match time {
        Duration::ZERO => "off".to_owned(),
        Duration::MAX => "infinity".to_owned(),
        time => humantime::format_duration(time).to_string(),
    };
    (current != wanted).then(|| Change {
        effects: BTreeSet::from([Effect::DaemonReexec]),
        owns: Vec::new(),
        ..simple(
            resource,
            Verb::Update,
            &shown(current),
            &shown(wanted),
            Vec::new(),
            Before::Nothing,
        )
    })
}

/// A change that shows two values.
pub(super) fn simple(
    resource: &Resource,
    verb: Verb,
    before: &str,
    after: &str,
    actions: Vec<Action>,
    undo: Before,
) -> Change {
    let phase = match resource.wanted {
        Wanted::Package(_) => Phase::Packages,
        Wanted::Running(ref unit) if unit == consequence::FIREWALL_UNIT => Phase::Guarded,
        _ => usual_phase(resource.layer),
    };
    Change {
        layer: resource.layer,
        id: resource.id(),
        verb,
        view: View::Value {
            before: before.to_owned(),
            after: after.to_owned(),
        },
        phase,
        actions,
        effects: BTreeSet::new(),
        reboot: None,
        trial: None,
        owns: vec![(
            resource.id(),
            Entry {
                layer: resource.layer,
                before: undo,
                sha256: None,
            },
        )],
        releases: Vec::new(),
    }
}

/// k3s comes after the reboot that its command line needs.
fn usual_phase(layer: LayerName) -> Phase {
    match layer {
        LayerName::K3s => Phase::Cluster,
        _ => Phase::Settings,
    }
}

/// A unit's state in words.
pub(super) fn unit_state(enabled: bool, active: bool) -> String {
    let enabled = if enabled { "enabled" } else { "disabled" };
    let active = if active { "running" } else { "stopped" };
    format!("{enabled}, {active}")
}

/// `active` is `None` where only the next boot counts.
fn unit(
    resource: &Resource,
    snapshot: &Snapshot,
    name: &str,
    enabled: bool,
    active: Option<bool>,
) -> Option<Change> {
    let state = snapshot.unit(name);
    // A static unit has no enablement; a masked one is as disabled as can be.
    let settled = if enabled {
        state.file_state == "static"
    } else {
        state.file_state != "enabled"
    };
    let enable = (!settled && state.enabled() != enabled).then(|| match enabled {
        true => Action::Enable(name.to_owned()),
        false => Action::Disable(name.to_owned()),
    });
    let start = active
        .filter(|active| *active != state.active)
        .map(|active| match active {
            true => Action::Start(name.to_owned()),
            false => Action::Stop(name.to_owned()),
        });
    if enable.is_none() && start.is_none() {
        return None;
    }
    let undo = Before::Unit {
        enabled: state.enabled(),
        active: state.active,
    };
    let before = if state.loaded {
        unit_state(state.enabled(), state.active)
    } else {
        "absent".to_owned()
    };
    let after = unit_state(enabled, active.unwrap_or(state.active));
    Some(simple(
        resource,
        Verb::Update,
        &before,
        &after,
        enable.into_iter().chain(start).collect(),
        undo,
    ))
}

/// Whether an edit leaves every line as it is and adds some: one more key locks nobody out, and the first one has to be
/// there before passwords go.
fn only_adds(current: Option<&RegularFile>, new: &NewFile<'_>) -> bool {
    let lines = |content: &[u8]| {
        content
            .split(|&byte| byte == b'\n')
            .map(<[u8]>::to_vec)
            .collect::<BTreeSet<_>>()
    };
    match current.map(|file| &file.content) {
        _ if new.enforce => false,
        None => true,
        Some(Content::Whole(content)) => lines(content).is_subset(&lines(new.content)),
        Some(Content::Hash(_)) => false,
    }
}

struct NewFile<'a> {
    path: &'a Utf8Path,
    content: &'a [u8],
    mode: u32,
    owner: &'a str,
    group: &'a str,
    /// Whether mode and owner of a file that is there are put right, too.
    enforce: bool,
}

fn file(
    resource: &Resource,
    new: &NewFile<'_>,
    snapshot: &Snapshot,
) -> Result<Option<Change>, Refusal> {
    let refuse = |reason: &str| Refusal {
        layer: resource.layer,
        what: resource.id().to_string(),
        reason: reason.to_owned(),
        hint: format!(
            "move {} away, or make it a regular file, and run again",
            new.path
        ),
    };
    let (expect, current) = match snapshot.file(new.path) {
        FileState::Absent => (Expect::Absent, None),
        FileState::Regular(file) => (Expect::Sha256(file.sha256()), Some(file)),
        FileState::Link(target) => {
            return Err(refuse(&format!("it is a symbolic link to {target}")));
        }
        FileState::Directory => return Err(refuse("it is a folder")),
        FileState::Special => return Err(refuse("it is a device, a socket or a pipe")),
    };
    let wanted_hash = sha256(new.content);
    let same = |file: &RegularFile| {
        let attributes = (file.mode, file.owner.as_str(), file.group.as_str());
        file.sha256() == wanted_hash
            && (!new.enforce || attributes == (new.mode, new.owner, new.group))
    };
    if current.is_some_and(same) {
        return Ok(None);
    }
    let id = resource.id();
    let mut actions = keep(&id, new.path, current, snapshot);
    actions.push(Action::Write(FileWrite {
        path: new.path.to_owned(),
        content: new.content.to_vec(),
        mode: new.mode,
        owner: new.owner.to_owned(),
        group: new.group.to_owned(),
        expect,
    }));
    let before = if current.is_some() {
        Before::Original
    } else {
        Before::Nothing
    };
    Ok(Some(Change {
        layer: resource.layer,
        verb: if current.is_some() {
            Verb::Update
        } else {
            Verb::Create
        },
        view: view(current, Some(new)),
        phase: if consequence::locks_out(new.path) && !only_adds(current, new) {
            Phase::Guarded
        } else {
            usual_phase(resource.layer)
        },
        actions,
        effects: consequence::effects(new.path, snapshot),
        reboot: None,
        trial: None,
        owns: vec![(
            id.clone(),
            Entry {
                layer: resource.layer,
                before,
                sha256: Some(wanted_hash),
            },
        )],
        releases: Vec::new(),
        id,
    }))
}

/// Nothing of the user's is lost: the original before the first change, and later whatever somebody made of our file.
fn keep(
    id: &Id,
    path: &Utf8Path,
    current: Option<&RegularFile>,
    snapshot: &Snapshot,
) -> Vec<Action> {
    let Some(current) = current else {
        return Vec::new();
    };
    // A run that died owned it, but had not written it yet.
    let is_original = || match snapshot.file(&original_of(path.as_str())) {
        FileState::Regular(original) => original.sha256() == current.sha256(),
        _ => false,
    };
    match snapshot.ledger.get(id) {
        None => vec![Action::KeepOriginal(path.to_owned())],
        Some(entry) if entry.before == Before::Original && is_original() => Vec::new(),
        Some(entry) if entry.sha256.as_deref() != Some(&current.sha256()) => {
            vec![Action::SetAside(path.to_owned())]
        }
        Some(_) => Vec::new(),
    }
}

fn view(current: Option<&RegularFile>, new: Option<&NewFile<'_>>) -> View {
    let text = |content: &[u8]| std::str::from_utf8(content).map(str::to_owned);
    let before = match current.map(|file| &file.content) {
        None => None,
        Some(Content::Hash(_)) => return View::Hidden("too large to show"),
        Some(Content::Whole(content)) => match text(content) {
            Ok(text) => Some(text),
            Err(_) => return View::Hidden("not UTF-8"),
        },
    };
    let after = match new.map(|new| text(new.content)).transpose() {
        Ok(after) => after,
        Err(_) => return View::Hidden("not UTF-8"),
    };
    match (current, new) {
        (Some(file), Some(new)) if before == after => View::Value {
            before: format!("{:04o} {}:{}", file.mode, file.owner, file.group),
            after: format!("{:04o} {}:{}", new.mode, new.owner, new.group),
        },
        _ => View::Text { before, after },
    }
}
