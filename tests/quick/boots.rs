//! The reboot budget (`templates/usr/local/libexec/selfheal/boots`; domain.md §2.4) with its kernel played by files:
//! too many bad ends within half an hour of uptime make safe mode, whenever the power goes.

use std::fs;
use std::path::PathBuf;

use crate::crash::{COUNT, Run, Stage, template};

/// The panics that safe mode switches off.
const PANICS: [&str; 3] = ["panic_on_oops", "softlockup_panic", "panic_on_rcu_stall"];

struct Node {
    stage: Stage,
    boots: u32,
}

impl Node {
    fn new() -> Node {
        let node = Node {
            stage: Stage::new(),
            boots: 0,
        };
        for folder in [
            "proc/sys/kernel/random",
            "sys/module/rcupdate/parameters",
            "sys/class/watchdog/watchdog0",
            "sys/fs/pstore",
            "var/lib/selfheal",
        ] {
            fs::create_dir_all(node.root(folder)).unwrap();
        }
        node.stage.command("logger", "exit 0");
        node.stage.command(
            "systemctl",
            "case $1 in\nlist-jobs) cat \"$SELFHEAL_ROOT/jobs\" ;;\n\
             is-enabled) [ \"$3\" = k3s.service ] ;;\n*) printf '%s\\n' \"$*\" >>\"$SELFHEAL_ROOT/log\" ;;\nesac",
        );
        node.stall("0");
        node
    }

    fn root(&self, path: &str) -> PathBuf {
        self.stage.path("root").join(path)
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.root(path), text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root(path)).unwrap_or_default()
    }

    fn stall(&self, milliseconds: &str) {
        let path = "sys/module/rcupdate/parameters/rcu_exp_cpu_stall_timeout";
        self.write(path, &format!("{milliseconds}\n"));
    }

    /// As after the kernel started and sysctl.d was applied.
    fn start(&mut self) {
        self.boots += 1;
        let id = format!("boot-{}\n", self.boots);
        self.write("proc/sys/kernel/random/boot_id", &id);
        self.uptime(3);
        for (key, value) in PANICS.into_iter().zip(["1\n", "1\n", "0\n"]) {
            self.write(&format!("proc/sys/kernel/{key}"), value);
        }
        let _ = fs::remove_dir_all(self.root("run"));
        fs::create_dir_all(self.root("run/selfheal")).unwrap();
    }

    fn uptime(&self, seconds: u32) {
        self.write("proc/uptime", &format!("{seconds}.42 99.0\n"));
    }

    fn run_at(&self, verb: &str, power_cut_at: usize) -> Run {
        let script = template("usr/local/libexec/selfheal/boots");
        self.stage
            .sh(&[script.to_str().unwrap(), verb], b"", power_cut_at)
    }

    fn ok(&self, verb: &str) -> String {
        let run = self.run_at(verb, 0);
        assert_eq!(run.code, Some(0), "{verb}: {}", run.stderr);
        run.stderr
    }

    /// A boot that is seen to run for so long, and then is not seen any more.
    fn crash_after(&mut self, seconds: u32) {
        self.start();
        self.ok("begin");
        self.uptime(seconds);
        if seconds > 0 {
            self.ok("tick");
        }
    }

    fn clean(&mut self, seconds: u32) {
        self.crash_after(seconds);
        self.write("jobs", "12 reboot.target start waiting\n");
        self.ok("end");
    }

    fn log(&self) -> String {
        self.read("var/lib/selfheal/boots.log")
    }

    fn in_safe_mode(&self) -> bool {
        self.root("run/selfheal/safe-mode").exists()
    }

    fn panics(&self) -> String {
        let values = PANICS.map(|key| self.read(&format!("proc/sys/kernel/{key}")));
        values.concat().replace('\n', "")
    }

    fn systemctl(&self) -> String {
        self.read("log")
    }
}

