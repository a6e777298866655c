use proptest::prelude::*;
use selfheal::node::boot::{
    CommandLine, CommandLineError, Edit, EditError, MAX_LENGTH, Standing, Token, TokenError,
};

use super::{hardening, remove, set, tokens};

fn line(text: &str) -> CommandLine {
    CommandLine::parse(text.as_bytes()).unwrap()
}

/// The content after an edit, without its newline.
fn edited(text: &str, edit: &Edit) -> String {
    line(text)
        .edit(edit)
        .unwrap()
        .to_string()
        .trim_end()
        .to_owned()
}

#[test]
fn appends_what_is_missing_in_the_order_asked_for() {
    assert_eq!(
        edited("console=tty1  root=/dev/sda2\trootwait\r\n\n", &hardening()),
        "console=tty1 root=/dev/sda2 rootwait cgroup_memory=1 cgroup_enable=memory psi=1 panic=10"
    );
    assert_eq!(
        line("root=/dev/sda2")
            .edit(&hardening())
            .unwrap()
            .to_string()
            .matches('\n')
            .count(),
        1
    );
}

#[test]
fn single_valued_keys_change_in_place_and_only_the_one_that_counts() {
    assert_eq!(
        edited("a psi=0 root=x panic=30 quiet", &set("psi=1 panic=10")),
        "a psi=1 root=x panic=10 quiet"
    );
    assert_eq!(
        edited("panic=1 root=x panic=2", &set("panic=10")),
        "panic=1 root=x panic=10"
    );
    assert_eq!(
        edited("panic=10 root=x panic=2", &set("panic=10")),
        "panic=10 root=x panic=10"
    );
    // `-` and `_` are one to the kernel.
    assert_eq!(
        edited("nvme-core.x=1 root=x", &set("nvme_core.x=2")),
        "nvme_core.x=2 root=x"
    );
}

#[test]
fn what_already_holds_stays_as_it_is_written() {
    for text in [
        "root=x psi=\"1\"",
        "cgroup_enable=cpuset,memory root=x cgroup_memory=1",
        "root=x module_blacklist=a,b,c",
        "cgroup_enable=cpuset cgroup_enable=memory root=x",
    ] {
        let before = line(text);
        let wanted: Edit = if text.contains("psi") {
            set("psi=1")
        } else if text.contains("blacklist") {
            set("module_blacklist=b,c")
        } else {
            set("cgroup_enable=memory")
        };
        assert_eq!(before.edit(&wanted).unwrap(), before, "{text}");
    }
}

#[test]
fn keys_that_may_repeat_are_never_merged() {
    assert_eq!(
        edited(
            "console=serial0,115200 console=tty1 root=x cgroup_enable=cpuset",
            &set("cgroup_enable=memory")
        ),
        "console=serial0,115200 console=tty1 root=x cgroup_enable=cpuset cgroup_enable=memory"
    );
}

#[test]
fn comma_lists_of_which_the_last_counts_grow_and_shrink_by_members() {
    let text = "usb-storage.quirks=152d:0578:u root=x module_blacklist=a";
    let both = set("usb-storage.quirks=174c:55aa:u module_blacklist=b");
    let grown = "usb-storage.quirks=152d:0578:u,174c:55aa:u root=x module_blacklist=a,b";
    assert_eq!(edited(text, &both), grown);
    assert_eq!(
        edited(
            grown,
            &remove("usb-storage.quirks=174c:55aa:u module_blacklist=b")
        ),
        text
    );
    assert_eq!(
        edited("root=x module_blacklist=a", &remove("module_blacklist=a")),
        "root=x"
    );
}

#[test]
fn removes_only_the_token_that_was_named() {
    assert_eq!(
        edited(
            "psi=1 root=x panic=30 quiet",
            &remove("psi=1 panic=10 quiet")
        ),
        "root=x panic=30"
    );
}

#[test]
fn what_follows_two_dashes_belongs_to_init() {
    assert_eq!(
        edited("root=x quiet -- psi=0 quiet", &set("psi=1")),
        "root=x quiet psi=1 -- psi=0 quiet"
    );
    assert_eq!(
        edited("root=x quiet -- quiet", &remove("quiet")),
        "root=x -- quiet"
    );
    assert_eq!(line("-- root=x").edit(&hardening()), Err(EditError::NoRoot));
}

