//! The dead man's switch (`templates/usr/local/libexec/selfheal/deadman`; design.md §3) with its services played by
//! stand-ins: whenever the power goes, either the change was confirmed or the originals are back.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::crash::{COUNT, Run, Stage, template};

const FILES: [&str; 5] = [
    "/etc/ssh/sshd_config.d/00-selfheal.conf",
    "/etc/sudoers.d/pi",
    "/home/pi and co/.ssh/authorized_keys",
    "/etc/localtime",
    "/etc/systemd/system/selfheal-firewall.service",
];

/// A node with originals; the switch is armed for FILES.
struct Node {
    stage: Stage,
}

/// Content, mode and owner of every file; targets of links.
type World = BTreeMap<String, String>;

impl Node {
    fn new() -> Node {
        let node = Node {
            stage: Stage::new(),
        };
        for folder in [
            "etc/ssh/sshd_config.d",
            "etc/sudoers.d",
            "etc/systemd/system",
            "home/pi and co/.ssh",
            "proc/sys/kernel/random",
            "var/lib/selfheal",
            "active",
        ] {
            fs::create_dir_all(node.root().join(folder)).unwrap();
        }
        node.write("/etc/sudoers.d/pi", "old\n", 0o440);
        node.write(
            "/home/pi and co/.ssh/authorized_keys",
            "ssh-ed25519 old\n",
            0o600,
        );
        symlink(
            "../usr/share/zoneinfo/UTC",
            node.root().join("etc/localtime"),
        )
        .unwrap();
        node.write("/active/ssh.service", "", 0o644);
        node.uptime(1000);
        node.boot_id("first");
        // Units run or not; what was done to them is kept in `log`.
        node.stage.command(
            "systemctl",
            "printf '%s\\n' \"$*\" >>\"$SELFHEAL_ROOT/log\"\nfor unit; do :; done\nunit=$SELFHEAL_ROOT/active/$unit\n\
             [ \"$1\" != --no-block ] || shift\n             case $1 in\nis-active) [ -e \"$unit\" ] ;;\nstop) /usr/bin/rm -f \"$unit\" ;;\n\
             try-*) [ ! -e \"$unit\" ] || : >\"$unit\" ;;\nstart|restart|reload-or-restart) : >\"$unit\" ;;\nesac",
        );
        node.stage.command("sshd", "exit 0");
        node.stage.command("logger", "exit 0");
        // Time passes only by waiting for it.
        node.stage.command(
            "sleep",
            "read -r now _ <\"$SELFHEAL_ROOT/proc/uptime\"\necho $((${now%.*} + $1)).0 1.0 >\"$SELFHEAL_ROOT/proc/uptime\"",
        );
        node
    }

    fn root(&self) -> std::path::PathBuf {
        self.stage.path("root")
    }

