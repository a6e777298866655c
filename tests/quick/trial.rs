//! `templates/session/trial.sh` (domain.md §1.3): whenever the power goes, the Pi boots from a `current/` that nobody
//! touched, and a trial that was cut short is taken up by the next run. And `go-down.sh` (§2.2).

use std::fs;

use selfheal::node::sha256;

use crate::crash::{COUNT, Run, Stage, template};

const OLD: &str = "console=tty1 root=LABEL=writable rootwait\n";
const NEW: &str = "console=tty1 root=LABEL=writable rootwait psi=1\n";

struct Node {
    stage: Stage,
}

impl Node {
    fn new() -> Node {
        let node = Node {
            stage: Stage::new(),
        };
        for folder in ["boot/current", "state", "run", "dpkg"] {
            fs::create_dir_all(node.stage.path(folder)).unwrap();
        }
        node.write("boot/current/cmdline.txt", OLD);
        node.write("boot/current/state", "good\n");
        node.write("boot/current/vmlinuz", &"kernel\n".repeat(1000));
        node.write("locks", "");
        let boot = node.stage.path("boot");
        node.stage.command(
            "flash-kernel",
            &format!(
                "cd '{}' && rm -rf old new && mkdir new && cp current/vmlinuz current/cmdline.txt new/ && \
                 echo unknown >new/state",
                boot.display()
            ),
        );
        node.stage.command("piboot-try", "exit 1");
        node
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.stage.path(name), content).unwrap();
    }

    /// A file's content; nothing where there is none.
    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.stage.path(name)).unwrap_or_default()
    }

    fn call(&self, call: &str, stdin: &str, power_cut_at: usize) -> Run {
        let [step, boot, trial] =
            ["step", "boot", "trial"].map(|name| template(&format!("session/{name}.sh")));
        let path = |name: &str| self.stage.path(name).display().to_string();
        let script = format!(
            "nonce=n token=t holder=h step_seconds=60\n. '{}'\n. '{}'\n. '{}'\n\
             state='{}' run='{}' locks='{}' dpkg='{}'\n{call}",
            step.display(),
            boot.display(),
            trial.display(),
            path("state"),
            path("run"),
            path("locks"),
            path("dpkg"),
        );
        self.stage
            .sh(&["-c", &script], stdin.as_bytes(), power_cut_at)
    }

    fn try_boot(&self, waiting: Option<&str>, power_cut_at: usize) -> Run {
        let waiting = waiting.map_or("-".to_owned(), |line| sha256(line.as_bytes()));
        let call = format!(
            "try_boot '{}' {} {waiting}",
            self.stage.path("boot").display(),
            sha256(OLD.as_bytes())
        );
        self.call(&call, NEW, power_cut_at)
    }

    /// As a plan made now would have it.
    fn try_again(&self) -> Run {
        let line = self.read("boot/new/cmdline.txt");
        let waits = self.read("boot/new/state") == "unknown\n" && !line.is_empty();
        self.try_boot(waits.then_some(line.as_str()), 0)
    }

    fn still_to_be_tried(&self, line: &str) -> Run {
        let boot = self.stage.path("boot");
        let call = format!(
            "still_to_be_tried '{}' {}",
            boot.display(),
            sha256(line.as_bytes())
        );
        self.call(&call, "", 0)
    }

    /// Somebody holds this lock of dpkg's.
    fn lock(&self, name: &str) {
        use std::os::unix::fs::MetadataExt;
        self.write(&format!("dpkg/{name}"), "");
        let inode = fs::metadata(self.stage.path(&format!("dpkg/{name}")))
            .unwrap()
            .ino();
        self.write(
            "locks",
            &format!(
                "1: FLOCK  ADVISORY  WRITE 1 00:1b:{inode} 0 EOF\n\
                 2: POSIX  ADVISORY  WRITE 812 fe:00:{inode} 0 EOF\n"
            ),
        );
    }
}

#[test]
fn a_second_set_is_made_and_edited_and_the_first_stays() {
    let node = Node::new();
    node.write("state/boot-rejected", "another line\n");
    let run = node.try_boot(None, 0);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    assert_eq!(node.read("boot/new/cmdline.txt"), NEW);
    assert_eq!(node.read("boot/new/state"), "unknown\n");
    assert_eq!(node.read("boot/current/cmdline.txt"), OLD);
    assert_eq!(node.read("boot/new/cmdline.txt.selfheal-bak"), OLD);
    assert_eq!(
        fs::read_dir(node.stage.path("state/boot-backup"))
            .unwrap()
            .count(),
        1
    );
    assert_eq!(node.read("run/boot-line"), format!("{OLD}{NEW}"));
    assert_eq!(node.read("state/boot-rejected"), "");
    assert_eq!(node.still_to_be_tried(NEW).code, Some(0));

    // A kernel upgrade makes the second set anew, without the line: no reboot.
    node.write("boot/new/cmdline.txt", OLD);
    let thrown_away = node.still_to_be_tried(NEW);
    assert_eq!(thrown_away.code, Some(11), "{}", thrown_away.stderr);
    assert!(thrown_away.stderr.contains("has made it anew"));
    // And edits that one.
    assert_eq!(node.try_boot(Some(OLD), 0).code, Some(0));
    assert_eq!(node.read("run/boot-line"), format!("{OLD}{NEW}"));
}

