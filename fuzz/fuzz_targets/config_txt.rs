//! Any bytes as config.txt: read, and the last word under [all] counts.
#![no_main]

use libfuzzer_sys::fuzz_target;
use selfheal::node::boot::{Board, ConfigTxt, Setting};

fuzz_target!(|content: &[u8]| {
    for board in [Board::Pi4, Board::Cm5, Board::Other] {
        ConfigTxt::parse(content).setting("os_prefix", board);
        let mut settled = content.to_vec();
        settled.extend(b"\n[all]\nos_prefix=current/\n");
        let setting = ConfigTxt::parse(&settled).setting("os_prefix", board);
        assert_eq!(setting, Setting::Value(b"current/".to_vec()));
    }
});
