//! The lab itself: that a virtual Pi is what the other tests take it for.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use selfheal_lab::pi::{BOOT, Pi};
use selfheal_lab::{Lab, Layout, Options};

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

#[test]
fn fresh_pis_are_alike_but_not_the_same() {
    let lab = Lab::new().unwrap();
    let (jarvis, ultron) = (lab.boot("jarvis").unwrap(), lab.boot("ultron").unwrap());

    assert_eq!(jarvis.ok("hostname").unwrap().trim(), "raspberrypi");
    assert_eq!(
        jarvis.ok("hostname").unwrap(),
        ultron.ok("hostname").unwrap()
    );
    let machine_id = "cat /etc/machine-id";
    assert_ne!(
        jarvis.ok(machine_id).unwrap(),
        ultron.ok(machine_id).unwrap()
    );
    assert_ne!(jarvis.host_key(), ultron.host_key());
    assert_ne!(jarvis.port(), ultron.port());

    jarvis
        .ok(&format!("sudo ping -c 3 -W 10 {}", ultron.lan_address()))
        .unwrap();
}

#[test]
fn a_fresh_pi_has_the_habits_of_raspberry_pi_os() {
    let lab = Lab::new().unwrap();
    let pi = lab.boot("jarvis").unwrap();

    pi.ok("! command -v python3").unwrap();
    pi.ok("systemctl is-system-running").unwrap();
    pi.ok("grep -q 'DO NOT EDIT' /boot/cmdline.txt && grep -q 'DO NOT EDIT' /boot/config.txt")
        .unwrap();
    let boot = pi
        .ok("findmnt -no FSTYPE /boot/firmware && cat /boot/firmware/cmdline.txt")
        .unwrap();
    assert!(
        boot.starts_with("vfat\n") && boot.contains("console=serial0,115200"),
        "{boot}"
    );
    pi.ok("! grep -q memory /sys/fs/cgroup/cgroup.controllers && ! test -e /proc/pressure/cpu")
        .unwrap();
    assert!(
        pi.ok("sudo sshd -T")
            .unwrap()
            .contains("\npasswordauthentication yes\n")
    );
    assert_ne!(pi.ok("tail -n +2 /proc/swaps").unwrap(), "");
    pi.ok(
        "id=$(cat /etc/machine-id); test -d /run/log/journal/$id && ! test -d /var/log/journal/$id",
    )
    .unwrap();
    pi.ok("test -c /dev/watchdog0 && systemctl is-active triggerhappy dphys-swapfile")
        .unwrap();

    let clock: u64 = pi.ok("date +%s").unwrap().trim().parse().unwrap();
    assert!(clock.abs_diff(now()) < 10, "the Pi's clock says {clock}");
}

#[test]
fn the_firmware_obeys_the_first_line_of_cmdline_txt() {
    let lab = Lab::new().unwrap();
    let pi = lab.boot("jarvis").unwrap();

    let before = pi.boot_id().unwrap();
    pi.ok("sudo sed -i 's/$/ cgroup_enable=memory psi=1\\nsecond=line/' /boot/firmware/cmdline.txt && sudo reboot || true")
        .unwrap();
    let after = pi.wait_for_reboot(&before, BOOT).unwrap();
    assert_ne!(before, after);
    assert_eq!(pi.boots(), 2);
    let cmdline = pi.ok("cat /proc/cmdline").unwrap();
    assert!(
        cmdline.contains("console=ttyS0,115200") && cmdline.contains(" psi=1"),
        "{cmdline}"
    );
    assert!(
        !cmdline.contains("second=line") && !cmdline.contains("cgroup_disable"),
        "{cmdline}"
    );
    pi.ok("grep -q memory /sys/fs/cgroup/cgroup.controllers && test -e /proc/pressure/cpu")
        .unwrap();
}

#[test]
fn a_wrong_root_does_not_boot_until_the_card_is_repaired() {
    let lab = Lab::new().unwrap();
    let pi = lab.boot("jarvis").unwrap();

    pi.power_cut().unwrap();
    let good = pi.read_boot_file("cmdline.txt").unwrap();
    let wrong = String::from_utf8(good.clone())
        .unwrap()
        .replace("root=LABEL=rootfs", "root=LABEL=nowhere");
    pi.write_boot_file("cmdline.txt", wrong.as_bytes()).unwrap();
    pi.power_on().unwrap();
    pi.wait_for_console("cannot mount root", BOOT).unwrap();
    assert!(
        pi.read_boot_file("cmdline.txt").is_err(),
        "the card of a running Pi is out of reach"
    );

    pi.power_cut().unwrap();
    pi.write_boot_file("cmdline.txt", &good).unwrap();
    pi.power_on().unwrap();
    pi.wait_for_ssh(BOOT).unwrap();
}