#[test]
fn quotes_keep_a_value_together() {
    let text = "root=x dyndbg=\"file a.c +p\" \"b=c d\"";
    assert_eq!(line(text).tokens().len(), 3);
    assert_eq!(line(text).tokens()[1].value(), Some("file a.c +p"));
    assert_eq!(
        (line(text).tokens()[2].key(), line(text).tokens()[2].value()),
        ("b".into(), Some("c d"))
    );
    assert_eq!(edited(text, &set("psi=1")), format!("{text} psi=1"));
}

#[test]
fn content_that_the_firmware_reads_differently_is_refused() {
    let error = |content: &[u8]| CommandLine::parse(content).unwrap_err();
    assert_eq!(error(b""), CommandLineError::Empty);
    assert_eq!(error(b" \n\t\n"), CommandLineError::Empty);
    assert_eq!(
        error(b"root=x\0"),
        CommandLineError::Byte { byte: 0, offset: 6 }
    );
    assert_eq!(
        error("root=x ä".as_bytes()),
        CommandLineError::Byte {
            byte: 0xc3,
            offset: 7
        }
    );
    assert_eq!(
        error(b"\xef\xbb\xbfroot=x"),
        CommandLineError::Byte {
            byte: 0xef,
            offset: 0
        }
    );
    assert_eq!(
        error(b"root=x\n\npsi=1\n"),
        CommandLineError::TextAfterFirstLine { line: 3 }
    );
    assert_eq!(
        error(b"\nroot=x\n"),
        CommandLineError::TextAfterFirstLine { line: 2 }
    );
    assert_eq!(error(b"root=x a=\"b\n"), CommandLineError::UnclosedQuote);
    assert!(
        error(b"root=x\n\npsi=1\n")
            .to_string()
            .contains("reads only the first line")
    );
}

#[test]
fn what_decides_the_boot_is_neither_set_nor_removed() {
    for text in [
        "root=/dev/sdb2",
        "rootfstype=btrfs",
        "rootwait",
        "fixrtc",
        "console=ttyS0",
        "init=/bin/sh",
        "rdinit=/x",
        "systemd.unit=rescue.target",
        "systemd.unified_cgroup_hierarchy=0",
        "single",
        "S",
        "3",
        "rescue",
        "rd.break",
        "ro",
        "ip=dhcp",
        "mem=1G",
        "maxcpus=1",
    ] {
        let token: Token = text.parse().unwrap();
        assert!(token.is_untouchable(), "{text}");
        assert_eq!(
            line("root=x").edit(&set(text)),
            Err(EditError::Untouchable(token.clone()))
        );
        assert_eq!(
            line(&format!("root=x {text}")).edit(&remove(text)),
            Err(EditError::Untouchable(token))
        );
    }
}

#[test]
fn tokens_of_the_reference_are_known_and_others_are_not() {
    let standing = |text: &str| text.parse::<Token>().unwrap().standing();
    for text in [
        "rcupdate.rcu_exp_cpu_stall_timeout=21000",
        "rcupdate.rcu-normal-after-boot=1",
        "usb-storage.quirks=152d:0578:u,0bc2:231a:u",
        "nvme_core.default_ps_max_latency_us=0",
        "pcie_aspm=off",
        "quiet",
        "fsck.repair=yes",
        "cfg80211.ieee80211_regdom=DE",
    ] {
        assert_eq!(standing(text), Standing::Known, "{text}");
    }
    for text in [
        "rcupdate.rcu_exp_cpu_stall_timeout=20",
        "quiet=1",
        "pcie_aspm",
        "usb-storage.quirks=152d:0578",
    ] {
        assert!(matches!(standing(text), Standing::Odd(_)), "{text}");
    }
    for text in ["hugepages=64", "isolcpus=3", "module.option=a=b"] {
        assert_eq!(standing(text), Standing::Untested, "{text}");
    }
    for text in ["cgroup_disable=memory", "rcupdate.rcu_expedited=1"] {
        assert!(matches!(standing(text), Standing::Harmful(_)), "{text}");
    }
    for (text, key) in [
        ("psi=0", "psi"),
        ("panic", "panic_timeout"),
        ("cgroup-enable=pids", "memory_cgroup"),
    ] {
        assert_eq!(standing(text), Standing::Setting(key), "{text}");
    }
}

#[test]
fn tokens_to_be_written_are_read_strictly() {
    let error = |text: &str| text.parse::<Token>().unwrap_err();
    assert_eq!(error("  "), TokenError::Empty);
    assert!(matches!(error("a b"), TokenError::NotOne(_)));
    assert!(matches!(error("a=\"b"), TokenError::NotOne(_)));
    for text in [
        "--",
        "a=ä",
        "a=\x01",
        "\"root=x\"",
        "\"a\"=x",
        "a=b\"c\"",
        "=x",
        "a=\"b\"\"c\"",
        "a;b",
    ] {
        let odd = text.parse::<Token>();
        assert!(odd.is_err() || text == "--", "{text:?}: {odd:?}");
    }
    assert!("--".parse::<Token>().unwrap().is_untouchable());
    assert_eq!("a=\"b c\"".parse::<Token>().unwrap().value(), Some("b c"));
}

