//! The engine without a node: a node on paper answers the probe and takes a plan's actions at their word.

mod boot;
mod disk;
mod k3s;
mod longhorn;
mod paper;
mod reboots;
mod watchdog;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use selfheal::inventory::{self, Inventory};
use selfheal::layer;
use selfheal::node::ledger::LayerName;
use selfheal::node::snapshot::Snapshot;
use selfheal::plan::{self, NodePlan, Snapshots};
use selfheal::resource::change::{Action, Verb};
use selfheal_lab::fake_node::{FakeNode, Reply};

use crate::binary::Home;
use disk::DiskNode;
use paper::PaperNode;

/// An inventory of fake nodes, the first of them the control plane.
fn homelab(nodes: &[(&str, &FakeNode)], settings: &str) -> String {
    let identity = nodes[0].1.identity().unwrap();
    let mut text = format!(
        "[ssh]\nagent = false\nidentity = [\"{identity}\"]\n{}{settings}",
        no_cluster(settings)
    );
    for (at, (name, fake)) in nodes.iter().enumerate() {
        let role = if at == 0 { "control-plane" } else { "worker" };
        let (port, key) = (fake.port(), fake.host_key());
        text += &format!(
            "[nodes.{name}]\nhost = \"127.0.0.1\"\nport = {port}\nrole = \"{role}\"\nhost_key = \"{key}\"\n"
        );
    }
    text
}

/// Most tests are about a node, and need no cluster.
fn no_cluster(settings: &str) -> &'static str {
    if settings.contains("[k3s]") {
        ""
    } else {
        "[k3s]\ninstall = false\n"
    }
}

/// A fake node that answers as the paper one would.
async fn on_paper(node: PaperNode) -> FakeNode {
    FakeNode::answering(move |exec| Reply::ok(node.answer(&exec.script())))
        .await
        .unwrap()
}

const NONCE: &str = "0123456789abcdef";

fn inventory(text: &str) -> Inventory {
    let (inventory, report) = inventory::parse("homelab.toml", text.as_bytes());
    inventory.unwrap_or_else(|| panic!("{report}"))
}

fn one_node(settings: &str) -> Inventory {
    let no_cluster = no_cluster(settings);
    inventory(&format!(
        "[cluster]\nname = \"lab\"\n{no_cluster}{settings}\n[nodes.jarvis]\nhost = \"192.0.2.1\"\nrole = \"control-plane\"\n"
    ))
}

fn look(node: &PaperNode, inventory: &Inventory) -> Snapshot {
    let layers: BTreeSet<_> = LayerName::ALL.into();
    let script = layer::questions(inventory, &inventory.nodes[0], &layers).script(NONCE);
    Snapshot::parse(&node.answer(&script), NONCE).unwrap()
}

fn plan(node: &PaperNode, inventory: &Inventory) -> NodePlan {
    let name = inventory.nodes[0].name.clone();
    let snapshots: Snapshots = [(name, look(node, inventory))].into();
    plan::plan(
        inventory,
        &inventory.nodes[0],
        &snapshots,
        &LayerName::ALL.into(),
    )
}

/// Applies plans until nothing is left; more than one round is a mistake.
fn converge(node: &mut PaperNode, inventory: &Inventory) -> NodePlan {
    let first = plan(node, inventory);
    assert_eq!(first.refusals, []);
    node.take(&first);
    let second = plan(node, inventory);
    assert!(
        second.is_empty(),
        "a second run changes {:#?}",
        second.changes
    );
    first
}

const EVERYTHING: &str = "[hardening]\nntp_servers = [\"192.0.2.9\"]\npackages = [\"htop\"]\n\
    sysctls = { \"vm.swappiness\" = 10 }\n[hardening.firewall]\nenabled = true\nadmin = [\"192.0.2.0/24\"]\n\
    allow = [\"tcp/80\", \"udp/5000-5010\"]\n[boot]\nadd = [\"rcupdate.rcu_normal_after_boot=1\"]\n";

#[test]
fn what_lands_on_a_node() {
    let inventory = one_node(EVERYTHING);
    let plan = converge(&mut PaperNode::raspberry_pi_os(), &inventory);
    let mut landed = String::new();
    for action in plan.changes.iter().flat_map(|change| &change.actions) {
        match action {
            // Scripts and units stand in templates/ as they land.
            Action::Write(write) if write.path.starts_with("/usr/local/libexec") => {}
            Action::Write(write) if write.path.starts_with("/etc/systemd/system") => {}
            Action::Write(write) => {
                let text = String::from_utf8_lossy(&write.content);
                landed += &format!(
                    "=== {} {:04o} {}\n{text}\n",
                    write.path, write.mode, write.owner
                );
            }
            other => landed += &format!("=== {other:?}\n"),
        }
    }
    insta::assert_snapshot!(landed);
}

