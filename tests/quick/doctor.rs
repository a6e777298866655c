//! `selfheal doctor`: what is measured, what the checks make of it, and how it is shown.

mod checks;
mod k3s;
mod script;
mod shown;

use std::collections::BTreeMap;

use selfheal::doctor::check::Check;
use selfheal::doctor::measure::{Measure, Measured};
use selfheal::doctor::{Outcome, Patient, judge};
use selfheal::inventory::{self, Inventory};

const NONCE: &str = "0123456789abcdef";
/// When all of it was measured, in seconds since the epoch.
const NOW: u64 = 1_795_000_000;

/// Frames by name.
type Frames = BTreeMap<String, String>;

fn inventory(settings: &str) -> Inventory {
    let text = format!(
        "[cluster]\nname = \"lab\"\n{settings}\n[nodes.jarvis]\nhost = \"192.0.2.1\"\nrole = \"control-plane\"\n\
         [nodes.ultron]\nhost = \"192.0.2.2\"\nrole = \"worker\"\n[nodes.vision]\nhost = \"vision.local\"\n\
         role = \"worker\"\nmodel = \"virtual\"\n"
    );
    let (inventory, report) = inventory::parse("homelab.toml", text.as_bytes());
    inventory.unwrap_or_else(|| panic!("{report}"))
}

fn file(content: &str) -> String {
    format!("file 81a4 root root {} content\n{content}", content.len())
}

const LINE: &str = "console=tty1 root=PARTUUID=ab-02 rootfstype=ext4 rootwait cgroup_enable=memory psi=1 panic=10\n";
const MOUNTS: &str = "\
24 1 179:2 / / rw,noatime shared:1 - ext4 /dev/mmcblk0p2 rw
25 24 179:1 / /boot/firmware rw,relatime shared:2 - vfat /dev/mmcblk0p1 rw
26 24 0:23 / /sys/fs/cgroup rw,nosuid shared:3 - cgroup2 cgroup2 rw";
const UNITS: &str = "Id=watchdog.service\nLoadState=not-found\nActiveState=inactive\nUnitFileState=\n\n\
    Id=nftables.service\nLoadState=loaded\nActiveState=inactive\nUnitFileState=disabled";
const LEDGER: &str = "hardening\tfile\t/etc/sysctl.d/90-selfheal.conf\taa11\tnothing\n\
    hardening\tfile\t/etc/ssh/sshd_config.d/00-selfheal.conf\tbb22\tnothing\n\
    hardening\tedit\t/etc/hosts\tcc33\toriginal";

/// k3s's units on a node where this one is active.
fn units_of_k3s(service: &str) -> String {
    let unit = |name: &str, loaded: bool| {
        let (load, active, sub, state) = match loaded {
            true => ("loaded", "active", "running", "enabled"),
            false => ("not-found", "inactive", "dead", ""),
        };
        format!(
            "Id={name}\nLoadState={load}\nActiveState={active}\nSubState={sub}\nUnitFileState={state}\nNRestarts=0\n\
             Result=success\nActiveEnterTimestampMonotonic=60000000\nAfter=basic.target selfheal-clock.service\n\
             ExecStartPre={{ path=/usr/local/libexec/selfheal/guard ; argv[]=/usr/local/libexec/selfheal/guard pre ; }}\n"
        )
    };
    let units = [
        ("k3s.service", service == "k3s.service"),
        ("k3s-agent.service", service == "k3s-agent.service"),
        ("selfheal-clock.service", true),
        ("iscsid.service", true),
        ("iscsid.socket", false),
        ("multipathd.service", false),
        ("multipathd.socket", false),
    ];
    units.map(|(name, loaded)| unit(name, loaded)).join("\n")
}