#[test]
fn every_boot_has_a_line_that_says_how_it_ended() {
    let mut node = Node::new();
    node.clean(700);
    node.crash_after(90);
    node.write("sys/fs/pstore/dmesg-ramoops-0", "");
    node.crash_after(0);
    fs::remove_file(node.root("sys/fs/pstore/dmesg-ramoops-0")).unwrap();
    node.write("sys/class/watchdog/watchdog0/bootstatus", "32\n");
    node.crash_after(4000);
    node.write("sys/class/watchdog/watchdog0/bootstatus", "0\n");
    node.start();
    node.ok("begin");
    node.uptime(50);
    node.write(
        "jobs",
        "1 poweroff.target start waiting\n2 selfheal-boots.service stop running\n",
    );
    node.ok("end");
    node.start();
    node.ok("begin");
    assert_eq!(
        node.log(),
        "boot-1 700 clean reboot\nboot-2 90 unclean panic\nboot-3 0 unclean watchdog\nboot-4 4000 unclean unknown\n\
         boot-5 50 clean power\nboot-6 - running -\n"
    );
    // A unit that is started once more in the same boot finds everything in order.
    let log = node.log();
    node.ok("begin");
    assert_eq!(node.log(), log);
}

#[test]
fn more_than_four_bad_ends_in_half_an_hour_of_uptime_are_too_many() {
    // Uptimes of the boots before this one, and whether it comes up in safe mode.
    for (uptimes, safe_mode) in [
        (&[0, 0, 0, 0][..], false),
        (&[0, 0, 0, 0, 0], true),
        // The first one's own time does not matter: its end does.
        (&[90_000, 450, 450, 450, 450], true),
        (&[0, 450, 450, 450, 451], false),
        (&[60, 60, 60, 60, 60, 3600], false),
        (&[60, 60, 60, 3600, 60, 60], false),
    ] {
        let mut node = Node::new();
        uptimes
            .iter()
            .for_each(|seconds| node.crash_after(*seconds));
        node.start();
        let said = node.ok("begin");
        assert_eq!(
            node.in_safe_mode(),
            safe_mode,
            "{uptimes:?}\n{}",
            node.log()
        );
        assert_eq!(node.panics(), if safe_mode { "000" } else { "111" });
        assert_eq!(
            said.contains("safe mode: 5 unclean ends"),
            safe_mode,
            "{said}"
        );
    }
}

#[test]
fn reboots_that_were_asked_for_cost_nothing() {
    let mut node = Node::new();
    for _ in 0..4 {
        node.crash_after(0);
        node.clean(60);
        node.clean(60);
    }
    node.start();
    node.ok("begin");
    assert!(!node.in_safe_mode());
    // But they do not wipe the slate either.
    node.clean(60);
    node.crash_after(0);
    node.start();
    node.ok("begin");
    assert!(node.in_safe_mode());
}

fn node_in_safe_mode() -> Node {
    let mut node = Node::new();
    for _ in 0..5 {
        node.crash_after(0);
    }
    node.start();
    node.ok("begin");
    assert!(node.in_safe_mode());
    assert_eq!(
        node.read("run/selfheal/safe-mode"),
        "5 unclean ends of a boot within 30 minutes of uptime\n"
    );
    node
}

#[test]
fn the_user_resumes_and_the_budget_is_whole_again() {
    let mut node = node_in_safe_mode();
    node.ok("resume");
    assert!(!node.in_safe_mode());
    assert_eq!(node.panics(), "111");
    assert_eq!(
        node.systemctl(),
        "--no-block stop selfheal-safe-mode.timer\n--no-block start k3s.service\n"
    );
    // The end of this boot is the first that counts.
    for _ in 0..4 {
        node.start();
        node.ok("begin");
        assert!(!node.in_safe_mode(), "{}", node.log());
    }
    node.start();
    node.ok("begin");
    assert!(node.in_safe_mode());
}

#[test]
fn safe_mode_ends_by_itself_once() {
    let mut node = node_in_safe_mode();
    node.ok("leave");
    assert!(!node.in_safe_mode());
    assert_eq!(node.panics(), "111");
    assert!(
        node.root("var/lib/selfheal/boots/left").exists(),
        "the timer's condition"
    );
    node.crash_after(0);
    assert!(node.in_safe_mode());
    assert!(
        node.read("run/selfheal/safe-mode")
            .ends_with("again after safe mode had ended by itself\n")
    );
    // A day in safe mode is no quiet day; one without it is.
    node.uptime(90_000);
    node.ok("tick");
    assert!(node.root("var/lib/selfheal/boots/left").exists());
    node.start();
    node.ok("begin");
    node.uptime(86_399);
    node.ok("tick");
    assert!(node.root("var/lib/selfheal/boots/left").exists());
    node.uptime(86_400);
    node.ok("tick");
    assert!(!node.root("var/lib/selfheal/boots/left").exists());
    // On a node that is not in safe mode the timer's service does nothing.
    let log = node.systemctl();
    node.ok("leave");
    assert_eq!(node.systemctl(), log);
    assert!(!node.root("var/lib/selfheal/boots/left").exists());
}

