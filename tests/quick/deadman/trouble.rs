//! What the switch does when the node around it is broken.

use std::fs;

use super::node::{FILES, Node};

#[test]
fn a_damaged_set_is_not_restored() {
    for damage in ["1/path", "2/original", "token"] {
        let node = Node::new();
        node.arm();
        node.change();
        let changed = node.world();
        fs::write(
            node.root()
                .join("var/lib/selfheal/deadman/saved")
                .join(damage),
            "",
        )
        .unwrap();
        let run = node.run(&["boot"]);
        assert_eq!(run.code, Some(1), "{damage}");
        assert!(run.stderr.contains("damaged"), "{}", run.stderr);
        assert_eq!(node.world(), changed, "{damage}");
        assert!(node.status().contains("last failed token-1"), "{damage}");
    }
}

#[test]
fn a_file_that_cannot_be_restored_keeps_the_switch_armed() {
    let node = Node::new();
    let originals = node.world();
    node.arm();
    node.change();
    let folder = node.root().join(FILES[1].trim_start_matches('/'));
    fs::remove_file(&folder).unwrap();
    fs::create_dir(&folder).unwrap();
    let run = node.run(&["expire"]);
    assert_eq!(run.code, Some(1));
    assert!(
        run.stderr.contains("cannot restore /etc/sudoers.d/pi"),
        "{}",
        run.stderr
    );
    assert!(
        node.log()
            .contains(&"reload-or-restart ssh.service".to_owned()),
        "the others are in force"
    );
    assert!(node.is_armed());
    fs::remove_dir(&folder).unwrap();
    assert_eq!(node.run(&["due"]).code, Some(0));
    assert_eq!(node.world(), originals);
}

#[test]
fn a_full_disk_does_not_keep_the_originals_away() {
    let node = Node::new();
    let originals = node.world();
    node.arm();
    node.change();
    node.stage.command(
        "cp",
        "for last; do :; done\nhead -c 3 /dev/zero >\"$last\"\nexit 1",
    );
    node.stage.command(
        "mv",
        "for last; do :; done\ncase $last in */last) exit 1 ;; esac\nexec /usr/bin/mv \"$@\"",
    );
    let run = node.run(&["expire"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stderr.contains("cannot write"), "{}", run.stderr);
    assert_eq!(node.world(), originals);
    assert!(!node.is_armed());
}

#[test]
fn sshd_is_not_reloaded_onto_files_it_rejects() {
    let node = Node::new();
    node.arm();
    node.change();
    node.stage.command("sshd", "exit 255");
    node.clear_log();
    assert_eq!(node.run(&["expire"]).code, Some(0));
    assert!(
        !node.log().iter().any(|line| line.contains("ssh.service")),
        "{:?}",
        node.log()
    );
    assert!(node.status().contains("sshd -t rejects the restored files"));
}

#[test]
fn nothing_is_armed_without_a_timer_that_runs() {
    for failing in ["enable", "restart", "is-active"] {
        let node = Node::new();
        node.stage
            .command("systemctl", &format!("[ $1 != {failing} ]"));
        let run = node.arm_at(0);
        assert_eq!(run.code, Some(1), "{failing}");
        assert!(run.stderr.contains("nothing is armed"), "{}", run.stderr);
        assert!(!node.is_armed());
    }
}
