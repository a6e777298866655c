use proptest::prelude::*;
use selfheal::node::boot::{Board, ConfigTxt, Setting};

fn prefix(config: &str, board: Board) -> Setting {
    ConfigTxt::parse(config.as_bytes()).setting("os_prefix", board)
}

fn value(text: &str) -> Setting {
    Setting::Value(text.as_bytes().to_vec())
}

#[test]
fn the_last_line_that_applies_counts() {
    assert_eq!(prefix("", Board::Pi4), Setting::Default);
    assert_eq!(
        prefix("os_prefix=a/\r\nos_prefix=b/\r\n", Board::Pi4),
        value("b/")
    );
    assert_eq!(
        prefix(
            "os_prefix=a/\n#os_prefix=b/\nOS_PREFIX=c/\nos_prefix =d/\n",
            Board::Pi4
        ),
        value("a/")
    );
}

#[test]
fn model_filters_replace_each_other_and_all_resets() {
    let config = "os_prefix=a/\n[pi4]\nos_prefix=b/\n[pi5]\nos_prefix=c/\n[cm4]\nos_prefix=d/\n[all]\narm_64bit=1\n";
    assert_eq!(prefix(config, Board::Pi3), value("a/"));
    assert_eq!(prefix(config, Board::Pi4), value("b/"));
    assert_eq!(prefix(config, Board::Pi5), value("c/"));
    assert_eq!(prefix(config, Board::Cm4), value("d/"));
    assert_eq!(
        prefix(config, Board::Other),
        Setting::Unclear {
            line: 7,
            filter: "cm4".to_owned()
        }
    );
    assert_eq!(
        prefix(&format!("{config}os_prefix=e/"), Board::Other),
        value("e/")
    );
}

#[test]
fn filters_of_different_kinds_add_up() {
    let config = "os_prefix=a/\n[tryboot]\nos_prefix=b/\n[pi4]\nos_prefix=c/\n[all]\n[none]\nos_prefix=d/\n[pi4]\nos_prefix=e/\n";
    assert_eq!(prefix(config, Board::Pi4), value("a/"));
}

#[test]
fn what_only_the_firmware_can_judge_is_unclear() {
    for filter in [
        "EDID=DEL-U2422H",
        "0x12345678",
        "gpio4=1",
        "HDMI:0",
        "board-type=0x11",
        "something-new",
    ] {
        let unclear = Setting::Unclear {
            line: 3,
            filter: filter.to_owned(),
        };
        assert_eq!(
            prefix(
                &format!("os_prefix=a/\n[{filter}]\nos_prefix=b/\n"),
                Board::Pi4
            ),
            unclear
        );
        assert_eq!(
            prefix(
                &format!("os_prefix=a/\n[{filter}]\n[pi5]\nos_prefix=b/\n"),
                Board::Pi4
            ),
            value("a/")
        );
        assert_eq!(
            prefix(
                &format!("[{filter}]\nos_prefix=b/\n[all]\nos_prefix=a/\n"),
                Board::Pi4
            ),
            value("a/")
        );
        assert_eq!(
            prefix(
                &format!("os_prefix=a/\n[{filter}]\ncmdline=b\n"),
                Board::Pi4
            ),
            value("a/")
        );
    }
}

#[test]
fn boards_are_told_apart_by_the_device_tree() {
    for (model, board) in [
        ("Raspberry Pi 4 Model B Rev 1.4\0", Board::Pi4),
        ("Raspberry Pi 5 Model B Rev 1.0", Board::Pi5),
        ("Raspberry Pi 400 Rev 1.0", Board::Pi400),
        ("Raspberry Pi 500 Rev 1.0", Board::Pi500),
        ("Raspberry Pi Compute Module 4 Rev 1.0", Board::Cm4),
        ("Raspberry Pi Compute Module 4S Rev 1.0", Board::Cm4s),
        ("Raspberry Pi Compute Module 5 Rev 1.0", Board::Cm5),
        ("Raspberry Pi 3 Model B Plus Rev 1.3", Board::Pi3),
        ("Raspberry Pi Zero 2 W Rev 1.0", Board::Other),
        ("QEMU Virtual Machine", Board::Other),
        ("", Board::Other),
    ] {
        assert_eq!(Board::from_model(model), board, "{model}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read(content in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'['), Just(b']'), Just(b'='), Just(b'\n')], 0..300)) {
        ConfigTxt::parse(&content).setting("os_prefix", Board::Pi4);
    }

    #[test]
    fn odd_bytes_before_do_not_hide_a_setting(noise in prop::collection::vec(any::<u8>(), 0..100)) {
        let mut content = noise;
        content.extend(b"\n[all]\nos_prefix=current/\n");
        prop_assert_eq!(ConfigTxt::parse(&content).setting("os_prefix", Board::Pi5), value("current/"));
    }
}
