use std::path::Path;

use proptest::prelude::*;
use selfheal::node::boot::{Board, ConfigLine, ConfigTxt, Setting};
use selfheal::resource::config_edit::edited;

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

fn lines(texts: &[&str]) -> Vec<ConfigLine> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn real_systems_get_a_marked_part_at_the_end() {
    let wanted = lines(&["dtparam=watchdog=on", "gpu_mem=16"]);
    for system in [
        "pios-bookworm",
        "pios-trixie",
        "ubuntu-24.04",
        "ubuntu-25.10",
        "ubuntu-26.04",
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/boot")
            .join(system)
            .join("config.txt");
        let before = std::fs::read(path).unwrap();
        let after = edited(&before, &wanted, Board::Pi5).unwrap();
        let text = String::from_utf8(after.clone()).unwrap();
        insta::assert_snapshot!(format!("config_{system}"), text);
        assert_eq!(edited(&after, &wanted, Board::Pi5).unwrap(), after);
        assert_eq!(edited(&after, &[], Board::Pi5).unwrap(), before);
    }
}

#[test]
fn a_line_counts_where_it_is_in_force() {
    let holds = |config: &str, line: &str| {
        ConfigTxt::parse(config.as_bytes()).holds(&line.parse().unwrap(), Board::Pi4)
    };
    for (config, line, held) in [
        ("dtparam=watchdog=on", "dtparam=watchdog=on", true),
        (
            "dtparam=audio=on,watchdog=on\n",
            "dtparam=watchdog=on",
            true,
        ),
        (
            "dtparam=watchdog=on\ndtparam=audio=on\n",
            "dtparam=watchdog=on",
            true,
        ),
        (
            "dtparam=watchdog=on\ndtparam=watchdog=off\n",
            "dtparam=watchdog=on",
            false,
        ),
        ("[pi5]\ndtparam=watchdog=on\n", "dtparam=watchdog=on", false),
        (
            "[pi5]\ndtparam=watchdog=on\n[pi4]\ndtparam=watchdog=on\n",
            "dtparam=watchdog=on",
            true,
        ),
        (
            "[tryboot]\ndtparam=watchdog=on\n",
            "dtparam=watchdog=on",
            false,
        ),
        ("#dtparam=watchdog=on\n", "dtparam=watchdog=on", false),
        (
            "dtoverlay=disable-bt\ndtoverlay=dwc2\n",
            "dtoverlay=disable-bt",
            true,
        ),
        ("gpu_mem=16\ngpu_mem=64\n", "gpu_mem=16", false),
        ("gpu_mem=64\n[gpio4=1]\ngpu_mem=16\n", "gpu_mem=16", false),
    ] {
        assert_eq!(holds(config, line), held, "{config:?}");
    }
}

#[test]
fn what_decides_what_boots_and_overclocking_are_no_lines() {
    for text in [
        "os_prefix=new/",
        "cmdline=x.txt",
        "kernel=x",
        "initramfs=x",
        "auto_initramfs=0",
        "arm_64bit=0",
        "include=x",
        "tryboot_a_b=1",
        "over_voltage=6",
        "arm_freq=2000",
        "gpu_freq=700",
        "force_turbo=1",
        "[all]",
        "gpu_mem",
        "gpu_mem =16",
        "gpu_mem= 16",
        "GPU_MEM=16",
        "#gpu_mem=16",
        "gpu_mem=16\nkernel=x",
        "gpu_mem=",
        "",
    ] {
        assert!(text.parse::<ConfigLine>().is_err(), "{text:?}");
    }
    let long = format!("dtoverlay={}", "x".repeat(90));
    assert!(long.parse::<ConfigLine>().is_err());
    let known = |text: &str| text.parse::<ConfigLine>().unwrap().is_known();
    assert!(known("gpu_mem=16") && known("dtparam=watchdog=on"));
    // Whoever is on the wireless network would be shut out, and a charged cell that cannot be charged may burn.
    for text in [
        "dtoverlay=disable-wifi",
        "dtparam=rtc_bbat_vchg=3000000",
        "dtparam=watchdog=off",
    ] {
        assert!(!known(text), "{text}");
    }
}

/// Pieces of which a config.txt may be made, sound ones and others.
fn config() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..12),
        prop::sample::select(vec![
            "\n",
            "\r\n",
            "[all]",
            "[pi4]",
            "[tryboot]",
            "[none]",
            "[",
            "]",
            "=",
            "#",
            "os_prefix=current/",
            "cmdline=",
            "kernel=x",
            "dtparam=watchdog=on",
            "gpu_mem=16",
            "# BEGIN selfheal: lines up to END are managed, others are yours",
            "# END selfheal",
            "#selfheal# ",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
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

    #[test]
    fn an_edit_comes_to_rest_is_undone_and_leaves_what_boots(content in config(), board in prop::sample::select(vec![Board::Pi4, Board::Pi5, Board::Other])) {
        let wanted = lines(&["dtparam=watchdog=on", "gpu_mem=16", "dtoverlay=disable-bt"]);
        if let Ok(after) = edited(&content, &wanted, board) {
            let (before, now) = (ConfigTxt::parse(&content), ConfigTxt::parse(&after));
            for key in ["os_prefix", "cmdline", "kernel"] {
                prop_assert_eq!(before.setting(key, board), now.setting(key, board));
            }
            for line in &wanted {
                prop_assert!(now.holds(line, board), "{} in {:?}", line, String::from_utf8_lossy(&after));
            }
            prop_assert_eq!(edited(&after, &wanted, board), Ok(after.clone()));
            // The user's own part is what it was, whether or not there was a part of selfheal's before.
            prop_assert_eq!(edited(&after, &[], board), edited(&content, &[], board));
        }
    }
}