#[test]
fn a_second_run_finds_nothing_on_any_system() {
    for node in [
        PaperNode::raspberry_pi_os(),
        PaperNode::trixie(),
        PaperNode::ubuntu(),
        PaperNode::ubuntu_ab(),
    ] {
        for settings in [
            "",
            EVERYTHING,
            "[hardening]\nswap = \"keep\"\nhosts = false\ntime_sync = false\n",
        ] {
            converge(&mut node.clone(), &one_node(settings));
        }
    }
}

#[test]
fn a_node_that_is_left_is_as_it_was() {
    let inventory = one_node(EVERYTHING);
    let fresh = PaperNode::raspberry_pi_os();
    let mut node = fresh.clone();
    converge(&mut node, &inventory);
    let back = plan::restore(&inventory.nodes[0], &look(&node, &inventory));
    assert_eq!(back.refusals, []);
    assert!(
        back.changes
            .iter()
            .all(|change| change.verb == Verb::Remove || change.reboot.is_some())
    );
    node.take(&back);
    node.forget_what_stays();
    assert_eq!(node, fresh);
}

#[test]
fn what_an_interrupted_run_had_not_written_yet_is_no_change_of_the_users() {
    let inventory = one_node(EVERYTHING);
    let mut node = PaperNode::raspberry_pi_os();
    let first = plan(&node, &inventory);
    node.begin(&first);
    let again = plan(&node, &inventory);
    let actions = || again.changes.iter().flat_map(|change| &change.actions);
    let kept = |action: &&Action| matches!(action, Action::SetAside(_) | Action::KeepOriginal(_));
    assert_eq!(actions().find(kept), None);
    let writes = |plan: &NodePlan| {
        let actions = plan.changes.iter().flat_map(|change| &change.actions);
        actions
            .filter(|action| matches!(action, Action::Write(_)))
            .count()
    };
    assert_eq!(writes(&again), writes(&first));
    // What somebody wrote since is kept.
    node.write("/etc/hosts", "127.0.0.1 localhost\n# mine\n");
    let changed = plan(&node, &inventory);
    let aside = Action::SetAside("/etc/hosts".into());
    let mut actions = changed.changes.iter().flat_map(|change| &change.actions);
    assert!(actions.any(|action| *action == aside));
}

#[test]
fn a_layer_that_is_skipped_is_left_alone() {
    let inventory = one_node("");
    let mut node = PaperNode::raspberry_pi_os();
    converge(&mut node, &inventory);
    let name = inventory.nodes[0].name.clone();
    let snapshots: Snapshots =
        [(name, look(&node, &one_node("[hardening]\nhosts = false\n")))].into();
    let plan = plan::plan(
        &inventory,
        &inventory.nodes[0],
        &snapshots,
        &[LayerName::Boot].into(),
    );
    assert!(plan.is_empty(), "{:#?}", plan.changes);
}

