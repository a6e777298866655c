use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use selfheal::node::boot::{
    Board, BootFacts, BootMount, BootProblem, CommandLineError, EditError, Layout, Trial, Written,
    resolve,
};

use super::{hardening, remove, tokens};

fn mount(path: &str) -> BootMount {
    BootMount {
        path: path.into(),
        fs_type: "vfat".into(),
        read_only: false,
        free: 400 << 20,
    }
}

/// A Raspberry Pi OS with the given cmdline.txt and /proc/cmdline.
fn pi_os(cmdline: &str, proc_cmdline: &str) -> BootFacts {
    facts(
        &[
            ("/boot/firmware/config.txt", "arm_64bit=1\n"),
            ("/boot/firmware/cmdline.txt", cmdline),
        ],
        proc_cmdline,
    )
}

fn facts(files: &[(&str, &str)], proc_cmdline: &str) -> BootFacts {
    BootFacts {
        mounts: vec![mount("/boot/firmware")],
        files: files
            .iter()
            .map(|(path, text)| ((*path).into(), text.as_bytes().to_vec()))
            .collect(),
        proc_cmdline: proc_cmdline.to_owned(),
        board: Board::Pi4,
        written: None,
    }
}

/// The files of one folder of `tests/fixtures/boot`, as they lie on a Pi.
fn fixture(system: &str) -> BootFacts {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/boot")
        .join(system);
    let mut files = BTreeMap::new();
    for (name, place) in [
        ("config.txt", "/boot/firmware/config.txt"),
        ("cmdline.txt", "/boot/firmware/cmdline.txt"),
        ("current/cmdline.txt", "/boot/firmware/current/cmdline.txt"),
        ("stub-cmdline.txt", "/boot/cmdline.txt"),
    ] {
        if let Ok(content) = std::fs::read(folder.join(name)) {
            files.insert(place.into(), content);
        }
    }
    let proc_cmdline = std::fs::read_to_string(folder.join("proc-cmdline")).unwrap();
    BootFacts {
        mounts: vec![mount("/boot/firmware")],
        files,
        proc_cmdline,
        board: Board::Pi4,
        written: None,
    }
}

#[test]
fn real_systems_are_resolved_and_edited() {
    for system in ["pios-bookworm", "pios-trixie", "ubuntu-24.04"] {
        let file = resolve(&fixture(system), &[]).unwrap();
        assert_eq!(
            (file.path.as_str(), file.layout),
            ("/boot/firmware/cmdline.txt", Layout::Plain),
            "{system}"
        );
        let after = file.edit(&hardening()).unwrap().unwrap();
        insta::assert_snapshot!(format!("edited_{system}"), after.to_string());
        let once_more = after.edit(&hardening()).unwrap();
        assert_eq!(once_more.to_string(), after.to_string());
    }
}

#[test]
fn ubuntus_two_sets_are_resolved_and_edited() {
    for system in ["ubuntu-25.10", "ubuntu-26.04"] {
        let mut facts = fixture(system);
        let file = resolve(&facts, &[]).unwrap();
        assert_eq!(
            (file.path.as_str(), file.layout, file.trial),
            (
                "/boot/firmware/current/cmdline.txt",
                Layout::UbuntuAb,
                Trial::None
            )
        );
        let after = file.edit(&hardening()).unwrap().unwrap();
        insta::assert_snapshot!(format!("edited_{system}"), after.to_string());
        assert_eq!(file.edit(&remove("psi=1")), Ok(None));

        // What waits for its trial decides the next boot.
        let mut put = |name: &str, content: &str| {
            let path = format!("/boot/firmware/{name}").into();
            facts.files.insert(path, content.as_bytes().to_vec());
            resolve(&facts, &hardening().set)
        };
        let without_line = put("new/state", "unknown\n").unwrap();
        assert_eq!(without_line.trial, Trial::None);
        let waiting = put("new/cmdline.txt", "root=LABEL=writable psi=1\n").unwrap();
        assert_eq!(
            (waiting.path.as_str(), waiting.trial, &waiting.pending),
            (
                "/boot/firmware/new/cmdline.txt",
                Trial::Waiting,
                &tokens("psi=1")
            )
        );
        assert_eq!(waiting.ordinary, file.content);
        assert_eq!(
            put("new/state", "trying"),
            Err(BootProblem::TrialUnderWay {
                state_file: "/boot/firmware/new/state".into()
            })
        );
        let rejected = put("new/state", "bad\n").unwrap();
        assert_eq!(
            (rejected.path, rejected.trial),
            (file.path.clone(), Trial::Rejected)
        );
        assert!(rejected.rejected.unwrap().holds(&tokens("psi=1")[0]));
        // After `piboot-try --restore-old`.
        assert_eq!(put("new/state", "good\n").unwrap().trial, Trial::None);
    }
}

