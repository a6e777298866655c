//! Lines in config.txt, as a resource.

use camino::Utf8PathBuf;

use super::boot::{facts, refusal, write};
use super::change::{Change, Phase, Refusal, Verb, View};
use super::config_edit::edited;
use super::edit;
use crate::node::boot::{Board, ConfigLine, ConfigTxt, boot_mount};
use crate::node::ledger::{Before, Entry, Id, Kind, LayerName};
use crate::node::snapshot::Snapshot;

/// Whether selfheal's own part of config.txt has this line.
pub fn wrote(snapshot: &Snapshot, line: &ConfigLine) -> bool {
    file(snapshot)
        .is_some_and(|(_, content)| edit::block(content).any(|own| own == line.as_str().as_bytes()))
}

/// What overclocks this Pi.
pub fn overclocking(snapshot: &Snapshot) -> Vec<String> {
    file(snapshot).map_or_else(Vec::new, |(_, content)| {
        ConfigTxt::parse(content).overclocking(board(snapshot))
    })
}

/// The change that puts `lines` into config.txt, and what of selfheal's is not wanted any more out of it.
///
/// # Errors
/// A [`Refusal`] where there is no config.txt to write, or it cannot be written safely.
pub fn compare(
    layer: LayerName,
    lines: &[ConfigLine],
    snapshot: &Snapshot,
) -> Result<Option<Change>, Refusal> {
    let refuse = |reason: &str| refusal(layer, "config.txt", reason);
    let Some((path, content)) = file(snapshot) else {
        return match lines {
            [] => Ok(None),
            _ => Err(refuse(
                "there is no config.txt on a mounted boot partition (vfat)",
            )),
        };
    };
    let edited =
        edited(content, lines, board(snapshot)).map_err(|error| refuse(&error.to_string()))?;
    let id = Id::new(Kind::BootConfig, path.as_str());
    let owned = snapshot.ledger.get(&id).is_some();
    let writes = edited != content;
    let ours = edit::block(&edited).next().is_some();
    let waits = snapshot.reboot_pending.contains(&path);
    if !writes && !waits && ours == owned {
        return Ok(None);
    }
    if writes {
        let longest = content.len().max(edited.len());
        boot_mount(&facts(snapshot))
            .and_then(|mount| mount.can_take(longest))
            .map_err(|problem| refuse(&problem.to_string()))?;
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let entry = Entry {
        layer,
        before: Before::Nothing,
        sha256: None,
    };
    Ok(Some(Change {
        layer,
        id: id.clone(),
        verb: match (writes, waits) {
            (true, _) => Verb::Update,
            (false, true) => Verb::Finish,
            (false, false) => Verb::Remove,
        },
        view: if writes {
            View::Text {
                before: Some(text(content)),
                after: Some(text(&edited)),
            }
        } else {
            View::Value {
                before: "written".to_owned(),
                after: "booted".to_owned(),
            }
        },
        phase: Phase::Boot,
        trial: None,
        actions: writes
            .then(|| write(&path, content, &edited))
            .into_iter()
            .collect(),
        effects: Default::default(),
        reboot: match (writes, waits) {
            (true, _) => Some("config.txt changes".to_owned()),
            (false, true) => Some("the Pi was not yet started with its config.txt".to_owned()),
            (false, false) => None,
        },
        owns: (ours && !owned)
            .then(|| (id.clone(), entry))
            .into_iter()
            .collect(),
        releases: (owned && !ours).then_some(id).into_iter().collect(),
    }))
}

/// config.txt lies in the root of the boot partition, with Ubuntu's A/B layout too, where nothing protects it.
fn file(snapshot: &Snapshot) -> Option<(Utf8PathBuf, &[u8])> {
    let facts = facts(snapshot);
    let path = boot_mount(&facts).ok()?.path.join("config.txt");
    let content = snapshot.content(&path)?;
    Some((path, content))
}

fn board(snapshot: &Snapshot) -> Board {
    Board::from_model(&snapshot.facts.model)
}
