//! Tokens of the kernel command line: the file the firmware reads, and what the running kernel was started with.

use std::collections::BTreeMap;

use camino::{Utf8Path, Utf8PathBuf};

use super::change::{Action, Change, Expect, Phase, Refusal, TriedLine, Verb, View};
use crate::node::boot::{
    Board, BootFacts, BootFile, BootMount, BootProblem, CommandLine, Edit, Layout, Token, Trial,
    Written, resolve,
};
use crate::node::ledger::{Before, Entry, Id, Kind, LayerName};
use crate::node::sha256;
use crate::node::snapshot::Snapshot;

/// Where a boot partition may be mounted (domain.md §1.1).
const MOUNTS: [&str; 2] = ["/boot/firmware", "/boot"];
/// The files below it that decide what is booted.
const FILES: [&str; 6] = [
    "config.txt",
    "cmdline.txt",
    "current/cmdline.txt",
    "current/state",
    "new/cmdline.txt",
    "new/state",
];
/// The sha256 of the line that the node's last trial boot rejected.
const REJECTED: &str = "/var/lib/selfheal/boot-rejected";

/// The files that [`compare`] needs to know.
pub fn questions() -> impl Iterator<Item = Utf8PathBuf> {
    let files = MOUNTS.iter().flat_map(|mount| {
        FILES
            .iter()
            .map(move |file| Utf8PathBuf::from(format!("{mount}/{file}")))
    });
    files.chain([Written::PATH.into(), REJECTED.into()])
}

/// The change that puts `wanted` on the command line, takes away what selfheal added and nobody wants any more, puts
/// back what it took away and may be there again, and boots the node with it.
///
/// `try_first`: where the system can, the new line gets a trial boot before it is kept.
///
/// # Errors
/// A [`Refusal`] wherever it is not certain which file the Pi boots from, or that it can be written safely.
pub fn compare(
    layer: LayerName,
    wanted: &Edit,
    try_first: bool,
    snapshot: &Snapshot,
) -> Result<Option<Change>, Refusal> {
    let refuse = |problem: BootProblem| {
        let refusal = refusal(layer, "kernel command line", &problem.to_string());
        match problem {
            BootProblem::TrialUnderWay { .. } => Refusal {
                hint: "run again in a few minutes".to_owned(),
                ..refusal
            },
            _ => refusal,
        }
    };
    let added = owned(snapshot, Kind::BootToken);
    let removed = owned(snapshot, Kind::BootTokenRemoved);
    let ours = wanted
        .set
        .iter()
        .chain(added.iter().map(|(.., token)| token));
    let ours: Vec<Token> = ours
        .chain(removed.iter().map(|(.., token)| token))
        .cloned()
        .collect();
    let nothing = wanted.set.is_empty() && wanted.remove.is_empty();
    let file = match resolve(&facts(snapshot), &ours) {
        Ok(file) => file,
        Err(_) if nothing && ours.is_empty() => return Ok(None),
        Err(problem) => return Err(refuse(problem)),
    };

    let mut edit = wanted.clone();
    let mut releases = Vec::new();
    let rival = |token: &Token| wanted.set.iter().any(|other| other.key() == token.key());
    for (id, entry, token) in &added {
        if wanted.set.contains(token) {
            continue;
        }
        releases.push((*id).clone());
        match &entry.before {
            Before::Value(old) if !rival(token) => edit.set.extend(old.parse::<Token>()),
            _ if wanted.remove.contains(token) => {}
            _ => edit.remove.push(token.clone()),
        }
    }
    for (id, _, token) in &removed {
        if wanted.remove.contains(token) {
            continue;
        }
        releases.push((*id).clone());
        let taken = token.replaces() && rival(token);
        if !taken && !edit.set.contains(token) {
            edit.set.push(token.clone());
        }
    }
    let line = file.edit(&edit).map_err(refuse)?;
    // An older copy that waits for its trial would be promoted over whatever is written elsewhere (domain.md §1.3).
    let tried = file.layout == Layout::UbuntuAb && (try_first || file.trial == Trial::Waiting);
    let reboot = match &line {
        Some(line) if tried && was_rejected(line, snapshot) => return Err(rejected(layer, &file)),
        Some(line) => file.reboots_for(line).then(|| why(&file, line, tried)),
        None => file.waits_for(),
    };
    if line.is_none() && reboot.is_none() && releases.is_empty() {
        return Ok(None);
    }
    let folder = &file.mount.path;
    let trial = (tried && reboot.is_some()).then(|| TriedLine {
        folder: folder.clone(),
        sha256: match &line {
            Some(line) => sha256(line.to_string().as_bytes()),
            None => sha256(&file.content),
        },
    });
    let entry = |before| Entry {
        layer,
        before,
        sha256: None,
    };
    let new = wanted.set.iter().filter(|token| !file.line.holds(token));
    let new = new.map(|token| {
        let mut tokens = file.line.tokens().iter().rev();
        let replaced = tokens.find(|old| old.key() == token.key() && old.replaces());
        let before = replaced.map_or(Before::Nothing, |old| {
            Before::Value(old.as_str().to_owned())
        });
        (Id::new(Kind::BootToken, token.as_str()), entry(before))
    });
    // What selfheal added itself does not come back.
    let ours = |token: &Token| added.iter().any(|(.., own)| own == token);
    let there = |token: &Token| {
        file.line
            .tokens()
            .iter()
            .any(|have| have.means(token) || token.items_are_in(have))
    };
    let old = wanted
        .remove
        .iter()
        .filter(|token| there(token) && !ours(token));
    let old = old.map(|token| {
        (
            Id::new(Kind::BootTokenRemoved, token.as_str()),
            entry(Before::Nothing),
        )
    });
    let owns: Vec<(Id, Entry)> = new.chain(old).collect();
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
    let target = if tried && line.is_some() {
        folder.join("new/cmdline.txt")
    } else {
        file.path.clone()
    };
    Ok(Some(Change {
        layer,
        id: Id::new(Kind::CommandLine, target.as_str()),
        verb,
        view,
        phase: Phase::Boot,
        owns,
        actions: line
            .iter()
            .map(|line| put(&file, &target, line, tried))
            .collect(),
        effects: Default::default(),
        reboot,
        trial,
        releases,
    }))
}

