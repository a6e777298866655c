//! The scripts that bring k3s back after a power cut (domain.md §2.2, §5.3), each run as it lands, with a folder for a
//! root and stand-ins for k3s, systemd and the clock.

mod alive;
mod clock;
mod command;
mod guard;
mod reap;
mod units;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use crate::crash::{Run, Stage, template};

/// A node on which nothing has happened yet, 1000 s after its boot `one`.
struct Node {
    stage: Stage,
}

impl Node {
    fn new() -> Node {
        let node = Node {
            stage: Stage::new(),
        };
        node.boot("one");
        node.write(
            "/proc/self/mountinfo",
            "22 1 8:2 / / rw - ext4 /dev/root rw\n",
        );
        node.time_passes();
        node
    }

    /// By waiting for it; `while-waiting` is what happens meanwhile.
    fn time_passes(&self) {
        self.stage.command(
            "sleep",
            "read -r now _ <\"$SELFHEAL_ROOT/proc/uptime\"\n\
             echo \"$((${now%.*} + ${1%.*} + 1)).00 1.00\" >\"$SELFHEAL_ROOT/proc/uptime.new\"\n\
             /usr/bin/mv \"$SELFHEAL_ROOT/proc/uptime.new\" \"$SELFHEAL_ROOT/proc/uptime\"\n\
             [ ! -x \"$SELFHEAL_ROOT/while-waiting\" ] || \"$SELFHEAL_ROOT/while-waiting\"",
        );
    }

    /// What lies in memory is gone, what lies on the disk is not.
    fn boot(&self, id: &str) {
        let _ = fs::remove_dir_all(self.path("/run"));
        self.write("/proc/sys/kernel/random/boot_id", &format!("{id}\n"));
        self.uptime(1000);
    }

    fn uptime(&self, seconds: u64) {
        self.write("/proc/uptime", &format!("{seconds}.42 99.00\n"));
    }

    /// The node's uptime, in whole seconds.
    fn seconds_up(&self) -> u64 {
        let uptime = self.read("/proc/uptime");
        uptime.split('.').next().unwrap().parse().unwrap()
    }

    fn path(&self, path: &str) -> PathBuf {
        self.stage.path("root").join(path.trim_start_matches('/'))
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// A file that was written at this time, in seconds since 1970.
    fn dated(&self, path: &str, content: &str, time: u64) {
        self.write(path, content);
        let file = fs::File::options()
            .write(true)
            .open(self.path(path))
            .unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(time))
            .unwrap();
    }

    fn executable(&self, path: &str, content: &str) {
        self.write(path, content);
        fs::set_permissions(self.path(path), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    fn exists(&self, path: &str) -> bool {
        fs::symlink_metadata(self.path(path)).is_ok()
    }

    /// The names in a folder, sorted.
    fn names(&self, path: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path(path))
            .map(|entries| {
                entries
                    .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
                    .collect()
            })
            .unwrap_or_default();
        names.sort();
        names
    }

    fn run_at(&self, script: &str, arguments: &[&str], power_cut_at: usize) -> Run {
        let script = template(&format!("usr/local/libexec/selfheal/{script}"));
        let mut all = vec![script.to_str().unwrap()];
        all.extend(arguments);
        self.stage.sh(&all, b"", power_cut_at)
    }

    fn run(&self, script: &str, arguments: &[&str]) -> Run {
        self.run_at(script, arguments, 0)
    }

    /// A script in the background: what it writes goes to a file, so that nobody waits for a child that hangs.
    fn start(&self, script: &str, arguments: &[&str]) -> Child {
        fs::write(self.stage.path("at"), "0\n").unwrap();
        let path = format!("{}:/usr/bin:/bin", self.stage.path("own").display());
        Command::new("/bin/sh")
            .arg(template(&format!("usr/local/libexec/selfheal/{script}")))
            .args(arguments)
            .env_clear()
            .env("PATH", path)
            .env("SELFHEAL_ROOT", self.stage.path("root"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(self.stage.path("log")).unwrap())
            .spawn()
            .unwrap()
    }

    /// What a script in the background has said.
    fn log(&self) -> String {
        fs::read_to_string(self.stage.path("log")).unwrap()
    }

    /// A dead disk: who opens this file waits.
    fn fifo(&self, path: &str) {
        let _ = fs::remove_file(self.path(path));
        let made = Command::new("mkfifo").arg(self.path(path)).status();
        assert!(made.unwrap().success());
    }

    /// The disk answers at last.
    fn release(&self, path: &str, content: &str) {
        let mut pipe = fs::OpenOptions::new()
            .write(true)
            .open(self.path(path))
            .unwrap();
        pipe.write_all(content.as_bytes()).unwrap();
    }
}

/// The value of `key` in a file of lines.
fn value<'a>(lines: &'a str, key: &str) -> &'a str {
    lines
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
        .unwrap_or_default()
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