#[test]
fn what_was_written_since_the_last_boot_is_known_from_then_on() {
    let written = Written::parse(b"root=x panic=5 quiet \r\nroot=x panic=10\n").unwrap();
    let mut facts = pi_os("root=x panic=10\n", "psi=0 root=x panic=5 quiet");
    assert!(matches!(
        resolve(&facts, &[]),
        Err(BootProblem::NotBooted { .. })
    ));
    facts.written = Some(written.clone());
    let file = resolve(&facts, &[]).unwrap();
    assert_eq!(
        (file.pending.clone(), file.lingering()),
        (tokens("panic=10"), tokens("quiet"))
    );
    assert!(file.reboots_for(&file.line) && !file.reboots_for(&written.before));
    // The user wrote into it since: nothing is read out of what selfheal once wrote.
    let mut edited = pi_os("root=x panic=10 loglevel=1\n", "root=x panic=5 quiet");
    edited.written = Some(written);
    assert!(matches!(
        resolve(&edited, &[]),
        Err(BootProblem::NotBooted { .. })
    ));
    for damaged in [&b""[..], b"root=x", b"\nroot=x", b"root=x\n\0\n"] {
        assert_eq!(Written::parse(damaged), None);
    }
}

#[test]
fn the_stub_of_bookworm_is_never_chosen() {
    let mut facts = fixture("pios-bookworm");
    facts.mounts = vec![];
    assert_eq!(resolve(&facts, &[]), Err(BootProblem::NotMounted));
    facts.mounts = vec![BootMount {
        fs_type: "ext4".into(),
        ..mount("/boot")
    }];
    assert_eq!(resolve(&facts, &[]), Err(BootProblem::NotMounted));
}

#[test]
fn bullseye_has_the_partition_at_boot() {
    let mut facts = facts(&[("/boot/cmdline.txt", "root=x\n")], "root=x");
    facts.mounts = vec![mount("/boot")];
    assert_eq!(resolve(&facts, &[]).unwrap().path, "/boot/cmdline.txt");
}

#[test]
fn the_file_must_be_what_was_booted_but_for_what_waits_for_a_reboot() {
    let waiting = pi_os(
        "root=x psi=1 panic=10 cfg80211.ieee80211_regdom=DE\n",
        "coherent_pool=1M root=x",
    );
    let missing = tokens("psi=1 panic=10");
    let path = "/boot/firmware/cmdline.txt".into();
    assert_eq!(
        resolve(&waiting, &[]),
        Err(BootProblem::NotBooted { path, missing })
    );
    let file = resolve(&waiting, &hardening().set).unwrap();
    assert_eq!(
        file.pending,
        tokens("psi=1 panic=10 cfg80211.ieee80211_regdom=DE")
    );
    assert!(matches!(
        resolve(&pi_os("root=x\n", "root=y"), &hardening().set),
        Err(BootProblem::NotBooted { .. })
    ));
    let list = pi_os("root=x module_blacklist=a,b\n", "root=x module_blacklist=a");
    assert_eq!(
        resolve(&list, &tokens("module_blacklist=b"))
            .unwrap()
            .pending,
        tokens("module_blacklist=a,b")
    );
}

