//! Each check with what makes it ok, warn, fail and unknown.

use selfheal::doctor::Verdict::{self, Fail, Ok, Skipped, Unknown, Warn};
use selfheal::doctor::check::Check;
use selfheal::doctor::measure::Measure;
use selfheal::doctor::{Patient, judge};

use super::{NOW, file, healthy, inventory, measured, outcome};

/// Asserts what a check makes of frames that differ from those of a healthy Pi: verdict, words of the evidence.
#[track_caller]
fn says(check: Check, frames: &[(&str, &str)], verdict: Verdict, evidence: &str) {
    says_with("", check, frames, verdict, evidence);
}

/// The same with settings in the inventory.
#[track_caller]
fn says_with(
    settings: &str,
    check: Check,
    frames: &[(&str, &str)],
    verdict: Verdict,
    evidence: &str,
) {
    let outcome = outcome(check, settings, frames);
    assert_eq!(outcome.verdict, verdict, "{}: {outcome:?}", check.id());
    assert!(outcome.evidence.contains(evidence), "{outcome:?}");
    assert_eq!(outcome.hint.is_some(), verdict.is_trouble(), "{outcome:?}");
}

#[test]
fn a_healthy_pi_is_healthy() {
    for check in Check::ALL {
        let outcome = outcome(check, "", &[]);
        assert!(!outcome.verdict.is_trouble(), "{}: {outcome:?}", check.id());
    }
}

#[test]
fn what_was_not_measured_in_time_is_unknown() {
    let inventory = inventory("");
    for late in Measure::ALL {
        let measured = measured(&healthy(), Some(late));
        let all = [(&inventory.nodes[0], &measured)];
        let patient = Patient {
            node: all[0].0,
            versions: &inventory.versions,
            measured: all[0].1,
            all: &all,
        };
        let unknown = Check::ALL.map(|check| judge(check, &patient)).into_iter();
        let unknown: Vec<_> = unknown
            .filter(|outcome| outcome.verdict == Unknown)
            .collect();
        assert!(!unknown.is_empty(), "{late:?} is of no consequence");
        assert!(
            unknown
                .iter()
                .all(|outcome| outcome.evidence.contains(late.as_str())),
            "{unknown:?}"
        );
    }
}

#[test]
fn a_virtual_pi_has_no_board() {
    let inventory = inventory("");
    let measured = measured(&healthy(), None);
    let all = [(&inventory.nodes[2], &measured)];
    let patient = Patient {
        node: all[0].0,
        versions: &inventory.versions,
        measured: all[0].1,
        all: &all,
    };
    for check in [
        Check::Architecture,
        Check::Model,
        Check::Throttling,
        Check::Temperature,
    ] {
        assert_eq!(judge(check, &patient).verdict, Skipped);
    }
}

#[test]
fn the_board() {
    use Check::*;
    says(
        Architecture,
        &[("fact machine", "armv7l")],
        Fail,
        "kernel armv7l",
    );
    says(
        Architecture,
        &[("doctor architecture", "armhf")],
        Fail,
        "packages armhf",
    );
    says(
        Model,
        &[("fact model", "Raspberry Pi 3 Model B Plus Rev 1.3")],
        Warn,
        "Pi 3",
    );
    says(
        Model,
        &[("fact model", "Raspberry Pi Zero 2 W Rev 1.0")],
        Warn,
        "Zero 2",
    );
    says(
        Model,
        &[("fact memory", "MemTotal: 1900000 kB")],
        Warn,
        "1.8 GiB",
    );
    says(Model, &[("fact model", "linux,dummy-virt")], Fail, "dummy");
    says(
        Throttling,
        &[("doctor throttled", "throttled=0x50000")],
        Warn,
        "undervoltage since boot, throttled since boot",
    );
    says(
        Throttling,
        &[("doctor throttled", "throttled=0x50005")],
        Fail,
        "undervoltage now, throttled now",
    );
    says(Throttling, &[("doctor throttled", "")], Unknown, "vcgencmd");
    says(
        Throttling,
        &[("doctor throttled", "undervoltage=1")],
        Fail,
        "undervoltage",
    );
    says(
        Throttling,
        &[("doctor throttled", "undervoltage=0")],
        Ok,
        "hwmon",
    );
    says(Temperature, &[("doctor temperature", "74900")], Ok, "74.9");
    says(
        Temperature,
        &[("doctor temperature", "75000")],
        Warn,
        "75.0",
    );
    says(
        Temperature,
        &[("doctor temperature", "82000")],
        Warn,
        "82.0",
    );
    says(
        Temperature,
        &[("doctor temperature", "82100")],
        Fail,
        "82.1",
    );
    says(
        Temperature,
        &[("doctor temperature", "")],
        Unknown,
        "thermal",
    );
    for (id, version, verdict) in [
        ("ubuntu", "24.04", Ok),
        ("ubuntu", "25.10", Warn),
        ("ubuntu", "22.04", Fail),
        ("debian", "11", Fail),
        ("raspbian", "12", Ok),
        ("fedora", "43", Warn),
        ("", "", Unknown),
    ] {
        let release = format!("ID={id}\nVERSION_ID=\"{version}\"\n");
        says(
            OperatingSystem,
            &[("fact os-release", &release)],
            verdict,
            id,
        );
    }
}

