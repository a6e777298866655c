//! Packages as a real apt sees them.

use crate::homelab::Homelab;

/// Settings that are about held packages and nothing else.
fn settings(hold_kernel: bool) -> String {
    format!(
        "[hardening]\nautomatic_upgrades = \"off\"\nswap = \"keep\"\ndisable_services = []\nmodules = []\nhosts = false\n\
         hold_kernel = {hold_kernel}\n[boot]\nmemory_cgroup = false\npsi = false\n"
    )
}

#[test]
#[ignore = "minutes more: tests/run.sh --full"]
fn the_kernels_that_a_node_has_are_held_and_let_go_again() {
    let homelab = Homelab::new(&["jarvis"], &settings(true));
    let pi = homelab.pi();
    // A Pi of the lab gets its kernel from outside; packages of such names stand for it. One is held by the user.
    pi.root(
        "for name in raspi-firmware linux-image-rpi-2712 linux-image-amd64 linux-image-other; do
            mkdir -p /tmp/$name/DEBIAN
            printf 'Package: %s\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: a stand-in\n' $name \
                > /tmp/$name/DEBIAN/control
            dpkg-deb --build /tmp/$name /tmp/$name.deb && dpkg -i /tmp/$name.deb || exit 1
        done
        apt-mark hold linux-image-amd64",
    )
    .unwrap();
    let held = || pi.ok("apt-mark showhold | sort | xargs").unwrap();

    let apply = || {
        homelab.ok(&["apply", "--only", "hardening", "--yes"]);
        // Nothing is left to do.
        homelab.ok(&["plan", "--only", "hardening"]);
    };

    apply();
    assert_eq!(
        held().trim(),
        "linux-image-amd64 linux-image-rpi-2712 raspi-firmware"
    );

    homelab.set(&settings(false));
    apply();
    assert_eq!(
        held().trim(),
        "linux-image-amd64",
        "the user's own hold stays"
    );
}
