//! A step as a script: the functions of templates/session/step.sh and one call per action.

mod body;
pub mod receive;

use std::time::Duration;

use camino::Utf8Path;

use super::cluster::Secrets;
use crate::node::ledger::Ledger;
use crate::node::quote;
use crate::plan::Step;
use crate::resource::change::{Action, Effect, TriedLine};
use crate::resource::is_k3s;
use body::Body;

const FUNCTIONS: &str = include_str!("../../../templates/session/step.sh");
const BOOT_FUNCTIONS: &str = include_str!("../../../templates/session/boot.sh");
const TRIAL_FUNCTIONS: &str = include_str!("../../../templates/session/trial.sh");
const HEAL: &str = include_str!("../../../templates/session/heal.sh");
const GO_DOWN: &str = include_str!("../../../templates/session/go-down.sh");

/// How long a step may take on a node, in seconds; its lease lasts as long.
pub const STEP_SECONDS: u64 = 1800;
/// How long a lease lasts between two steps, in seconds: long enough to be renewed, short enough for the next run to
/// wait for the end of one whose holder died.
pub const BETWEEN_STEPS: u64 = 90;
/// How long the order to reboot may take, in seconds: it waits for apt and dpkg before a trial boot.
pub const REBOOT_SECONDS: u64 = 400;

/// Where commands are looked for, whatever the login shell thinks.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where the restarts stand that a step still owes.
const PENDING_RESTART: &str = "/var/lib/selfheal/pending-restart";

/// The exit codes of a step script that mean something.
pub mod exit {
    /// Another run holds the node.
    pub const HELD: u32 = 10;
    /// The node is not as the plan saw it.
    pub const STALE: u32 = 11;
    /// sshd did not accept what was written; it has been put back.
    pub const REJECTED: u32 = 12;
    /// There is no room for the step's files; nothing was written.
    pub const FULL: u32 = 13;
    /// A boot file would not be safe to write; it was not.
    pub const UNSAFE: u32 = 14;
    /// A boot file could neither be written nor put back.
    pub const BROKEN: u32 = 15;
}

/// One run's name for itself, as the lease shows it.
#[derive(Debug, Clone)]
pub struct Holder {
    /// Hard to guess: nobody else renews or drops the lease.
    pub token: String,
    /// Who and since when.
    pub who: String,
    /// A run of this computer that is known to be dead: its lease does not count.
    pub dead: Option<String>,
}

/// What a guarded step needs besides its actions.
#[derive(Debug, Clone)]
pub struct Guard {
    /// Seconds after which the node puts the originals back by itself.
    pub seconds: u64,
    /// What `sshd -T` must say afterwards.
    pub sshd: Vec<String>,
}

