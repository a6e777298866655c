//! `boot_put` of `templates/session/boot.sh` (domain.md §1.2): whenever the power goes, the Pi has a whole boot line.

use std::fs;

use sha2::{Digest, Sha256};

use crate::crash::{COUNT, Run, Stage, template};

const OLD: &str = "console=tty1 root=/dev/sda2 rootwait \r\n";
const NEW: &str = "console=tty1 root=/dev/sda2 rootwait psi=1\n";

struct Card {
    stage: Stage,
    /// The file that is written.
    name: &'static str,
}

impl Card {
    fn new() -> Card {
        Card::with("cmdline.txt", OLD)
    }

    fn with(name: &'static str, content: &str) -> Card {
        let stage = Stage::new();
        fs::create_dir(stage.path("boot")).unwrap();
        fs::write(stage.path("boot").join(name), content).unwrap();
        Card { stage, name }
    }

    fn put_at(&self, old: &str, new: &[u8], power_cut_at: usize) -> Run {
        let hash: String = Sha256::digest(old)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let script = format!(
            ". '{}'\nboot_put '{}' {hash} '{}'",
            template("session/boot.sh").display(),
            self.stage.path("boot").join(self.name).display(),
            self.stage.path("backup").display(),
        );
        self.stage.sh(&["-c", &script], new, power_cut_at)
    }

    fn put(&self, old: &str, new: &[u8]) -> Run {
        self.put_at(old, new, 0)
    }

    fn content(&self) -> String {
        fs::read_to_string(self.stage.path("boot").join(self.name)).unwrap()
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.stage.path(folder))
            .map(|entries| {
                entries
                    .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                    .collect()
            })
            .unwrap_or_default();
        names.sort();
        names
    }

    /// Contents of the dated copies.
    fn copies(&self) -> Vec<String> {
        let read =
            |name: &String| fs::read_to_string(self.stage.path("backup").join(name)).unwrap();
        self.names("backup").iter().map(read).collect()
    }
}

#[test]
fn writes_the_line_and_keeps_two_copies() {
    let card = Card::new();
    let run = card.put(OLD, NEW.as_bytes());
    assert_eq!(
        (run.code, run.stderr.as_str(), run.stdout.as_str()),
        (Some(0), "", "")
    );
    assert_eq!(card.content(), NEW);
    assert_eq!(
        card.names("boot"),
        ["cmdline.txt", "cmdline.txt.selfheal-bak"]
    );
    assert_eq!(
        fs::read_to_string(card.stage.path("boot/cmdline.txt.selfheal-bak")).unwrap(),
        OLD
    );
    assert_eq!(card.copies(), [OLD]);
    // Again: the content is there, whatever the plan had seen.
    assert_eq!(card.put(OLD, NEW.as_bytes()).code, Some(0));
    // Another change is another copy, also within one second of a clock that stands still.
    card.stage.command("date", "echo 19700101T000000Z");
    let newer = NEW.replace("psi=1", "psi=1 panic=10");
    assert_eq!(card.put(NEW, newer.as_bytes()).code, Some(0));
    assert_eq!(card.put(&newer, NEW.as_bytes()).code, Some(0));
    assert_eq!(card.content(), NEW);
    assert_eq!(card.copies().len(), 3);
}

#[test]
fn the_power_may_go_at_any_command() {
    let whole = Card::new().put_at(OLD, NEW.as_bytes(), COUNT).commands;
    assert!(whole > 20, "only {whole} commands were counted");
    for at in 1..=whole {
        let card = Card::new();
        assert_eq!(
            card.put_at(OLD, NEW.as_bytes(), at).code,
            None,
            "not killed at {at}"
        );
        let content = card.content();
        assert!(
            content == OLD || content == NEW,
            "killed at command {at}: {content:?}"
        );
        assert!(
            content == OLD || card.copies().contains(&OLD.to_owned()),
            "killed at command {at}: no copy"
        );
        let again = card.put(OLD, NEW.as_bytes());
        assert_eq!(again.code, Some(0), "again after {at}: {}", again.stderr);
        assert_eq!(card.content(), NEW);
        assert_eq!(
            card.names("boot"),
            ["cmdline.txt", "cmdline.txt.selfheal-bak"],
            "after {at}"
        );
        assert!(card.copies().contains(&OLD.to_owned()));
    }
}

#[test]
fn a_stale_plan_changes_nothing() {
    let card = Card::new();
    let run = card.put("root=/dev/sda2\n", NEW.as_bytes());
    assert_eq!(run.code, Some(11), "{}", run.stderr);
    assert!(run.stderr.contains("has changed since the plan"));
    fs::remove_file(card.stage.path("boot/cmdline.txt")).unwrap();
    assert_eq!(card.put(OLD, NEW.as_bytes()).code, Some(11));
    assert_eq!(card.names("boot"), [""; 0]);
}