/// Tokens of the ledger.
fn owned(snapshot: &Snapshot, kind: Kind) -> Vec<(&Id, &Entry, Token)> {
    let of_kind = snapshot.ledger.iter().filter(|(id, _)| id.kind == kind);
    of_kind
        .filter_map(|(id, entry)| Some((id, entry, id.name.parse().ok()?)))
        .collect()
}

fn put(file: &BootFile, target: &Utf8Path, line: &CommandLine, tried: bool) -> Action {
    let content = line.to_string().into_bytes();
    if !tried {
        return write(target, &file.content, &content);
    }
    Action::TryBoot {
        folder: file.mount.path.clone(),
        content,
        current: sha256(&file.ordinary),
        waiting: (file.trial == Trial::Waiting).then(|| sha256(&file.content)),
    }
}

/// Why the node has to reboot for `line`.
fn why(file: &BootFile, line: &CommandLine, tried: bool) -> String {
    let mut why = "the kernel command line changes".to_owned();
    match file.trial {
        Trial::Waiting => why.push_str(", in boot files that already wait for their trial"),
        Trial::Rejected if tried && file.rejected.as_ref() == Some(line) => {
            why.push_str(", once more: a trial boot with it failed before, unseen by selfheal");
        }
        _ => {}
    }
    why
}

fn was_rejected(line: &CommandLine, snapshot: &Snapshot) -> bool {
    let hash = snapshot.content(REJECTED.into()).unwrap_or_default();
    String::from_utf8_lossy(hash).trim() == sha256(line.to_string().as_bytes())
}

/// The same line is not tried again and again: each time costs two boots, and the answer is known.
fn rejected(layer: LayerName, file: &BootFile) -> Refusal {
    let current = file.mount.path.join("current/cmdline.txt");
    Refusal {
        layer,
        what: "kernel command line".to_owned(),
        reason: format!(
            "the Pi rejected this command line in its trial boot, and is on the old one, {current}"
        ),
        hint: format!(
            "change [boot] in the inventory; if it failed for another reason, such as a power cut, `sudo rm {REJECTED}` \
             on the node lets selfheal try the same line once more; --skip boot leaves it as it is"
        ),
    }
}

pub(super) fn refusal(layer: LayerName, what: &str, reason: &str) -> Refusal {
    Refusal {
        layer,
        what: what.to_owned(),
        reason: reason.to_owned(),
        hint: "put that right and run again, or leave this layer out with --skip boot".to_owned(),
    }
}

pub(super) fn write(path: &Utf8Path, current: &[u8], content: &[u8]) -> Action {
    Action::WriteBoot(
        path.to_owned(),
        content.to_vec(),
        Expect::Sha256(sha256(current)),
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
        written: snapshot
            .content(Written::PATH.into())
            .and_then(Written::parse),
    }
}