#[test]
fn config_txt_moves_the_file() {
    let moved = |config: &str| {
        let files = [
            ("/boot/firmware/config.txt", config),
            ("/boot/firmware/cmdline.txt", "root=a"),
            ("/boot/firmware/x-b", "root=b"),
        ];
        resolve(&facts(&files, "root=a root=b"), &[]).map(|file| file.path.to_string())
    };
    assert_eq!(moved("").unwrap(), "/boot/firmware/cmdline.txt");
    assert_eq!(
        moved("os_prefix=x-\ncmdline=b\n").unwrap(),
        "/boot/firmware/x-b"
    );
    assert_eq!(
        moved("[pi5]\nos_prefix=x-\ncmdline=b\n").unwrap(),
        "/boot/firmware/cmdline.txt"
    );
    assert!(matches!(
        moved("[gpio4=1]\nos_prefix=x-\n"),
        Err(BootProblem::Unclear {
            line: 2,
            key: "os_prefix",
            ..
        })
    ));
    assert!(matches!(
        moved("os_prefix=old/\n"),
        Err(BootProblem::Missing { .. })
    ));
    for odd in [
        "os_prefix=../etc/",
        "os_prefix=/",
        "cmdline=",
        "os_prefix=a\\",
        "cmdline=a\x07",
    ] {
        assert!(
            matches!(moved(odd), Err(BootProblem::OddName { .. })),
            "{odd:?}"
        );
    }
}

#[test]
fn what_makes_writing_unsafe_is_told_only_when_there_is_something_to_write() {
    let mut facts = pi_os("root=x\n", "root=x");
    facts.mounts[0].read_only = true;
    let file = resolve(&facts, &[]).unwrap();
    assert_eq!(
        file.edit(&hardening()),
        Err(BootProblem::ReadOnly {
            mount: "/boot/firmware".into()
        })
    );
    assert_eq!(file.edit(&remove("psi=1")), Ok(None));
    facts.mounts[0] = BootMount {
        free: 1000,
        ..mount("/boot/firmware")
    };
    assert!(matches!(
        resolve(&facts, &[]).unwrap().edit(&hardening()),
        Err(BootProblem::NoRoom { free: 1000, .. })
    ));
    let no_root = resolve(&pi_os("quiet\n", "quiet"), &[])
        .unwrap()
        .edit(&hardening());
    assert!(matches!(
        no_root,
        Err(BootProblem::Refused {
            source: EditError::NoRoot,
            ..
        })
    ));
}

#[test]
fn a_damaged_file_is_told_with_its_path() {
    let path = "/boot/firmware/cmdline.txt".into();
    let damaged = resolve(&pi_os("", "root=x"), &[]);
    assert_eq!(
        damaged,
        Err(BootProblem::Unreadable {
            path,
            source: CommandLineError::Empty
        })
    );
    assert!(
        damaged
            .unwrap_err()
            .to_string()
            .starts_with("/boot/firmware/cmdline.txt: the file is empty")
    );
}

proptest! {
    #[test]
    fn any_bytes_in_any_file_are_a_problem_or_a_file_with_its_root(
        config in prop::collection::vec(any::<u8>(), 0..80),
        cmdline in prop_oneof![prop::collection::vec(any::<u8>(), 0..80), Just(b"root=x psi=0\n".to_vec())],
        proc_cmdline in prop_oneof![any::<String>(), Just("root=x psi=0".to_owned())],
    ) {
        let mut facts = pi_os("", &proc_cmdline);
        facts.files.insert("/boot/firmware/config.txt".into(), config);
        facts.files.insert("/boot/firmware/cmdline.txt".into(), cmdline);
        if let Ok(file) = resolve(&facts, &[]) && let Ok(Some(after)) = file.edit(&hardening()) {
            let root = |line: &selfheal::node::boot::CommandLine| line.tokens().iter().filter(|t| t.key() == "root").cloned().collect::<Vec<_>>();
            prop_assert_eq!(root(&file.line), root(&after));
            prop_assert!(!root(&after).is_empty());
        }
    }
}
