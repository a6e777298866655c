//! The dead man's switch (`templates/usr/local/libexec/selfheal/deadman`; design.md §3): whenever the power goes, either
//! the change was confirmed or the originals are back.

mod node;
mod power_cut;
mod trouble;

use std::fs;

use node::Node;

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
