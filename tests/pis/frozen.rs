//! A node that froze, panicked or crashed comes back with no hand on it; one that crashes over and over comes back in
//! safe mode, where it can be repaired (domain.md §2).

use std::time::{Duration, Instant};

use selfheal_lab::Pi;

use crate::homelab::Homelab;

/// On a busy machine.
const BOOT: Duration = Duration::from_secs(300);

/// How often each of it is tried.
fn tries() -> u32 {
    if std::env::var_os("SELFHEAL_FULL").is_some() {
        10
    } else {
        1
    }
}

fn apply(homelab: &Homelab, settings: &str) {
    homelab.set(settings);
    homelab.ok(&["apply", "--yes", "--only", "watchdog"]);
    is_converged(homelab);
}

/// Nothing is left to change; returns what the plan says besides.
fn is_converged(homelab: &Homelab) -> String {
    let plan = homelab.ok(&["plan", "--only", "watchdog"]);
    assert!(plan.stdout.contains("Nothing to change."), "{plan}");
    plan.stdout
}

/// Has root run this a moment after the connection is done with: what kills a Pi does not answer.
fn soon(pi: &Pi, command: &str) {
    pi.ok(&format!(
        "sudo sh -c '(sleep 1; {command}) >/dev/null 2>&1 </dev/null &'"
    ))
    .unwrap();
}

