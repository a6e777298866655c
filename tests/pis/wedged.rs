//! A node whose shutdown hangs is taken down all the same, by itself (domain.md §2.2).

use crate::homelab::{Homelab, NO_PACKAGES};

#[test]
#[ignore = "minutes more: tests/run.sh --full"]
fn a_shutdown_that_hangs_is_forced_and_apply_says_so() {
    let settings = format!("{NO_PACKAGES}[boot]\nforce_reboot_after = \"10s\"\n");
    let homelab = Homelab::new(&["jarvis"], &settings);
    let pi = homelab.pi();
    // Stopping it takes an hour.
    let unit =
        "[Service]\nExecStart=/bin/sleep infinity\nExecStop=/bin/sleep 3600\nTimeoutStopSec=3600\n";
    pi.root(&format!(
        "printf '{}' >/etc/systemd/system/stubborn.service; systemctl daemon-reload; systemctl start stubborn.service",
        unit.replace('\n', "\\n")
    ))
    .unwrap();
    let run = homelab.ok(&["apply", "--yes"]);
    assert!(
        run.stderr
            .contains("its shutdown hung for 10 s, so `systemctl reboot --force` had to end it"),
        "{run}"
    );
    pi.ok("grep -qw psi=1 /proc/cmdline").unwrap();
    homelab.is_converged();
}
