//! What is planned around a reboot: pending ones, and Ubuntu's trial of a new command line.

use selfheal::plan::restore;
use selfheal::plan::text::{Shown, Style};
use selfheal::resource::change::{Action, Verb};

use super::paper::PaperNode;
use super::{converge, look, one_node, plan};

const QUIET: &str = "[boot]\nadd = [\"quiet\"]\n";
const NO_QUIET: &str = "";

fn reason(node: &PaperNode, settings: &str) -> Option<String> {
    let plan = plan(node, &one_node(settings));
    assert_eq!(plan.refusals, []);
    plan.reboot()
}

fn writes(node: &PaperNode, settings: &str) -> usize {
    let plan = plan(node, &one_node(settings));
    plan.changes.iter().map(|change| change.actions.len()).sum()
}

/// The plan's change of the command line, as text.
fn shown(node: &PaperNode, settings: &str) -> String {
    let plan = plan(node, &one_node(settings));
    let shown = Shown {
        plan: &plan,
        about: "control-plane".to_owned(),
        style: Style { colour: false },
        all: false,
    };
    shown.to_string()
}

#[test]
fn a_reboot_left_pending_is_planned_until_it_happens_on_both_layouts() {
    for fresh in [PaperNode::raspberry_pi_os(), PaperNode::ubuntu_ab()] {
        let mut node = fresh;
        let first = plan(&node, &one_node(QUIET));
        node.take_without_reboot(&first);
        assert_eq!(writes(&node, QUIET), 0, "it is written once");
        let why = reason(&node, QUIET).unwrap();
        assert!(
            why.contains("not yet started with") && why.contains("quiet"),
            "{why}"
        );
        node.reboot();
        assert_eq!(reason(&node, QUIET), None);

        // What is taken away stays in force until then, and that is said, too.
        let removal = plan(&node, &one_node(NO_QUIET));
        node.take_without_reboot(&removal);
        assert_eq!(writes(&node, NO_QUIET), 0);
        assert_eq!(
            reason(&node, NO_QUIET).unwrap(),
            "the kernel still runs with quiet"
        );
        // Wanted again before the reboot: the file changes, the kernel does not have to.
        let again = plan(&node, &one_node(QUIET));
        assert_eq!((again.changes.len(), again.reboot()), (1, None));
        node.take_without_reboot(&again);
        assert!(plan(&node, &one_node(QUIET)).is_empty());
        assert!(node.booted().contains("quiet"));
    }
}

#[test]
fn a_value_that_comes_back_waits_for_the_reboot_too() {
    for fresh in [PaperNode::raspberry_pi_os(), PaperNode::ubuntu_ab()] {
        let mut node = fresh;
        converge(&mut node, &one_node("[boot]\npanic_timeout = \"10s\"\n"));
        let change = plan(&node, &one_node("[boot]\npanic_timeout = \"20s\"\n"));
        node.take_without_reboot(&change);
        let back = restore(
            &one_node(NO_QUIET).nodes[0],
            &look(&node, &one_node(NO_QUIET)),
        );
        assert_eq!(back.refusals, []);
    }
}

#[test]
fn a_plan_says_that_the_line_is_tried_first_and_what_happens_if_it_fails() {
    let node = PaperNode::ubuntu_ab();
    let shown = shown(&node, NO_QUIET);
    let boot = &shown[shown.find("  boot\n").unwrap()..];
    insta::assert_snapshot!(boot);
}