/// Goes down unclean, as soon as it is up far enough to be told to.
fn crash(pi: &Pi) {
    let deadline = Instant::now() + BOOT;
    while let Err(error) = pi.root("true") {
        assert!(Instant::now() < deadline, "{error:#}");
    }
    let boots = pi.boots();
    // What kills it may keep it from answering.
    let _ = pi.root("(sleep 1; echo b >/proc/sysrq-trigger) >/dev/null 2>&1 &");
    while pi.boots() == boots {
        assert!(Instant::now() < deadline, "it does not reboot");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_frozen_node_comes_back() {
    let homelab = Homelab::new(&["jarvis"], "");
    let pi = homelab.pi();

    // Panics alone, with the watchdog off: a reboot after `kernel.panic` seconds.
    apply(
        &homelab,
        "[watchdog]\nhardware = false\nunclean_boots = 50\n",
    );
    // As the hardening layer has it: what systemd says as it crashes is on the disk at once.
    pi.root(
        "mkdir -p /var/log/journal /etc/systemd/journald.conf.d
         printf '[Journal]\\nStorage=persistent\\n' >/etc/systemd/journald.conf.d/99-kept.conf",
    )
    .unwrap();
    // qemu keeps what a panicking kernel says, but not of one that was restored from its RAM snapshot.
    let restored = pi.boot_id().unwrap();
    soon(pi, "systemctl reboot");
    pi.wait_for_reboot(&restored, BOOT).unwrap();
    for try_number in 1..=tries() {
        let (boot, boots) = (pi.boot_id().unwrap(), pi.boots());
        soon(pi, "echo c >/proc/sysrq-trigger");
        // A Pi's console log begins anew with each boot.
        pi.wait_for_console("Rebooting in 10 seconds..", Duration::from_secs(60))
            .unwrap();
        let panicked = Instant::now();
        while pi.boots() == boots {
            assert!(panicked.elapsed() < BOOT, "it does not reboot");
            std::thread::sleep(Duration::from_millis(100));
        }
        let reboot = panicked.elapsed();
        pi.wait_for_reboot(&boot, BOOT).unwrap();
        assert_eq!((pi.boots(), pi.watchdog_resets()), (boots + 1, 0));
        eprintln!(
            "panic {try_number}: reboot after {:.1} s, ssh after {:.1} s",
            reboot.as_secs_f64(),
            panicked.elapsed().as_secs_f64()
        );
    }

    ended_by(
        &homelab,
        "a panic (Kernel panic - not syncing: sysrq triggered crash)",
    );

    // The hardware watchdog: first a kernel that is dead, then a systemd that is.
    apply(
        &homelab,
        "[watchdog]\ntimeout = \"20s\"\nunclean_boots = 50\n",
    );
    let kills: [(&str, &dyn Fn(), &str); 2] = [
        ("frozen kernel", &|| pi.freeze().unwrap(), "a panic ("),
        (
            "dead PID 1",
            &|| soon(pi, "kill -SEGV 1"),
            "a crash of systemd, PID 1",
        ),
    ];
    for (what, kill, cause) in kills {
        for try_number in 1..=tries() {
            let (boot, resets) = (pi.boot_id().unwrap(), pi.watchdog_resets());
            let began = Instant::now();
            kill();
            pi.wait_for_watchdog(resets, Duration::from_secs(120))
                .unwrap();
            let reset = began.elapsed();
            pi.wait_for_reboot(&boot, BOOT).unwrap();
            eprintln!(
                "{what} {try_number}: reset after {:.1} s, ssh after {:.1} s",
                reset.as_secs_f64(),
                began.elapsed().as_secs_f64()
            );
        }
        ended_by(&homelab, cause);
    }
    let ends = pi
        .ok("sudo cut -d ' ' -f 3 /var/lib/selfheal/boots.log")
        .unwrap();
    let unclean = ends.lines().filter(|state| *state == "unclean").count();
    assert_eq!(unclean as u32, 3 * tries(), "{ends}");
    is_converged(&homelab);
}

/// Doctor says what ended the boot before this one.
fn ended_by(homelab: &Homelab, cause: &str) {
    let run = homelab.selfheal(&["doctor", "--verbose"]);
    let said = format!("ended by {cause}");
    assert!(run.stdout.contains(&said), "{said}\n{run}");
}

/// A k3s that is nothing but a unit.
const K3S: &str = "printf '[Service]\\nExecStart=/bin/sleep infinity\\nRestart=always\\n[Install]\\n\
    WantedBy=multi-user.target\\n' >/etc/systemd/system/k3s.service && systemctl daemon-reload && \
    systemctl enable --now k3s.service";

/// How k3s is, which of the panics are on, why it is in safe mode, and whether the limit of that runs.
const LOOK: &str = "systemctl is-system-running --wait >/dev/null; systemctl is-active k3s; systemctl is-failed --quiet k3s && echo failed; cd /proc/sys/kernel; \
    echo $(cat panic panic_on_oops softlockup_panic panic_on_rcu_stall); cat /run/selfheal/safe-mode; \
    systemctl is-active selfheal-safe-mode.timer; cat /sys/class/watchdog/watchdog0/state";

fn look(pi: &Pi) -> String {
    pi.wait_for_ssh(BOOT).unwrap();
    let output = pi.run_within(LOOK, 300).unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

const REASON: &str = "unclean ends of a boot within 30 minutes of uptime";

#[test]
#[ignore = "minutes more: tests/run.sh --full"]
fn a_node_that_crashes_over_and_over_waits_in_safe_mode() {
    let homelab = Homelab::new(&["jarvis"], "");
    let pi = homelab.pi();
    pi.root(K3S).unwrap();
    apply(&homelab, "");
    let healthy = "active\n10 1 1 1\ninactive\nactive\n";
    assert_eq!(look(pi), healthy);

    for _ in 0..5 {
        crash(pi);
    }
    assert_eq!(
        look(pi),
        format!("inactive\n10 0 0 0\n5 {REASON}\nactive\nactive\n")
    );
    pi.ok("sudo journalctl -q -b -p crit -u selfheal-boots.service | grep -q 'safe mode: 5 unclean ends'").unwrap();
    let plan = is_converged(&homelab);
    assert!(
        plan.contains("in safe mode: 5 unclean ends")
            && plan.contains("selfheal node resume jarvis"),
        "{plan}"
    );

    // Its hour, made short, ends by itself; k3s starts.
    pi.root(
        "mkdir /etc/systemd/system/selfheal-safe-mode.timer.d && printf '[Timer]\\nOnActiveSec=\\nOnActiveSec=5s\\n' \
         >/etc/systemd/system/selfheal-safe-mode.timer.d/short.conf && sync",
    )
    .unwrap();
    crash(pi);
    pi.wait_for_ssh(BOOT).unwrap();
    pi.ok_within(
        "until sudo journalctl -q -b -u selfheal-safe-mode.service | grep -q 'safe mode is over'; do sleep 1; done; \
         until systemctl is-active --quiet k3s; do sleep 1; done",
        300,
    )
    .unwrap();
    assert!(look(pi).starts_with("active\n10 1 1 1\n"), "{}", look(pi));

    // Only once: the next time it stays, until somebody resumes it.
    crash(pi);
    assert_eq!(
        look(pi),
        format!(
            "inactive\n10 0 0 0\n7 {REASON}, again after safe mode had ended by itself\ninactive\nactive\n"
        )
    );
    let asked = homelab.selfheal(&["node", "resume", "jarvis"]);
    assert_eq!(asked.code, Some(3), "{asked}");
    let resumed = homelab.ok(&["node", "resume", "jarvis", "--yes"]);
    assert!(
        resumed.stdout.contains("jarvis has left safe mode."),
        "{resumed}"
    );
    pi.ok("until systemctl is-active --quiet k3s; do sleep 1; done")
        .unwrap();
    assert_eq!(look(pi), healthy);
    assert!(!is_converged(&homelab).contains("safe mode"));
    let again = homelab.ok(&["node", "resume", "jarvis", "--yes"]);
    assert!(
        again.stdout.contains("jarvis is not in safe mode."),
        "{again}"
    );

    // What went before does not count any more.
    crash(pi);
    assert_eq!(look(pi), healthy);

    // And nothing of it stays on a node that is left, but for what is not selfheal's.
    pi.root("rm -r /etc/systemd/system/selfheal-safe-mode.timer.d")
        .unwrap();
    homelab.ok(&["node", "restore", "jarvis", "--yes"]);
    pi.ok("sudo test ! -e /var/lib/selfheal/boots.log && ! sudo find /etc -name '*selfheal*' | grep -q . && \
           test \"$(systemctl show --value --property=RuntimeWatchdogUSec)\" = 0 && systemctl is-active k3s")
        .unwrap();
}