#[test]
fn the_boot_files() {
    use Check::*;
    const PATH: &str = "file /boot/firmware/cmdline.txt";
    let with = |token: &str| {
        file(&format!(
            "console=tty1 root=PARTUUID=ab-02 rootwait {token}\n"
        ))
    };
    says(BootLayout, &[(PATH, &with("quiet"))], Fail, "`quiet`");
    says(
        BootLayout,
        &[(PATH, &file("root=/dev/mmcblk0p2\npanic=10\n"))],
        Fail,
        "cmdline.txt",
    );
    says(
        BootLayout,
        &[("fact mounts", "24 1 179:2 / / rw - ext4 /dev/mmcblk0p2 rw")],
        Fail,
        "no boot partition",
    );
    let ledger = ("ledger", "boot\tboot-token\tloglevel=4\t-\tnothing");
    says(
        BootLayout,
        &[(PATH, &with("loglevel=4")), ledger],
        Warn,
        "loglevel=4",
    );
    says(
        PendingReboot,
        &[(PATH, &with("loglevel=4")), ledger],
        Warn,
        "loglevel=4",
    );

    says(TrialBoot, &[], Skipped, "plain");
    for (state, verdict) in [
        ("unknown", Warn),
        ("trying", Warn),
        ("bad", Fail),
        ("good", Ok),
    ] {
        let new = ("file /boot/firmware/new/state", &*file(state));
        says(
            TrialBoot,
            &[("file /boot/firmware/current/state", &file("good\n")), new],
            verdict,
            state,
        );
    }
    says(
        BootSpace,
        &[("free /boot/firmware", "12000 4096")],
        Warn,
        "49 MB",
    );
    says(
        BootSpace,
        &[("free /boot/firmware", "9000 4096")],
        Fail,
        "36 MB",
    );
    let config = (
        "file /boot/firmware/config.txt",
        &*file("[all]\nos_prefix=current/\n"),
    );
    let line = file(super::LINE);
    let current = [config, ("file /boot/firmware/current/cmdline.txt", &*line)];
    let new = ("file /boot/firmware/new/cmdline.txt", &*line);
    says(
        BootLayout,
        &current,
        Ok,
        "current/cmdline.txt (Ubuntu's A/B layout)",
    );
    for (state, words) in [
        ("unknown\n", "waits for its trial boot"),
        ("trying\n", "under way"),
    ] {
        let state = file(state);
        let state = ("file /boot/firmware/new/state", &*state);
        says(
            BootLayout,
            &[current[0], current[1], new, state],
            Warn,
            words,
        );
    }
    says(BootSpace, &[("free /boot/firmware", "")], Unknown, "free");
    let read_only = super::MOUNTS.replace("/boot/firmware rw", "/boot/firmware ro");
    says(BootSpace, &[("fact mounts", &read_only)], Fail, "read-only");

    let newer = format!("{} /lib/modules/6.12.47+rpt-rpi-2712/", NOW - 86_400);
    says(
        PendingReboot,
        &[("doctor kernels", &newer)],
        Warn,
        "6.12.47+rpt-rpi-2712 is installed",
    );
    let newer = format!("{} /lib/modules/6.12.47+rpt-rpi-2712/", NOW - 31 * 86_400);
    says(
        PendingReboot,
        &[("doctor kernels", &newer)],
        Fail,
        "for 31 days",
    );
    let asked = (NOW - 3600).to_string();
    let asked = [
        ("doctor reboot-required", &*asked),
        ("doctor reboot-packages", "linux-raspi\nlibc6"),
    ];
    says(PendingReboot, &asked, Warn, "linux-raspi libc6");
}