#[test]
fn an_edit_that_would_never_come_to_rest_is_refused() {
    let contradicts =
        |edit: &Edit| matches!(line("root=x").edit(edit), Err(EditError::Contradiction(..)));
    assert!(contradicts(&set("psi=1 psi=0")));
    assert!(contradicts(&Edit {
        set: tokens("psi=1"),
        remove: tokens("psi=1")
    }));
    assert!(contradicts(&Edit {
        set: tokens("module_blacklist=a,b"),
        remove: tokens("module_blacklist=b")
    }));
    assert!(!contradicts(&Edit {
        set: tokens("psi=1 cgroup_enable=memory"),
        remove: tokens("psi=0 cgroup_disable=memory")
    }));
}

#[test]
fn a_line_that_would_not_fit_is_refused_unless_it_stays() {
    let long = format!("root=x a={} psi=1", "b".repeat(MAX_LENGTH));
    assert!(matches!(
        line(&long).edit(&set("panic=10")),
        Err(EditError::TooLong { .. })
    ));
    assert_eq!(line(&long).edit(&set("psi=1")).unwrap(), line(&long));
}

#[test]
fn the_running_kernel_is_compared_without_what_the_firmware_does() {
    let file = line("console=serial0,115200 console=tty1 root=x psi=1 \"a=b c\"");
    assert_eq!(
        file.not_booted(
            "coherent_pool=1M console=ttyAMA10,115200 console=tty1 root=x psi=1 a=\"b c\"\n"
        ),
        []
    );
    assert_eq!(
        file.not_booted("console=tty1 root=y psi=0"),
        tokens("root=x psi=1")
            .into_iter()
            .chain([file.tokens()[4].clone()])
            .collect::<Vec<_>>()
    );
}

/// Pieces that make up real and broken command lines.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("root=/dev/mmcblk0p2".to_owned()),
        Just("console=tty1".to_owned()),
        Just("cgroup_enable=memory".to_owned()),
        Just("cgroup_disable=memory,cpuset".to_owned()),
        Just("module_blacklist=a,b".to_owned()),
        Just("usb_storage.quirks=1:2:u".to_owned()),
        Just("--".to_owned()),
        "(psi|panic|quiet|module-blacklist|usb-storage.quirks|cgroup_enable|a)(=[a-c0-1,\"]{0,5})?",
        "[ -~]{0,6}",
        "[ \t\r\n]",
        any::<char>().prop_map(String::from),
    ]
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::collection::vec(piece(), 0..12).prop_map(|pieces| pieces.join(" ").into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..200),
    ]
}

fn wanted() -> impl Strategy<Value = Vec<Token>> {
    let token = "(psi|panic|quiet|module_blacklist|usb-storage.quirks|cgroup_enable|root|console|a|A-b)(=[a-c0-1,]{0,5})?";
    prop::collection::vec(
        token.prop_filter_map("a token", |text| text.parse().ok()),
        0..4,
    )
}

fn guarded(line: &CommandLine) -> Vec<Token> {
    let keys = [
        "root",
        "rootfstype",
        "rootwait",
        "fixrtc",
        "console",
        "init",
    ];
    line.tokens()
        .iter()
        .filter(|token| keys.contains(&token.key().as_ref()))
        .cloned()
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_and_any_edit_keep_what_the_pi_boots_by(content in content(), set in wanted(), remove in wanted()) {
        let Ok(before) = CommandLine::parse(&content) else { return Ok(()) };
        prop_assert_eq!(CommandLine::parse(before.to_string().as_bytes()).unwrap(), before.clone());
        let edit = Edit { set, remove };
        let Ok(after) = before.edit(&edit) else { return Ok(()) };
        prop_assert_eq!(guarded(&after), guarded(&before));
        prop_assert_eq!(after.edit(&edit).unwrap().to_string(), after.to_string());
        let written = after.to_string();
        prop_assert!(written.is_ascii() && written.ends_with('\n') && written.matches('\n').count() == 1);
        prop_assert_eq!(CommandLine::parse(written.as_bytes()).unwrap(), after.clone());
        for token in &edit.set {
            prop_assert!(after.holds(token), "{} not in {}", token, after);
        }
    }
}