    fn write(&self, path: &str, content: &str, mode: u32) {
        let path = self.root().join(path.trim_start_matches('/'));
        let _ = fs::remove_file(&path);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn uptime(&self, seconds: u32) {
        self.write("/proc/uptime", &format!("{seconds}.42 99.0\n"), 0o644);
    }

    fn boot_id(&self, id: &str) {
        self.write("/proc/sys/kernel/random/boot_id", &format!("{id}\n"), 0o644);
    }

    fn run_at(&self, arguments: &[&str], power_cut_at: usize) -> Run {
        let script = template("usr/local/libexec/selfheal/deadman");
        let all: Vec<&str> = [script.to_str().unwrap()]
            .iter()
            .chain(arguments)
            .copied()
            .collect();
        self.stage.sh(&all, b"", power_cut_at)
    }

    fn run(&self, arguments: &[&str]) -> Run {
        self.run_at(arguments, 0)
    }

    fn arm_at(&self, power_cut_at: usize) -> Run {
        let mut arguments = vec!["arm", "60", "token-1"];
        arguments.extend(FILES);
        arguments.extend([
            "--",
            "reload:ssh.service",
            "restart:selfheal-firewall.service",
        ]);
        self.run_at(&arguments, power_cut_at)
    }

    fn arm(&self) {
        let run = self.arm_at(0);
        assert_eq!(
            (run.code, run.stderr.as_str(), run.stdout.as_str()),
            (Some(0), "", "")
        );
    }

    /// What a bad apply does to FILES.
    fn change(&self) {
        self.write(FILES[0], "Port 2\n", 0o644);
        self.write(FILES[1], "new\n", 0o644);
        fs::remove_dir_all(self.root().join("home/pi and co/.ssh")).unwrap();
        fs::remove_file(self.root().join("etc/localtime")).unwrap();
        symlink("nowhere", self.root().join("etc/localtime")).unwrap();
        self.write(FILES[4], "[Unit]\n", 0o644);
        self.write("/active/selfheal-firewall.service", "", 0o644);
    }

    fn world(&self) -> World {
        let mut world = World::new();
        for folder in ["etc", "home"] {
            walk(&self.root().join(folder), &self.root(), &mut world);
        }
        world
    }

    fn log(&self) -> Vec<String> {
        let log = fs::read_to_string(self.root().join("log")).unwrap_or_default();
        log.lines()
            .filter(|line| !line.starts_with("is-active"))
            .map(str::to_owned)
            .collect()
    }

    fn clear_log(&self) {
        let _ = fs::remove_file(self.root().join("log"));
    }

    fn status(&self) -> String {
        let run = self.run(&["status"]);
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
        run.stdout
    }

    fn is_armed(&self) -> bool {
        self.status().starts_with("state armed\n")
    }

    /// Copies the whole node aside, or takes the copy back.
    fn copy(&self, from: &str, to: &str) {
        let _ = fs::remove_dir_all(self.stage.path(to));
        assert!(
            Command::new("cp")
                .arg("-a")
                .args([self.stage.path(from), self.stage.path(to)])
                .status()
                .unwrap()
                .success()
        );
    }
}

fn walk(folder: &Path, root: &Path, world: &mut World) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            walk(&path, root, world);
            continue;
        }
        let what = if meta.is_symlink() {
            format!("-> {}", fs::read_link(&path).unwrap().display())
        } else {
            format!(
                "{:o} {} {}",
                meta.mode(),
                meta.uid(),
                fs::read_to_string(&path).unwrap()
            )
        };
        world.insert(path.strip_prefix(root).unwrap().display().to_string(), what);
    }
}