#[test]
fn the_kernel() {
    use Check::*;
    says(
        MemoryCgroup,
        &[("fact cgroup-controllers", "cpu io")],
        Fail,
        "cpu io",
    );
    let v1 = super::MOUNTS.replace("cgroup2 cgroup2", "tmpfs tmpfs");
    says(MemoryCgroup, &[("fact mounts", &v1)], Fail, "tmpfs");
    says(Pressure, &[("fact psi", "")], Warn, "/proc/pressure");
    says_with(
        "[boot]\npsi = false\n",
        Pressure,
        &[("fact psi", "")],
        Skipped,
        "boot.psi",
    );
    let timeout = "doctor expedited-timeout";
    let panic = ("sysctl kernel.panic_on_rcu_stall", "1");
    says(RcuGuard, &[(timeout, "20")], Warn, "20 ms");
    says(
        RcuGuard,
        &[(timeout, "20"), panic],
        Fail,
        "panic_on_rcu_stall = 1",
    );
    says(RcuGuard, &[(timeout, "21000"), panic], Ok, "21000");
    says(RcuGuard, &[(timeout, ""), panic], Ok, "no expedited");
    says(RcuGuard, &[(timeout, "many")], Unknown, "many");

    let expedited = |jiffies: u32| {
        format!(
            "{NOW}.5 jarvis kernel: rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: {{ P12 }} {jiffies} jiffies s: 1"
        )
    };
    let log = "doctor log";
    says(
        RcuStalls,
        &[(log, &expedited(6))],
        Ok,
        "1 expedited, the longest 0.024 s (6 jiffies at 250 Hz, this boot)",
    );
    assert!(outcome(RcuStalls, "", &[(log, &expedited(6))]).news);
    says(
        RcuStalls,
        &[(log, &format!("{}\n{}", expedited(250), expedited(6)))],
        Warn,
        "2 expedited, the longest 1.000 s",
    );
    says(
        RcuStalls,
        &[("doctor log-before", &expedited(2501))],
        Fail,
        "the boot before",
    );
    says(
        RcuStalls,
        &[(log, &expedited(6)), ("doctor hz", "")],
        Unknown,
        "CONFIG_HZ",
    );
    says(
        RcuStalls,
        &[(
            log,
            "1.5 jarvis kernel: rcu: INFO: rcu_sched self-detected stall on CPU",
        )],
        Fail,
        "self-detected",
    );

    let hung = |count: usize, age: u64| {
        let line = format!(
            "{}.1 jarvis kernel: INFO: task kworker:7 blocked for more than 120 seconds.\n",
            NOW - age
        );
        line.repeat(count)
    };
    says(HungTasks, &[(log, &hung(1, 60))], Warn, "1 in 24 h");
    says(HungTasks, &[(log, &hung(3, 60))], Warn, "3 in 24 h");
    says(
        HungTasks,
        &[("doctor log-before", &hung(4, 60))],
        Fail,
        "4 in 24 h",
    );
    says(HungTasks, &[(log, &hung(4, 90_000))], Ok, "none");
    let waiting = "doctor waiting-tasks";
    says(
        HungTasks,
        &[(waiting, "77 86399000.1 jbd2_log_wait jbd2/mmcblk0p2")],
        Ok,
        "none",
    );
    says(
        HungTasks,
        &[(waiting, "77 86000000.1 nfs_wait (my job)")],
        Fail,
        "(my job) (77) has been waiting in nfs_wait for 400 s",
    );
    says(HungTasks, &[(waiting, "77 - 0 cp")], Ok, "none");

    let modules = "doctor modules";
    says(
        Modules,
        &[(
            modules,
            "overlay loaded\nbr_netfilter loadable\nvxlan loaded",
        )],
        Warn,
        "br_netfilter",
    );
    says(
        Modules,
        &[(
            modules,
            "overlay loaded\nbr_netfilter loaded\nvxlan missing",
        )],
        Fail,
        "vxlan",
    );
    let own = "[hardening]\nmodules = [\"iscsi_tcp\"]\n";
    says_with(own, Modules, &[], Fail, "iscsi_tcp");
}

