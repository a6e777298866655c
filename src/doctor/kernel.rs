//! What the kernel offers and what it complains about: cgroups, pressure, RCU stalls, hung tasks, modules (domain.md
//! §1.4, §9).

use super::finding::{Outcome, Verdict, graded};
use super::measure::MODULES;
use super::patient::Patient;

/// Milliseconds under which an expedited threshold is a mistake: Android's 20 ms left in a kernel's configuration.
const SHORT_THRESHOLD: u64 = 1000;
/// Seconds from which an expedited stall warns.
const STALL: f64 = 1.0;
/// Seconds above which an expedited stall fails.
const LONG_STALL: f64 = 10.0;
/// Hung-task messages of a day above which it fails.
const MANY_HUNG: usize = 3;
/// Seconds that a task may sleep uninterruptibly.
const LONG_WAIT: f64 = 300.0;
/// How far back hung-task messages count, in seconds.
const DAY: f64 = 86_400.0;

pub(super) fn memory_cgroup(patient: &Patient<'_>) -> Outcome {
    let facts = &patient.measured.snapshot.facts;
    let kind = facts
        .mount("/sys/fs/cgroup")
        .map_or("nothing", |mount| mount.kind.as_str());
    if kind != "cgroup2" {
        return Outcome::fail(
            format!("{kind} is mounted at /sys/fs/cgroup, not cgroup2"),
            "take systemd.unified_cgroup_hierarchy=0 off the kernel command line: Kubernetes wants cgroup v2",
        );
    }
    let controllers: Vec<&str> = facts
        .cgroup_controllers
        .iter()
        .map(String::as_str)
        .collect();
    let evidence = format!("cgroup.controllers: {}", controllers.join(" "));
    if facts.cgroup_controllers.contains("memory") {
        Outcome::ok(evidence)
    } else {
        Outcome::fail(
            evidence,
            "k3s does not start without it: `selfheal apply` adds cgroup_enable=memory and reboots",
        )
    }
}

pub(super) fn pressure(patient: &Patient<'_>) -> Outcome {
    if patient.measured.snapshot.facts.psi {
        Outcome::ok("/proc/pressure is there")
    } else if patient.node.boot.psi {
        Outcome::warn(
            "no /proc/pressure/cpu",
            "`selfheal apply` adds psi=1 to the kernel command line and reboots",
        )
    } else {
        Outcome::skipped("the inventory does not want it (boot.psi = false)")
    }
}

pub(super) fn rcu_guard(patient: &Patient<'_>) -> Outcome {
    let panics = patient
        .measured
        .snapshot
        .sysctl("kernel.panic_on_rcu_stall")
        == Some("1");
    let policy = format!("panic_on_rcu_stall = {}", u8::from(panics));
    let threshold = match patient.text("expedited-timeout").trim() {
        "" => return Outcome::ok(format!("no expedited threshold of its own, {policy}")),
        text => match text.parse::<u64>() {
            Ok(threshold) => threshold,
            Err(_) => {
                return Outcome::unknown(
                    format!("rcu_exp_cpu_stall_timeout reads {text:?}"),
                    "look at /sys/module/rcupdate/parameters on the node",
                );
            }
        },
    };
    let evidence = format!("rcu_exp_cpu_stall_timeout = {threshold} ms, {policy}");
    if threshold == 0 || threshold >= SHORT_THRESHOLD {
        Outcome::ok(evidence)
    } else if panics {
        Outcome::fail(
            evidence,
            "a pause of milliseconds panics this node: `echo 21000 | sudo tee \
             /sys/module/rcupdate/parameters/rcu_exp_cpu_stall_timeout` now, then `selfheal apply`",
        )
    } else {
        Outcome::warn(
            evidence,
            "the log fills with stalls that are none: `selfheal apply` adds rcupdate.rcu_exp_cpu_stall_timeout=21000",
        )
    }
}

/// A line of the kernel's log that tells of an RCU stall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stall {
    /// An expedited grace period took this many jiffies.
    Expedited(u64),
    /// A normal one took 21 s or more, or its thread starved.
    Normal,
}

/// What the line tells, if it tells of a stall (domain.md §9).
fn stall(line: &str) -> Option<Stall> {
    if line.contains("detected expedited stalls") {
        let (before, _) = line.split_once(" jiffies")?;
        let number = before.rsplit(' ').next()?;
        return Some(Stall::Expedited(number.parse().ok()?));
    }
    let normal = line.contains("self-detected stall on CPU")
        || line.contains("detected stalls on CPUs/tasks")
        || (line.contains("kthread starved for") && line.contains("rcu"));
    normal.then_some(Stall::Normal)
}

