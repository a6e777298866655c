//! The boot layer: tokens by their effect, on evidence, by the user's word, and lines of config.txt.

use super::paper::PaperNode;
use super::{converge, look, one_node, plan};

const CMDLINE: &str = "/boot/firmware/cmdline.txt";
const CONFIG: &str = "/boot/firmware/config.txt";

fn pi(frames: &[(&str, &str)]) -> PaperNode {
    let mut node = PaperNode::raspberry_pi_os();
    for (header, content) in frames {
        node.frames
            .insert((*header).to_owned(), (*content).to_owned());
    }
    node
}

fn line_after(node: &mut PaperNode, settings: &str) -> String {
    converge(node, &one_node(settings));
    node.text(CMDLINE)
}

/// Takes everything back; the boot files are as they were.
fn restore(node: &mut PaperNode, settings: &str) {
    let inventory = one_node(settings);
    let back = plan::restore(&inventory.nodes[0], &look(node, &inventory));
    assert_eq!(back.refusals, []);
    node.take(&back);
}

#[test]
fn a_stall_timeout_for_telephones_is_raised_and_stays_raised() {
    const TOKEN: &str = " rcupdate.rcu_exp_cpu_stall_timeout=21000\n";
    let fact = "fact rcu-exp-cpu-stall-timeout";
    for (reads, added) in [
        ("20", true),
        ("1", true),
        ("999", true),
        ("0", false),
        ("1000", false),
        ("21000", false),
        ("", false),
    ] {
        let mut node = pi(&[(fact, reads)]);
        assert_eq!(line_after(&mut node, "").ends_with(TOKEN), added, "{reads}");
        if added {
            // It works: that is no reason to take it away.
            node.frames.insert(fact.to_owned(), "21000".to_owned());
            assert!(line_after(&mut node, "").ends_with(TOKEN));
            let off = line_after(&mut node, "[boot]\nrcu_stall_timeout = false\n");
            assert!(!off.contains("rcu_exp"), "{off}");
        }
    }
    // What the user says goes first.
    let own = "[boot]\nadd = [\"rcupdate.rcu_exp_cpu_stall_timeout=10000\"]\n";
    let line = line_after(&mut pi(&[(fact, "20")]), own);
    assert!(
        line.ends_with(" rcupdate.rcu_exp_cpu_stall_timeout=10000\n"),
        "{line}"
    );
}

#[test]
fn normal_grace_periods_are_opt_in() {
    let mut node = pi(&[]);
    assert!(!line_after(&mut node, "").contains("rcu_normal"));
    let line = line_after(&mut node, "[boot]\nrcu_normal_after_boot = true\n");
    assert!(
        line.ends_with(" rcupdate.rcu_normal_after_boot=1\n"),
        "{line}"
    );
}

#[test]
fn a_drive_that_was_reset_gets_its_quirk_and_keeps_it() {
    let nvme = "nvme nvme0: controller is down; will reset: CSTS=0xffffffff, PCI_STATUS=0x10";
    let uas = "scsi host0: uas_eh_device_reset_handler start";
    let mut node = pi(&[("fact nvme-reset", nvme), ("uas-reset 152d:0578", uas)]);
    let said = plan(&node, &one_node(""));
    let shown = plan::text::Shown {
        plan: &said,
        about: String::new(),
        style: plan::text::Style { colour: false },
        all: false,
    };
    let shown = shown.to_string();
    assert!(
        shown.contains(&format!("+ evidence nvme-reset: unknown -> {nvme}")),
        "{shown}"
    );
    assert!(
        shown.contains(&format!("+ evidence uas-reset 152d:0578: unknown -> {uas}")),
        "{shown}"
    );
    let quirks =
        " nvme_core.default_ps_max_latency_us=0 pcie_aspm=off usb-storage.quirks=152d:0578:u\n";
    assert!(line_after(&mut node, "").ends_with(quirks));
    // It has its effect, and another drive comes.
    node.frames
        .insert("fact nvme-reset".to_owned(), String::new());
    node.frames.remove("uas-reset 152d:0578");
    assert!(line_after(&mut node, "").ends_with(quirks));
    node.frames
        .insert("uas-reset 0bc2:231a".to_owned(), uas.to_owned());
    let both = line_after(&mut node, "");
    assert!(
        both.ends_with(" usb-storage.quirks=152d:0578:u,0bc2:231a:u\n"),
        "{both}"
    );
    let off = line_after(&mut node, "[boot]\nnvme_quirk = false\nuas_quirk = false\n");
    assert!(!off.contains("nvme") && !off.contains("quirks"), "{off}");
    // Without evidence, and with the evidence forgotten, nothing of it comes back.
    node.frames.remove("uas-reset 0bc2:231a");
    let line = line_after(&mut node, "");
    assert!(!line.contains("nvme") && !line.contains("quirks"), "{line}");
}

#[test]
fn a_list_of_the_users_keeps_its_members() {
    let line = "root=/dev/sda2 usb-storage.quirks=174c:55aa:u rootwait\n";
    let mut node = pi(&[(
        "uas-reset 152d:0578",
        "scsi host0: uas_eh_device_reset_handler start",
    )]);
    node.boot_with(line);
    let after = line_after(&mut node, "");
    assert!(
        after.contains("usb-storage.quirks=174c:55aa:u,152d:0578:u rootwait"),
        "{after}"
    );
    node.frames.clear();
    restore(&mut node, "");
    assert_eq!(node.text(CMDLINE), line);
}