#[test]
fn the_watchdog_and_what_panics() {
    use Check::*;
    let (watchdog, manager) = ("doctor watchdog", "doctor manager");
    says(HardwareWatchdog, &[(watchdog, "")], Fail, "/dev/watchdog0");
    says(
        HardwareWatchdog,
        &[(manager, "RuntimeWatchdogUSec=0")],
        Warn,
        "nobody feeds it",
    );
    says(
        HardwareWatchdog,
        &[(manager, "RuntimeWatchdogUSec=10s")],
        Warn,
        "10 s",
    );
    says(
        HardwareWatchdog,
        &[(manager, "RuntimeWatchdogUSec=14s")],
        Ok,
        "14 s",
    );
    says(
        HardwareWatchdog,
        &[(manager, "")],
        Unknown,
        "RuntimeWatchdogUSec",
    );
    says(
        HardwareWatchdog,
        &[(watchdog, "device yes\nidentity x\nstate inactive")],
        Fail,
        "inactive",
    );
    says(
        HardwareWatchdog,
        &[(
            watchdog,
            "device yes\nidentity Software Watchdog\nstate active",
        )],
        Warn,
        "Software",
    );
    let daemon = "Id=watchdog.service\nLoadState=loaded\nActiveState=active\nUnitFileState=enabled";
    says(
        HardwareWatchdog,
        &[("units", daemon)],
        Fail,
        "watchdog.service",
    );

    says(
        PanicPolicy,
        &[("sysctl kernel.panic", "0")],
        Fail,
        "kernel.panic = 0",
    );
    says(
        PanicPolicy,
        &[("sysctl kernel.panic", "60")],
        Warn,
        "60, not 10",
    );
    says(
        PanicPolicy,
        &[("sysctl kernel.softlockup_panic", "0")],
        Warn,
        "softlockup_panic",
    );
    let safe = [
        ("doctor safe-mode", "yes\nwhy"),
        ("sysctl kernel.softlockup_panic", "0"),
    ];
    says(PanicPolicy, &safe, Ok, "off in safe mode");
    let none = ["", "_on_oops"].map(|key| format!("sysctl kernel.panic{key}"));
    let none = [
        (&*none[0], ""),
        (&*none[1], ""),
        ("sysctl kernel.softlockup_panic", ""),
    ];
    says(PanicPolicy, &none, Unknown, "none");
}

