//! The watchdog layer on paper (domain.md §2).

use super::paper::PaperNode;
use super::*;

fn watchdog_plan(node: &PaperNode, settings: &str) -> NodePlan {
    let mut plan = plan(node, &one_node(settings));
    plan.changes
        .retain(|change| change.layer == LayerName::Watchdog);
    plan
}

fn refusal(node: &PaperNode, settings: &str) -> String {
    let plan = plan(node, &one_node(settings));
    let [refusal] = &plan.refusals[..] else {
        panic!("{:?}", plan.refusals)
    };
    format!("{refusal} ({})", refusal.hint)
}

/// The content of the file that lands at `path`.
fn landed(node: &PaperNode, settings: &str, path: &str) -> String {
    let plan = watchdog_plan(node, settings);
    let mut actions = plan.changes.iter().flat_map(|change| &change.actions);
    let content = actions.find_map(|action| match action {
        Action::Write(write) if write.path == path => Some(write.content.clone()),
        _ => None,
    });
    String::from_utf8(content.unwrap_or_else(|| panic!("nothing lands at {path}"))).unwrap()
}

const MANAGER: &str = "/etc/systemd/system.conf.d/60-selfheal-watchdog.conf";
const SYSCTL: &str = "/etc/sysctl.d/90-selfheal-panic.conf";

#[test]
fn what_the_watchdog_layer_puts_on_a_node() {
    let mut landed = String::new();
    for change in watchdog_plan(&PaperNode::raspberry_pi_os(), "").changes {
        for action in &change.actions {
            match action {
                // The script stands in templates/ as it lands.
                Action::Write(write) if write.path.ends_with("boots") => {
                    landed += &format!("=== {} {:04o}\n", write.path, write.mode);
                }
                Action::Write(write) => {
                    let text = String::from_utf8_lossy(&write.content);
                    landed += &format!("=== {} {:04o}\n{text}\n", write.path, write.mode);
                }
                other => landed += &format!("=== {other:?}\n"),
            }
        }
        for effect in &change.effects {
            landed += &format!("    {effect}\n");
        }
    }
    insta::assert_snapshot!(landed);
}

#[test]
fn the_hardware_waits_as_long_as_the_kernel_can() {
    let mut node = PaperNode::raspberry_pi_os();
    let time = |node: &PaperNode, settings: &str| {
        let file = landed(node, settings, MANAGER);
        file.lines()
            .find_map(|line| line.strip_prefix("RuntimeWatchdogSec=").map(str::to_owned))
            .unwrap()
    };
    assert_eq!(time(&node, ""), "60s");
    assert_eq!(time(&node, "[watchdog]\ntimeout = \"20s\"\n"), "20s");
    node.kernel("6.6.31+rpt-rpi-v8");
    assert_eq!(time(&node, ""), "14s", "before 6.8 the driver counts to 15");
    node.kernel("6.8.0-1004-raspi");
    assert_eq!(time(&node, ""), "60s");
    // The device has the last word, whatever the kernel.
    node.fact("watchdog", "identity Some Watchdog\nmax_timeout 15\n");
    assert_eq!(time(&node, ""), "14s");
    node.kernel("6.1.0-56-amd64");
    node.fact("watchdog", "identity i6300ESB timer\nmax_timeout 2046\n");
    assert_eq!(time(&node, ""), "60s");
    node.fact("watchdog", "identity Some Watchdog\nmax_timeout 15\n");
    let refused = refusal(&node, "[watchdog]\ntimeout = \"30s\"\n");
    assert!(
        refused.contains("Some Watchdog") && refused.contains("waits 15 s at most, not 30s"),
        "{refused}"
    );
}

#[test]
fn only_systemd_feeds_the_watchdog() {
    for rival in ["watchdog.service", "wd_keepalive.service"] {
        let mut node = PaperNode::raspberry_pi_os();
        node.unit(rival, false, true);
        let refused = refusal(&node, "");
        assert!(
            refused.contains(rival)
                && refused.contains("only one program can")
                && refused.contains("disable_services"),
            "{refused}"
        );
        // Each way out that the hint names is one.
        for settings in [
            format!("[hardening]\ndisable_services = [\"{rival}\"]\n"),
            "[watchdog]\nhardware = false\n".to_owned(),
        ] {
            converge(&mut node.clone(), &one_node(&settings));
        }
    }
}

#[test]
fn a_drop_in_that_goes_after_selfheals_is_named() {
    let mut node = PaperNode::raspberry_pi_os();
    let vendor = "/usr/lib/systemd/system.conf.d/40-rpi-enable-watchdog.conf";
    node.drop_ins = vec![vendor.to_owned(), MANAGER.to_owned()];
    converge(&mut node, &one_node(""));
    let mut node = PaperNode::raspberry_pi_os();
    node.drop_ins = vec![
        vendor.to_owned(),
        "/etc/systemd/system.conf.d/70-mine.conf".to_owned(),
    ];
    let refused = refusal(&node, "");
    assert!(refused.contains("70-mine.conf goes after it"), "{refused}");
}