#[test]
fn a_stall_panics_only_where_the_kernel_means_a_long_one() {
    for (milliseconds, before, after) in [
        ("0", "0", "1"),
        ("21000", "0", "1"),
        ("20", "1", "0"),
        ("999", "1", "0"),
        ("1000", "1", "1"),
        ("20999", "0", "0"),
        ("nonsense", "1", "1"),
    ] {
        let mut node = Node::new();
        node.start();
        node.stall(milliseconds);
        node.write("proc/sys/kernel/panic_on_rcu_stall", before);
        node.ok("begin");
        assert_eq!(
            node.read("proc/sys/kernel/panic_on_rcu_stall").trim(),
            after,
            "{milliseconds}"
        );
    }
    // A kernel that lacks the detector lacks nothing.
    let mut node = Node::new();
    node.start();
    fs::remove_file(node.root("proc/sys/kernel/panic_on_rcu_stall")).unwrap();
    assert_eq!(node.ok("begin"), "");
}

#[test]
fn a_unit_that_is_stopped_on_a_running_node_takes_back_what_it_set() {
    let node = node_in_safe_mode();
    let log = node.log();
    node.write("jobs", "7 selfheal-boots.service stop running\n");
    node.ok("end");
    assert_eq!(node.panics(), "110");
    assert!(!node.in_safe_mode());
    assert_eq!(node.log(), log, "the boot goes on");
}

#[test]
fn a_damaged_log_is_worth_what_is_left_of_it() {
    let mut node = Node::new();
    node.write(
        "var/lib/selfheal/boots.log",
        "\0\0\0\nboot-a 08 unclean panic\nboot-b 99999999999999999999 clean reboot\nboot-c -1 clean reboot\n\
         boot-d 5 unclean nonsense words\nboot-e 5\n$(reboot) 5 gone -\nboot-f - running -\n",
    );
    node.start();
    fs::create_dir_all(node.root("var/lib/selfheal/boots")).unwrap();
    node.write("var/lib/selfheal/boots/uptime", "boot-f 1e9\n");
    node.write("var/lib/selfheal/boots/resumed", "");
    node.ok("begin");
    assert_eq!(
        node.log(),
        "boot-d 5 unclean unknown\nboot-f 0 unclean unknown\nboot-1 - running -\n"
    );
    let lines: String = (0..500).map(|n| format!("b{n} 9 clean reboot\n")).collect();
    node.write("var/lib/selfheal/boots.log", &lines);
    node.ok("begin");
    let log = node.log();
    assert_eq!(log.lines().count(), 100);
    assert!(log.starts_with("b401 ") && log.ends_with("boot-1 - running -\n"));
}

#[test]
fn the_power_may_go_at_every_command() {
    // After four bad ends, the fifth comes while a boot is being written down, at each of its commands.
    let commands = {
        let mut node = Node::new();
        (0..4).for_each(|_| node.crash_after(60));
        node.start();
        node.run_at("begin", COUNT).commands
    };
    assert!(commands >= 3, "{commands}");
    for at in 1..=commands {
        let mut node = Node::new();
        (0..4).for_each(|_| node.crash_after(60));
        let before = node.log();
        node.start();
        assert_eq!(node.run_at("begin", at).code, None);
        let after = node.log();
        assert!(
            after == before || after.ends_with("boot-4 60 unclean unknown\nboot-5 - running -\n"),
            "at {at}: {after}"
        );
        // A boot that was written down counts, one that was not does not, and nothing else is lost.
        node.start();
        node.ok("begin");
        let counted = after != before;
        assert_eq!(node.in_safe_mode(), counted, "at {at}: {}", node.log());
        assert_eq!(node.log().lines().count(), if counted { 6 } else { 5 });
    }
    // So it may while safe mode is being left: the next boot settles it.
    for verb in ["leave", "resume"] {
        for at in 1.. {
            let mut node = node_in_safe_mode();
            let run = node.run_at(verb, at);
            node.start();
            node.ok("begin");
            if run.code.is_some() {
                break;
            }
            let resumed = !node.read("var/lib/selfheal/boots/resumed").is_empty();
            assert_eq!(node.in_safe_mode(), !resumed, "{verb} at {at}");
        }
    }
}
