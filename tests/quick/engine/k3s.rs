//! k3s on paper: what lands on a server and on those that join it, and when nothing does.

use super::paper::PaperNode;
use super::*;
use selfheal::inventory::Node;

const VERSION: &str = "v1.36.3+k3s1";
/// The image's network: eth0 leads out, eth1 to the other nodes.
const ADDRESSES: &str = "2: eth0    inet 10.0.2.15/24 brd 10.0.2.255 scope global eth0\n\
    3: eth1    inet 192.0.2.1/24 brd 192.0.2.255 scope global eth1\n";
const ROUTE: &str = "default via 10.0.2.2 dev eth0 proto dhcp src 10.0.2.15 metric 1024\n";

const HOMELAB: &str = "[cluster]\nname = \"lab\"\n[k3s]\ndisable = [\"traefik\"]\ntls_san = [\"home.example.com\"]\n\
    [nodes.jarvis]\nhost = \"192.0.2.1\"\nrole = \"control-plane\"\n\
    [nodes.ultron]\nhost = \"192.0.2.2\"\nrole = \"worker\"\nlabels = { disk = \"ssd\" }\n\
    taints = [\"slow=yes:NoSchedule\"]\n";

fn k3s() -> std::collections::BTreeSet<LayerName> {
    [LayerName::K3s].into()
}

fn pi() -> PaperNode {
    let mut node = PaperNode::raspberry_pi_os();
    node.frames
        .insert("fact addresses".into(), ADDRESSES.into());
    node.frames
        .insert("fact default-route".into(), ROUTE.into());
    node
}

fn look_at(paper: &PaperNode, inventory: &Inventory, node: &Node) -> Snapshot {
    let script = layer::questions(inventory, node, &k3s()).script(NONCE);
    Snapshot::parse(&paper.answer(&script), NONCE).unwrap()
}

fn plan_of(name: &str, papers: &[&PaperNode], inventory: &Inventory) -> NodePlan {
    let pairs = inventory.nodes.iter().zip(papers);
    let snapshots: Snapshots = pairs
        .map(|(node, paper)| (node.name.clone(), look_at(paper, inventory, node)))
        .collect();
    plan::plan(inventory, inventory.node(name).unwrap(), &snapshots, &k3s())
}

fn landed(plan: &NodePlan) -> String {
    let mut landed = String::new();
    for action in plan.changes.iter().flat_map(|change| &change.actions) {
        match action {
            Action::Write(write) if write.path.starts_with("/usr/local/libexec") => {}
            Action::Write(write) => {
                let text = String::from_utf8_lossy(&write.content);
                landed += &format!("=== {} {:04o}\n{text}\n", write.path, write.mode);
            }
            Action::MakeDirectory(_) => {}
            other => landed += &format!("=== {other:?}\n"),
        }
    }
    landed
}

#[test]
fn what_lands_on_a_server_and_on_an_agent() {
    let inventory = inventory(HOMELAB);
    let (mut jarvis, mut ultron) = (pi(), pi());
    let first = plan_of("jarvis", &[&jarvis, &ultron], &inventory);
    assert_eq!(first.refusals, []);
    insta::assert_snapshot!("k3s_server", landed(&first));
    let early = plan_of("ultron", &[&jarvis, &ultron], &inventory);
    insta::assert_snapshot!("k3s_agent", landed(&early));
    jarvis.take(&first);
    // What the server makes of its tokens.
    for (name, hash) in [("token", "s"), ("agent-token", "a")] {
        let path = format!("secret /var/lib/rancher/k3s/server/{name}");
        jarvis.frames.insert(path, format!("600 root {hash}"));
    }
    let second = plan_of("jarvis", &[&jarvis, &ultron], &inventory);
    assert!(second.is_empty(), "{:#?}", second.changes);

    let joins = plan_of("ultron", &[&jarvis, &ultron], &inventory);
    ultron.take(&joins);
    let cluster = ultron.frames["cluster-nodes"].clone();
    ultron.frames.remove("cluster-nodes");
    jarvis.frames.insert("cluster-nodes".into(), cluster);
    let again = plan_of("ultron", &[&jarvis, &ultron], &inventory);
    assert!(again.is_empty(), "{:#?}", again.changes);

    // Another cluster's token is noticed by its hash.
    let token = "secret /etc/rancher/k3s/token".to_owned();
    ultron.frames.insert(token.clone(), "600 root b".into());
    let wrong = plan_of("ultron", &[&jarvis, &ultron], &inventory);
    assert_eq!(wrong.changes.len(), 1, "{:#?}", wrong.changes);
    // And one that others can read.
    ultron.frames.insert(token, "644 root a".into());
    let open = plan_of("ultron", &[&jarvis, &ultron], &inventory);
    assert!(
        format!("{:?}", open.changes[0].actions).contains("CloseSecret"),
        "{open:#?}"
    );
}

