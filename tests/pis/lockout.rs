//! A mistake in sshd's settings must not lock anybody out.

use std::time::Duration;

use selfheal_lab::Pi;

use crate::homelab::Homelab;

/// Only somebody who does not exist may log in: what `sshd -t` cannot know to be wrong.
const BAD: &str = "[hardening]\nautomatic_upgrades = \"off\"\ndead_man = \"30s\"\n\
    [hardening.sshd.settings]\nAllowUsers = \"nobody-here\"\n";
const GOOD: &str = "[hardening]\nautomatic_upgrades = \"off\"\ndead_man = \"30s\"\n";

/// Waits for the node to have put the originals back, seen through the lab's private channel.
fn wait_until_disarmed(pi: &Pi) {
    let armed = "test -e /var/lib/selfheal/deadman/armed";
    pi.root(&format!(
        "i=0; while {armed} && [ $i -le 240 ]; do i=$((i + 1)); sleep 0.5; done; ! {armed}"
    ))
    .unwrap();
}

#[test]
fn a_bad_sshd_setting_is_undone_at_once_and_the_error_says_so() {
    let homelab = Homelab::new(&["jarvis"], BAD);
    let run = homelab.selfheal(&["apply", "--yes"]);
    assert_eq!(run.code, Some(1), "{run}");
    assert!(run.stderr.contains("the old settings are back"), "{run}");
    assert!(
        run.stderr.contains("hint: correct [hardening.sshd]"),
        "{run}"
    );
    homelab
        .pi()
        .ok("! sudo sshd -T | grep -q nobody-here")
        .unwrap();
    homelab.set(GOOD);
    homelab.converge();
    // The ledger went back with the settings: nothing of selfheal's is taken for the user's.
    homelab.ok(&["node", "restore", "jarvis", "--yes"]);
    homelab.pi().ok("sudo test ! -e /var/lib/selfheal").unwrap();
}

#[test]
#[ignore = "minutes more: tests/run.sh --full"]
fn a_node_whose_run_died_undoes_a_bad_setting_by_itself() {
    let homelab = Homelab::new(&["jarvis"], BAD);
    let pi = homelab.pi();
    let mut run = homelab.start(&["apply", "--yes"]);
    assert!(run.reaches("guarded settings: "));
    pi.root("until test -e /etc/ssh/sshd_config.d/00-selfheal.conf; do sleep 0.05; done")
        .unwrap();
    run.kill();
    // Nobody comes back: the time runs out.
    wait_until_disarmed(pi);
    pi.wait_for_ssh(Duration::from_secs(60)).unwrap();
    pi.ok(
        "! test -e /etc/ssh/sshd_config.d/00-selfheal.conf && ! sudo sshd -T | grep -q nobody-here",
    )
    .unwrap();
    homelab.set(GOOD);
    homelab.converge();
}

#[test]
fn a_power_cut_in_the_window_does_not_make_a_bad_setting_permanent() {
    let homelab = Homelab::new(&["jarvis"], BAD);
    let pi = homelab.pi();
    let mut run = homelab.start(&["apply", "--yes"]);
    assert!(run.reaches("guarded settings: "));
    pi.root("until test -e /etc/ssh/sshd_config.d/00-selfheal.conf; do sleep 0.05; done; sync")
        .unwrap();
    pi.power_cut().unwrap();
    run.kill();
    pi.power_on().unwrap();
    pi.wait_for_ssh(Duration::from_secs(180)).unwrap();
    pi.ok("! test -e /etc/ssh/sshd_config.d/00-selfheal.conf && ! test -e /var/lib/selfheal/deadman/armed").unwrap();
    homelab.set(GOOD);
    homelab.converge();
}

#[test]
#[ignore = "minutes more: tests/run.sh --full"]
fn a_setting_that_sshd_refuses_never_gets_into_force() {
    let homelab = Homelab::new(
        &["jarvis"],
        &format!("{GOOD}[hardening.sshd.settings]\nCiphers = \"no-such-cipher\"\n"),
    );
    let run = homelab.selfheal(&["apply", "--yes"]);
    assert_eq!(run.code, Some(1), "{run}");
    assert!(
        run.stderr.contains("no-such-cipher") && run.stderr.contains("originals are back"),
        "{run}"
    );
    homelab
        .pi()
        .ok("sudo sshd -t && ! test -e /etc/ssh/sshd_config.d/00-selfheal.conf")
        .unwrap();
}

#[test]
#[ignore = "minutes more: tests/run.sh --full"]
fn a_firewall_that_shuts_selfheal_out_is_undone_and_a_good_one_stays() {
    let firewall = |admin: &str| {
        format!(
            "{GOOD}[hardening.firewall]\nenabled = true\nadmin = [\"{admin}\"]\nallow = [\"tcp/8080\"]\n"
        )
    };
    let homelab = Homelab::new(&["jarvis"], &firewall("192.0.2.0/24"));
    let pi = homelab.pi();
    let run = homelab.selfheal(&["apply", "--yes"]);
    assert_eq!(run.code, Some(1), "{run}");
    // At once over the old connection, or by the node itself when the time is up.
    wait_until_disarmed(pi);
    pi.wait_for_ssh(Duration::from_secs(120)).unwrap();
    pi.ok("! sudo nft list table inet selfheal && ! test -e /etc/selfheal/firewall.nft")
        .unwrap();

    // The lab's host is 10.0.2.2 to its guests.
    homelab.set(&firewall("10.0.2.0/24"));
    homelab.converge();
    pi.ok("sudo nft list table inet selfheal | grep -q 'tcp dport 8080 accept'")
        .unwrap();
    let old = pi.boot_id().unwrap();
    pi.power_cut().unwrap();
    pi.power_on().unwrap();
    pi.wait_for_ssh(Duration::from_secs(180)).unwrap();
    assert_ne!(pi.boot_id().unwrap(), old);
    pi.ok("sudo nft list table inet selfheal && systemctl is-active selfheal-firewall")
        .unwrap();

    homelab.set(GOOD);
    homelab.converge();
    pi.ok("! sudo nft list table inet selfheal && ! test -e /etc/selfheal/firewall.nft")
        .unwrap();
}
