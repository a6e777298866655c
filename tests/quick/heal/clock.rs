//! `clock`: k3s does not start in the past, and does not wait for ever for the present.

use super::{Node, value};
use crate::crash::{COUNT, Run};

const NOW: u64 = 1_790_000_000;
const RECORDS: &str =
    "/var/lib/rancher/k3s/agent/containerd/io.containerd.metadata.v1.bolt/meta.db";

/// A node whose clock shows `clock`, with or without time from the network.
fn node(clock: u64, synchronised: &str) -> Node {
    let node = Node::new();
    node.write("/clock", &format!("{clock}\n"));
    node.write("/synchronised", &format!("{synchronised}\n"));
    node.stage.command(
        "date",
        "case $*:$# in\n+%s:1) exec cat \"$SELFHEAL_ROOT/clock\" ;;\n\
         '-u -s @'*:3) echo \"${3#@}\" >\"$SELFHEAL_ROOT/clock\" ;;\n*) exit 1 ;;\nesac",
    );
    node.stage.command(
        "timedatectl",
        "[ \"$*\" = 'show -p NTPSynchronized --value' ] && exec cat \"$SELFHEAL_ROOT/synchronised\"",
    );
    node
}

fn gate(node: &Node) -> Run {
    let run = node.run("clock", &["gate"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    run
}

fn outcome(node: &Node) -> String {
    let last = node.read("/var/lib/selfheal/last-clock");
    assert_eq!(value(&last, "boot_id"), "one");
    assert_eq!(value(&last, "clock"), node.read("/clock").trim_end());
    value(&last, "outcome").to_owned()
}

#[test]
fn a_synchronised_clock_opens_at_once() {
    let node = node(NOW, "yes");
    node.write("/var/lib/selfheal/clock", &format!("{}\n", NOW - 100));
    gate(&node);
    assert_eq!(outcome(&node), "synchronised");
    assert_eq!(node.read("/proc/uptime"), "1000.42 99.00\n");
    assert_eq!(node.read("/clock"), format!("{NOW}\n"));
}

#[test]
fn time_from_the_network_is_waited_for() {
    let node = node(NOW - 300_000, "no");
    node.write("/var/lib/selfheal/clock", &format!("{}\n", NOW - 100));
    // The network sets the clock after a minute.
    node.executable(
        "/while-waiting",
        &format!(
            "#!/bin/sh\nread -r up _ <\"$SELFHEAL_ROOT/proc/uptime\"\n[ ${{up%.*}} -lt 1060 ] ||\n\
             {{ echo yes >\"$SELFHEAL_ROOT/synchronised\" && echo {NOW} >\"$SELFHEAL_ROOT/clock\"; }}\n"
        ),
    );
    gate(&node);
    assert_eq!(outcome(&node), "synchronised");
    let waited: u64 = value(&node.read("/var/lib/selfheal/last-clock"), "waited")
        .parse()
        .unwrap();
    assert!((60..70).contains(&waited), "{waited}");
    assert_eq!(node.read("/clock"), format!("{NOW}\n"));
}

#[test]
fn an_offline_node_goes_on_from_the_newest_time_it_has_seen() {
    // (written down, containerd's records, systemd built), all of them seen by a clock that now stands 3 days back.
    for (record, records, built) in [
        (NOW, NOW - 50, NOW - 90_000),
        (NOW - 50, NOW, NOW - 90_000),
        (0, 0, NOW),
    ] {
        let node = node(NOW - 3 * 86_400, "no");
        if record > 0 {
            node.write("/var/lib/selfheal/clock", &format!("{record}\n"));
            node.dated(RECORDS, "", records);
        }
        node.dated("/usr/lib/systemd/systemd", "", built);
        let run = gate(&node);
        assert_eq!(node.read("/clock"), format!("{}\n", NOW + 1));
        assert_eq!(outcome(&node), "forward");
        assert!(run.stderr.contains("set forward"), "{}", run.stderr);
        // Bounded, in uptime: the clock itself is no measure.
        let uptime = node.seconds_up();
        assert!((1180..1185).contains(&uptime), "{uptime}");
    }
}

#[test]
fn the_clock_never_goes_back() {
    for synchronised in ["no", "yes"] {
        let node = node(NOW, synchronised);
        node.write("/var/lib/selfheal/clock", &format!("{}\n", NOW - 100));
        node.dated(RECORDS, "", NOW - 5);
        gate(&node);
        assert_eq!(node.read("/clock"), format!("{NOW}\n"));
    }
    // The network is right, even where it is earlier than something seen before.
    let node = node(NOW, "yes");
    node.write("/var/lib/selfheal/clock", &format!("{}\n", NOW + 9_000_000));
    let run = gate(&node);
    assert_eq!(outcome(&node), "synchronised");
    assert!(
        run.stderr.contains("one of them was wrong"),
        "{}",
        run.stderr
    );
    assert_eq!(node.read("/clock"), format!("{NOW}\n"));
}

#[test]
fn a_damaged_record_is_no_time() {
    for record in [
        "",
        "\n",
        "tomorrow\n",
        "-5\n",
        "0099\n",
        "99999999999999999999\n",
        "1.5\n",
        "5\n",
    ] {
        let node = node(NOW, "no");
        node.write("/var/lib/selfheal/clock", record);
        gate(&node);
        assert_eq!(outcome(&node), "later", "{record:?}");
        assert_eq!(
            value(&node.read("/var/lib/selfheal/last-clock"), "floor"),
            "0",
            "{record:?}"
        );
    }
}

#[test]
fn a_clock_that_cannot_be_set_is_said_and_k3s_starts() {
    let node = node(NOW - 100, "no");
    node.write("/var/lib/selfheal/clock", &format!("{NOW}\n"));
    node.stage.command(
        "date",
        "[ \"$*\" = +%s ] || exit 1\nexec cat \"$SELFHEAL_ROOT/clock\"",
    );
    let run = gate(&node);
    assert!(
        run.stderr
            .contains("100 s before a time already seen, and cannot be set"),
        "{}",
        run.stderr
    );
    assert_eq!(outcome(&node), "failed");
}

#[test]
fn a_tool_that_hangs_or_is_missing_counts_as_not_synchronised() {
    let node = node(NOW, "no");
    node.stage.command("timedatectl", "exit 127");
    gate(&node);
    assert_eq!(outcome(&node), "later");
}

#[test]
fn the_time_is_written_down_whole_or_not_at_all() {
    let node = node(NOW, "no");
    let record = || node.run("clock", &["record"]);
    assert_eq!(record().code, Some(0));
    assert_eq!(node.read("/var/lib/selfheal/clock"), format!("{NOW}\n"));
    node.write("/clock", &format!("{}\n", NOW + 300));
    assert_eq!(record().code, Some(0));
    assert_eq!(
        node.read("/var/lib/selfheal/clock"),
        format!("{}\n", NOW + 300)
    );
    // Somebody set the clock back: only the network may say that this is right.
    node.write("/clock", &format!("{}\n", NOW - 900));
    assert_eq!(record().code, Some(0));
    assert_eq!(
        node.read("/var/lib/selfheal/clock"),
        format!("{}\n", NOW + 300)
    );
    node.write("/synchronised", "yes\n");
    assert_eq!(record().code, Some(0));
    assert_eq!(
        node.read("/var/lib/selfheal/clock"),
        format!("{}\n", NOW - 900)
    );

    let commands = node.run_at("clock", &["record"], COUNT).commands;
    for at in 1..=commands {
        node.write("/var/lib/selfheal/clock", &format!("{NOW}\n"));
        node.write("/clock", &format!("{}\n", NOW + 600));
        node.run_at("clock", &["record"], at);
        let record = node.read("/var/lib/selfheal/clock");
        assert!(
            record == format!("{NOW}\n") || record == format!("{}\n", NOW + 600),
            "at {at}: {record:?}"
        );
    }
}