#[test]
fn without_the_trial_current_is_written_unless_something_waits() {
    let direct = one_node("[boot]\ntrial = false\n");
    let mut node = PaperNode::ubuntu_ab();
    let first = converge(&mut node, &direct);
    assert!(first.trial().is_none());
    let actions = first.changes.iter().flat_map(|change| &change.actions);
    let paths: Vec<_> = actions
        .filter_map(|action| match action {
            Action::WriteBoot(path, ..) => Some(path.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(paths, ["/boot/firmware/current/cmdline.txt"]);

    let mut node = PaperNode::ubuntu_ab();
    node.flash_kernel();
    assert!(plan(&node, &direct).trial().is_some());
}

#[test]
fn an_older_copy_that_waits_for_its_trial_is_edited_itself() {
    let inventory = one_node(NO_QUIET);
    let mut node = PaperNode::ubuntu_ab();
    // A kernel upgrade before the first apply.
    node.flash_kernel();
    let first = plan(&node, &inventory);
    assert!(
        first
            .reboot()
            .unwrap()
            .contains("already wait for their trial")
    );
    node.take(&first);
    assert!(plan(&node, &inventory).is_empty());
    assert!(node.booted().contains("panic=10"));

    // One after it carries the tokens over by itself: nothing to do, and no reboot of selfheal's.
    node.flash_kernel();
    assert!(plan(&node, &inventory).is_empty());
    // But one that was made from an older line would take them away again.
    let mut stale = node.clone();
    stale.set_new_line("console=tty1 root=PARTUUID=ab-02 rootfstype=ext4 rootwait\n");
    let rescue = plan(&stale, &inventory);
    assert_eq!(rescue.reboot(), None, "the kernel runs with them");
    stale.take(&rescue);
    stale.reboot();
    assert!(stale.booted().contains("panic=10"));
    assert!(plan(&stale, &inventory).is_empty());
}

#[test]
fn an_initramfs_rebuild_that_throws_the_line_away_has_it_written_again() {
    let mut node = PaperNode::ubuntu_ab();
    let first = plan(&node, &one_node(QUIET));
    node.take_without_reboot(&first);
    node.flash_kernel();
    let again = plan(&node, &one_node(QUIET));
    assert_eq!(again.changes.len(), 1);
    assert_eq!(again.changes[0].verb, Verb::Update);
    converge(&mut node, &one_node(QUIET));
    assert!(node.booted().contains("quiet"));
}

#[test]
fn a_rejected_line_is_not_tried_again_until_it_changes() {
    let mut node = PaperNode::ubuntu_ab();
    converge(&mut node, &one_node(NO_QUIET));
    let before = node.booted().to_owned();
    node.fail_with("quiet");
    let first = plan(&node, &one_node(QUIET));
    let tried = first.trial().unwrap().sha256.clone();
    node.take(&first);
    assert_eq!(node.booted(), before, "back on the old line");

    // Nobody saw why: once more.
    let once_more = plan(&node, &one_node(QUIET));
    assert!(once_more.reboot().unwrap().contains("once more"));
    // selfheal saw it: no more.
    node.note_rejected(&tried);
    let refused = plan(&node, &one_node(QUIET));
    assert_eq!(refused.refusals.len(), 1, "{:?}", refused.refusals);
    assert!(
        refused.refusals[0]
            .reason
            .contains("rejected this command line")
    );
    // Also after a kernel upgrade, which must not be rejected along with it.
    node.flash_kernel();
    assert_eq!(plan(&node, &one_node(QUIET)).refusals.len(), 1);
    node.reboot();

    // Another line is another matter, and giving up is nothing to write.
    assert_eq!(writes(&node, NO_QUIET), 0);
    let other = converge(&mut node, &one_node("[boot]\nadd = [\"loglevel=4\"]\n"));
    assert!(other.trial().is_some() && node.booted().contains("loglevel=4"));
}

#[test]
fn a_trial_under_way_is_waited_for() {
    let mut node = PaperNode::ubuntu_ab();
    node.flash_kernel();
    node.set_new_state("trying\n");
    let plan = plan(&node, &one_node(NO_QUIET));
    assert_eq!(plan.refusals.len(), 1, "{:?}", plan.refusals);
    assert!(
        plan.refusals[0]
            .reason
            .contains("a trial boot is under way")
    );
    assert_eq!(plan.refusals[0].hint, "run again in a few minutes");
}

#[test]
fn a_node_with_two_sets_is_left_by_a_trial_as_well() {
    let inventory = one_node(QUIET);
    let fresh = PaperNode::ubuntu_ab();
    let mut node = fresh.clone();
    converge(&mut node, &inventory);
    let back = restore(&inventory.nodes[0], &look(&node, &inventory));
    assert!(back.trial().is_some());
    assert!(back.leftovers.contains("original"), "{:?}", back.leftovers);
    node.take(&back);
    assert_eq!(node.booted(), fresh.booted());
    assert_eq!(
        node.text("/boot/firmware/current/cmdline.txt"),
        fresh.text("/boot/firmware/current/cmdline.txt")
    );
}
