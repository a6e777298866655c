//! What Longhorn wants of a node, with a real open-iscsi, systemd and disk.

use std::time::Duration;

use crate::homelab::Homelab;

const UUID: &str = "2f1c4a50-0a3b-4c5d-8e9f-0123456789ab";

/// A disk for Longhorn that is gone after a reboot, and a multipathd as Ubuntu has it.
const BEFORE: &str = r#"
    truncate -s 64M /data.img && mkfs.ext4 -q -U 2f1c4a50-0a3b-4c5d-8e9f-0123456789ab /data.img || exit 1
    losetup --find /data.img && udevadm settle || exit 1
    printf '[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\nAlso=multipathd.socket\n' \
        >/etc/systemd/system/multipathd.service
    printf '[Socket]\nListenStream=@/lab/multipathd\n[Install]\nWantedBy=sockets.target\n' \
        >/etc/systemd/system/multipathd.socket
    systemctl daemon-reload && systemctl enable --now multipathd.socket multipathd.service
"#;

/// What holds once the node is ready: each line is a command that succeeds.
const AFTER: &str = r#"set -e
    systemctl is-active --quiet iscsid.service && systemctl is-enabled --quiet iscsid.service
    systemctl show -P After iscsid.service | grep -q systemd-modules-load.service
    test -d /sys/module/iscsi_tcp && test -d /sys/module/dm_crypt
    grep -q '^InitiatorName=iqn\.' /etc/iscsi/initiatorname.iscsi
    ! systemctl is-active --quiet multipathd.socket multipathd.service
    ! systemctl is-enabled --quiet multipathd.socket multipathd.service
    findmnt -n -o SOURCE /var/lib/longhorn | grep -q '^/dev/loop'
    touch /var/lib/longhorn/writable
"#;

#[test]
#[ignore = "minutes more: tests/run.sh --full"]
fn a_node_is_ready_for_longhorn_and_without_its_disk_nothing_fills_the_root() {
    let homelab = Homelab::new(
        &["jarvis"],
        &format!(
            "[nodes.jarvis.k3s]\ninstall = true\n[nodes.jarvis.longhorn.data]\nuuid = \"{UUID}\"\n"
        ),
    );
    let pi = homelab.pi();
    pi.root(BEFORE).unwrap();
    let only = |command: &[&str]| homelab.ok(&[command, &["--only", "longhorn"]].concat());
    only(&["apply", "--yes"]);
    only(&["plan"]);
    pi.root(AFTER).unwrap();

    // Without a name iscsid is nobody.
    pi.root("echo 'GenerateName=yes' >/etc/iscsi/initiatorname.iscsi")
        .unwrap();
    only(&["apply", "--yes"]);
    pi.root(AFTER).unwrap();

    let boot = pi.boot_id().unwrap();
    let _ = pi.root("systemctl reboot");
    pi.wait_for_reboot(&boot, Duration::from_secs(300)).unwrap();
    pi.root(
        "! mountpoint -q /var/lib/longhorn && ! touch /var/lib/longhorn/x && systemctl is-active --quiet iscsid.service",
    )
    .unwrap();
    let plan = homelab.selfheal(&["plan", "--only", "longhorn"]);
    assert!(
        plan.stdout
            .contains("the node has no such file system; blkid shows"),
        "{plan}"
    );
}