/// The script of a step. `ledger` is what is owned before it; the second value is what is owned after it.
pub fn step(
    step: &Step<'_>,
    ledger: &Ledger,
    guard: Option<&Guard>,
    secrets: &Secrets,
    holder: &Holder,
    nonce: &str,
) -> (String, Ledger) {
    let mut owning = ledger.clone();
    for (id, entry) in step
        .changes
        .iter()
        .flat_map(|change| change.owns.iter().cloned())
    {
        owning.own(id, entry);
    }
    let mut left = owning.clone();
    step.changes
        .iter()
        .flat_map(|change| &change.releases)
        .for_each(|id| left.release(id));

    let mut actions: Vec<&Action> = step
        .changes
        .iter()
        .flat_map(|change| &change.actions)
        .collect();
    actions.sort_by_key(|action| order(action));
    let mut body = Body::default();
    body.call("require_space", &[&space(&actions).to_string()]);
    actions.iter().for_each(|action| body.expectation(action));
    body.line("make_state");
    actions.iter().for_each(|action| body.keep(action));
    if let Some(guard) = guard {
        body.arm(guard, step, &actions, holder);
    }
    if !step.effects.is_empty() {
        let lines: String = step
            .effects
            .iter()
            .map(|effect| format!("{effect}\n"))
            .collect();
        body.here("put_state pending-restart", &lines);
    }
    if owning != *ledger {
        body.here("put_state ledger", &owning.to_string());
    }
    body.packages(&actions);
    body.attempt_for(
        "systemctl disable --no-reload",
        &actions,
        |action| match action {
            Action::Disable(unit) => Some(unit),
            _ => None,
        },
    );
    body.attempt_for("systemctl stop", &actions, |action| match action {
        Action::Stop(unit) => Some(unit),
        _ => None,
    });
    // A stop of k3s lets its pods live.
    if actions
        .iter()
        .any(|action| matches!(action, Action::Stop(unit) if is_k3s(unit)))
    {
        body.line("end_pods");
    }
    actions.iter().for_each(|action| body.make_so(action));
    actions
        .iter()
        .for_each(|action| body.put_secret(action, secrets));
    body.line("commit");
    actions.iter().for_each(|action| body.put_asset(action));
    body.attempt_for("apt-mark hold", &actions, |action| match action {
        Action::Hold(name) => Some(name),
        _ => None,
    });
    body.attempt_for("apt-mark unhold", &actions, |action| match action {
        Action::Unhold(name) => Some(name),
        _ => None,
    });
    body.attempt_for("modprobe -a", &actions, |action| match action {
        Action::LoadModule(name) => Some(name),
        _ => None,
    });
    body.attempt_for(
        "systemctl enable --no-reload",
        &actions,
        |action| match action {
            Action::Enable(unit) => Some(unit),
            _ => None,
        },
    );
    if step.effects.contains(&Effect::DaemonReload) || actions.iter().any(|action| is_unit(action))
    {
        body.line("attempt 'systemctl daemon-reload' 120 systemctl daemon-reload");
    }
    actions.iter().for_each(|action| body.set(action));
    // A socket cannot start once the service behind it runs.
    for services in [false, true] {
        body.attempt_for("systemctl start", &actions, |action| match action {
            Action::Start(unit) if is_k3s(unit) => None,
            Action::Start(unit) if unit.ends_with(".service") == services => Some(unit),
            _ => None,
        });
    }
    // Nobody knows how long k3s takes to start: the run waits for it outside the step, and looks how it fares.
    let starts = |unit: &String| {
        actions
            .iter()
            .any(|it| matches!(it, Action::Start(started) if started == unit))
    };
    for action in &actions {
        match action {
            Action::Start(unit) if is_k3s(unit) => body.call("start_k3s", &[unit]),
            _ => {}
        }
    }
    if let Some(guard) = guard {
        body.prove(guard);
    }
    for effect in &step.effects {
        match effect {
            Effect::DaemonReload => {}
            Effect::DaemonReexec => body.line("reexec"),
            Effect::Reload(unit) => body.call("reload", &[unit]),
            Effect::Restart(unit) if starts(unit) => {}
            Effect::Restart(unit) if is_k3s(unit) => body.call("restart_k3s", &[unit]),
            Effect::Restart(unit) => body.call("restart", &[unit]),
        }
    }
    if !step.effects.is_empty() {
        body.line("rm -f \"$state/pending-restart\"");
    }
    if left != owning {
        body.here("put_state ledger", &left.to_string());
    }
    actions.iter().for_each(|action| body.forget(action));
    body.line(&format!("renew_lease {BETWEEN_STEPS}"));
    (whole(&body.text, STEP_SECONDS, holder, nonce), left)
}

/// A script that renews the lease between steps, so that a run that lives keeps its turn.
pub fn renew(holder: &Holder, nonce: &str) -> String {
    whole("", BETWEEN_STEPS, holder, nonce)
}

/// A script that gives the node free for the next run.
pub fn release(holder: &Holder, nonce: &str) -> String {
    whole("renew_lease 0\n", 120, holder, nonce)
}

/// A script for a node that selfheal has left: its state goes, but for what was set aside of the user's.
pub fn leave(holder: &Holder, nonce: &str) -> String {
    whole("leave_node\n", 120, holder, nonce)
}

/// A script that lets the dead man's switch of an interrupted run act now.
pub fn settle(holder: &Holder, nonce: &str) -> String {
    whole(
        "attempt 'putting the originals back' 400 /usr/local/libexec/selfheal/deadman expire 'selfheal could not confirm it'\n",
        300,
        holder,
        nonce,
    )
}

/// A script that lets a node leave safe mode.
pub fn resume(holder: &Holder, nonce: &str) -> String {
    whole(
        "attempt 'leaving safe mode' 120 /usr/local/libexec/selfheal/boots resume\nrenew_lease 0\n",
        300,
        holder,
        nonce,
    )
}

/// How long the reaper may take, in seconds, with what comes before it.
pub const HEAL_SECONDS: u64 = 1000;

/// A script that shows what the reaper would do.
pub fn look(nonce: &str) -> String {
    asking(HEAL, "reaper look", nonce)
}

/// A script that takes no lease, because it writes nothing on the node itself.
pub fn asking(functions: &str, body: &str, nonce: &str) -> String {
    format!(
        "{{\nexport LC_ALL=C PATH={SEARCH_PATH}\nnonce={nonce}\n{functions}\nask() {{\n{body}\n}}\nask </dev/null\nexit 0\n}}\n"
    )
}