#[test]
fn earlier_boots() {
    use Check::*;
    let boots = "doctor boots";
    let unclean = |count: usize, cause: &str| {
        format!(
            "{}b5 - running -",
            format!("b4 312 unclean {cause}\n").repeat(count)
        )
    };
    says(
        UncleanBoots,
        &[(boots, &unclean(1, "watchdog"))],
        Ok,
        "1 in 7 days; the last ran for 312 s and ended by the watchdog",
    );
    assert!(outcome(UncleanBoots, "", &[(boots, &unclean(1, "watchdog"))]).news);
    says(
        UncleanBoots,
        &[(boots, &unclean(2, "power"))],
        Warn,
        "the loss of power",
    );
    let panics = (
        "doctor panics",
        "Kernel panic - not syncing: sysrq triggered crash",
    );
    says(
        UncleanBoots,
        &[(boots, &unclean(4, "panic")), panics],
        Fail,
        "a panic (Kernel panic - not syncing",
    );
    let long_ago =
        "b1 10 unclean power\nb2 10 unclean power\nb4 700000 clean reboot\nb5 - running -";
    says(
        UncleanBoots,
        &[(boots, long_ago)],
        Ok,
        "none of the last 2 boots",
    );
    let log = (
        "doctor log-before",
        "1.5 jarvis kernel: Kernel panic - not syncing: Attempted to kill init!",
    );
    says(
        UncleanBoots,
        &[(boots, &unclean(1, "unknown")), log],
        Ok,
        "Attempted to kill init",
    );
    let reset = ("doctor watchdog", "device yes\nbootstatus 32");
    says(
        UncleanBoots,
        &[(boots, &unclean(1, "unknown")), reset],
        Ok,
        "the watchdog (its bootstatus)",
    );
    says(
        UncleanBoots,
        &[(boots, &unclean(1, "unknown"))],
        Ok,
        "left no trace",
    );
    says(
        UncleanBoots,
        &[("doctor safe-mode", "yes\n5 unclean boots in 30 minutes")],
        Fail,
        "5 unclean boots",
    );

    // Without boots.log.
    says(UncleanBoots, &[(boots, "")], Ok, "in good order");
    let cut = (
        "doctor last-words",
        "1.5 jarvis systemd[1]: Started cron.service.",
    );
    says(
        UncleanBoots,
        &[(boots, ""), cut],
        Ok,
        "the watchdog or a loss of power; its last words: systemd[1]: Started",
    );
    let crashed = "1.5 jarvis systemd[1]: Caught <SEGV>, core dump failed.\n1.6 jarvis systemd[1]: Freezing execution.";
    says(
        UncleanBoots,
        &[(boots, ""), ("doctor last-words", crashed)],
        Ok,
        "a crash of systemd, PID 1",
    );
    says(
        UncleanBoots,
        &[
            (boots, ""),
            cut,
            ("doctor pstore", "2 /sys/fs/pstore/dmesg-ramoops-0"),
        ],
        Ok,
        "a panic (pstore)",
    );
    says(
        UncleanBoots,
        &[(boots, ""), ("doctor last-words", "")],
        Unknown,
        "boots.log",
    );

    let record = |age: u64| format!("{} /var/lib/systemd/pstore/1/dmesg.txt", NOW - age);
    says(
        PanicRecords,
        &[("doctor pstore", &record(3600)), panics],
        Fail,
        "sysrq triggered crash",
    );
    says(
        PanicRecords,
        &[("doctor pstore", &record(8 * 86_400))],
        Warn,
        "8.0 days old",
    );

    let storage = "doctor journal-storage";
    says(Journal, &[], Ok, "Storage=persistent, boots on record: 2");
    says(
        Journal,
        &[(storage, "Storage=persistent\nStorage=volatile")],
        Fail,
        "Storage=volatile",
    );
    says_with(
        "[hardening.journald]\nstorage = \"volatile\"\n",
        Journal,
        &[(storage, "Storage=volatile")],
        Warn,
        "as the inventory has it",
    );
    says(
        Journal,
        &[
            (storage, ""),
            (
                "doctor journal-files",
                "/run/log/journal/0af1/system.journal",
            ),
        ],
        Warn,
        "Storage=auto",
    );
    says(
        Journal,
        &[(
            "doctor journal-files",
            "/run/log/journal/0af1/system.journal\n/var/log/journal",
        )],
        Fail,
        "still in memory",
    );
    says(
        Journal,
        &[("doctor journal-files", "")],
        Unknown,
        "no journal file",
    );
}