#[test]
fn a_power_cut_is_survived_and_a_shutdown_stays_off() {
    let lab = Lab::new().unwrap();
    let pi = lab.boot("jarvis").unwrap();
    let before = pi.boot_id().unwrap();

    pi.ok("echo kept >~/file && sync").unwrap();
    pi.power_cut().unwrap();
    assert!(!pi.is_on());
    assert!(pi.run_within("true", 10).is_err());
    pi.power_on().unwrap();
    pi.wait_for_ssh(BOOT).unwrap();
    assert_ne!(pi.boot_id().unwrap(), before);
    assert_eq!(pi.ok("cat ~/file").unwrap(), "kept\n");
    assert!(
        pi.ok("ip -4 -o addr show eth1")
            .unwrap()
            .contains("10.99.0.1/24")
    );

    pi.run("sudo poweroff").ok();
    pi.wait_until_off(BOOT).unwrap();
}

#[test]
#[ignore = "minutes more: tests/run.sh --full"]
fn the_watchdog_resets_a_frozen_kernel() {
    let lab = Lab::new().unwrap();
    let pi = lab.boot("jarvis").unwrap();
    let before = pi.boot_id().unwrap();

    pi.root("mkdir -p /run/systemd/system.conf.d; printf '[Manager]\\nRuntimeWatchdogSec=30\\n' >/run/systemd/system.conf.d/w.conf; systemctl daemon-reexec").unwrap();
    pi.freeze().unwrap();
    pi.wait_for_watchdog(0, Duration::from_secs(240)).unwrap();
    assert_ne!(pi.wait_for_reboot(&before, BOOT).unwrap(), before);
    assert_eq!(pi.watchdog_resets(), 1);
}

#[test]
fn packages_install_from_the_labs_repository() {
    let lab = Lab::new().unwrap();
    let pi = lab.boot("jarvis").unwrap();

    pi.ok("sudo apt-get -q update").unwrap();
    pi.ok_within("sudo DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends nftables", 600).unwrap();
    pi.ok("sudo nft list ruleset").unwrap();
    let candidates = pi
        .ok("apt-cache policy unattended-upgrades python3 systemd-timesyncd")
        .unwrap();
    assert_eq!(
        candidates
            .matches("http://10.0.2.100 bookworm/main")
            .count(),
        3,
        "{candidates}"
    );
}

#[test]
fn pulled_cables_cut_ssh_but_not_the_labs_own_channel() {
    let lab = Lab::new().unwrap();
    let pi = lab.boot("jarvis").unwrap();

    pi.network(false).unwrap();
    assert!(pi.run_within("true", 10).is_err());
    assert_eq!(
        pi.root("cat /sys/class/net/eth0/carrier").unwrap().trim(),
        "0"
    );
    pi.network(true).unwrap();
    pi.wait_for_ssh(BOOT).unwrap();
}

#[test]
fn a_paused_pi_does_not_answer_until_it_goes_on() {
    let lab = Lab::new().unwrap();
    let pi = lab.boot("jarvis").unwrap();

    pi.pause().unwrap();
    assert!(pi.run_within("true", 5).is_err());
    pi.resume().unwrap();
    pi.wait_for_ssh(BOOT).unwrap();
}

#[test]
fn a_clock_in_1970_is_put_right_by_the_time_source_only() {
    let lab = Lab::new().unwrap();
    let pi = lab.boot("jarvis").unwrap();

    pi.serve_time(false);
    pi.set_clock(86_400).unwrap();
    assert!(pi.ok("date").unwrap().contains("1970"));
    pi.serve_time(true);
    pi.ok("sudo systemctl restart systemd-timesyncd").unwrap();
    pi.ok("timeout 60 sh -c 'until [ -e /run/systemd/timesync/synchronized ] && [ $(date +%Y) -gt 2000 ]; do sleep 0.2; done'").unwrap();
    let clock: u64 = pi.ok("date +%s").unwrap().trim().parse().unwrap();
    assert!(clock.abs_diff(now()) < 10, "the Pi's clock says {clock}");
}

#[test]
fn a_dropped_pi_leaves_no_process_and_no_disks() {
    let lab = Lab::new().unwrap();
    let pi = lab.boot("jarvis").unwrap();
    let (folder, port) = (pi.folder().to_owned(), pi.port());
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    drop(pi);
    assert!(!folder.exists());
    assert!(
        std::net::TcpStream::connect(("127.0.0.1", port)).is_err(),
        "qemu still listens"
    );
}

fn ubuntu(lab: &Lab) -> Pi {
    let options = Options {
        layout: Layout::Ubuntu,
        ..Options::default()
    };
    lab.boot_with("jarvis", &options).unwrap()
}

fn boot_file(pi: &Pi, path: &str) -> String {
    pi.ok(&format!("cat /boot/firmware/{path}")).unwrap()
}

fn booted_with(pi: &Pi, line: &str) -> bool {
    let line = line.replace("console=serial0", "console=ttyS0");
    pi.ok("cat /proc/cmdline").unwrap().ends_with(&line)
}

