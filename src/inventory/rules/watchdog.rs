//! A watchdog that other settings work against.

use super::Place;
use crate::inventory::diagnostic::Diagnostic;
use crate::inventory::setting::Problems;

/// Kernel parameters that the watchdog layer sets: what they shall be, and how else to say so.
const OWN: [(&str, &str); 8] = [
    (
        "kernel.panic",
        "leave it out; it is 10 s, on which the kubelet insists",
    ),
    (
        "kernel.panic_on_oops",
        "leave it out; it is 1, on which the kubelet insists",
    ),
    (
        "kernel.softlockup_panic",
        "leave it out; it is 1, but for safe mode",
    ),
    (
        "kernel.hung_task_panic",
        "leave it out; it is 0, or a slow disk would reboot the node",
    ),
    (
        "kernel.hung_task_timeout_secs",
        "use `hung_task_timeout` in `[watchdog]`",
    ),
    (
        "kernel.hung_task_warnings",
        "leave it out; all are reported",
    ),
    (
        "kernel.panic_on_rcu_stall",
        "leave it out; it is 1 where the kernel makes that safe",
    ),
    ("kernel.max_rcu_stall_to_panic", "leave it out; it is 3"),
];

pub(super) fn check(node: &Place<'_>, problems: &mut Problems) {
    let section = &node.draft.section;
    let (watchdog, hardening) = (&section.watchdog, &section.hardening);
    if !watchdog.hardware {
        for key in ["timeout", "shutdown_timeout"] {
            let path = ["watchdog", key];
            if let Some(here) = node.given_unless_own(&path, &[&["watchdog", "hardware"]]) {
                problems.push(
                    Diagnostic::warning(here, format!("`{key}` does nothing without `hardware`"))
                        .related(node.at(&["watchdog", "hardware"]), "switched off here"),
                );
            }
        }
    }
    let package = hardening
        .packages
        .iter()
        .find(|name| name.as_str() == "watchdog");
    if let (true, Some(package)) = (watchdog.hardware, package) {
        problems.push(
            Diagnostic::error(
                node.item(&["hardening", "packages"], package.as_str()),
                "the package `watchdog` wants the hardware watchdog that systemd feeds",
            )
            .help("leave it out, or set `hardware = false` in `[watchdog]`")
            .note("with its own tests it reboots a Pi that is merely busy"),
        );
    }
    for key in hardening.sysctls.keys() {
        let Some((_, help)) = OWN.iter().find(|(own, _)| *own == key.as_str()) else {
            continue;
        };
        let dots = node.given(&["hardening", "sysctls", key.as_str()]);
        let here = dots.unwrap_or_else(|| node.at(&["hardening", "sysctls", &key.path()]));
        problems.push(
            Diagnostic::error(here, format!("`{key}` is a part of the watchdog layer")).help(*help),
        );
    }
}