#[test]
fn what_systemd_obeys_counts_and_not_what_its_files_say() {
    let mut node = PaperNode::raspberry_pi_os();
    converge(&mut node, &one_node(""));
    node.forget_manager();
    let plan = plan(&node, &one_node(""));
    let changes: Vec<String> = plan
        .changes
        .iter()
        .map(|change| format!("{} {:?}", change.id, change.effects))
        .collect();
    assert_eq!(
        changes,
        [
            "systemd RuntimeWatchdogUSec {DaemonReexec}",
            "systemd RebootWatchdogUSec {DaemonReexec}"
        ]
    );
    node.take(&plan);
    converge(&mut node, &one_node(""));
}

#[test]
fn a_stall_panics_only_where_the_kernel_means_a_long_one() {
    let wanted = |reads: Option<&str>, now: &str| {
        let mut node = PaperNode::raspberry_pi_os();
        node.fact("rcu-exp-cpu-stall-timeout", reads.unwrap_or_default());
        node.sysctl("kernel.panic_on_rcu_stall", now);
        converge(&mut node, &one_node(""));
        node.sysctls()["kernel.panic_on_rcu_stall"].clone()
    };
    for (reads, now, then) in [
        (Some("0\n"), "0", "1"),
        (Some("21000\n"), "0", "1"),
        (Some("60000\n"), "0", "1"),
        (Some("20\n"), "1", "0"),
        (Some("1\n"), "1", "0"),
        (Some("999\n"), "1", "0"),
        (Some("1000\n"), "1", "1"),
        (Some("20999\n"), "0", "0"),
        (None, "0", "0"),
        (None, "1", "1"),
    ] {
        assert_eq!(wanted(reads, now), then, "{reads:?}");
    }
    assert!(!landed(&PaperNode::raspberry_pi_os(), "", SYSCTL).contains("panic_on_rcu_stall ="));
}

#[test]
fn a_task_may_hang_longer_on_a_card() {
    let card = PaperNode::raspberry_pi_os();
    let mut disk = card.clone();
    disk.fact("mounts", "24 1 8:2 / / rw - ext4 /dev/sda2 rw\n");
    let seconds = |node: &PaperNode, settings: &str| {
        let file = landed(node, settings, SYSCTL);
        file.lines()
            .find_map(|line| {
                line.strip_prefix("-kernel.hung_task_timeout_secs = ")
                    .map(str::to_owned)
            })
            .unwrap()
    };
    assert_eq!(seconds(&card, ""), "240");
    assert_eq!(seconds(&disk, ""), "120");
    let own = "[watchdog]\nhung_task_timeout = \"10m\"\n";
    assert_eq!(
        (seconds(&card, own), seconds(&disk, own)),
        ("600".into(), "600".into())
    );
}

#[test]
fn safe_mode_is_told_and_not_fought() {
    let mut node = PaperNode::raspberry_pi_os();
    converge(&mut node, &one_node(""));
    let paused = [
        "kernel.panic_on_oops",
        "kernel.softlockup_panic",
        "kernel.panic_on_rcu_stall",
    ];
    for key in paused {
        assert_eq!(node.sysctls()[key], "1");
        node.sysctl(key, "0");
    }
    assert_eq!(plan(&node, &one_node("")).changes.len(), 3);
    node.safe_mode = Some("5 unclean ends of a boot".to_owned());
    let plan = plan(&node, &one_node(""));
    assert!(plan.is_empty(), "{:?}", plan.changes);
    assert!(
        plan.notes[0].contains("in safe mode: 5 unclean ends of a boot")
            && plan.notes[0].contains("selfheal node resume jarvis"),
        "{:?}",
        plan.notes
    );
    // Anything else that differs is still put right.
    node.sysctl("kernel.panic", "0");
    converge(&mut node, &one_node(""));
    assert_eq!(node.sysctls()["kernel.panic"], "10");
}

#[test]
fn a_node_without_a_watchdog_is_told_so_and_gets_the_rest() {
    let mut node = PaperNode::raspberry_pi_os();
    node.fact("watchdog", "");
    let first = converge(&mut node, &one_node(""));
    assert!(
        first.notes[0].contains("no hardware watchdog"),
        "{:?}",
        first.notes
    );
    let quiet = plan(&node, &one_node("[watchdog]\nhardware = false\n"));
    assert_eq!(quiet.notes, [""; 0]);
    node.fact(
        "watchdog",
        "identity Software Watchdog\nmax_timeout 65535\n",
    );
    let soft = plan(&node, &one_node(""));
    assert!(soft.notes[0].contains("softdog"), "{:?}", soft.notes);
}
