//! Ubuntu's A/B boot layout (domain.md §1.3): a new command line is tried before it is kept.

use std::time::Duration;

use selfheal_lab::Pi;

use crate::homelab::{Homelab, NO_PACKAGES};

const NEW: &str = "/boot/firmware/new";

/// A trial that ended well: the second set is the first, and nothing waits any more.
fn is_kept(pi: &Pi, token: &str) {
    pi.ok(&format!(
        "grep -qw {token} /proc/cmdline && grep -qw {token} /boot/firmware/current/cmdline.txt && \
         test \"$(cat /boot/firmware/current/state)\" = good && test ! -e {NEW}"
    ))
    .unwrap();
}

#[test]
#[ignore = "minutes more: tests/run.sh --full"]
fn a_line_is_tried_and_kept_and_a_bad_one_is_rejected_and_the_node_can_be_left() {
    let homelab = Homelab::ubuntu(&["jarvis"], NO_PACKAGES);
    let pi = homelab.pi();
    let original = pi.ok("cat /boot/firmware/current/cmdline.txt").unwrap();

    let plan = homelab.selfheal(&["plan"]);
    assert_eq!(plan.code, Some(2), "{plan}");
    for words in ["command-line /boot/firmware/new/cmdline.txt", "tried first"] {
        assert!(plan.stdout.contains(words), "{plan}");
    }

    // The reboot left for later stays planned, and the second set is not made again.
    homelab.ok(&["bootstrap", "--yes", "--no-reboot"]);
    let made = pi.ok("stat -c %Y:%i /boot/firmware/new/state").unwrap();
    let pending = homelab.selfheal(&["plan"]);
    assert_eq!(pending.code, Some(2), "{pending}");
    assert!(
        pending.stdout.contains("was not yet started with"),
        "{pending}"
    );
    homelab.ok(&["apply", "--yes", "--no-reboot"]);
    assert_eq!(
        pi.ok("stat -c %Y:%i /boot/firmware/new/state").unwrap(),
        made
    );

    let boots = pi.boots();
    let run = homelab.ok(&["apply", "--yes"]);
    assert!(run.stderr.contains("the trial boot passed"), "{run}");
    assert_eq!(pi.boots(), boots + 1, "one boot, straight into the trial");
    is_kept(pi, "psi=1");
    pi.ok("grep -qw memory /sys/fs/cgroup/cgroup.controllers")
        .unwrap();
    homelab.is_converged();

    // The kernel may not load what the root file system lies on: it panics, and the Pi goes back by itself.
    let bad = format!("{NO_PACKAGES}[boot]\nadd = [\"module_blacklist=ext4\"]\nuntested = true\n");
    homelab.set(&bad);
    let before = pi.ok("cat /boot/firmware/current/cmdline.txt").unwrap();
    let run = homelab.selfheal(&["apply", "--yes"]);
    assert_eq!(run.code, Some(1), "{run}");
    assert!(
        run.stderr
            .contains("the Pi rejected this command line and is on the old one"),
        "{run}"
    );
    assert_eq!(
        pi.ok("cat /boot/firmware/current/cmdline.txt").unwrap(),
        before
    );
    pi.ok(&format!(
        "test \"$(cat {NEW}/state)\" = bad && ! grep -q ext4, /proc/cmdline"
    ))
    .unwrap();
    let boots = pi.boots();
    let again = homelab.selfheal(&["apply", "--yes"]);
    assert_eq!(again.code, Some(1), "{again}");
    assert!(
        again.stdout.contains("rejected this command line"),
        "{again}"
    );
    assert_eq!(pi.boots(), boots, "not tried again");

    // A kernel upgrade now waits for its trial; taking the bad token back needs nothing, leaving the node a trial.
    homelab.set(NO_PACKAGES);
    homelab.ok(&["apply", "--yes"]);
    pi.root("flash-kernel").unwrap();
    homelab.is_converged();
    homelab.ok(&["node", "restore", "jarvis", "--yes"]);
    assert_eq!(
        pi.ok("cat /boot/firmware/current/cmdline.txt").unwrap(),
        original
    );
    pi.ok(&format!(
        "test ! -e {NEW} && ! grep -qw psi=1 /proc/cmdline"
    ))
    .unwrap();
    pi.root("test ! -e /var/lib/selfheal && ! ls /boot/firmware/*/*.selfheal-bak")
        .unwrap();
    let nothing = homelab.ok(&["node", "restore", "jarvis", "--yes"]);
    assert!(nothing.stdout.contains("Nothing to change"), "{nothing}");
}

#[test]
#[ignore = "minutes more: tests/run.sh --full"]
fn the_power_goes_between_flash_kernel_and_the_reboot_and_the_next_run_converges() {
    let homelab = Homelab::ubuntu(&["jarvis"], NO_PACKAGES);
    let pi = homelab.pi();
    let mut run = homelab.start(&["apply", "--yes"]);
    assert!(
        run.reaches("boot files: "),
        "the run never came to the boot files"
    );
    pi.root(&format!("i=0; until grep -q psi=1 {NEW}/cmdline.txt || [ $i -gt 600 ]; do i=$((i + 1)); sleep 0.05; done 2>/dev/null"))
        .unwrap();
    let boots = pi.boots();
    pi.power_cut().unwrap();
    run.kill();
    pi.power_on().unwrap();
    // Two boots: the first one finds that there is something to be tried.
    pi.wait_for_ssh(Duration::from_secs(600)).unwrap();
    assert!(pi.boots() > boots);
    homelab.converge();
    is_kept(pi, "psi=1");
}