/// What the API says of two healthy nodes and two pods.
const CLUSTER: &str = r#"{"kind": "List", "items": [
    {"kind": "Node", "metadata": {"name": "jarvis"}, "spec": {}, "status": {"conditions": [
        {"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True"}]}},
    {"kind": "Node", "metadata": {"name": "ultron"}, "spec": {}, "status": {"conditions": [
        {"type": "Ready", "status": "True"}]}},
    {"kind": "Pod", "metadata": {"name": "coredns-1", "namespace": "kube-system"}, "spec": {"nodeName": "jarvis"},
        "status": {"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]}},
    {"kind": "Pod", "metadata": {"name": "job-1", "namespace": "default"}, "spec": {"nodeName": "ultron"},
        "status": {"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {}}}]}}]}"#;

const K3S_FILES: &str = "600 root 2957 /etc/rancher/k3s/k3s.yaml\n600 root 33 /etc/rancher/node/password\n\
    600 root 110 /var/lib/rancher/k3s/server/token\n644 root 9000000 /var/lib/rancher/k3s/server/db/state.db\n\
    644 root 4000000 /var/lib/rancher/k3s/server/db/state.db-wal";

/// Three sandboxes, each with a lease.
fn leases() -> String {
    let id = |letter: &str| letter.repeat(64);
    let lines = ["a", "b"].map(|letter| {
        format!(
            "lease 10.42.0.1{letter} {}\nsandbox {}",
            id(letter),
            id(letter)
        )
    });
    format!("{}\nsandbox {}\nanswered", lines.join("\n"), id("c"))
}

/// What differs on the worker ultron from jarvis, where both are healthy.
fn worker() -> Frames {
    let mut frames = healthy();
    let mut is = |name: &str, text: &str| drop(frames.insert(name.to_owned(), text.to_owned()));
    is("fact hostname", "ultron");
    is("doctor hosts", "127.0.0.1 localhost\n127.0.1.1 ultron");
    is("doctor peers", "192.0.2.1 6443 open");
    is("doctor initiator", "iqn.1993-08.org.debian:01:ultron");
    is("doctor k3s-units", &units_of_k3s("k3s-agent.service"));
    is("doctor k3s-files", "600 root 33 /etc/rancher/node/password");
    frames.remove("doctor api");
    frames.remove("doctor cluster");
    frames
}

/// A Pi 5 as it should be.
fn healthy() -> Frames {
    let frames = [
        ("doctor clock", format!("{NOW}.250000000")),
        ("fact clock", NOW.to_string()),
        ("fact os-release", "ID=debian\nVERSION_ID=\"13\"\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"".into()),
        ("fact kernel", "6.12.34+rpt-rpi-2712".into()),
        ("fact machine", "aarch64".into()),
        ("fact hostname", "jarvis".into()),
        ("fact boot-id", "b5".into()),
        ("fact machine-id", "0af1".into()),
        ("fact uptime", "86400.00 1000.00".into()),
        ("fact command-line", format!("reboot=w cgroup_disable=memory {LINE}")),
        ("fact cgroup-controllers", "cpuset cpu io memory pids".into()),
        ("fact psi", "yes".into()),
        ("fact mounts", MOUNTS.into()),
        ("fact swaps", "Filename Type Size Used Priority".into()),
        ("fact memory", "MemTotal:        8245000 kB\nMemFree: 1 kB\nMemAvailable:    6000000 kB".into()),
        ("fact model", "Raspberry Pi 5 Model B Rev 1.0".into()),
        ("free /boot/firmware", "100000 4096".into()),
        ("file /boot/firmware/config.txt", file("[all]\narm_64bit=1\n")),
        ("file /boot/firmware/cmdline.txt", file(LINE)),
        ("ledger", LEDGER.into()),
        ("doctor hashes", "aa11  /etc/sysctl.d/90-selfheal.conf\nbb22  /etc/ssh/sshd_config.d/00-selfheal.conf".into()),
        ("sysctl kernel.panic", "10".into()),
        ("sysctl kernel.panic_on_oops", "1".into()),
        ("sysctl kernel.softlockup_panic", "1".into()),
        ("sysctl kernel.panic_on_rcu_stall", "0".into()),
        ("doctor expedited-timeout", "0".into()),
        ("doctor pressure-memory", "some avg10=0.00 avg60=0.00 avg300=0.10 total=9\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0".into()),
        ("doctor pressure-io", "some avg10=0.00 avg60=0.00 avg300=3.00 total=9\nfull avg10=1.00 avg60=1.00 avg300=2.50 total=9".into()),
        ("doctor watchdog", "device yes\nidentity Broadcom BCM2835 Watchdog timer\nstate active\ntimeout 60\nbootstatus 0".into()),
        ("doctor ext4-errors", "/sys/fs/ext4/mmcblk0p2/errors_count:0".into()),
        ("doctor log", String::new()),
        ("doctor log-before", String::new()),
        ("doctor last-words", format!("{}.1 jarvis systemd-journald[210]: Journal stopped", NOW - 90_000)),
        ("doctor journal-boots", " -1 0123456789abcdef0123456789abcdef Sat 2026-11-21\n  0 1123456789abcdef0123456789abcdef Sun".into()),
        ("doctor journal-storage", "Storage=volatile\nStorage=persistent".into()),
        ("doctor journal-files", "/var/log/journal/0af1/system.journal\n/var/log/journal".into()),
        ("doctor manager", "RuntimeWatchdogUSec=1min\nRebootWatchdogUSec=3min".into()),
        ("units", UNITS.into()),
        ("doctor architecture", "arm64".into()),
        ("sshd", "port 22\npermitrootlogin without-password\npasswordauthentication no\nkbdinteractiveauthentication no".into()),
        ("doctor space", "1000 700 600 5000 4900 /\n1000 900 900 0 0 /mnt/data".into()),
        ("doctor temperature", "48300".into()),
        ("doctor throttled", "throttled=0x0".into()),
        ("doctor synchronised", "yes".into()),
        ("doctor last-clock", (NOW - 60).to_string()),
        ("doctor hosts", "127.0.0.1 localhost\n127.0.1.1 jarvis".into()),
        ("doctor peers", "192.0.2.2 10250 refused".into()),
        ("doctor fstab", "PARTUUID=ab-02 / ext4 defaults,noatime 0 1\n#nas:/x /mnt/nas nfs defaults 0 0".into()),
        ("doctor hz", "CONFIG_HZ=250".into()),
        ("doctor kernels", "1700000000 /lib/modules/6.12.34+rpt-rpi-2712/\n1700000000 /lib/modules/6.12.34+rpt-rpi-v8/".into()),
        ("doctor modules", "overlay loaded\nbr_netfilter loaded\nvxlan loaded".into()),
        ("doctor storage-log", String::new()),
        ("doctor initiator", "iqn.1993-08.org.debian:01:jarvis".into()),
        ("doctor k3s-units", units_of_k3s("k3s.service")),
        ("doctor k3s-version", "k3s version v1.36.3+k3s1 (c0ffee12)\ngo version go1.25.4".into()),
        ("doctor k3s-files", K3S_FILES.into()),
        ("doctor last-guard", "boot_id b5\nprevious b4\nunclean yes\ncni set aside as /var/lib/cni.stale-1\nms 40".into()),
        ("doctor guard-outcome", "new".into()),
        ("doctor clock-gate", "boot_id b5\noutcome synchronised\nwaited 4\nfloor 1\nclock 2".into()),
        ("doctor scripts", "guard\nclock\nreap\nalive".into()),
        ("doctor k3s-log", String::new()),
        ("doctor certificate /var/lib/rancher/k3s/server/tls/serving-kube-apiserver.crt", k3s::YEAR.into()),
        ("doctor certificate /var/lib/rancher/k3s/server/tls/server-ca.crt", k3s::DECADES.into()),
        ("doctor api", ["0 100.10 101.90 14 ok"; 5].join("\n")),
        ("doctor cluster", CLUSTER.into()),
        ("doctor verify", String::new()),
        ("doctor ghosts", "before sandboxes 3 ready 3 ghosts 0\nexit 0".into()),
        ("doctor leases", leases()),
        ("doctor boots", "b3 4000 clean reboot\nb4 5000 clean reboot\nb5 - running -".into()),
    ];
    frames
        .into_iter()
        .map(|(name, text)| (name.to_owned(), text))
        .collect()
}

/// What the workstation gets of these frames, with all measurements done but `late`.
fn measured(frames: &Frames, late: Option<Measure>) -> Measured {
    let text: String = frames
        .iter()
        .map(|(name, text)| format!("\n@{NONCE} {name}\n{text}"))
        .collect();
    let carrier = match late {
        Some(Measure::Clock) => Measure::Facts,
        _ => Measure::Clock,
    };
    let mut reply = format!("hello\n\n@{NONCE} begin\n");
    for part in text.replace('\n', "\u{1}").as_bytes().chunks(3800) {
        reply += &format!(
            "@{NONCE} part {} {}\n",
            carrier.as_str(),
            String::from_utf8_lossy(part)
        );
    }
    for measure in Measure::ALL {
        if Some(measure) != late {
            reply += &format!("@{NONCE} done {}\n", measure.as_str());
        }
    }
    reply += &format!("\n@{NONCE} end\n");
    let asked = NOW as f64;
    Measured::parse(reply.as_bytes(), NONCE, asked, Some(asked + 0.4)).unwrap()
}

/// What `check` says of jarvis with these settings and frames over those of a healthy Pi; ultron is healthy.
fn outcome(check: Check, settings: &str, frames: &[(&str, &str)]) -> Outcome {
    let inventory = inventory(settings);
    let mut jarvis = healthy();
    jarvis.extend(
        frames
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned())),
    );
    let (jarvis, ultron) = (measured(&jarvis, None), measured(&worker(), None));
    let all = [
        (&inventory.nodes[0], &jarvis),
        (&inventory.nodes[1], &ultron),
    ];
    judge(
        check,
        &Patient {
            node: all[0].0,
            versions: &inventory.versions,
            measured: all[0].1,
            all: &all,
        },
    )
}

proptest::proptest! {
    #[test]
    fn whatever_a_node_says_is_judged_without_a_panic(texts in proptest::collection::vec("[ -~\n]{0,40}", 90), bytes: Vec<u8>) {
        let _ = Measured::parse(&bytes, NONCE, 0.0, None);
        let inventory = inventory("");
        let mut frames = healthy();
        frames.extend([("doctor waiting-tasks", ""), ("doctor nvme", "nvme0")].map(|(name, text)| (name.to_owned(), text.to_owned())));
        for (frame, text) in frames.values_mut().zip(texts) {
            *frame = text;
        }
        let measured = measured(&frames, None);
        let all = [(&inventory.nodes[0], &measured)];
        for check in Check::ALL {
            judge(check, &Patient { node: all[0].0,
            versions: &inventory.versions, measured: &measured, all: &all });
        }
    }
}
