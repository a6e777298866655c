//! Tokens of the kernel command line: the file the firmware reads, and what the running kernel was started with.

use std::collections::BTreeMap;

use camino::Utf8PathBuf;

use super::change::{Action, Change, Expect, Phase, Refusal, Verb, View};
use crate::node::boot::{Board, BootFacts, BootMount, BootProblem, Edit, Token, resolve};
use crate::node::ledger::{Before, Entry, Id, Kind, LayerName};
use crate::node::sha256;
use crate::node::snapshot::Snapshot;

/// Where a boot partition may be mounted (domain.md §1.1).
const MOUNTS: [&str; 2] = ["/boot/firmware", "/boot"];
/// The files below it that decide what is booted.
const FILES: [&str; 5] = [
    "config.txt",
    "cmdline.txt",
    "current/cmdline.txt",
    "new/cmdline.txt",
    "new/state",
];

/// The files that [`compare`] needs to know.
pub fn questions() -> impl Iterator<Item = Utf8PathBuf> {
    MOUNTS.iter().flat_map(|mount| {
        FILES
            .iter()
            .map(move |file| Utf8PathBuf::from(format!("{mount}/{file}")))
    })
}

/// The change that puts `wanted` on the command line, takes away what selfheal added and nobody wants any more, and
/// boots the node with it.
///
/// # Errors
/// A [`Refusal`] wherever it is not certain which file the Pi boots from, or that it can be written safely.
pub fn compare(
    layer: LayerName,
    wanted: &[Token],
    snapshot: &Snapshot,
) -> Result<Option<Change>, Refusal> {
    let refuse = |problem: BootProblem| Refusal {
        layer,
        what: "kernel command line".to_owned(),
        reason: problem.to_string(),
        hint: "put that right and run again, or leave this layer out with --skip boot".to_owned(),
    };
    let owned: Vec<(&Id, &Entry, Token)> = snapshot
        .ledger
        .iter()
        .filter(|(id, _)| id.kind == Kind::BootToken)
        .filter_map(|(id, entry)| Some((id, entry, id.name.parse().ok()?)))
        .collect();
    let mut ours = wanted.to_vec();
    ours.extend(owned.iter().map(|(_, _, token)| token.clone()));
    let file = match resolve(&facts(snapshot), &ours) {
        Ok(file) => file,
        Err(_) if wanted.is_empty() && owned.is_empty() => return Ok(None),
        Err(problem) => return Err(refuse(problem)),
    };

    let mut edit = Edit {
        set: wanted.to_vec(),
        remove: Vec::new(),
    };
    let mut releases = Vec::new();
    for (id, entry, token) in &owned {
        if wanted.contains(token) {
            continue;
        }
        releases.push((*id).clone());
        match &entry.before {
            Before::Value(old) if !wanted.iter().any(|other| other.key() == token.key()) => {
                edit.set.extend(old.parse::<Token>());
            }
            _ => edit.remove.push(token.clone()),
        }
    }
    let line = file.edit(&edit).map_err(refuse)?;
    let reboot = match &line {
        Some(_) => Some("the kernel command line changes".to_owned()),
        None if !file.pending.is_empty() => {
            let pending: Vec<&str> = file.pending.iter().map(Token::as_str).collect();
            Some(format!(
                "the kernel was not yet started with {}",
                pending.join(" ")
            ))
        }
        None if releases.is_empty() => return Ok(None),
        None => None,
    };
    let added = wanted.iter().filter(|token| !file.line.holds(token));
    let owns = added.map(|token| {
        let replaced = file
            .line
            .tokens()
            .iter()
            .rev()
            .find(|old| old.key() == token.key() && is_single(old));
        let before = replaced.map_or(Before::Nothing, |old| {
            Before::Value(old.as_str().to_owned())
        });
        (
            Id::new(Kind::BootToken, token.as_str()),
            Entry {
                layer,
                before,
                sha256: None,
            },
        )
    });
    let verb = match (&line, releases.is_empty()) {
        (Some(_), _) => Verb::Update,
        (None, true) => Verb::Finish,
        (None, false) => Verb::Remove,
    };
    let view = match &line {
        Some(line) => View::Text {
            before: Some(String::from_utf8_lossy(&file.content).into_owned()),
            after: Some(line.to_string()),
        },
        None => View::Value {
            before: "written".to_owned(),
            after: "booted".to_owned(),
        },
    };
    Ok(Some(Change {
        layer,
        id: Id::new(Kind::CommandLine, file.path.as_str()),
        verb,
        view,
        phase: Phase::Boot,
        owns: owns.collect(),
        actions: line
            .iter()
            .map(|line| write(&file.path, &file.content, &line.to_string()))
            .collect(),
        effects: Default::default(),
        reboot,
        releases,
    }))
}

fn write(path: &Utf8PathBuf, current: &[u8], line: &str) -> Action {
    Action::WriteBoot(
        path.clone(),
        line.as_bytes().to_vec(),
        Expect::Sha256(sha256(current)),
    )
}

/// Keys that may stand more than once are added beside what is there, never in its place.
fn is_single(token: &Token) -> bool {
    !matches!(
        token.key().as_str(),
        "console" | "cgroup_enable" | "cgroup_disable" | "module_blacklist" | "usb_storage.quirks"
    )
}

/// What the probe read about booting.
pub fn facts(snapshot: &Snapshot) -> BootFacts {
    let mounts = MOUNTS.iter().filter_map(|point| {
        let mount = snapshot.facts.mount(point)?;
        Some(BootMount {
            path: mount.point.clone(),
            fs_type: mount.kind.clone(),
            read_only: mount.read_only,
            free: snapshot
                .facts
                .free
                .get(&mount.point)
                .copied()
                .unwrap_or_default(),
        })
    });
    let files: BTreeMap<_, _> = questions()
        .filter_map(|path| {
            let content = snapshot.content(&path)?.to_vec();
            Some((path, content))
        })
        .collect();
    BootFacts {
        mounts: mounts.collect(),
        files,
        proc_cmdline: snapshot.facts.command_line.clone(),
        board: Board::from_model(&snapshot.facts.model),
    }
}
