//! `guard`: the first start of k3s in a boot finds no CNI state, any other start changes nothing, and k3s never waits.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use super::{Node, value, wait_until};
use crate::crash::{COUNT, Run, template};

const CNI: [(&str, &str); 5] = [
    // Right after a pod was created the power went: 0 bytes (lab.md §4).
    ("/var/lib/cni/networks/cbr0/10.42.0.7", ""),
    ("/var/lib/cni/networks/cbr0/10.42.0.6", "0123abcd\r\neth0"),
    ("/var/lib/cni/networks/cbr0/last_reserved_ip.0", "10.42.0.7"),
    ("/var/lib/cni/results/cbr0-0123abcd-eth0", ""),
    ("/var/lib/cni/flannel/0123abcd", "{}"),
];
const RECORDS: &str =
    "/var/lib/rancher/k3s/agent/containerd/io.containerd.metadata.v1.bolt/meta.db";
const FLANNEL: &str = "/var/lib/rancher/k3s/agent/etc/cni/net.d/10-flannel.conflist";
const BEFORE: &str = "0aa1b2c3-before";
const STALE: &str = "/var/lib/cni.stale-0aa1b2c3";

/// A node that went down with pods in the boot [`BEFORE`] and came up again.
fn node() -> Node {
    let node = Node::new();
    for (path, content) in CNI {
        node.write(path, content);
    }
    node.write(FLANNEL, "{}");
    node.write(RECORDS, "");
    fs::write(node.path(RECORDS), records()).unwrap();
    node.write("/var/lib/rancher/k3s/agent/images/airgap.tar.zst", "images");
    node.write("/proc/1/comm", "systemd\n");
    node.write("/proc/1/cmdline", "/sbin/init\0");
    node.write(
        "/var/lib/selfheal/last-guard",
        &format!("boot_id {BEFORE}\n"),
    );
    node.stage.command("systemctl", "echo stopping\nexit 1");
    // The guard does its work in no time, or else see `a_dead_disk…`.
    node.stage.command("sleep", "exec /usr/bin/sleep 0.01");
    node
}

/// A guard that has to wait sees time pass.
fn node_with_a_dead_disk() -> Node {
    let node = node();
    node.time_passes();
    node
}

/// The start of a bolt database with pages of 4 KiB.
fn records() -> Vec<u8> {
    let mut bytes = vec![0; 8192];
    bytes[16..20].copy_from_slice(&0xED0C_DAED_u32.to_le_bytes());
    bytes
}