#[test]
fn a_change_that_nobody_confirms_is_undone() {
    let node = Node::new();
    let originals = node.world();
    node.arm();
    assert_eq!(
        node.log(),
        [
            "enable --quiet selfheal-deadman-boot.service selfheal-deadman.timer",
            "restart selfheal-deadman.timer",
        ]
    );
    assert_eq!(node.world(), originals);
    assert_eq!(
        node.status(),
        "state armed\ntoken token-1\nseconds_left 60\nboot this\n"
    );
    node.change();
    assert_ne!(node.world(), originals);
    node.clear_log();
    // The stand-in for sleep moves the time: the service waits for the deadline, and no longer.
    let run = node.run(&["due"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(
        run.stderr
            .contains("restored 5 original(s) because nobody confirmed the change in time"),
        "{}",
        run.stderr
    );
    assert_eq!(
        fs::read_to_string(node.root().join("proc/uptime")).unwrap(),
        "1060.0 1.0\n"
    );
    assert_eq!(node.world(), originals);
    assert_eq!(
        node.log(),
        [
            "stop selfheal-firewall.service",
            "daemon-reload",
            "reset-failed ssh.service",
            "reload-or-restart ssh.service",
            "--no-block stop selfheal-deadman.timer",
        ]
    );
    let status = node.status();
    assert!(
        status.starts_with("state disarmed\nlast restored token-1 2"),
        "{status}"
    );
    assert!(
        status.ends_with("Z because nobody confirmed the change in time\n"),
        "{status}"
    );
    let late = node.run(&["disarm", "token-1"]);
    assert_eq!(late.code, Some(4));
    assert!(late.stderr.contains("has been undone"), "{}", late.stderr);
    for verb in ["due", "expire", "boot"] {
        assert_eq!(node.run(&[verb]).code, Some(0));
        assert_eq!(node.world(), originals);
    }
}

#[test]
fn a_confirmed_change_stays() {
    let node = Node::new();
    node.arm();
    node.change();
    let changed = node.world();
    assert_eq!(node.run(&["disarm", "token-2"]).code, Some(3));
    assert!(node.is_armed());
    assert_eq!(node.run(&["disarm", "token-1"]).code, Some(0));
    assert_eq!(
        node.log().last().unwrap(),
        "--no-block stop selfheal-deadman.timer"
    );
    assert_eq!(
        node.run(&["disarm", "token-1"]).code,
        Some(0),
        "the answer may have been lost on its way"
    );
    assert!(
        node.status()
            .starts_with("state disarmed\nlast disarmed token-1 2")
    );
    node.uptime(5000);
    for verb in ["due", "expire", "boot"] {
        assert_eq!(node.run(&[verb]).code, Some(0));
        assert_eq!(node.world(), changed);
    }
    assert!(!node.root().join("var/lib/selfheal/deadman/saved").exists());
}

#[test]
fn the_next_boot_undoes_without_touching_services() {
    let node = Node::new();
    let originals = node.world();
    node.arm();
    node.change();
    node.boot_id("second");
    node.uptime(3);
    assert_eq!(
        node.status(),
        "state armed\ntoken token-1\nseconds_left 0\nboot earlier\n"
    );
    node.copy("root", "root.armed");
    node.clear_log();
    assert_eq!(node.run(&["boot"]).code, Some(0));
    assert_eq!(node.world(), originals);
    assert_eq!(
        node.log(),
        ["daemon-reload", "--no-block stop selfheal-deadman.timer"]
    );
    // Should that not have run, the timer does not wait for a deadline of another boot.
    node.copy("root.armed", "root");
    assert_eq!(node.run(&["due"]).code, Some(0));
    assert_eq!(node.world(), originals);
    assert!(
        node.log()
            .contains(&"reload-or-restart ssh.service".to_owned())
    );
}

#[test]
fn units_return_to_what_they_were() {
    let node = Node::new();
    node.write("/active/selfheal-firewall.service", "", 0o644);
    fs::remove_file(node.root().join("active/ssh.service")).unwrap();
    node.arm();
    node.change();
    node.clear_log();
    assert_eq!(
        node.run(&["expire", "a later run settles it"]).code,
        Some(0)
    );
    assert_eq!(
        node.log(),
        [
            "stop selfheal-firewall.service",
            "daemon-reload",
            "reset-failed ssh.service",
            "try-reload-or-restart ssh.service",
            "reset-failed selfheal-firewall.service",
            "start selfheal-firewall.service",
            "--no-block stop selfheal-deadman.timer",
        ]
    );
    assert!(node.status().contains("because a later run settles it"));
}

#[test]
fn the_power_may_go_while_arming() {
    let whole = {
        let node = Node::new();
        node.arm_at(COUNT).commands
    };
    assert!(whole > 30, "only {whole} commands were counted");
    let node = Node::new();
    let originals = node.world();
    node.copy("root", "root.fresh");
    for at in 1..=whole {
        node.copy("root.fresh", "root");
        assert_eq!(node.arm_at(at).code, None, "not killed at {at}");
        assert_eq!(node.world(), originals, "killed at {at}");
        // Nothing was changed yet, so whichever way it goes on, nothing changes.
        assert_eq!(node.run(&["boot"]).code, Some(0), "killed at {at}");
        assert_eq!(node.world(), originals, "killed at {at}");
        assert!(!node.is_armed());
        node.arm();
        node.change();
        assert_eq!(node.run(&["expire"]).code, Some(0));
        assert_eq!(node.world(), originals, "killed at {at}, then armed");
    }
}

#[test]
fn the_power_may_go_while_undoing() {
    let node = Node::new();
    let originals = node.world();
    node.arm();
    node.change();
    node.uptime(2000);
    let changed = node.world();
    node.copy("root", "root.armed");
    for (verb, next) in [("due", "boot"), ("boot", "due")] {
        node.copy("root.armed", "root");
        let whole = node.run_at(&[verb], COUNT).commands;
        assert!(whole > 30, "only {whole} commands were counted");
        for at in 1..=whole {
            node.copy("root.armed", "root");
            assert_eq!(
                node.run_at(&[verb], at).code,
                None,
                "{verb} not killed at {at}"
            );
            for (path, is) in node
                .world()
                .iter()
                .filter(|(path, _)| !path.ends_with(".selfheal-undo"))
            {
                assert!(
                    originals.get(path) == Some(is) || changed.get(path) == Some(is),
                    "{verb} killed at {at}: {path} is neither the old nor the new one: {is}"
                );
            }
            assert_eq!(node.run(&[next]).code, Some(0), "{verb} killed at {at}");
            assert_eq!(
                node.world(),
                originals,
                "{verb} killed at {at}, then {next}"
            );
            assert!(
                node.status()
                    .starts_with("state disarmed\nlast restored token-1"),
                "{verb} killed at {at}"
            );
        }
    }
}

#[test]
fn the_power_may_go_while_disarming() {
    let node = Node::new();
    let originals = node.world();
    node.arm();
    node.change();
    let changed = node.world();
    node.copy("root", "root.armed");
    let whole = node.run_at(&["disarm", "token-1"], COUNT).commands;
    assert!(whole > 5, "only {whole} commands were counted");
    for at in 1..=whole {
        node.copy("root.armed", "root");
        assert_eq!(
            node.run_at(&["disarm", "token-1"], at).code,
            None,
            "not killed at {at}"
        );
        assert_eq!(node.world(), changed);
        node.copy("root", "root.killed");
        assert_eq!(
            node.run(&["disarm", "token-1"]).code,
            Some(0),
            "killed at {at}"
        );
        assert_eq!(node.run(&["boot"]).code, Some(0));
        assert_eq!(
            node.world(),
            changed,
            "killed at {at}, then confirmed again"
        );
        // Or nobody comes back: then it is one or the other, and the record tells which.
        node.copy("root.killed", "root");
        assert_eq!(node.run(&["boot"]).code, Some(0));
        let wanted = if node.status().contains("last restored") {
            &originals
        } else {
            &changed
        };
        assert_eq!(&node.world(), wanted, "killed at {at}, then booted");
    }
}

#[test]
fn a_damaged_set_is_not_restored() {
    for damage in ["1/path", "2/original", "token"] {
        let node = Node::new();
        node.arm();
        node.change();
        let changed = node.world();
        fs::write(
            node.root()
                .join("var/lib/selfheal/deadman/saved")
                .join(damage),
            "",
        )
        .unwrap();
        let run = node.run(&["boot"]);
        assert_eq!(run.code, Some(1), "{damage}");
        assert!(run.stderr.contains("damaged"), "{}", run.stderr);
        assert_eq!(node.world(), changed, "{damage}");
        assert!(node.status().contains("last failed token-1"), "{damage}");
    }
}

#[test]
fn a_file_that_cannot_be_restored_keeps_the_switch_armed() {
    let node = Node::new();
    let originals = node.world();
    node.arm();
    node.change();
    let folder = node.root().join(FILES[1].trim_start_matches('/'));
    fs::remove_file(&folder).unwrap();
    fs::create_dir(&folder).unwrap();
    let run = node.run(&["expire"]);
    assert_eq!(run.code, Some(1));
    assert!(
        run.stderr.contains("cannot restore /etc/sudoers.d/pi"),
        "{}",
        run.stderr
    );
    assert!(
        node.log()
            .contains(&"reload-or-restart ssh.service".to_owned()),
        "the others are in force"
    );
    assert!(node.is_armed());
    fs::remove_dir(&folder).unwrap();
    assert_eq!(node.run(&["due"]).code, Some(0));
    assert_eq!(node.world(), originals);
}

#[test]
fn a_full_disk_does_not_keep_the_originals_away() {
    let node = Node::new();
    let originals = node.world();
    node.arm();
    node.change();
    node.stage.command(
        "cp",
        "for last; do :; done\nhead -c 3 /dev/zero >\"$last\"\nexit 1",
    );
    node.stage.command(
        "mv",
        "for last; do :; done\ncase $last in */last) exit 1 ;; esac\nexec /usr/bin/mv \"$@\"",
    );
    let run = node.run(&["expire"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stderr.contains("cannot write"), "{}", run.stderr);
    assert_eq!(node.world(), originals);
    assert!(!node.is_armed());
}

#[test]
fn sshd_is_not_reloaded_onto_files_it_rejects() {
    let node = Node::new();
    node.arm();
    node.change();
    node.stage.command("sshd", "exit 255");
    node.clear_log();
    assert_eq!(node.run(&["expire"]).code, Some(0));
    assert!(
        !node.log().iter().any(|line| line.contains("ssh.service")),
        "{:?}",
        node.log()
    );
    assert!(node.status().contains("sshd -t rejects the restored files"));
}

#[test]
fn nothing_is_armed_without_a_timer_that_runs() {
    for failing in ["enable", "restart", "is-active"] {
        let node = Node::new();
        node.stage
            .command("systemctl", &format!("[ $1 != {failing} ]"));
        let run = node.arm_at(0);
        assert_eq!(run.code, Some(1), "{failing}");
        assert!(run.stderr.contains("nothing is armed"), "{}", run.stderr);
        assert!(!node.is_armed());
    }
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_touched() {
    let node = Node::new();
    for arguments in [
        &["arm"][..],
        &["arm", "60", "t"],
        &["arm", "60", "t", "--"],
        &["arm", "4", "t", "/etc/x"],
        &["arm", "9999999", "t", "/etc/x"],
        &["arm", "1m", "t", "/etc/x"],
        &["arm", "60", "a b", "/etc/x"],
        &["arm", "60", "", "/etc/x"],
        &["arm", "60", "t", "etc/x"],
        &["arm", "60", "t", "/etc/../x"],
        &["arm", "60", "t", "/etc/x/"],
        &["arm", "60", "t", "/etc/x\ny"],
        &["arm", "60", "t", "/"],
        &["arm", "60", "t", "/etc/x", "--", "ssh.service"],
        &["arm", "60", "t", "/etc/x", "--", "reload:a b"],
        &["arm", "60", "t", "/etc/x", "--", "reload:"],
        &["disarm"],
        &["boot", "now"],
        &["what"],
        &[],
    ] {
        let run = node.run(arguments);
        assert_eq!(run.code, Some(2), "{arguments:?}: {}", run.stderr);
        assert!(
            !node.root().join("var/lib/selfheal/deadman").exists(),
            "{arguments:?}"
        );
    }
    let run = node.run(&["arm", "60", "t", "/etc/ssh"]);
    assert_eq!(run.code, Some(1));
    assert!(
        run.stderr.contains("/etc/ssh is neither a file nor a link"),
        "{}",
        run.stderr
    );
    assert!(!node.is_armed());
    node.arm();
    let run = node.arm_at(0);
    assert_eq!(
        run.code,
        Some(3),
        "a second set of originals would be the changed files"
    );
    assert!(node.is_armed());
}
