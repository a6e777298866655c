//! `selfheal doctor` on a Pi: nothing to say of a healthy one, and each fault named.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::homelab::{Homelab, NO_PACKAGES};

/// Verdicts and evidence by check, of the first node.
type Findings = BTreeMap<String, (String, String)>;

/// What doctor finds wrong, and its exit code.
fn troubles(homelab: &Homelab) -> (Option<i32>, Findings) {
    let run = homelab.selfheal(&["doctor", "--json"]);
    let report: serde_json::Value =
        serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}\n{run}"));
    let word = |finding: &serde_json::Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let findings = report["nodes"][0]["findings"].as_array().unwrap();
    let troubles = findings
        .iter()
        .filter(|finding| !matches!(word(finding, "verdict").as_str(), "ok" | "skipped"))
        .map(|finding| {
            let said = (word(finding, "verdict"), word(finding, "evidence"));
            (word(finding, "id"), said)
        });
    (run.code, troubles.collect())
}

/// What passes by itself after a boot: the clock is set, the disk calms down, measurements are in time again.
const SETTLES: Duration = Duration::from_secs(300);

/// Doctor, until it finds wrong just what it is expected to.
fn finds(homelab: &Homelab, expected: &[(&str, &str)]) -> (Option<i32>, Findings) {
    let expected: BTreeMap<&str, &str> = expected.iter().copied().collect();
    let began = Instant::now();
    loop {
        let (code, found) = troubles(homelab);
        let verdicts: BTreeMap<&str, &str> = found
            .iter()
            .map(|(id, (verdict, _))| (id.as_str(), verdict.as_str()))
            .collect();
        if verdicts == expected {
            return (code, found);
        }
        assert!(began.elapsed() < SETTLES, "{found:#?}, not {expected:#?}");
    }
}

/// Several faults, each the doing of a hand that meant well.
const FAULTS: &str = r#"
    set -e
    echo 'vm.swappiness = 1' >>/etc/sysctl.d/90-selfheal.conf
    printf '[Journal]\nStorage=volatile\n' >/etc/systemd/journald.conf.d/99-mine.conf
    dd if=/dev/zero of=/mine.swap bs=1M count=8 status=none && chmod 600 /mine.swap
    mkswap -q /mine.swap && swapon /mine.swap
    echo 'nas:/export /mnt/nas nfs noauto 0 0' >>/etc/fstab
    echo 'PasswordAuthentication yes' >/etc/ssh/sshd_config.d/00-mine.conf
    echo 0 >/proc/sys/kernel/panic
    mkdir -p /etc/ufw && echo ENABLED=yes >/etc/ufw/ufw.conf
    sed -i 's/^127.0.1.1.*/127.0.1.1 raspberrypi/' /etc/hosts
    rmmod vxlan
    touch /run/reboot-required && echo linux-raspi >/run/reboot-required.pkgs
    mount -o remount,ro /boot/firmware
    mkdir -p /var/lib/systemd/pstore/1 /run/selfheal
    echo 'Kernel panic - not syncing: sysrq triggered crash' >/var/lib/systemd/pstore/1/dmesg.txt
    echo '5 unclean boots in 30 minutes' >/run/selfheal/safe-mode
    echo 'rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { P1 } 1000 jiffies s: 1 root: 0x0/T' >/dev/kmsg
    echo 'INFO: task dd:99 blocked for more than 120 seconds.' >/dev/kmsg
    echo CONFIG_HZ=250 >"/boot/config-$(uname -r)"
    journalctl --sync
"#;

#[test]
fn a_healthy_pi_shows_no_warning_and_a_sick_one_shows_each_fault() {
    let homelab = Homelab::new(&["jarvis"], NO_PACKAGES);
    homelab.converge();
    let pi = homelab.pi();

    let (code, _) = finds(&homelab, &[]);
    assert_eq!(code, Some(0));
    pi.root("touch /run/before").unwrap();
    let table = homelab.selfheal(&["doctor"]);
    assert!(
        table.stdout.contains("jarvis (control-plane, 127.0.0.1): "),
        "{table}"
    );
    // The node's own log of boots goes on beside it.
    let written = "find /boot /etc /home /opt /root /usr /var/lib/selfheal /run/selfheal -xdev -path '*/selfheal/boots*' \
                   -prune -o -newer /run/before -print";
    assert_eq!(pi.root(written).unwrap(), "", "doctor writes nothing");

    pi.root(FAULTS).unwrap();
    let (code, found) = finds(
        &homelab,
        &[
            ("boot-space", "fail"),
            ("pending-reboot", "warn"),
            ("panic-policy", "fail"),
            ("rcu-stalls", "warn"),
            ("hung-tasks", "warn"),
            ("unclean-boots", "fail"),
            ("journal", "fail"),
            ("pstore", "fail"),
            ("swap", "fail"),
            ("hostname", "warn"),
            ("sshd", "fail"),
            ("firewall", "warn"),
            ("modules", "warn"),
            ("no-nfs", "warn"),
            ("drift", "warn"),
        ],
    );
    assert_eq!(code, Some(1));
    for (id, evidence) in [
        (
            "rcu-stalls",
            "1 expedited, the longest 4.000 s (1000 jiffies at 250 Hz, this boot)",
        ),
        ("hung-tasks", "task dd:99 blocked"),
        ("unclean-boots", "5 unclean boots in 30 minutes"),
        ("pstore", "sysrq triggered crash"),
        ("swap", "/mine.swap"),
        ("sshd", "passwordauthentication yes"),
        ("modules", "vxlan"),
        ("no-nfs", "nas:/export /mnt/nas nfs"),
        ("drift", "/etc/sysctl.d/90-selfheal.conf"),
        ("pending-reboot", "linux-raspi"),
    ] {
        assert!(found[id].1.contains(evidence), "{id}: {:?}", found[id]);
    }
}