fn pre(node: &Node) -> Run {
    let run = node.run("guard", &["pre"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    run
}

fn untouched(node: &Node) {
    for (path, content) in CNI {
        assert!(node.exists(path), "{path}");
        assert_eq!(node.read(path), content, "{path}");
    }
    assert_eq!(node.names("/var/lib").join(" "), "cni rancher selfheal");
}

/// All there was lies aside, and there is an empty folder for the pods of this boot.
fn set_aside(node: &Node, stale: &str) {
    for (path, content) in CNI {
        let path = path.replacen("/var/lib/cni", stale, 1);
        assert!(node.exists(&path), "{path}");
        assert_eq!(node.read(&path), content, "{path}");
    }
    assert_eq!(node.names("/var/lib/cni"), Vec::<String>::new());
    let mode = fs::metadata(node.path("/var/lib/cni"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_new_boot_starts_with_no_network_state_and_all_images() {
    let node = node();
    let run = pre(&node);
    set_aside(&node, STALE);
    assert_eq!(
        node.read("/var/lib/selfheal/last-guard"),
        format!("boot_id one\nprevious {BEFORE}\nunclean yes\ncni set aside as {STALE}\nms 0\n")
    );
    assert_eq!(node.read("/run/selfheal/guard"), "new\n");
    assert!(node.exists("/run/selfheal/reap-due"));
    assert_eq!(fs::read(node.path(RECORDS)).unwrap(), records());
    assert!(node.exists("/var/lib/rancher/k3s/agent/images/airgap.tar.zst"));
    assert!(
        run.stderr
            .contains("a new boot (unclean: yes): /var/lib/cni set aside as"),
        "{}",
        run.stderr
    );
}

#[test]
fn a_restart_changes_nothing_and_starts_no_command() {
    let node = node();
    pre(&node);
    fs::remove_file(node.path("/run/selfheal/reap-due")).unwrap();
    // The pods of this boot.
    for (path, content) in CNI {
        node.write(path, content);
    }
    fs::remove_dir_all(node.path(STALE)).unwrap();
    for _ in 0..2 {
        let run = node.run_at("guard", &["pre"], COUNT);
        assert_eq!((run.code, run.commands), (Some(0), 0));
        assert!(
            run.stderr.contains("the same boot: nothing to do"),
            "{}",
            run.stderr
        );
        untouched(&node);
        assert!(!node.exists("/run/selfheal/reap-due"));
    }
    // What lies in /run may have been cleared by somebody.
    fs::remove_dir_all(node.path("/run")).unwrap();
    assert!(pre(&node).stderr.contains("the same boot: nothing to do"));
    untouched(&node);
    assert_eq!(node.read("/run/selfheal/guard"), "same\n");
    assert!(!node.exists("/run/selfheal/reap-due"));
}

#[test]
fn what_lives_is_never_touched() {
    let real = "/var/lib/rancher/k3s/data/1f2e/bin/containerd-shim-runc-v2\0-namespace\0k8s.io\0-id\0a1\0-address\0/run/k3s/containerd/containerd.sock\0";
    let elsewhere = "/usr/bin/containerd-shim-runc-v2\0-id\0a1\0-address\0/run/k3s/containerd/containerd.sock\0";
    for cmdline in [real, elsewhere] {
        let node = node();
        node.write("/proc/412/comm", "containerd-shim\n");
        node.write("/proc/412/cmdline", cmdline);
        let run = pre(&node);
        assert!(
            run.stderr
                .contains("live pods in a new boot? process 412 is a pod's shim"),
            "{}",
            run.stderr
        );
        untouched(&node);
        assert_eq!(node.read("/run/selfheal/guard"), "live\n");
        assert!(!node.exists("/run/selfheal/reap-due"));
        assert_eq!(
            value(&node.read("/var/lib/selfheal/last-guard"), "boot_id"),
            BEFORE
        );
    }
    for point in ["/run/k3s/containerd/x/shm", "/run/netns/cni-8a6e"] {
        let node = node();
        node.write(
            "/proc/self/mountinfo",
            &format!(
                "22 1 8:2 / / rw - ext4 /dev/root rw\n90 22 0:4 / {point} rw - nsfs nsfs rw\n"
            ),
        );
        node.write(point, "");
        assert!(pre(&node).stderr.contains(&format!("{point} is mounted")));
        untouched(&node);
    }
    // On a node that already ran k3s when selfheal came, that is no surprise.
    let node = node();
    fs::remove_file(node.path("/var/lib/selfheal/last-guard")).unwrap();
    node.write("/proc/412/comm", "containerd-shim\n");
    node.write("/proc/412/cmdline", real);
    assert!(pre(&node).stderr.contains("first run"));
    untouched(&node);
}

#[test]
fn other_peoples_shims_are_not_pods_of_k3s() {
    let node = node();
    node.write("/proc/412/comm", "containerd-shim\n");
    node.write(
        "/proc/412/cmdline",
        "/usr/bin/containerd-shim-runc-v2\0-namespace\0moby\0-address\0/run/containerd/containerd.sock\0",
    );
    pre(&node);
    set_aside(&node, STALE);
}

#[test]
fn a_boot_is_clean_only_if_k3s_ended_with_it() {
    let empty = "/var/lib/kubelet/cpu_manager_state";
    let full = "/var/lib/kubelet/memory_manager_state";
    for (clean, expected) in [(BEFORE, "no"), ("another", "yes")] {
        let node = node();
        node.write("/var/lib/selfheal/clean", &format!("{clean}\n"));
        node.write(empty, "");
        node.write(full, "{\"policyName\":\"None\"}");
        pre(&node);
        let last = node.read("/var/lib/selfheal/last-guard");
        assert_eq!(value(&last, "unclean"), expected);
        assert!(!node.exists("/var/lib/selfheal/clean"));
        // Network state is stale after either.
        set_aside(&node, STALE);
        assert_eq!(node.exists(empty), expected == "no");
        assert_eq!(
            value(&last, "removed"),
            if expected == "yes" { empty } else { "" }
        );
        assert!(node.exists(full));
    }
    let node = node();
    fs::remove_file(node.path("/var/lib/selfheal/last-guard")).unwrap();
    pre(&node);
    set_aside(&node, "/var/lib/cni.stale-earlier-");
    assert_eq!(
        value(&node.read("/var/lib/selfheal/last-guard"), "unclean"),
        "unknown"
    );
}

#[test]
fn damaged_records_are_reported_and_kept() {
    let mut second_page = vec![0; 32768];
    second_page[16400..16404].copy_from_slice(&0xED0C_DAED_u32.to_le_bytes());
    for (bytes, damaged) in [
        (Vec::new(), true),
        (vec![7; 9000], true),
        (records(), false),
        (second_page, false),
    ] {
        let node = node();
        fs::write(node.path(RECORDS), &bytes).unwrap();
        pre(&node);
        let last = node.read("/var/lib/selfheal/last-guard");
        let operator = value(&last, "operator");
        assert_eq!(
            operator.contains("meta.db is damaged or empty"),
            damaged,
            "{last}"
        );
        assert_eq!(fs::read(node.path(RECORDS)).unwrap(), bytes);
    }
}

#[test]
fn a_folder_that_is_not_k3s_alone_is_left() {
    let podman = node();
    podman.write("/etc/cni/net.d/87-podman-bridge.conflist", "{}");
    let calico = node();
    fs::remove_file(calico.path(FLANNEL)).unwrap();
    for (node, why) in [
        (
            podman,
            "left alone: /etc/cni/net.d/87-podman-bridge.conflist shares it",
        ),
        (calico, "left alone: k3s's flannel is not in use"),
    ] {
        pre(&node);
        untouched(&node);
        assert_eq!(
            value(&node.read("/var/lib/selfheal/last-guard"), "cni"),
            why
        );
    }
    let node = node();
    fs::rename(node.path("/var/lib/cni"), node.path("/elsewhere")).unwrap();
    symlink("../../elsewhere", node.path("/var/lib/cni")).unwrap();
    pre(&node);
    untouched(&node);
    fs::remove_file(node.path("/var/lib/cni")).unwrap();
    node.boot("two");
    pre(&node);
    assert_eq!(
        value(&node.read("/var/lib/selfheal/last-guard"), "cni"),
        "absent"
    );
}

#[test]
fn power_may_go_at_any_command() {
    let whole = node().run_at("guard", &["pre"], COUNT).commands;
    assert!(whole >= 5, "{whole}");
    for at in 1..=whole {
        let node = node();
        node.run_at("guard", &["pre"], at);
        // Wherever it went, nothing is lost.
        let stale = node.exists(STALE);
        assert_eq!(stale, !node.exists(CNI[1].0), "at {at}");
        node.boot("two");
        pre(&node);
        let last = node.read("/var/lib/selfheal/last-guard");
        assert_eq!(value(&last, "boot_id"), "two", "at {at}");
        assert!(node.names("/var/lib/cni").is_empty(), "at {at}");
        for (path, content) in CNI {
            let kept = path.replacen("/var/lib/cni", STALE, 1);
            assert_eq!(node.read(&kept), content, "at {at}: {kept}");
        }
    }
}

#[test]
fn a_dead_disk_does_not_keep_k3s_waiting_and_a_late_guard_touches_nothing() {
    let node = node_with_a_dead_disk();
    for command in ["mv", "rm", "mkdir"] {
        let real = format!(
            "echo {command} \"$@\" >>\"$SELFHEAL_ROOT/acts\"\nexec /usr/bin/{command} \"$@\""
        );
        node.stage.command(command, &real);
    }
    node.fifo("/var/lib/selfheal/last-guard");
    let mut guard = node.start("guard", &["pre"]);
    // It comes back although its child hangs, after 60 s by the node's clock.
    assert!(guard.wait().unwrap().success());
    let uptime = node.seconds_up();
    assert!((1060..=1062).contains(&uptime), "{uptime}");
    assert!(
        node.log()
            .contains("does not answer within 60 s; k3s starts all the same")
    );
    assert_eq!(node.read("/run/selfheal/guard"), "late\n");
    assert!(node.exists("/run/selfheal/reap-due"));
    node.release("/var/lib/selfheal/last-guard", "boot_id before\n");
    wait_until("the child", || node.log().contains("too late"));
    // The parent's folder in /run, and the stand-in that lets time pass.
    let acts = node.read("/acts");
    assert!(
        acts.lines()
            .all(|act| act.contains("/run/selfheal") || act.contains("/proc/uptime")),
        "{acts}"
    );
    fs::remove_file(node.path("/var/lib/selfheal/last-guard")).unwrap();
    untouched(&node);
    // And the next start of k3s in this boot is a restart: pods may live by then.
    assert!(pre(&node).stderr.contains("the same boot"));
    untouched(&node);
}

#[test]
fn a_rename_that_comes_too_late_is_taken_back() {
    let node = node_with_a_dead_disk();
    node.fifo("/disk");
    node.stage.command(
        "mv",
        "case $* in *\"$SELFHEAL_ROOT/var/lib/cni \"*) read -r _ <\"$SELFHEAL_ROOT/disk\" ;; esac\nexec /usr/bin/mv \"$@\"",
    );
    let mut guard = node.start("guard", &["pre"]);
    assert!(guard.wait().unwrap().success());
    assert_eq!(node.read("/run/selfheal/guard"), "late\n");
    // k3s runs, and its first pod has an address.
    node.write("/var/lib/cni/networks/cbr0/10.42.0.8", "77aa\r\neth0");
    node.release("/disk", "go\n");
    wait_until("the child", || node.log().contains("too late"));
    untouched(&node);
    assert_eq!(
        node.read("/var/lib/cni/networks/cbr0/10.42.0.8"),
        "77aa\r\neth0"
    );
}

#[test]
fn a_start_that_is_called_off_settles_nothing() {
    let node = node();
    node.fifo("/var/lib/selfheal/last-guard");
    let mut guard = node.start("guard", &["pre"]);
    wait_until("the start", || {
        node.read("/run/selfheal/guard.go").starts_with("go ")
    });
    assert!(
        Command::new("kill")
            .arg(guard.id().to_string())
            .status()
            .unwrap()
            .success()
    );
    assert!(guard.wait().unwrap().success());
    assert_eq!(node.read("/run/selfheal/guard.go"), "cancelled\n");
    node.release("/var/lib/selfheal/last-guard", "boot_id before\n");
    wait_until("the child", || node.log().contains("too late"));
    assert!(!node.exists("/run/selfheal/guard"));
    fs::remove_file(node.path("/var/lib/selfheal/last-guard")).unwrap();
    untouched(&node);
    // The next start is still the first.
    node.write(
        "/var/lib/selfheal/last-guard",
        &format!("boot_id {BEFORE}\n"),
    );
    pre(&node);
    set_aside(&node, STALE);
}

#[test]
fn a_node_that_cannot_note_anything_still_starts_k3s() {
    let node = node();
    fs::remove_dir_all(node.path("/var/lib/selfheal")).unwrap();
    node.write("/var/lib/selfheal", "no folder");
    let run = pre(&node);
    assert!(run.stderr.contains("cannot write"), "{}", run.stderr);
    // Cleaned all the same, and a restart knows of it.
    assert_eq!(node.names("/var/lib/cni"), Vec::<String>::new());
    assert_eq!(node.read("/run/selfheal/guard"), "new\n");
}

#[test]
fn only_a_shutdown_leaves_the_mark_of_a_clean_end() {
    let stopped = |node: &Node, result: &str| {
        let script = template("usr/local/libexec/selfheal/guard");
        let command = format!(
            "SERVICE_RESULT={result} exec sh {} stopped",
            script.display()
        );
        let run = node.stage.sh(&["-c", &command], b"", 0);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        node.read("/var/lib/selfheal/clean")
    };
    let node = node();
    assert_eq!(stopped(&node, "success"), "one\n");
    fs::remove_file(node.path("/var/lib/selfheal/clean")).unwrap();
    assert_eq!(stopped(&node, "exit-code"), "");
    assert_eq!(stopped(&node, "watchdog"), "");
    // A stop, a restart or an upgrade in a running system says nothing of how this boot will end.
    node.stage.command("systemctl", "echo running");
    assert_eq!(stopped(&node, "success"), "");
    node.stage.command("systemctl", "echo degraded\nexit 1");
    assert_eq!(stopped(&node, "success"), "");
}
