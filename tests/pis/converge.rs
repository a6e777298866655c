//! What a converged node is like; and what is left of that when it is undone.

use selfheal_lab::Pi;

use crate::homelab::{Homelab, NO_PACKAGES};

/// What hardening and boot layer are for, on a node that was converged with every default.
pub fn is_hardened(pi: &Pi) {
    assert_eq!(pi.ok("hostname").unwrap().trim(), pi.name());
    let sshd = pi.ok("sudo sshd -T").unwrap();
    assert!(sshd.contains("\npasswordauthentication no\n"), "{sshd}");
    for script in [
        "grep -qw memory /sys/fs/cgroup/cgroup.controllers && test -e /proc/pressure/cpu",
        "grep -qw panic=10 /proc/cmdline && test \"$(wc -l < /boot/firmware/cmdline.txt)\" = 1",
        "test \"$(cat /proc/sys/kernel/panic)\" = 10 && test \"$(wc -l < /proc/swaps)\" = 1",
        "sudo journalctl --list-boots -q | awk 'END { exit NR < 2 }'",
        "dpkg -s unattended-upgrades && apt-config dump | grep -q 'Automatic-Reboot \"false\"'",
        "! systemctl is-active triggerhappy.service && getent hosts jarvis && getent hosts ultron",
        "sudo test ! -e /var/lib/selfheal/deadman/armed && ! ls /etc/*/*.selfheal-new",
    ] {
        pi.ok(script).unwrap();
    }
}

/// Every file, folder and link outside of logs, with mode, owner and content; units' states; sysctls; swap; host name.
const STATE: &str = r"
    cd / && find boot etc home root usr/local usr/lib/systemd var opt srv -xdev \
        \( -path var/log -o -path var/lib/systemd -o -path var/tmp -o -path var/cache -o -path var/lib/apt \
           -o -path var/lib/private -o -path var/lib/dhcp \) -prune -o \
        ! -name 'random-seed' -printf '%M %u %g %p %l\n' -type f -exec sha256sum {} + | sort
    cat /boot/firmware/cmdline.txt; ls /boot/firmware
    systemctl list-unit-files --no-legend --state=enabled,disabled,masked | tr -s ' ' | sort
    hostname; cat /proc/swaps
    for key in kernel/panic kernel/panic_on_oops net/ipv4/ip_forward vm/overcommit_memory vm/panic_on_oom \
        fs/inotify/max_user_watches fs/inotify/max_user_instances; do cat /proc/sys/$key; done
";

#[test]
#[ignore = "minutes more: tests/run.sh --full"]
fn a_restored_pi_is_as_it_was() {
    let homelab = Homelab::new(&["jarvis"], NO_PACKAGES);
    let state = || homelab.pi().root(STATE).unwrap();
    let before = state();
    homelab.converge();
    assert_ne!(state(), before);
    homelab.ok(&["node", "restore", "jarvis", "--yes"]);
    let after = state();
    let differing: Vec<&str> = before
        .lines()
        .filter(|line| !after.contains(line))
        .chain(after.lines().filter(|line| !before.contains(line)))
        .collect();
    assert!(differing.is_empty(), "{differing:#?}");
}

#[test]
#[ignore = "minutes more: tests/run.sh --full"]
fn what_leaves_the_inventory_leaves_the_node_and_the_users_words_stay() {
    let homelab = Homelab::new(
        &["jarvis"],
        &format!(
            "{NO_PACKAGES}sysctls = {{ \"vm.swappiness\" = 10 }}\n[boot]\nadd = [\"quiet\", \"loglevel=4\"]\n"
        ),
    );
    let pi = homelab.pi();
    let swappiness = "cat /proc/sys/vm/swappiness";
    let before = pi.ok(swappiness).unwrap();
    homelab.converge();
    assert_eq!(pi.ok(swappiness).unwrap().trim(), "10");
    pi.ok("grep -qw loglevel=4 /proc/cmdline").unwrap();
    pi.ok("echo '10.9.9.9 mine' | sudo tee -a /etc/hosts")
        .unwrap();

    homelab.set("[hardening]\nautomatic_upgrades = \"off\"\nhosts = false\nhostname = false\n");
    homelab.converge();
    assert_eq!(pi.ok(swappiness).unwrap(), before);
    pi.ok("! grep -qw loglevel=4 /proc/cmdline && grep -qw quiet /proc/cmdline && grep -qw panic=10 /proc/cmdline")
        .unwrap();
    pi.ok("grep -q '^10.9.9.9 mine' /etc/hosts && ! grep -q selfheal /etc/hosts && test \"$(hostname)\" = raspberrypi")
        .unwrap();
}

#[test]
#[ignore = "minutes more: tests/run.sh --full"]
fn the_first_login_may_be_by_password_and_no_later_one() {
    let homelab = Homelab::new(&["jarvis"], "");
    let key = homelab.home().join("key");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key)
        .status();
    assert!(made.unwrap().success());
    let password = homelab.home().join("password");
    std::fs::write(&password, "raspberry\n").unwrap();
    std::fs::set_permissions(
        &password,
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    let login = format!("[nodes.jarvis.ssh]\nidentity = [\"{}\"]\n", key.display());
    let by_password = format!("login_password = {{ file = \"{}\" }}\n", password.display());

    homelab.set(&format!("{NO_PACKAGES}{login}"));
    let refused = homelab.selfheal(&["apply", "--yes"]);
    assert_eq!(
        refused.code,
        Some(5),
        "a key that nobody knows opens no door\n{refused}"
    );

    homelab.set(&format!("{NO_PACKAGES}{login}{by_password}"));
    homelab.ok(&["bootstrap", "--yes"]);
    homelab
        .pi()
        .ok("sudo sshd -T | grep -qx 'passwordauthentication no'")
        .unwrap();

    homelab.set(&format!("{NO_PACKAGES}{login}"));
    homelab.is_converged();
}