#[test]
fn the_power_may_go_at_any_command() {
    let whole = Node::new().try_boot(None, COUNT).commands;
    assert!(whole > 40, "only {whole} commands were counted");
    for at in 1..=whole {
        let node = Node::new();
        assert_eq!(node.try_boot(None, at).code, None, "not killed at {at}");
        assert_eq!(node.read("boot/current/cmdline.txt"), OLD, "killed at {at}");
        let line = node.read("boot/new/cmdline.txt");
        if node.read("boot/new/state") == "unknown\n" {
            assert!(
                line == OLD || line == NEW,
                "killed at {at}: {line:?} would be tried"
            );
        }
        let again = node.try_again();
        assert_eq!(again.code, Some(0), "again after {at}: {}", again.stderr);
        assert_eq!(node.read("boot/new/cmdline.txt"), NEW, "again after {at}");
        assert_eq!(node.read("boot/new/state"), "unknown\n", "again after {at}");
    }
}

#[test]
fn nothing_is_tried_that_the_plan_did_not_see() {
    let node = Node::new();
    node.write("boot/current/cmdline.txt", NEW);
    assert_eq!(node.try_boot(None, 0).code, Some(11));
    node.write("boot/current/cmdline.txt", OLD);
    fs::create_dir(node.stage.path("boot/new")).unwrap();
    node.write("boot/new/cmdline.txt", OLD);
    for (state, waiting) in [("unknown", None), ("trying", None), ("bad", Some(OLD))] {
        node.write("boot/new/state", state);
        let run = node.try_boot(waiting, 0);
        assert_eq!(run.code, Some(11), "{state}: {}", run.stderr);
    }
    assert_eq!(node.read("boot/new/cmdline.txt"), OLD);
}

#[test]
fn what_cannot_be_done_safely_is_not_begun() {
    let refused = |prepare: &dyn Fn(&Node), why: &str| {
        let node = Node::new();
        prepare(&node);
        let run = node.try_boot(None, 0);
        assert_eq!(run.code, Some(14), "{why}: {}", run.stderr);
        assert!(run.stderr.contains(why), "{}", run.stderr);
        assert_eq!(node.read("boot/new/cmdline.txt"), "");
    };
    refused(
        &|node| {
            let df = "echo header; echo /dev/x 100 90 500 90% /boot";
            node.stage.command("df", df);
        },
        "has room for 500 KiB, and a second set of boot files takes",
    );
    refused(
        &|node| {
            node.lock("lock-frontend");
            node.stage.command("sleep", "exit 0");
        },
        "apt or dpkg has been at work for 300 s",
    );
    // What is given up for it counts as free.
    let node = Node::new();
    node.stage
        .command("df", "echo header; echo /dev/x 100 90 500 90% /boot");
    fs::create_dir(node.stage.path("boot/old")).unwrap();
    node.write("boot/old/vmlinuz", &"k".repeat(2_000_000));
    assert_eq!(node.try_boot(None, 0).code, Some(0));
}

#[test]
fn apt_is_waited_for() {
    let node = Node::new();
    node.lock("lock");
    let locks = node.stage.path("locks");
    node.stage
        .command("sleep", &format!(": >'{}'", locks.display()));
    assert_eq!(node.try_boot(None, 0).code, Some(0));
}

#[test]
fn a_flash_kernel_that_does_something_else_is_not_built_upon() {
    for body in ["exit 0", "exit 1"] {
        let node = Node::new();
        node.stage.command("flash-kernel", body);
        let run = node.try_boot(None, 0);
        assert!(matches!(run.code, Some(1 | 14)), "{}", run.stderr);
        assert!(run.stderr.contains("flash-kernel"), "{}", run.stderr);
        assert_eq!(node.read("boot/current/cmdline.txt"), OLD);
    }
}

/// What go-down does on a node where nothing works, command by command.
fn goes_down(how: &str) -> (String, String, String) {
    let stage = Stage::new();
    let log = stage.path("log").display().to_string();
    for name in ["systemctl", "piboot-try", "sleep"] {
        stage.command(name, &format!("echo \"{name} $*\" >>'{log}'"));
    }
    stage.command("logger", "exit 0");
    // Only stand-ins: the real commands must not be found.
    let script = template("session/go-down.sh");
    let arguments = [
        script.to_str().unwrap(),
        "180",
        stage.path("").to_str().unwrap(),
        stage.path("sysrq").to_str().unwrap(),
        how,
    ]
    .map(str::to_owned);
    stage.sh(&arguments.each_ref().map(String::as_str), b"", COUNT);
    let read = |name: &str| fs::read_to_string(stage.path(name)).unwrap_or_default();
    (read("log"), read("sysrq"), read("forced-down"))
}

#[test]
fn a_shutdown_that_hangs_is_forced_step_by_step() {
    let (log, sysrq, noted) = goes_down("plain");
    assert_eq!(
        log.lines()
            .filter(|line| *line != "sleep 5")
            .collect::<Vec<_>>(),
        [
            "sleep 1",
            "systemctl reboot",
            "sleep 180",
            "systemctl reboot --force",
            "sleep 30",
            "systemctl reboot --force --force",
            "sleep 30",
            "sleep 3",
            "sleep 3",
            "sleep 3",
        ]
    );
    assert_eq!(sysrq, "b\n", "the last of s, u and b");
    assert!(noted.ends_with(" sysrq s, u, b\n"), "{noted:?}");

    let (log, ..) = goes_down("trial");
    assert!(log.contains("piboot-try --reboot\n") && !log.contains("systemctl reboot\n"));
    assert!(
        log.contains("systemctl reboot --force --reboot-argument=0 tryboot\n"),
        "{log}"
    );
}