#[test]
fn disks_and_memory() {
    use Check::*;
    let read_only = super::MOUNTS.replace("/ / rw,noatime", "/ / ro,noatime");
    says(
        RootFileSystem,
        &[("fact mounts", &read_only)],
        Fail,
        "read-only",
    );
    let error =
        "1.5 jarvis kernel: EXT4-fs error (device mmcblk0p2): ext4_lookup:1855: inode #2: bad";
    says(
        RootFileSystem,
        &[("doctor log", error)],
        Warn,
        "EXT4-fs error",
    );
    says(
        RootFileSystem,
        &[(
            "doctor ext4-errors",
            "/sys/fs/ext4/mmcblk0p2/errors_count:3",
        )],
        Warn,
        "mmcblk0p2: errors_count 3",
    );
    says(RootFileSystem, &[("fact mounts", "")], Unknown, "mountinfo");

    let smart = |used: u32, warning: u32| {
        format!("{{\"critical_warning\":{warning},\"percent_used\":{used},\"media_errors\":0}}")
    };
    let drive = ("doctor nvme", "nvme0");
    for (used, warning, verdict) in [
        (3, 0, Ok),
        (80, 0, Warn),
        (95, 0, Warn),
        (96, 0, Fail),
        (3, 1, Fail),
    ] {
        says(
            NvmeHealth,
            &[drive, ("doctor smart nvme0", &smart(used, warning))],
            verdict,
            "nvme0",
        );
    }
    says(NvmeHealth, &[drive], Unknown, "nvme0");
    says(NvmeHealth, &[], Skipped, "no NVMe");
    let two = [
        ("doctor nvme", "nvme0\nnvme1"),
        ("doctor smart nvme0", &smart(3, 0)),
        ("doctor smart nvme1", &smart(97, 0)),
    ];
    says(NvmeHealth, &two, Fail, "nvme1: 97 %");

    let space = "doctor space";
    says(DiskSpace, &[(space, "100 25 25 10 9 /")], Warn, "/ 75 %");
    says(
        DiskSpace,
        &[(space, "100 50 50 10 9 /\n100 11 11 9 9 /mnt/my disk")],
        Fail,
        "/mnt/my disk 89 %",
    );
    says(
        DiskSpace,
        &[(space, "100 90 90 100 11 /")],
        Fail,
        "89 % of inodes",
    );
    says(DiskSpace, &[(space, "")], Unknown, "no local");

    let memory = "fact memory";
    says(
        Memory,
        &[(memory, "MemTotal: 1000 kB\nMemAvailable: 150 kB")],
        Warn,
        "15 %",
    );
    says(
        Memory,
        &[(memory, "MemTotal: 1000 kB\nMemAvailable: 79 kB")],
        Fail,
        "8 %",
    );
    says(Memory, &[(memory, "")], Unknown, "meminfo");
    let full = |percent: u32| format!("full avg10=9.00 avg60=9.00 avg300={percent}.00 total=1");
    says(
        Memory,
        &[("doctor pressure-memory", &full(11))],
        Warn,
        "11.0 %",
    );
    says(
        Memory,
        &[("doctor pressure-memory", &full(31))],
        Fail,
        "31.0 %",
    );
    let io = "doctor pressure-io";
    for (percent, verdict) in [(24, Ok), (25, Warn), (50, Warn), (51, Fail)] {
        says(IoPressure, &[(io, &full(percent))], verdict, "of 5 minutes");
    }
    says(IoPressure, &[(io, "")], Unknown, "/proc/pressure/io");
    says(IoPressure, &[("fact psi", "")], Skipped, "psi");

    let swaps = |name: &str| format!("Filename Type\n{name} x 1 0 -2");
    says(Swap, &[("fact swaps", &swaps("/dev/zram0"))], Warn, "zram0");
    says(
        Swap,
        &[("fact swaps", &swaps("/var/swap"))],
        Fail,
        "/var/swap",
    );
    says_with(
        "[hardening]\nswap = \"keep\"\n",
        Swap,
        &[("fact swaps", &swaps("/var/swap"))],
        Warn,
        "/var/swap",
    );
}

#[test]
fn the_clock() {
    use Check::*;
    // Asked at NOW, answered at NOW + 0.4.
    let at = |seconds: f64| format!("{:.3}", NOW as f64 + seconds);
    let says = |seconds: f64, more: &[(&str, &str)], verdict, evidence| {
        let clock = at(seconds);
        let mut frames = vec![("doctor clock", clock.as_str())];
        frames.extend(more);
        says(Clock, &frames, verdict, evidence);
    };
    says(
        0.2,
        &[],
        Ok,
        "+0.00 s (± 0.20 s) against this computer, synchronised, no RTC",
    );
    says(-0.2, &[], Ok, "-0.40 s");
    says(-0.6, &[], Warn, "-0.80 s");
    says(5.0, &[], Warn, "+4.80 s");
    says(5.6, &[], Fail, "+5.40 s");
    says(
        0.2,
        &[("doctor synchronised", "no")],
        Warn,
        "not synchronised",
    );
    says(0.2, &[("doctor rtc", "rpi-rtc")], Ok, "an RTC");
    let later = (NOW + 3600).to_string();
    says(
        0.2,
        &[("doctor last-clock", &later)],
        Fail,
        "3600 s before the last recorded time",
    );
    super::checks::says(Clock, &[("doctor clock", "")], Unknown, "time");
}