pub(super) fn rcu_stalls(patient: &Patient<'_>) -> Outcome {
    let Some(now) = patient.lines("log") else {
        return no_log();
    };
    let before = patient.text("log-before").lines();
    let tagged = now
        .map(|line| ("this boot", line))
        .chain(before.map(|line| ("the boot before", line)));
    let (mut count, mut longest) = (0, None);
    for (boot, line) in tagged {
        match stall(line) {
            None => {}
            Some(Stall::Normal) => {
                return Outcome::fail(
                    format!("{boot}: {}", message(line)),
                    "look what held the CPU: try another kernel, fewer pods at once, an SSD (domain.md §9)",
                );
            }
            Some(Stall::Expedited(jiffies)) => {
                count += 1;
                if longest.is_none_or(|(most, _, _)| jiffies > most) {
                    longest = Some((jiffies, boot, line));
                }
            }
        }
    }
    let Some((jiffies, boot, line)) = longest else {
        return Outcome::ok("none in this boot and the one before");
    };
    let hz = patient.text("hz").trim().strip_prefix("CONFIG_HZ=");
    let Some(hz) = hz
        .and_then(|hz| hz.parse::<f64>().ok())
        .filter(|hz| *hz > 0.0)
    else {
        return Outcome::unknown(
            format!(
                "{count} expedited stalls, the longest {jiffies} jiffies, but CONFIG_HZ is not known"
            ),
            "look for CONFIG_HZ in the kernel's configuration, and divide",
        );
    };
    let seconds = jiffies as f64 / hz;
    let evidence = format!(
        "{count} expedited, the longest {seconds:.3} s ({jiffies} jiffies at {hz} Hz, {boot}): {}",
        message(line)
    );
    let hint =
        "another kernel, rcupdate.rcu_normal_after_boot=1 in boot.add, fewer pods at once, an SSD";
    match graded(seconds, STALL, LONG_STALL) {
        Verdict::Fail => Outcome::fail(evidence, hint),
        Verdict::Warn => Outcome::warn(evidence, hint),
        // Under a second it is a threshold that is set too low, not a hang.
        _ => Outcome::ok(evidence).as_news(),
    }
}

/// A line of `journalctl -o short-unix` without time and host.
pub(super) fn message(line: &str) -> &str {
    line.splitn(3, ' ').nth(2).unwrap_or(line)
}

/// When a line of `journalctl -o short-unix` was written, in seconds since the epoch.
pub(super) fn written(line: &str) -> f64 {
    let time = line.split(' ').next();
    time.and_then(|time| time.parse().ok()).unwrap_or_default()
}

/// Nothing can be said without the kernel's log.
pub(super) fn no_log() -> Outcome {
    Outcome::unknown(
        "no journalctl on the node",
        "look at `dmesg` on the node; selfheal needs systemd's journal",
    )
}

pub(super) fn hung_tasks(patient: &Patient<'_>) -> Outcome {
    let Some(now) = patient.lines("log") else {
        return no_log();
    };
    let clock = patient.clock();
    let hung: Vec<&str> = now
        .chain(patient.text("log-before").lines())
        .filter(|line| line.contains("blocked for more than") && clock - written(line) < DAY)
        .collect();
    let hint = "find what they wait for: a dead disk or network share; /proc/PID/wchan and /proc/PID/stack tell";
    let uptime = patient.measured.snapshot.facts.uptime.as_secs_f64();
    for line in patient.text("waiting-tasks").lines() {
        let mut words = line.splitn(4, ' ');
        let (id, ran) = (words.next().unwrap_or_default(), words.next());
        let (waits_in, name) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        let ran = ran.and_then(|ran| ran.parse::<f64>().ok());
        let waited = ran.map(|ran| uptime - ran / 1000.0);
        if let Some(waited) = waited.filter(|waited| *waited > LONG_WAIT) {
            return Outcome::fail(
                format!("{name} ({id}) has been waiting in {waits_in} for {waited:.0} s"),
                hint,
            );
        }
    }
    match hung.as_slice() {
        [] => Outcome::ok("none in 24 h"),
        [.., last] => {
            let evidence = format!("{} in 24 h; the last: {}", hung.len(), message(last));
            if hung.len() > MANY_HUNG {
                Outcome::fail(evidence, hint)
            } else {
                Outcome::warn(evidence, hint)
            }
        }
    }
}

pub(super) fn modules(patient: &Patient<'_>) -> Outcome {
    let state = |wanted: &str| {
        let lines = patient.text("modules").lines();
        lines
            .filter_map(|line| line.split_once(' '))
            .filter_map(|(name, state)| (name == wanted).then_some(state))
            .next()
            .unwrap_or("missing")
    };
    let own = patient.node.hardening.modules.iter();
    let mut names: Vec<String> = MODULES.map(str::to_owned).into();
    names.extend(own.map(ToString::to_string));
    names.sort();
    names.dedup();
    let of = |wanted: &str| {
        let names = names.iter().filter(|name| state(name) == wanted);
        names.map(String::as_str).collect::<Vec<_>>().join(", ")
    };
    let (missing, loadable) = (of("missing"), of("loadable"));
    if !missing.is_empty() {
        Outcome::fail(
            format!("this kernel has no {missing}"),
            "Ubuntu before 24.04 has them in linux-modules-extra-raspi; after a kernel upgrade, reboot",
        )
    } else if !loadable.is_empty() {
        Outcome::warn(
            format!("not loaded: {loadable}"),
            "`selfheal apply` loads them, now and at every boot",
        )
    } else {
        Outcome::ok(format!("loaded: {}", of("loaded")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stalls_are_told_apart() {
        let expedited = "1763.5 jarvis kernel: rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { P1234 } \
                         21 jiffies s: 3325 root: 0x0/T";
        assert_eq!(stall(expedited), Some(Stall::Expedited(21)));
        let normal = "1763.5 jarvis kernel: rcu: INFO: rcu_preempt detected stalls on CPUs/tasks: { 3-... } (detected by 1, \
                      t=21002 jiffies, g=3, q=4)";
        assert_eq!(stall(normal), Some(Stall::Normal));
        let own = "1763.5 jarvis kernel: rcu: INFO: rcu_sched self-detected stall on CPU";
        assert_eq!(stall(own), Some(Stall::Normal));
        let starved = "1763.5 jarvis kernel: rcu: rcu_preempt kthread starved for 5250 jiffies! g1";
        assert_eq!(stall(starved), Some(Stall::Normal));
        assert_eq!(
            stall("1763.5 jarvis kernel: rcu: Hierarchical SRCU implementation."),
            None
        );
        assert_eq!(message(expedited).split(' ').next(), Some("kernel:"));
    }
}
