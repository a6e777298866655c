//! What left the inventory leaves the node: what was there before comes back.

use camino::{Utf8Path, Utf8PathBuf};

use super::change::{Action, Change, Expect, FileWrite, Phase, Refusal, Verb, View};
use super::compare::unit_state;
use super::{consequence, edit};
use crate::node::file::{Content, FileState, RegularFile};
use crate::node::ledger::{Before, Entry, Id, Kind, original_of};
use crate::node::snapshot::Snapshot;

/// The value that the kernel takes for an earlier one. It refuses its own default here; 1 means the same: the first
/// stall that may panic does.
fn taken_back<'a>(key: &str, previous: &'a str) -> &'a str {
    match (key, previous) {
        ("kernel.max_rcu_stall_to_panic", "0") => "1",
        (_, previous) => previous,
    }
}

/// The change that gives `id` back to the user. Boot tokens are not undone here but by [`super::boot`], all at once.
///
/// # Errors
/// A [`Refusal`] when what is there now cannot be undone without losing something.
pub fn undo(id: &Id, entry: &Entry, snapshot: &Snapshot) -> Result<Change, Refusal> {
    let path = matches!(id.kind, Kind::File | Kind::Edit).then(|| Utf8Path::new(&id.name));
    let change = |view, actions| Change {
        layer: entry.layer,
        id: id.clone(),
        verb: Verb::Remove,
        view,
        phase: if path.is_some_and(consequence::locks_out) || id.name == consequence::FIREWALL_UNIT
        {
            Phase::Guarded
        } else {
            Phase::Removals
        },
        actions,
        effects: {
            let effects = path.map(|path| consequence::effects(path, snapshot));
            effects.unwrap_or_default()
        },
        reboot: None,
        trial: None,
        owns: Vec::new(),
        releases: vec![id.clone()],
    };
    let value = |before: &str, after: &str, actions| {
        Ok(change(
            View::Value {
                before: before.to_owned(),
                after: after.to_owned(),
            },
            actions,
        ))
    };
    match (id.kind, &entry.before) {
        (Kind::File | Kind::Edit, before) => {
            let path = Utf8Path::new(&id.name);
            let (view, actions) = file(id.kind, path, entry, before, snapshot)?;
            Ok(change(view, actions))
        }
        (Kind::Sysctl, Before::Value(previous)) => {
            let previous = taken_back(&id.name, previous);
            let actions = vec![Action::SetSysctl(id.name.clone(), previous.to_owned())];
            value(
                snapshot.sysctl(&id.name).unwrap_or("absent"),
                previous,
                actions,
            )
        }
        (Kind::Unit, Before::Unit { enabled, active }) => {
            let name = id.name.clone();
            let state = snapshot.unit(&name);
            let mut actions = Vec::new();
            match (state.loaded, state.enabled(), *enabled) {
                (true, false, true) => actions.push(Action::Enable(name.clone())),
                (true, true, false) => actions.push(Action::Disable(name.clone())),
                _ => {}
            }
            // A socket cannot start while the service behind it runs; it will at the next boot.
            let served = name.strip_suffix(".socket").is_some_and(|stem| {
                let service = snapshot.unit(&format!("{stem}.service"));
                service.active
            });
            match (state.loaded, state.active, *active) {
                (true, false, true) if served => {}
                (true, false, true) => actions.push(Action::Start(name)),
                (true, true, false) => actions.push(Action::Stop(name)),
                _ => {}
            }
            let before = unit_state(state.enabled(), state.active);
            value(&before, &unit_state(*enabled, *active), actions)
        }
        (Kind::Directory, _) => value(
            "made by selfheal",
            "gone if empty",
            vec![Action::RemoveDirectory(id.name.clone().into())],
        ),
        (Kind::Hold, _) => value("held", "upgradable", vec![Action::Unhold(id.name.clone())]),
        (Kind::Hostname, Before::Value(previous)) => value(
            &snapshot.facts.hostname,
            previous,
            vec![Action::SetHostname(previous.clone())],
        ),
        (Kind::Asset, _) => value(
            "there",
            "gone",
            vec![Action::Discard(id.name.clone().into())],
        ),
        (Kind::Secret, _) => value(
            "a secret token",
            "gone",
            vec![Action::Discard(id.name.clone().into())],
        ),
        (Kind::Evidence, Before::Value(said)) => value(said, "forgotten", Vec::new()),
        (Kind::Swap, _) => value("off", "as configured", vec![Action::SwapOn]),
        // Packages and loaded modules stay; a value that was never recorded cannot come back.
        _ => value("managed", "stays, no longer managed", Vec::new()),
    }
}

type Undone = (View, Vec<Action>);

fn file(
    kind: Kind,
    path: &Utf8Path,
    entry: &Entry,
    before: &Before,
    snapshot: &Snapshot,
) -> Result<Undone, Refusal> {
    let refuse = |reason: &str| Refusal {
        layer: entry.layer,
        what: path.to_string(),
        reason: reason.to_owned(),
        hint: format!(
            "put {path} right by hand; the original, if there was one, is {}",
            original_of(path.as_str())
        ),
    };
    let current = match snapshot.file(path) {
        FileState::Absent => None,
        FileState::Regular(file) => Some(file),
        _ => return Err(refuse("it is no regular file any more")),
    };
    let original = snapshot.file(&original_of(path.as_str()));
    let expect = current.map_or(Expect::Absent, |file| Expect::Sha256(file.sha256()));
    let ours = current.is_some_and(|file| entry.sha256.as_deref() == Some(&file.sha256()));
    let text = |file: &RegularFile| match &file.content {
        Content::Whole(content) => std::str::from_utf8(content).ok().map(str::to_owned),
        Content::Hash(_) => None,
    };
    let shown = |after: Option<String>| View::Text {
        before: current.and_then(text),
        after,
    };
    match (current, before, original) {
        // An interrupted run owned it, but never wrote it.
        (Some(file), Before::Original, FileState::Regular(kept))
            if file.sha256() == kept.sha256() =>
        {
            Ok((View::Hidden("already as before selfheal"), Vec::new()))
        }
        (
            Some(RegularFile {
                content: Content::Whole(content),
                mode,
                owner,
                group,
                ..
            }),
            _,
            _,
        ) if kind == Kind::Edit && !ours => {
            // The user wrote into it since: only selfheal's own lines go.
            let undone = edit::undo(content);
            let after = String::from_utf8(undone.clone()).ok();
            let write = FileWrite {
                path: path.to_owned(),
                content: undone,
                mode: *mode,
                owner: owner.clone(),
                group: group.clone(),
                expect,
            };
            Ok((shown(after), vec![Action::Write(write)]))
        }
        (_, Before::Original, FileState::Regular(kept)) => {
            let mut actions = aside(path, current.is_some() && !ours);
            actions.push(Action::RestoreOriginal(path.to_owned(), expect));
            Ok((shown(text(kept)), actions))
        }
        (_, Before::Original, _) => Err(refuse("its original is gone from the node")),
        (None, _, _) => Ok((View::Hidden("already gone"), Vec::new())),
        (Some(_), _, _) => {
            let mut actions = aside(path, !ours);
            actions.push(Action::Remove(path.to_owned(), expect));
            Ok((shown(None), actions))
        }
    }
}

fn aside(path: &Utf8Path, changed: bool) -> Vec<Action> {
    if changed {
        vec![Action::SetAside(Utf8PathBuf::from(path))]
    } else {
        Vec::new()
    }
}