#[test]
#[ignore = "minutes more: tests/run.sh --full"]
fn new_boot_files_of_ubuntu_are_tried_and_kept_over_a_double_boot() {
    let lab = Lab::new().unwrap();
    let pi = ubuntu(&lab);
    let original = boot_file(&pi, "current/cmdline.txt");
    assert!(booted_with(&pi, &original));
    pi.ok(". /etc/os-release; test \"$ID $VERSION_ID\" = 'ubuntu 25.10'")
        .unwrap();
    pi.ok("sudo piboot-try --reboot; ! sudo piboot-try --test")
        .unwrap();

    // A second run makes new/ again from current/, and with it forgets what was edited.
    pi.ok("sudo flash-kernel && echo lost | sudo tee /boot/firmware/new/cmdline.txt && sudo flash-kernel")
        .unwrap();
    assert_eq!(boot_file(&pi, "new/cmdline.txt"), original);
    assert_eq!(boot_file(&pi, "new/state"), "unknown\n");
    pi.ok("sudo sed -i 's/$/ psi=1/' /boot/firmware/new/cmdline.txt && sudo piboot-try --test")
        .unwrap();
    assert_eq!(boot_file(&pi, "current/cmdline.txt"), original);

    let before = pi.boot_id().unwrap();
    pi.ok("sudo reboot || true").unwrap();
    pi.wait_for_reboot(&before, 2 * BOOT).unwrap();
    assert_eq!(pi.boots(), 3, "one boot to notice, one to try");
    // ssh may be up before the trial is over.
    pi.ok("systemctl is-system-running --wait").unwrap();
    assert_eq!(
        boot_file(&pi, "current/cmdline.txt"),
        original.replace('\n', " psi=1\n")
    );
    assert_eq!(boot_file(&pi, "current/state"), "good\n");
    assert_eq!(boot_file(&pi, "old/cmdline.txt"), original);
    pi.ok("test -e /proc/pressure/cpu && ! test -e /boot/firmware/new")
        .unwrap();

    // Back to the old files; the others are good and not tried again, unless somebody wants them to be.
    let promoted = pi.boot_id().unwrap();
    pi.ok("sudo piboot-try --restore-old && ! sudo piboot-try --test")
        .unwrap();
    assert_eq!(boot_file(&pi, "current/cmdline.txt"), original);
    pi.ok(
        "! test -e /boot/firmware/old && sudo piboot-try --reset-new && sudo piboot-try --reboot",
    )
    .unwrap();
    pi.wait_for_reboot(&promoted, BOOT).unwrap();
    assert_eq!(pi.boots(), 4, "straight to the trial");
    pi.ok("test -e /proc/pressure/cpu").unwrap();
}

#[test]
#[ignore = "minutes more: tests/run.sh --full"]
fn ubuntu_falls_back_from_new_boot_files_that_fail() {
    let lab = Lab::new().unwrap();
    let pi = ubuntu(&lab);
    let original = boot_file(&pi, "current/cmdline.txt");
    let fell_back = || {
        pi.ok("systemctl is-system-running --wait").unwrap();
        assert!(booted_with(&pi, &original));
        assert_eq!(boot_file(&pi, "current/cmdline.txt"), original);
        assert_eq!(boot_file(&pi, "current/state"), "good\n");
        assert_eq!(boot_file(&pi, "new/state"), "bad\n");
        pi.ok("! sudo piboot-try --test").unwrap();
    };

    // The kernel finds no root and gives up after panic=10.
    let fresh = pi.boot_id().unwrap();
    pi.ok("sudo flash-kernel && sudo sed -i s/LABEL=writable/LABEL=nowhere/ /boot/firmware/new/cmdline.txt && sudo piboot-try --reboot")
        .unwrap();
    let rejected = pi.wait_for_reboot(&fresh, 2 * BOOT).unwrap();
    assert_eq!(pi.boots(), 3);
    assert!(pi.serial_log().contains("cannot mount root"));
    fell_back();

    // The plug is pulled during the trial: good files, but the firmware knows nothing of them any more.
    pi.ok("sudo flash-kernel && sudo piboot-try --reboot")
        .unwrap();
    pi.wait_for_boots(4, BOOT).unwrap();
    pi.power_cut().unwrap();
    assert_eq!(pi.read_boot_file("new/state").unwrap(), b"trying\n");
    pi.power_on().unwrap();
    let unplugged = pi.wait_for_reboot(&rejected, BOOT).unwrap();
    assert_eq!(pi.boots(), 5);
    fell_back();

    // What has booted is refused by the Pi's own check.
    pi.ok("sudo flash-kernel && echo false | sudo tee -a /etc/flash-kernel/piboot-validate && sudo piboot-try --reboot")
        .unwrap();
    pi.wait_for_boots(7, 2 * BOOT).unwrap();
    pi.wait_for_reboot(&unplugged, BOOT).unwrap();
    fell_back();
}
