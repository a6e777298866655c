//! Lines in config.txt: a marked part at its end, under an explicit `[all]`. What the user wrote stays byte for byte.

use super::edit;
use crate::node::boot::{Board, ConfigLine, ConfigTxt};

/// The settings that decide what boots: an edit must leave them as they are.
const GUARDED: [&str; 8] = [
    "os_prefix",
    "overlay_prefix",
    "cmdline",
    "kernel",
    "auto_initramfs",
    "arm_64bit",
    "device_tree",
    "start_file",
];

/// Somebody wrote into selfheal's part of config.txt what decides what boots: it would go with that part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` stands between selfheal's marks in config.txt and would go with them: move it out of there"
)]
pub struct Misplaced(&'static str);

/// `content` with `lines` at its end, where nothing overrides them, but for those that the user's own part has already.
/// Without lines, the user's own part is all there is.
///
/// # Errors
/// [`Misplaced`].
pub fn edited(content: &[u8], lines: &[ConfigLine], board: Board) -> Result<Vec<u8>, Misplaced> {
    let own = edit::without_block(content);
    let settings = ConfigTxt::parse(&own);
    let missing = lines.iter().filter(|line| !settings.holds(line, board));
    let mut block: Vec<String> = missing.map(ToString::to_string).collect();
    if !block.is_empty() {
        block.insert(0, "[all]".to_owned());
    }
    let edited = edit::with_block(own, &block);
    let (before, after) = (ConfigTxt::parse(content), ConfigTxt::parse(&edited));
    let changed = |key: &&&str| before.setting(key, board) != after.setting(key, board);
    match GUARDED.iter().find(changed) {
        Some(key) => Err(Misplaced(key)),
        None => Ok(edited),
    }
}
