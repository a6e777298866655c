//! Nodes that are odd, and nodes that are broken: what is merely odd works, what is broken gets a clear error and stays
//! as it is.

use std::collections::BTreeSet;

use crate::homelab::{Homelab, LITTLE, NO_PACKAGES};

#[test]
#[ignore = "minutes more: tests/run.sh --full"]
fn an_odd_node_converges_like_any_other() {
    let homelab = Homelab::new(&["jarvis"], LITTLE);
    let pi = homelab.pi();
    pi.root(
        r#"
        echo 'echo "Welcome to this Pi! @nonce begin"; echo noise >&2' >> /home/pi/.bashrc
        sed -i '1i echo early noise' /home/pi/.bashrc
        printf 'a motd\n' > /etc/motd
        printf 'Defaults lecture=always\nDefaults lecture_file=/etc/motd\n' > /etc/sudoers.d/lecture
        printf '127.0.0.1 localhost\n127.0.1.1 raspberrypi\n# caf\351 \377\376\n' > /etc/hosts
        head -c 10485760 /dev/zero | tr '\0' '#' > /etc/sysctl.conf; echo >> /etc/sysctl.conf
        head -c 10485760 /dev/zero | tr '\0' '#' > /etc/sysctl.d/90-selfheal.conf
        "#,
    )
    .unwrap();
    // As early in 1970 as the kernel lets a clock be set; nobody corrects it.
    pi.serve_time(false);
    pi.set_clock(3600).unwrap();
    homelab.converge();
    pi.ok("LC_ALL=C grep -q 'caf' /etc/hosts && getent hosts jarvis && test \"$(cat /proc/sys/kernel/panic)\" = 10").unwrap();
    // What was there is not lost.
    pi.ok("test \"$(sudo stat -c %s /var/lib/selfheal/original/etc/sysctl.d/90-selfheal.conf)\" = 10485760").unwrap();
}

/// Everything that a run might touch, a line each: what it is, mode, owner, name, a link's target; the content of files.
const TOUCHED: &str = "for place in /etc /boot/firmware /usr/local /var/lib/selfheal /home/pi; do
    [ -e $place ] || continue
    find $place -printf '%y %m %U:%G %p %l\\n'
    find $place -type f -exec sha256sum {} +
    done
    echo host name $(hostname); echo kernel.panic $(cat /proc/sys/kernel/panic)";

fn touched(homelab: &Homelab) -> BTreeSet<String> {
    let all = homelab.pi().root(TOUCHED).unwrap();
    assert!(all.contains("/etc/sudoers.d") && all.contains("/boot/firmware/cmdline.txt"));
    all.lines().map(str::to_owned).collect()
}

fn refused(homelab: &Homelab, code: i32, says: &[&str]) {
    let before = touched(homelab);
    let run = homelab.selfheal(&["apply", "--yes"]);
    assert_eq!(run.code, Some(code), "{run}");
    for text in says {
        assert!(
            run.stderr.contains(text) || run.stdout.contains(text),
            "no '{text}'\n{run}"
        );
    }
    assert!(!run.stderr.contains("panicked"), "{run}");
    let after = touched(homelab);
    let changed: Vec<&String> = before.symmetric_difference(&after).collect();
    assert!(changed.is_empty(), "{changed:#?} changed\n{run}");
}

#[test]
#[ignore = "minutes more: tests/run.sh --full"]
fn a_broken_node_gets_a_clear_error_and_stays_as_it_is() {
    let homelab = Homelab::new(&["jarvis"], NO_PACKAGES);
    let pi = homelab.pi();

    pi.root("echo 'Defaults requiretty' > /etc/sudoers.d/tty")
        .unwrap();
    refused(&homelab, 5, &["jarvis", "requiretty", "hint: "]);
    pi.root("rm /etc/sudoers.d/tty").unwrap();

    pi.root("mount -o remount,ro /boot/firmware").unwrap();
    refused(
        &homelab,
        1,
        &["jarvis", "/boot/firmware", "read-only", "hint: "],
    );
    pi.root("mount -o remount,rw /boot/firmware").unwrap();

    // Most of it at once: writing it all takes minutes on a busy machine.
    pi.root(
        "fallocate -l \"$(df -Pk /var | awk 'NR == 2 { print $4 - 20480 }')K\" /var/fill
         cat /dev/zero > /var/fill-up 2>/dev/null; sync",
    )
    .unwrap();
    refused(&homelab, 1, &["jarvis", "no space left", "hint: "]);
    pi.root("rm /var/fill /var/fill-up").unwrap();

    homelab.converge();
}