#[test]
fn tokens_are_removed_by_the_users_word_and_come_back_with_it() {
    let line = "console=tty1 root=/dev/sda2 rootwait quiet splash fsck.repair=yes\n";
    let mut node = pi(&[]);
    node.boot_with(line);
    let settings = "[boot]\nremove = [\"quiet\", \"splash\", \"loglevel=3\"]\n";
    let after = line_after(&mut node, settings);
    assert!(
        after.starts_with("console=tty1 root=/dev/sda2 rootwait fsck.repair=yes "),
        "{after}"
    );
    // The inventory lets one of them come back.
    let after = line_after(&mut node, "[boot]\nremove = [\"splash\"]\n");
    assert!(
        after.contains(" quiet") && !after.contains("splash"),
        "{after}"
    );
    restore(&mut node, "");
    let mut words: Vec<String> = node
        .text(CMDLINE)
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    words.sort();
    let mut before: Vec<&str> = line.split_whitespace().collect();
    before.sort_unstable();
    assert_eq!(words, before);
    // What was added first and is removed now does not come back.
    let mut node = pi(&[]);
    line_after(&mut node, "[boot]\nadd = [\"quiet\"]\n");
    line_after(&mut node, "[boot]\nremove = [\"quiet\"]\n");
    assert!(!line_after(&mut node, "").contains("quiet"));
}

#[test]
fn the_watchdog_is_switched_on_where_a_pi_has_none() {
    let pi5 = ("fact model", "Raspberry Pi 5 Model B Rev 1.0");
    let absent = ("file /dev/watchdog0", "absent");
    for (frames, added) in [
        (&[pi5, absent][..], true),
        (&[pi5], false),
        (&[absent], false),
    ] {
        let mut node = pi(frames);
        let config = node.text(CONFIG);
        converge(&mut node, &one_node(""));
        let after = node.text(CONFIG);
        assert_eq!(
            after.contains("\n[all]\ndtparam=watchdog=on\n"),
            added,
            "{after}"
        );
        assert!(after.starts_with(&config), "{after}");
        if added {
            node.frames
                .insert("file /dev/watchdog0".to_owned(), "special".to_owned());
            converge(&mut node, &one_node(""));
            assert_eq!(node.text(CONFIG), after);
            converge(&mut node, &one_node("[boot]\nboard_watchdog = false\n"));
        }
        assert_eq!(node.text(CONFIG), config);
    }
}

#[test]
fn lines_of_config_txt_come_need_a_boot_and_go() {
    let settings =
        "[boot]\nconfig = [\"gpu_mem=16\", \"dtoverlay=disable-bt\", \"dtparam=audio=on\"]\n";
    let inventory = one_node(settings);
    for before in [
        "[all]\narm_64bit=1\n",
        "[cm5]\ndtparam=audio=on\ngpu_mem=64",
        "dtparam=audio=on\n[all]\n",
    ] {
        let mut node = pi(&[("fact model", "Raspberry Pi 4 Model B Rev 1.4")]);
        node.rewrite(CONFIG, before);
        let first = plan(&node, &inventory);
        assert_eq!(first.refusals, []);
        assert!(first.reboot().unwrap().contains("config.txt changes"));
        node.take_without_reboot(&first);
        let waiting = plan(&node, &inventory);
        assert!(
            waiting
                .reboot()
                .unwrap()
                .contains("not yet started with its config.txt")
        );
        node.reboot();
        assert!(plan(&node, &inventory).is_empty());
        let after = node.text(CONFIG);
        let ours = after.strip_prefix(before).unwrap();
        assert!(
            ours.contains("\n[all]\ngpu_mem=16\ndtoverlay=disable-bt\n"),
            "{after}"
        );
        assert_eq!(
            ours.contains("audio"),
            !before.starts_with("dtparam"),
            "{after}"
        );
        restore(&mut node, settings);
        assert_eq!(node.text(CONFIG), before);
    }
}

#[test]
fn what_the_user_writes_behind_goes_before() {
    let inventory = one_node("[boot]\nconfig = [\"gpu_mem=16\"]\n");
    let mut node = pi(&[]);
    converge(&mut node, &inventory);
    let text = node.text(CONFIG) + "gpu_mem=128\n";
    node.rewrite(CONFIG, &text);
    converge(&mut node, &inventory);
    let text = node.text(CONFIG);
    assert!(
        text.find("gpu_mem=128\n") < text.find("gpu_mem=16\n"),
        "{text}"
    );
    // What decides what boots is not taken along with selfheal's part.
    node.rewrite(
        CONFIG,
        &text.replace("gpu_mem=16\n", "gpu_mem=16\nos_prefix=new/\n"),
    );
    let refusals = plan(&node, &inventory).refusals;
    assert!(
        refusals
            .iter()
            .any(|refusal| refusal.reason.contains("between selfheal's marks")),
        "{refusals:?}"
    );
}

#[test]
fn overclocking_is_told_and_left_alone() {
    let config = "[pi4]\nover_voltage=6\narm_freq=2000\nforce_turbo=0\n[pi5]\narm_freq=3000\n[all]\narm_boost=1\n";
    let mut node = pi(&[("fact model", "Raspberry Pi 4 Model B Rev 1.4")]);
    node.rewrite(CONFIG, config);
    let notes = plan(&node, &one_node("")).notes;
    assert_eq!(notes.len(), 1);
    assert!(
        notes[0].contains("(over_voltage=6, arm_freq=2000)"),
        "{notes:?}"
    );
    converge(&mut node, &one_node(""));
    assert_eq!(node.text(CONFIG), config);
}
