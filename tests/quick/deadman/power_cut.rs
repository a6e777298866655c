//! The power goes at every command of the switch's own.

use super::node::Node;
use crate::crash::COUNT;

#[test]
fn the_power_may_go_while_arming() {
    let whole = {
        let node = Node::new();
        node.arm_at(COUNT).commands
    };
    assert!(whole > 30, "only {whole} commands were counted");
    let node = Node::new();
    let originals = node.world();
    node.copy("root", "root.fresh");
    for at in 1..=whole {
        node.copy("root.fresh", "root");
        assert_eq!(node.arm_at(at).code, None, "not killed at {at}");
        assert_eq!(node.world(), originals, "killed at {at}");
        // Nothing was changed yet, so whichever way it goes on, nothing changes.
        assert_eq!(node.run(&["boot"]).code, Some(0), "killed at {at}");
        assert_eq!(node.world(), originals, "killed at {at}");
        assert!(!node.is_armed());
        node.arm();
        node.change();
        assert_eq!(node.run(&["expire"]).code, Some(0));
        assert_eq!(node.world(), originals, "killed at {at}, then armed");
    }
}

#[test]
fn the_power_may_go_while_undoing() {
    let node = Node::new();
    let originals = node.world();
    node.arm();
    node.change();
    node.uptime(2000);
    let changed = node.world();
    node.copy("root", "root.armed");
    for (verb, next) in [("due", "boot"), ("boot", "due")] {
        node.copy("root.armed", "root");
        let whole = node.run_at(&[verb], COUNT).commands;
        assert!(whole > 30, "only {whole} commands were counted");
        for at in 1..=whole {
            node.copy("root.armed", "root");
            assert_eq!(
                node.run_at(&[verb], at).code,
                None,
                "{verb} not killed at {at}"
            );
            for (path, is) in node
                .world()
                .iter()
                .filter(|(path, _)| !path.ends_with(".selfheal-undo"))
            {
                assert!(
                    originals.get(path) == Some(is) || changed.get(path) == Some(is),
                    "{verb} killed at {at}: {path} is neither the old nor the new one: {is}"
                );
            }
            assert_eq!(node.run(&[next]).code, Some(0), "{verb} killed at {at}");
            assert_eq!(
                node.world(),
                originals,
                "{verb} killed at {at}, then {next}"
            );
            assert!(
                node.status()
                    .starts_with("state disarmed\nlast restored token-1"),
                "{verb} killed at {at}"
            );
        }
    }
}

#[test]
fn the_power_may_go_while_disarming() {
    let node = Node::new();
    let originals = node.world();
    node.arm();
    node.change();
    let changed = node.world();
    node.copy("root", "root.armed");
    let whole = node.run_at(&["disarm", "token-1"], COUNT).commands;
    assert!(whole > 5, "only {whole} commands were counted");
    for at in 1..=whole {
        node.copy("root.armed", "root");
        assert_eq!(
            node.run_at(&["disarm", "token-1"], at).code,
            None,
            "not killed at {at}"
        );
        assert_eq!(node.world(), changed);
        node.copy("root", "root.killed");
        assert_eq!(
            node.run(&["disarm", "token-1"]).code,
            Some(0),
            "killed at {at}"
        );
        assert_eq!(node.run(&["boot"]).code, Some(0));
        assert_eq!(
            node.world(),
            changed,
            "killed at {at}, then confirmed again"
        );
        // Or nobody comes back: then it is one or the other, and the record tells which.
        node.copy("root.killed", "root");
        assert_eq!(node.run(&["boot"]).code, Some(0));
        let wanted = if node.status().contains("last restored") {
            &originals
        } else {
            &changed
        };
        assert_eq!(&node.world(), wanted, "killed at {at}, then booted");
    }
}
