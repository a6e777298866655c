//! A node with originals and a dead man's switch, its services played by stand-ins.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::crash::{Run, Stage, template};

pub const FILES: [&str; 5] = [
    "/etc/ssh/sshd_config.d/00-selfheal.conf",
    "/etc/sudoers.d/pi",
    "/home/pi and co/.ssh/authorized_keys",
    "/etc/localtime",
    "/etc/systemd/system/selfheal-firewall.service",
];

/// A node with originals; the switch is armed for FILES.
pub struct Node {
    pub stage: Stage,
}

/// Content, mode and owner of every file; targets of links.
pub type World = BTreeMap<String, String>;

impl Node {
    pub fn new() -> Node {
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

    pub fn root(&self) -> PathBuf {
        self.stage.path("root")
    }

    pub fn write(&self, path: &str, content: &str, mode: u32) {
        let path = self.root().join(path.trim_start_matches('/'));
        let _ = fs::remove_file(&path);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    pub fn uptime(&self, seconds: u32) {
        self.write("/proc/uptime", &format!("{seconds}.42 99.0\n"), 0o644);
    }

    pub fn boot_id(&self, id: &str) {
        self.write("/proc/sys/kernel/random/boot_id", &format!("{id}\n"), 0o644);
    }

    pub fn run_at(&self, arguments: &[&str], power_cut_at: usize) -> Run {
        let script = template("usr/local/libexec/selfheal/deadman");
        let all: Vec<&str> = [script.to_str().unwrap()]
            .iter()
            .chain(arguments)
            .copied()
            .collect();
        self.stage.sh(&all, b"", power_cut_at)
    }

    pub fn run(&self, arguments: &[&str]) -> Run {
        self.run_at(arguments, 0)
    }

    pub fn arm_at(&self, power_cut_at: usize) -> Run {
        let mut arguments = vec!["arm", "60", "token-1"];
        arguments.extend(FILES);
        arguments.extend([
            "--",
            "reload:ssh.service",
            "restart:selfheal-firewall.service",
        ]);
        self.run_at(&arguments, power_cut_at)
    }

    pub fn arm(&self) {
        let run = self.arm_at(0);
        assert_eq!(
            (run.code, run.stderr.as_str(), run.stdout.as_str()),
            (Some(0), "", "")
        );
    }

    /// What a bad apply does to FILES.
    pub fn change(&self) {
        self.write(FILES[0], "Port 2\n", 0o644);
        self.write(FILES[1], "new\n", 0o644);
        fs::remove_dir_all(self.root().join("home/pi and co/.ssh")).unwrap();
        fs::remove_file(self.root().join("etc/localtime")).unwrap();
        symlink("nowhere", self.root().join("etc/localtime")).unwrap();
        self.write(FILES[4], "[Unit]\n", 0o644);
        self.write("/active/selfheal-firewall.service", "", 0o644);
    }

    pub fn world(&self) -> World {
        let mut world = World::new();
        for folder in ["etc", "home"] {
            walk(&self.root().join(folder), &self.root(), &mut world);
        }
        world
    }

    pub fn log(&self) -> Vec<String> {
        let log = fs::read_to_string(self.root().join("log")).unwrap_or_default();
        log.lines()
            .filter(|line| !line.starts_with("is-active"))
            .map(str::to_owned)
            .collect()
    }

    pub fn clear_log(&self) {
        let _ = fs::remove_file(self.root().join("log"));
    }

    pub fn status(&self) -> String {
        let run = self.run(&["status"]);
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
        run.stdout
    }

    pub fn is_armed(&self) -> bool {
        self.status().starts_with("state armed\n")
    }

    /// Copies the whole node aside, or takes the copy back.
    pub fn copy(&self, from: &str, to: &str) {
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