#[test]
fn a_version_is_never_skipped_and_never_taken_back() {
    let with = |version: &str| {
        let mut node = pi();
        let said = format!("k3s version {version} (abc)\n");
        node.frames.insert("k3s-version".into(), said);
        let refusals = plan_of("jarvis", &[&node], &inventory(HOMELAB)).refusals;
        refusals
            .first()
            .map(ToString::to_string)
            .unwrap_or_default()
    };
    assert_eq!(with(VERSION), "");
    assert_eq!(with("v1.35.9+k3s1"), "");
    assert!(with("v1.34.9+k3s1").contains("cannot skip a minor version"));
    assert!(with("v1.36.3+k3s2").contains("cannot be read by an older one"));
    assert!(with("v1.37.0+k3s1").contains("cannot be read by an older one"));
}

#[test]
fn a_node_that_was_flashed_anew_replaces_its_old_self() {
    let inventory = inventory(HOMELAB);
    let (mut jarvis, ultron) = (pi(), pi());
    let nodes = r#"{"items":[{"metadata":{"name":"ultron"}}]}"#;
    jarvis.frames.insert("cluster-nodes".into(), nodes.into());
    let plan = plan_of("ultron", &[&jarvis, &ultron], &inventory);
    let forgets = |change: &&selfheal::resource::change::Change| {
        change
            .actions
            .iter()
            .any(|action| matches!(action, Action::ForgetNode(name) if name == "ultron"))
    };
    assert!(
        plan.changes.iter().any(|change| forgets(&change)),
        "{plan:#?}"
    );
}

#[test]
fn switching_it_off_takes_nothing_away() {
    let mut jarvis = pi();
    let on = inventory(HOMELAB);
    jarvis.take(&plan_of("jarvis", &[&jarvis], &on));
    let off = inventory(&HOMELAB.replace("[k3s]", "[k3s]\ninstall = false"));
    let plan = plan_of("jarvis", &[&jarvis], &off);
    assert_eq!(plan.changes, []);
    assert!(
        plan.refusals[0].hint.contains("node remove jarvis"),
        "{:?}",
        plan.refusals
    );
}

#[test]
fn the_server_that_is_one_already_is_joined_and_not_the_one_that_was_flashed_anew() {
    let three = inventory(
        "[nodes.a]\nhost = \"192.0.2.1\"\nrole = \"control-plane\"\n[nodes.b]\nhost = \"192.0.2.2\"\nrole = \"control-plane\"\n\
         [nodes.c]\nhost = \"192.0.2.3\"\nrole = \"control-plane\"\n",
    );
    let papers = [pi(), pi(), pi()];
    let papers: Vec<&PaperNode> = papers.iter().collect();
    let plan = plan_of("a", &papers, &three);
    assert!(landed(&plan).contains("cluster-init: true"));
    let plan = plan_of("b", &papers, &three);
    assert!(landed(&plan).contains("server: \"https://192.0.2.1:6443\""));
    let mut b = pi();
    b.frames.insert(
        "file /var/lib/rancher/k3s/server/db".into(),
        "directory".into(),
    );
    let papers = [papers[0], &b, papers[2]];
    let plan = plan_of("a", &papers, &three);
    assert!(landed(&plan).contains("server: \"https://192.0.2.2:6443\""));
    assert!(!landed(&plan).contains("cluster-init"));
}

#[test]
fn a_node_that_left_its_cluster_is_as_one_that_never_was_in_it() {
    let inventory = inventory(HOMELAB);
    let mut jarvis = pi();
    let fresh = plan_of("jarvis", &[&jarvis], &inventory);
    jarvis.take(&fresh);
    let node = inventory.node("jarvis").unwrap();
    let leave = |paper: &PaperNode| plan::leave_cluster(node, &look_at(paper, &inventory, node));
    let plan = leave(&jarvis);
    assert_eq!(plan.refusals, []);
    let steps = plan.steps();
    assert_eq!(steps.len(), 1, "{steps:#?}");
    let actions = steps[0].changes.iter().flat_map(|change| &change.actions);
    let actions: Vec<&Action> = actions.collect();
    assert!(actions.contains(&&Action::Stop("k3s.service".into())));
    assert!(actions.contains(&&Action::LeaveCluster));
    jarvis.take(&plan);
    assert!(leave(&jarvis).is_empty());
    let anew = plan_of("jarvis", &[&jarvis], &inventory);
    assert_eq!(landed(&anew), landed(&fresh));
}