#[test]
fn names_logins_and_the_network() {
    use Check::*;
    says(
        Names,
        &[("fact hostname", "ultron")],
        Fail,
        "ultron is called ultron, too",
    );
    says(
        Names,
        &[("doctor hosts", "127.0.1.1 raspberrypi")],
        Warn,
        "127.0.1.1 raspberrypi",
    );

    let sshd = |password: &str, keyboard: &str, root: &str| {
        format!(
            "passwordauthentication {password}\nkbdinteractiveauthentication {keyboard}\npermitrootlogin {root}"
        )
    };
    says(
        SshLogin,
        &[("sshd", &sshd("yes", "no", "no"))],
        Fail,
        "passwordauthentication yes",
    );
    says(
        SshLogin,
        &[("sshd", &sshd("no", "yes", "no"))],
        Fail,
        "kbdinteractiveauthentication yes",
    );
    says(
        SshLogin,
        &[("sshd", &sshd("no", "no", "yes"))],
        Warn,
        "permitrootlogin yes",
    );
    says(SshLogin, &[("sshd", "")], Unknown, "sshd -T");
    let wanted = "[hardening.sshd]\npassword_authentication = true\npermit_root_login = \"no\"\n";
    says_with(
        wanted,
        SshLogin,
        &[("sshd", &sshd("yes", "no", "no"))],
        Warn,
        "as the inventory has it",
    );
    says_with(wanted, SshLogin, &[], Warn, "without-password");

    let peers = "doctor peers";
    says(Firewall, &[], Ok, "ports of other nodes that answer: 1");
    says(
        Firewall,
        &[(peers, "192.0.2.2 10250 silent")],
        Fail,
        "192.0.2.2 port 10250 (silent)",
    );
    says(
        Firewall,
        &[(peers, "192.0.2.9 10250 silent")],
        Ok,
        "not known: 192.0.2.9 port 10250",
    );
    says(Firewall, &[("doctor ufw", "ENABLED=yes")], Warn, "ufw");
    says(Firewall, &[("doctor ufw", "ENABLED=no")], Ok, "no ufw");
    let flush = ("doctor flush", "/etc/nftables.conf:3:flush ruleset");
    says(Firewall, &[flush], Ok, "answer");
    let unit = |name: &str| {
        format!("Id={name}\nLoadState=loaded\nActiveState=active\nUnitFileState=enabled")
    };
    says(
        Firewall,
        &[flush, ("units", &unit("nftables.service"))],
        Warn,
        "/etc/nftables.conf:3:flush ruleset",
    );
    says(
        Firewall,
        &[("units", &unit("firewalld.service"))],
        Warn,
        "firewalld",
    );

    let nfs = format!(
        "{}\n40 24 0:50 / /mnt/nas rw - nfs4 nas:/x rw",
        super::MOUNTS
    );
    says(
        NetworkShares,
        &[("fact mounts", &nfs)],
        Fail,
        "nfs4 from nas:/x is mounted at /mnt/nas",
    );
    says(
        NetworkShares,
        &[("doctor fstab", "nas:/x /mnt/nas nfs noauto 0 0")],
        Warn,
        "/etc/fstab: nas:/x",
    );
    says(
        NetworkShares,
        &[("packages", "nfs-common install installed 1:2.6")],
        Warn,
        "nfs-common",
    );
    says(NetworkVolumes, &[], Skipped, "Kubernetes");
}

#[test]
fn a_share_on_a_worker_warns_and_an_address_by_dhcp_too() {
    let inventory = inventory("");
    let mut frames = healthy();
    frames.insert(
        "fact mounts".to_owned(),
        format!(
            "{}\n40 24 0:50 / /mnt/nas rw - cifs //nas/x rw",
            super::MOUNTS
        ),
    );
    frames.insert(
        "fact addresses".to_owned(),
        "2: eth0    inet 192.0.2.7/24 brd 192.0.2.255 scope global dynamic eth0\\  valid_lft 9sec"
            .to_owned(),
    );
    frames.insert(
        "fact default-route".to_owned(),
        "default via 192.0.2.254 dev eth0 proto dhcp".to_owned(),
    );
    let measured = measured(&frames, None);
    for (index, share, address) in [(1, Warn, Ok), (2, Warn, Warn)] {
        let all = [(&inventory.nodes[index], &measured)];
        let patient = Patient {
            node: all[0].0,
            versions: &inventory.versions,
            measured: all[0].1,
            all: &all,
        };
        assert_eq!(judge(Check::NetworkShares, &patient).verdict, share);
        // One whose address the inventory fixes is not complained of.
        assert_eq!(judge(Check::Names, &patient).verdict, address);
    }
}

#[test]
fn managed_files() {
    let hashes = "doctor hashes";
    says(Check::Drift, &[], Ok, "2 files");
    says(
        Check::Drift,
        &[(
            hashes,
            "aa11  /etc/sysctl.d/90-selfheal.conf\nee  /etc/ssh/sshd_config.d/00-selfheal.conf",
        )],
        Warn,
        "changed: /etc/ssh",
    );
    says(
        Check::Drift,
        &[(hashes, "aa11  /etc/sysctl.d/90-selfheal.conf")],
        Fail,
        "missing: /etc/ssh",
    );
    says(Check::Drift, &[("ledger", "")], Skipped, "no file");
}