#[test]
fn a_file_that_is_no_file_is_refused_and_the_rest_is_planned() {
    let inventory = one_node("");
    let mut node = PaperNode::raspberry_pi_os();
    node.link("/etc/sysctl.d/90-selfheal.conf", "/dev/null");
    let plan = plan(&node, &inventory);
    assert_eq!(plan.refusals.len(), 1, "{:?}", plan.refusals);
    assert!(
        plan.refusals[0]
            .reason
            .contains("symbolic link to /dev/null")
    );
    assert!(plan.changes.len() > 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_with_nothing_to_do_costs_one_connection_and_one_exec() {
    let node = Arc::new(std::sync::Mutex::new(PaperNode::raspberry_pi_os()));
    let paper = node.clone();
    let fake =
        FakeNode::answering(move |exec| Reply::ok(paper.lock().unwrap().answer(&exec.script())))
            .await
            .unwrap();
    let home = Home::new();
    let text = homelab(&[("jarvis", &fake)], "");
    home.write("homelab.toml", &text);

    let planned = home.selfheal(&["plan"]).await;
    assert_eq!(planned.code, Some(2), "{planned:?}");
    assert_eq!(
        (fake.connections(), fake.execs().len()),
        (1, 1),
        "a plan is one connection and one exec"
    );

    converge(&mut node.lock().unwrap(), &inventory(&text));
    let run = home.selfheal(&["apply"]).await;
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stdout.contains("Nothing to change."), "{run:?}");
    assert_eq!(
        (fake.connections(), fake.execs().len()),
        (2, 2),
        "so is a run with nothing to do"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_nothing_is_written_unless_told() {
    let fake = on_paper(PaperNode::raspberry_pi_os()).await;
    let home = Home::new();
    home.write("homelab.toml", &homelab(&[("jarvis", &fake)], ""));
    let run = home.selfheal(&["apply"]).await;
    assert_eq!(run.code, Some(3), "{run:?}");
    assert!(run.stderr.contains("--yes"), "{run:?}");
    assert_eq!(fake.execs().len(), 1, "only the probe");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_plan_is_refused_gets_the_probe_and_nothing_else() {
    let mut node = PaperNode::raspberry_pi_os();
    node.link("/etc/sysctl.d/90-selfheal.conf", "/dev/null");
    let fake = on_paper(node).await;
    let home = Home::new();
    home.write("homelab.toml", &homelab(&[("jarvis", &fake)], ""));
    let run = home.selfheal(&["apply", "--yes"]).await;
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.stdout.contains("~ "), "there was more to do: {run:?}");
    assert!(run.stderr.contains("symbolic link to /dev/null"), "{run:?}");
    let execs = fake.execs();
    assert_eq!((fake.connections(), execs.len()), (1, 1));
    assert!(!DiskNode::is_step(&execs[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_has_gone_stale_is_refused_as_a_whole_and_made_anew() {
    const MINE: &str = "192.0.2.77\tnas\n";
    let mut node = PaperNode::raspberry_pi_os();
    converge(&mut node, &one_node(""));
    let node = Arc::new(DiskNode::new(node));
    let (disk, busy) = (node.clone(), Arc::new(AtomicBool::new(false)));
    let edits = busy.clone();
    let fake = FakeNode::answering(move |exec| {
        let reply = disk.answer(exec);
        // Somebody edits a file while somebody else reads the plan.
        if !DiskNode::is_step(exec) && edits.load(Ordering::Relaxed) {
            disk.write("/etc/hosts", &format!("{}{MINE}", disk.read("/etc/hosts")));
        }
        reply
    })
    .await
    .unwrap();
    let home = Home::new();
    // One step that changes the file and another one.
    let another = "[hardening.journald]\nmax_use = \"123M\"\n";
    home.write("homelab.toml", &homelab(&[("jarvis", &fake)], another));

    let run = home.selfheal(&["plan"]).await;
    assert_eq!(run.code, Some(2), "{run:?}");
    for file in ["edit /etc/hosts", "60-selfheal.conf"] {
        assert!(run.stdout.contains(file), "{run:?}");
    }
    let mut before = node.everything();
    busy.store(true, Ordering::Relaxed);
    let stale = home.selfheal(&["apply", "--yes"]).await;
    assert_eq!(stale.code, Some(1), "{stale:?}");
    let why = "error: jarvis: the node has changed since the plan was made: /etc/hosts has changed since the plan was made";
    assert!(stale.stderr.contains(why), "{stale:?}");
    assert!(stale.stderr.contains("hint: run again"), "{stale:?}");
    let hosts = before
        .iter_mut()
        .find(|(path, _)| path.ends_with("/etc/hosts"));
    hosts.unwrap().1.as_mut().unwrap().push_str(MINE);
    assert_eq!(node.everything(), before, "something was written");

    busy.store(false, Ordering::Relaxed);
    let again = home.selfheal(&["apply", "--yes"]).await;
    assert_eq!(again.code, Some(0), "{again:?}");
    let hosts = node.read("/etc/hosts");
    assert!(hosts.contains(MINE), "{hosts}");
    assert!(!hosts.contains("192.0.2.1\t"), "{hosts}");
    let journald = node.read("/etc/systemd/journald.conf.d/60-selfheal.conf");
    assert!(journald.contains("SystemMaxUse=123M"), "{journald}");
    assert_eq!(home.selfheal(&["plan"]).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_down_is_reported_and_does_not_hold_back_the_others() {
    let fake = on_paper(PaperNode::raspberry_pi_os()).await;
    let mut down = FakeNode::running_sh().await.unwrap();
    let home = Home::new();
    let nodes = [("jarvis", &fake), ("ultron", &down)];
    home.write("homelab.toml", &homelab(&nodes, ""));
    down.stop_listening().await;
    let run = home.selfheal(&["plan"]).await;
    assert_eq!(run.code, Some(4), "{run:?}");
    assert!(run.stdout.contains("jarvis (control-plane"), "{run:?}");
    assert!(
        run.stderr.contains("error: ultron: ") && run.stderr.contains("hint: "),
        "{run:?}"
    );
    assert!(!run.stderr.contains("error: jarvis"), "{run:?}");

    let json = home.selfheal(&["plan", "--json"]).await;
    let plan: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(
        (plan["version"].as_u64(), plan["failed"][0]["node"].as_str()),
        (Some(1), Some("ultron"))
    );

    let only = home.selfheal(&["plan", "--on", "jarvis"]).await;
    assert_eq!(only.code, Some(2), "{only:?}");
    let none = home.selfheal(&["plan", "--on", "jarvs"]).await;
    assert_eq!(none.code, Some(3), "{none:?}");
    assert!(none.stderr.contains("did you mean `jarvis`?"), "{none:?}");
}
