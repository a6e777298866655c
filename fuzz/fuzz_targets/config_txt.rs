//! Any bytes as config.txt: read, and an edit is refused, or comes to rest, is undone, and leaves what boots alone.
#![no_main]

use libfuzzer_sys::fuzz_target;
use selfheal::node::boot::{Board, ConfigLine, ConfigTxt, Setting};
use selfheal::resource::config_edit::edited;

/// The input is a file and, after a newline and `+`, lines to add.
fn parts(input: &[u8]) -> (&[u8], Vec<ConfigLine>) {
    let mut wanted = vec![ConfigLine::watchdog()];
    let mut length = input.len();
    for line in input.split(|byte| *byte == b'\n').rev() {
        let Some((b'+', text)) = line.split_first() else {
            break;
        };
        let text = std::str::from_utf8(text).unwrap_or_default();
        wanted.extend(text.parse::<ConfigLine>());
        length = length.saturating_sub(line.len() + 1);
    }
    (&input[..length], wanted)
}

fuzz_target!(|input: &[u8]| {
    let (content, wanted) = parts(input);
    let boards = [Board::Pi4, Board::Cm5, Board::Other];
    let board = boards[input.len() % boards.len()];
    let before = ConfigTxt::parse(content);
    before.overclocking(board);
    let mut settled = content.to_vec();
    settled.extend(b"\n[all]\nos_prefix=current/\n");
    let setting = ConfigTxt::parse(&settled).setting("os_prefix", board);
    assert_eq!(setting, Setting::Value(b"current/".to_vec()));

    let Ok(after) = edited(content, &wanted, board) else {
        return;
    };
    let now = ConfigTxt::parse(&after);
    for key in ["os_prefix", "cmdline", "kernel", "arm_64bit"] {
        assert_eq!(before.setting(key, board), now.setting(key, board));
    }
    assert_eq!(edited(&after, &wanted, board).as_ref(), Ok(&after));
    let own = edited(content, &[], board).expect("what is edited can be taken back");
    assert_eq!(edited(&after, &[], board), Ok(own.clone()));
    assert!(after.starts_with(&own));
    if !content.windows(8).any(|bytes| bytes == b"selfheal") {
        assert_eq!(own, content);
    }
});
