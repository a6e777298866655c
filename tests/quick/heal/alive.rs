//! `alive`: a word to systemd only while all is well, and never a reboot beyond the budget.

use std::fs;

use super::{Node, wait_until};
use crate::crash::Run;

/// A server that runs well, and whose watch is looked at for `rounds` rounds.
fn node(rounds: u32) -> Node {
    let node = Node::new();
    node.write(
        "/var/lib/selfheal/boots.log",
        "zero 90000 clean reboot\none - running -\n",
    );
    node.executable(
        "/while-waiting",
        &format!(
            "#!/bin/sh\necho . >>\"$SELFHEAL_ROOT/rounds\"\n[ $(wc -l <\"$SELFHEAL_ROOT/rounds\") -lt {rounds} ] ||\n\
             {{ mkdir -p \"$SELFHEAL_ROOT/run/selfheal\" && : >\"$SELFHEAL_ROOT/run/selfheal/safe-mode\"; }}\n"
        ),
    );
    node.stage.command(
        "systemd-notify",
        "echo \"$*\" >>\"$SELFHEAL_ROOT/notified\"",
    );
    node.stage
        .command("systemctl", "[ \"$*\" = 'is-active --quiet k3s.service' ]");
    node.stage.command(
        "k3s",
        "echo \"$*\" >>\"$SELFHEAL_ROOT/asked\"\n[ ! -e \"$SELFHEAL_ROOT/dead\" ] || { echo 'etcd failed: reason withheld'; exit 1; }\necho ok",
    );
    node
}

fn watch(node: &Node) -> Run {
    let run = node.run("alive", &["watch"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    run
}

fn words(node: &Node) -> usize {
    let words = node.read("/notified");
    assert!(words.lines().all(|word| word == "WATCHDOG=1"), "{words}");
    words.lines().count()
}

#[test]
fn a_healthy_server_says_so_every_round() {
    let node = node(3);
    node.write("/var/lib/selfheal/alive", &"x".repeat(100));
    watch(&node);
    assert_eq!(words(&node), 3);
    assert_eq!(
        node.read("/asked").lines().next(),
        Some("kubectl --kubeconfig /etc/rancher/k3s/k3s.yaml get --raw /readyz")
    );
    // The file keeps the block it has, so that it needs no room on a full disk.
    let beat = node.read("/var/lib/selfheal/alive");
    assert_eq!(beat.len(), 100);
    assert!(beat.starts_with("one 1122 "), "{beat}");
}

#[test]
fn what_is_not_well_is_silent_until_it_is_well_again() {
    let node = node(4);
    node.write("/dead", "");
    let run = watch(&node);
    assert_eq!(words(&node), 0);
    assert!(
        run.stderr
            .contains("the API is not ready: etcd failed: reason withheld"),
        "{}",
        run.stderr
    );
    assert!(
        run.stderr.contains("not well, 4 times in a row"),
        "{}",
        run.stderr
    );

    let node = super::alive::node(4);
    fs::create_dir_all(node.path("/var/lib/selfheal/alive")).unwrap();
    let run = watch(&node);
    assert_eq!(words(&node), 0);
    assert!(run.stderr.contains("cannot write"), "{}", run.stderr);
}

#[test]
fn a_full_disk_is_no_dead_disk() {
    let node = node(2);
    node.stage.command(
        "dd",
        "cat >/dev/null\necho \"dd: error writing: No space left on device\" >&2\nexit 1",
    );
    watch(&node);
    assert_eq!(words(&node), 2);
}

#[test]
fn a_disk_that_hangs_gets_no_word() {
    let node = node(9);
    node.fifo("/disk");
    node.stage.command(
        "dd",
        ": >\"$SELFHEAL_ROOT/writing\"\nexec cat \"$SELFHEAL_ROOT/disk\"",
    );
    let mut watch = node.start("alive", &["watch"]);
    wait_until("the write", || node.exists("/writing"));
    assert_eq!(words(&node), 0);
    // It says nothing before the disk has answered, and does then.
    node.release("/disk", "");
    wait_until("a word", || words(&node) == 1);
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn an_api_that_is_not_meant_to_answer_is_not_asked() {
    let node = node(2);
    node.write("/dead", "");
    node.stage.command("systemctl", "exit 3");
    watch(&node);
    assert_eq!(words(&node), 2);

    let node = super::alive::node(2);
    node.write("/dead", "");
    let script = crate::crash::template("usr/local/libexec/selfheal/alive");
    let command = format!("READYZ=no exec sh {} watch", script.display());
    assert_eq!(node.stage.sh(&["-c", &command], b"", 0).code, Some(0));
    assert_eq!(words(&node), 2);
    assert_eq!(node.read("/asked"), "");
}

/// Standing by means to end without a failure: systemd would reboot for one.
#[test]
fn nothing_is_judged_beyond_the_reboot_budget() {
    let bad = "b1 600 unclean unknown\nb2 600 unclean watchdog\nb3 600 unclean unknown\nb4 3599 unclean unknown\n";
    let now = "one - running -\n";
    for (log, uptime, safe_mode, expected) in [
        ("", 1000, false, "this boot is not in"),
        ("zero - running -\n", 1000, false, "this boot is not in"),
        (now, 1000, true, "safe mode"),
        (
            &format!("{bad}{now}"),
            1000,
            false,
            "the last 4 boots ended badly",
        ),
        (
            &format!("{bad}{bad}{now}"),
            1000,
            false,
            "the last 8 boots ended badly",
        ),
    ] {
        let node = node(2);
        node.uptime(uptime);
        if log.is_empty() {
            fs::remove_file(node.path("/var/lib/selfheal/boots.log")).unwrap();
        } else {
            node.write("/var/lib/selfheal/boots.log", log);
        }
        if safe_mode {
            node.write("/run/selfheal/safe-mode", "");
        }
        let run = watch(&node);
        assert!(run.stderr.contains(expected), "{log}: {}", run.stderr);
        assert_eq!(words(&node), 0, "{log}");
        assert_eq!(node.read("/rounds"), "", "{log}");
    }
    for (log, uptime) in [
        (format!("{bad}{now}"), 3600),
        (format!("{bad}b5 4000 unclean power\n{now}"), 1000),
        (format!("{bad}b5 60 clean reboot\n{now}"), 1000),
        (
            format!("b1 600 unclean unknown\nb2 600 unclean unknown\n{now}"),
            1000,
        ),
    ] {
        let node = node(2);
        node.uptime(uptime);
        node.write("/var/lib/selfheal/boots.log", &log);
        watch(&node);
        assert_eq!(words(&node), 2, "{log}");
    }
}