#[test]
fn content_that_is_no_boot_line_is_refused() {
    let card = Card::new();
    for bad in [
        "",
        "\n",
        "console=tty1 root=/dev/sda2 rootwait",
        "console=tty1 root=/dev/sda2 rootwait\n\n",
        "console=tty1 root=/dev/sda2\nrootwait\n",
        "console=tty1 root=/dev/sda2 rootwait ä\n",
        "console=tty1 root=/dev/sda2 rootwait \0\n",
        "console=tty1 root=/dev/sda3 rootwait\n",
        "root=/dev/sda2 rootwait\n",
        "console=tty1 root=/dev/sda2 psi=1\n",
        "console=tty1 rootwait\n",
        "console=tty1 root=/dev/sda2 rootwait console=ttyS0\n",
        "root=/dev/sda2 console=tty1 rootwait\n",
        "console=tty1 root=/dev/sda2 rootwait\tpsi=1\n",
    ] {
        let run = card.put(OLD, bad.as_bytes());
        assert_eq!(run.code, Some(14), "{bad:?}: {}", run.stderr);
        assert_eq!(card.content(), OLD);
        assert_eq!(
            (card.names("boot").len(), card.names("backup").len()),
            (1, 0),
            "{bad:?}"
        );
    }
    fs::write(card.stage.path("boot/cmdline.txt"), "quiet\n").unwrap();
    let run = card.put("quiet\n", b"quiet psi=1\n");
    assert_eq!(run.code, Some(14));
    assert!(run.stderr.contains("no root="), "{}", run.stderr);
}

#[test]
fn config_txt_keeps_what_decides_what_boots() {
    let old = "[all]\nos_prefix=current/\ninitramfs initrd.img followkernel\r\n[pi4]\narm_boost=1";
    let new = format!("{old}\n[all]\ngpu_mem=16\n");
    let card = Card::with("config.txt", old);
    for bad in [
        String::new(),
        new.replace("current/", "new/"),
        new.replace("initramfs", "#initramfs"),
        format!("{new}kernel=other\n"),
        format!("{new}\tarm_64bit=0\n"),
    ] {
        let run = card.put(old, bad.as_bytes());
        assert_eq!(run.code, Some(14), "{bad:?}: {}", run.stderr);
        assert_eq!(
            (card.content().as_str(), card.names("backup").len()),
            (old, 0)
        );
    }
    let run = card.put(old, new.as_bytes());
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(card.content(), new);
    assert_eq!(
        card.names("boot"),
        ["config.txt", "config.txt.selfheal-bak"]
    );
    assert_eq!(card.copies(), [old]);
}

#[test]
fn a_file_with_two_names_is_not_touched() {
    let card = Card::new();
    fs::write(card.stage.path("boot/cmdline.txt.selfheal-new"), OLD).unwrap();
    let run = card.put(OLD, NEW.as_bytes());
    assert_eq!((run.code, card.content().as_str()), (Some(14), OLD));
    assert!(run.stderr.contains("fsck.vfat"), "{}", run.stderr);
    assert_eq!(card.names("boot").len(), 2);
}

#[test]
fn an_unsafe_place_is_refused() {
    let card = Card::new();
    card.stage.command("df", "echo Filesystem 1024-blocks Used Available Capacity Mounted on; echo /dev/sda1 100 40 60 40% /boot");
    let run = card.put(OLD, NEW.as_bytes());
    assert_eq!((run.code, card.content().as_str()), (Some(14), OLD));
    assert!(run.stderr.contains("only 60 KiB free"), "{}", run.stderr);
    let card = Card::new();
    card.stage.command("id", "echo 1000");
    let run = card.put(OLD, NEW.as_bytes());
    assert_eq!((run.code, card.content().as_str()), (Some(14), OLD));
    assert!(run.stderr.contains("needs root"), "{}", run.stderr);
}

#[test]
fn a_card_that_lies_gets_its_old_line_back() {
    // The rename works, and what is read back is something else: three times, then the card behaves.
    for (bad_moves, code, content) in [(1, 1, OLD), (2, 15, "garbage")] {
        let card = Card::new();
        let moves = card.stage.path("moves");
        card.stage.command(
            "mv",
            &format!(
                "/usr/bin/mv \"$@\" || exit\nfor to; do :; done\ncase $to in *cmdline.txt) ;; *) exit 0 ;; esac\n\
                 case $to in */boot/*) printf x >>'{0}'; [ $(/usr/bin/wc -c <'{0}') -le {bad_moves} ] && printf garbage >\"$to\" ;; esac\nexit 0",
                moves.display()
            ),
        );
        let run = card.put(OLD, NEW.as_bytes());
        assert_eq!(
            (run.code, card.content().as_str()),
            (Some(code), content),
            "{}",
            run.stderr
        );
        assert_eq!(
            fs::read_to_string(card.stage.path("boot/cmdline.txt.selfheal-bak")).unwrap(),
            OLD
        );
        assert!(run.stderr.contains(if code == 1 {
            "has been put back"
        } else {
            "before the next reboot, copy"
        }));
    }
}

#[test]
fn a_write_that_fails_changes_nothing() {
    for failing in ["*.selfheal-new", "*.selfheal-bak", "*/saving"] {
        let card = Card::new();
        let body = format!(
            "for last; do :; done\ncase $last in {failing}) exit 1 ;; esac\nexec /usr/bin/sync \"$@\""
        );
        card.stage.command("sync", &body);
        let run = card.put(OLD, NEW.as_bytes());
        assert_eq!(
            (run.code, card.content().as_str()),
            (Some(1), OLD),
            "{failing}: {}",
            run.stderr
        );
        assert!(
            !card
                .names("boot")
                .contains(&"cmdline.txt.selfheal-new".to_owned())
        );
    }
}