/// A script that lets the reaper do its work.
pub fn heal(holder: &Holder, nonce: &str) -> String {
    whole(
        &format!("{HEAL}\nreaper now\nrenew_lease 0\n"),
        HEAL_SECONDS,
        holder,
        nonce,
    )
}

/// A script that disarms the dead man's switch; it is run over a new connection, whose login proves the point.
pub fn disarm(holder: &Holder, nonce: &str) -> String {
    let body = format!(
        "attempt 'disarming the dead man'\\''s switch' 180 /usr/local/libexec/selfheal/deadman disarm {}\n",
        holder.token
    );
    whole(&body, 300, holder, nonce)
}

/// A script that reboots the node after it has answered, into the trial if there is one. A shutdown that takes longer
/// than `patience` is forced, on the node itself (domain.md §2.2).
pub fn reboot(
    holder: &Holder,
    nonce: &str,
    patience: Duration,
    trial: Option<&TriedLine>,
) -> String {
    let mut body = Body::default();
    if let Some(trial) = trial {
        body.call("still_to_be_tried", &[trial.folder.as_str(), &trial.sha256]);
    }
    let how = if trial.is_some() { "trial" } else { "plain" };
    body.here(&format!("go_down {} {how}", patience.as_secs()), GO_DOWN);
    whole(&body.text, REBOOT_SECONDS + 60, holder, nonce)
}

/// A script that waits for the end of a trial boot that is under way.
pub fn await_trial(holder: &Holder, nonce: &str) -> String {
    let body = "await_trial /boot/firmware 300\nawait_trial /boot 300\n";
    whole(body, 700, holder, nonce)
}

/// A script that notes the command line that a trial boot rejected, so that it is not tried again and again.
pub fn note_rejected(trial: &TriedLine, holder: &Holder, nonce: &str) -> String {
    let mut body = Body::default();
    body.here("put_state boot-rejected", &format!("{}\n", trial.sha256));
    whole(&body.text, 120, holder, nonce)
}

fn whole(body: &str, seconds: u64, holder: &Holder, nonce: &str) -> String {
    format!(
        "{prelude}{FUNCTIONS}\n{BOOT_FUNCTIONS}\n{TRIAL_FUNCTIONS}\nstep() {{\nframe begin\ntake_lease\n{body}frame end\n}}\nstep </dev/null\nexit 0\n}}\n",
        prelude = prelude(seconds, holder, nonce),
    )
}

/// What every script begins with; its brace closes at the script's end, so that a script cut in half runs nothing.
fn prelude(seconds: u64, holder: &Holder, nonce: &str) -> String {
    format!(
        "{{\nexport LC_ALL=C PATH={SEARCH_PATH}\ntrap '' HUP PIPE\n\
         nonce={nonce} token={token} step_seconds={seconds} dead_token={dead}\nholder={who}\n",
        token = quote(&holder.token),
        dead = quote(holder.dead.as_deref().unwrap_or("-")),
        who = quote(&holder.who.replace('\n', " ")),
    )
}

/// Folders before the files in them, and after them when they go; then what takes effect at once.
fn order(action: &Action) -> (u8, usize) {
    let step = match action {
        Action::MakeDirectory(_) => 0,
        Action::Write(_)
        | Action::Remove(..)
        | Action::RestoreOriginal(..)
        | Action::WriteBoot(..)
        | Action::TryBoot { .. } => 1,
        Action::RemoveDirectory(_) => 2,
        _ => 3,
    };
    let inner_first = match action {
        Action::RemoveDirectory(path) => usize::MAX - path.as_str().len(),
        _ => 0,
    };
    (step, inner_first)
}

/// Whether systemd has to read its unit files again: a unit's file or its enablement changes.
fn is_unit(action: &Action) -> bool {
    let unit = |path: &Utf8Path| path.starts_with("/etc/systemd/system");
    match action {
        Action::Write(write) => unit(&write.path),
        Action::Remove(path, _) | Action::RestoreOriginal(path, _) => unit(path),
        Action::Enable(_) | Action::Disable(_) => true,
        _ => false,
    }
}

/// Kibibytes that the step's files take, twice (the temporary file and a kept original), and some for good measure.
fn space(actions: &[&Action]) -> u64 {
    let bytes: usize = actions
        .iter()
        .map(|action| match action {
            Action::Write(write) => write.content.len(),
            Action::InstallPackage(_) => 40 << 20,
            _ => 0,
        })
        .sum();
    1024 + 2 * bytes as u64 / 1024
}
