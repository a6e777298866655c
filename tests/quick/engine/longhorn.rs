//! What Longhorn wants of a node, on paper (domain.md §6).

use std::collections::BTreeMap;

use super::paper::PaperNode;
use super::*;
use selfheal::inventory::Node;

const NAME: &str = "/etc/iscsi/initiatorname.iscsi";
const UUID: &str = "2f1c4a50-0a3b-4c5d-8e9f-0123456789ab";
const MOUNTS: &str = "24 1 179:2 / / rw,noatime shared:1 - ext4 /dev/mmcblk0p2 rw\n";

/// The first is the control plane. `settings` may end in a section, `own` belongs to the last node.
fn cluster(names: &[&str], settings: &str, own: &str) -> Inventory {
    let mut text = format!("[cluster]\nname = \"lab\"\n[k3s]\ninstall = true\n{settings}\n");
    for (at, name) in names.iter().enumerate() {
        let role = if at == 0 { "control-plane" } else { "worker" };
        text += &format!(
            "[nodes.{name}]\nhost = \"192.0.2.{}\"\nrole = \"{role}\"\n",
            at + 1
        );
    }
    inventory(&(text + own))
}

fn one(settings: &str) -> Inventory {
    cluster(&["jarvis"], settings, "")
}

fn data(settings: &str) -> Inventory {
    one(&format!("[longhorn.data]\nuuid = \"{UUID}\"\n{settings}"))
}

fn look_at(node: &PaperNode, inventory: &Inventory, of: &Node) -> Snapshot {
    let script = layer::questions(inventory, of, &[LayerName::Longhorn].into()).script(NONCE);
    Snapshot::parse(&node.answer(&script), NONCE).unwrap()
}

/// The plans of this layer for all nodes, by name.
fn plans(nodes: &[&PaperNode], inventory: &Inventory) -> BTreeMap<String, NodePlan> {
    let pairs = inventory.nodes.iter().zip(nodes);
    let snapshots: Snapshots = pairs
        .map(|(node, paper)| (node.name.clone(), look_at(paper, inventory, node)))
        .collect();
    let plan = |node: &Node| {
        let plan = plan::plan(inventory, node, &snapshots, &[LayerName::Longhorn].into());
        (node.name.to_string(), plan)
    };
    inventory.nodes.iter().take(nodes.len()).map(plan).collect()
}

fn plan_for(node: &PaperNode, inventory: &Inventory) -> NodePlan {
    plans(&[node], inventory).remove("jarvis").unwrap()
}

fn settled(node: &mut PaperNode, inventory: &Inventory) -> NodePlan {
    let first = plan_for(node, inventory);
    assert_eq!(first.refusals, []);
    node.take(&first);
    let second = plan_for(node, inventory);
    assert!(
        second.is_empty(),
        "a second run changes {:#?}",
        second.changes
    );
    first
}

fn refused(node: &PaperNode, inventory: &Inventory) -> String {
    let plan = plan_for(node, inventory);
    let [refusal] = &plan.refusals[..] else {
        panic!("{:?}", plan.refusals)
    };
    format!("{refusal} ({})", refusal.hint)
}

fn with_disk() -> PaperNode {
    let mut node = PaperNode::ubuntu();
    node.fact("mounts", MOUNTS);
    let disks = format!(
        "DEVNAME=/dev/mmcblk0p2\nUUID=aaaa\nTYPE=ext4\n\nDEVNAME=/dev/sda1\nUUID={}\nBLOCK_SIZE=4096\nTYPE=ext4\nPARTUUID=x\n",
        UUID.to_uppercase()
    );
    node.frames.insert("disks".to_owned(), disks);
    node
}

#[test]
fn what_longhorn_finds_on_a_node() {
    let mut landed = String::new();
    for change in settled(&mut with_disk(), &data("path = \"/mnt/longhorn-data\"\n")).changes {
        for action in &change.actions {
            match action {
                Action::Write(write) => {
                    let text = String::from_utf8_lossy(&write.content);
                    landed += &format!("=== {} {:04o}\n{text}\n", write.path, write.mode);
                }
                other => landed += &format!("=== {other:?}\n"),
            }
        }
        for effect in &change.effects {
            landed += &format!("    {effect}\n");
        }
    }
    insta::assert_snapshot!(landed);
}

#[test]
fn nothing_is_done_where_k3s_is_not_installed_or_the_node_is_left_alone() {
    let node = with_disk();
    let off = one("[longhorn]\nprepare = false\ndefault_disk = true\n");
    let text = format!(
        "[k3s]\ninstall = false\n[longhorn.data]\nuuid = \"{UUID}\"\n[nodes.jarvis]\nhost = \"192.0.2.1\"\nrole = \"control-plane\"\n"
    );
    for inventory in [off, inventory(&text)] {
        assert!(plan_for(&node, &inventory).is_empty());
        assert!(layer::longhorn::labels(&inventory.nodes[0]).is_empty());
        let asked = layer::questions(
            &inventory,
            &inventory.nodes[0],
            &[LayerName::Longhorn].into(),
        );
        assert!(asked.files.is_empty() && asked.units.is_empty() && asked.packages.is_empty());
        assert!(!asked.disks);
    }
    let labels = layer::longhorn::labels(&one("[longhorn]\ndefault_disk = true\n").nodes[0]);
    let labels: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    assert_eq!(labels, ["node.longhorn.io/create-default-disk=true"]);
    assert!(layer::longhorn::labels(&one("").nodes[0]).is_empty());
}

#[test]
fn a_network_file_system_stops_the_control_plane_and_is_said_of_a_worker() {
    let mounted = "40 24 0:50 / /srv rw shared:9 - nfs4 nas:/srv rw\n";
    let mut by_mount = PaperNode::raspberry_pi_os();
    by_mount.fact("mounts", &format!("{MOUNTS}{mounted}"));
    let mut by_line = PaperNode::raspberry_pi_os();
    by_line.rewrite(
        "/etc/fstab",
        "# nas:/old /old nfs ro 0 0\n //nas/b /b cifs credentials=/x 0 0\n",
    );
    for (node, said) in [
        (&by_mount, "nfs4 from nas:/srv is mounted at /srv"),
        (
            &by_line,
            "/etc/fstab has `//nas/b /b cifs credentials=/x 0 0`",
        ),
    ] {
        let refusal = refused(node, &one(""));
        assert!(
            refusal.starts_with(said) && refusal.contains("hangs for ever"),
            "{refusal}"
        );
        let plan = &plans(
            &[&PaperNode::raspberry_pi_os(), node],
            &cluster(&["jarvis", "ultron"], "", ""),
        )["ultron"];
        assert_eq!(plan.refusals, []);
        assert!(
            plan.notes.iter().any(|note| note.starts_with(said)),
            "{:?}",
            plan.notes
        );
    }
    // A comment is no line.
    by_line.rewrite("/etc/fstab", "# nas:/old /old nfs ro 0 0\n");
    settled(&mut by_line, &one(""));
}

#[test]
fn cloned_cards_get_initiator_names_of_their_own() {
    let mut clone = PaperNode::ubuntu();
    settled(&mut clone, &one(""));
    clone.rewrite(
        NAME,
        "## comment\nInitiatorName=iqn.2004-10.com.ubuntu:01:abc\n",
    );
    let inventory = cluster(&["jarvis", "ultron", "vision"], "", "");
    let mut nodes = [clone.clone(), clone.clone(), clone.clone()];
    let named = |node: &PaperNode| node.text(NAME).lines().last().unwrap().to_owned();
    let before = nodes[0].text(NAME);
    let first = plans(&nodes.iter().collect::<Vec<_>>(), &inventory);
    let restart = selfheal::resource::change::Effect::Restart("iscsid.service".into());
    for (node, plan) in nodes.iter_mut().zip(first.values()) {
        let changes: Vec<String> = plan
            .changes
            .iter()
            .map(|change| change.id.to_string())
            .collect();
        if plan.node.as_str() == "jarvis" {
            assert_eq!(changes, [""; 0]);
        } else {
            assert_eq!(changes, [format!("file {NAME}")]);
            assert!(plan.changes[0].effects.contains(&restart));
            // The user's own is kept for the way back.
            assert!(
                plan.changes[0]
                    .actions
                    .contains(&Action::KeepOriginal(NAME.into()))
            );
        }
        node.take(plan);
    }
    assert_eq!(nodes[0].text(NAME), before, "the first keeps its name");
    let names: BTreeSet<String> = nodes.iter().map(named).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(
        names
            .iter()
            .all(|name| name.starts_with("InitiatorName=iqn."))
    );
    let again = plans(&nodes.iter().collect::<Vec<_>>(), &inventory);
    assert!(again.values().all(NodePlan::is_empty));
    // Alone, a node that was given a name keeps it.
    let alone = plans(&[&nodes[0]], &inventory);
    assert!(alone["jarvis"].is_empty());
}

#[test]
fn a_node_without_an_initiator_name_gets_one() {
    let mut node = PaperNode::raspberry_pi_os();
    // The package brings one when it comes.
    let first = plan_for(&node, &one(""));
    assert!(first.changes.iter().all(|change| change.id.name != NAME));
    node.take(&first);
    for text in [
        "",
        "GenerateName=yes\n",
        "InitiatorName=\n",
        "#InitiatorName=iqn.x:y\n",
    ] {
        node.rewrite(NAME, text);
        let mut empty = node.clone();
        settled(&mut empty, &one(""));
        assert!(
            empty.text(NAME).contains("\nInitiatorName=iqn."),
            "{text:?}"
        );
    }
}

#[test]
fn multipathd_is_off_with_its_socket_or_kept_off_longhorns_disks() {
    let units = |plan: &NodePlan| -> Vec<String> {
        let of = |change: &selfheal::resource::change::Change| change.id.name.clone();
        plan.changes
            .iter()
            .map(of)
            .filter(|name| name.contains("multipath"))
            .collect()
    };
    let plan = plan_for(&PaperNode::ubuntu(), &one(""));
    assert_eq!(units(&plan), ["multipathd.socket", "multipathd.service"]);
    let keep = |choice: &str| {
        one(&format!(
            "[hardening]\ndisable_services = []\n[longhorn]\nmultipath = \"{choice}\"\n"
        ))
    };
    assert_eq!(
        units(&plan_for(&PaperNode::ubuntu(), &keep("keep"))),
        [""; 0]
    );
    let plan = settled(&mut PaperNode::ubuntu(), &keep("blacklist"));
    assert_eq!(
        units(&plan),
        [
            "/etc/multipath/conf.d",
            "/etc/multipath/conf.d/90-selfheal-longhorn.conf"
        ]
    );
    // Where there is none, there is nothing to say.
    assert_eq!(
        units(&plan_for(&PaperNode::raspberry_pi_os(), &keep("blacklist"))),
        [""; 0]
    );
    assert_eq!(
        units(&plan_for(&PaperNode::raspberry_pi_os(), &one(""))),
        [""; 0]
    );
}

#[test]
fn a_data_disk_that_cannot_be_mounted_is_refused_with_what_is_there() {
    let good = with_disk();
    settled(&mut good.clone(), &data(""));
    let says = |node: &PaperNode, settings: &str, words: &[&str]| {
        let refusal = refused(node, &data(settings));
        for word in words {
            assert!(refusal.contains(word), "{word}: {refusal}");
        }
    };
    let mut node = good.clone();
    node.frames.insert(
        "disks".to_owned(),
        "DEVNAME=/dev/sdb1\nUUID=11\nTYPE=ntfs\n".to_owned(),
    );
    says(
        &node,
        "",
        &[UUID, "blkid shows /dev/sdb1 (ntfs, 11)", "sudo mkfs.ext4"],
    );
    node.frames.clear();
    says(&node, "", &["blkid shows no disk at all"]);
    says(&good, "fs = \"xfs\"\n", &["/dev/sda1 is ext4, not xfs"]);
    let mounts = |lines: &str| {
        let mut node = good.clone();
        node.fact("mounts", &format!("{MOUNTS}{lines}"));
        node
    };
    let at =
        |point: &str, device: &str| format!("41 24 8:1 / {point} rw shared:9 - ext4 {device} rw\n");
    says(
        &mounts(&at("/mnt/usb", "/dev/sda1")),
        "",
        &["/dev/sda1 is mounted at /mnt/usb"],
    );
    says(
        &mounts(&at("/var/lib/longhorn", "/dev/sdc1")),
        "",
        &["/dev/sdc1 is mounted there"],
    );
    settled(
        &mut mounts(&at("/var/lib/longhorn", "/dev/sda1")),
        &data(""),
    );
    let mut node = good.clone();
    node.rewrite(
        "/etc/fstab",
        "LABEL=x /var/lib/longhorn ext4 defaults 0 2\n",
    );
    says(
        &node,
        "",
        &["/etc/fstab mounts something there already: `LABEL=x"],
    );
    let mut node = good.clone();
    node.rewrite("/var/lib/longhorn/longhorn-disk.cfg", "{}");
    says(
        &node,
        "",
        &[
            "Longhorn has data there already",
            "/var/lib/longhorn/longhorn-disk.cfg",
        ],
    );
    // Below the mount it is where it should be.
    let mut node = mounts(&at("/var/lib/longhorn", "/dev/sda1"));
    node.rewrite("/var/lib/longhorn/longhorn-disk.cfg", "{}");
    settled(&mut node, &data(""));
}

#[test]
fn a_disk_that_leaves_the_inventory_is_unmounted_and_nothing_of_it_stays() {
    let mut node = with_disk();
    let before = node.clone();
    settled(&mut node, &data(""));
    let mount = "/etc/systemd/system/var-lib-longhorn.mount";
    assert_ne!(node.text(mount), "");
    let plan = settled(&mut node, &one(""));
    let actions: Vec<&Action> = plan
        .changes
        .iter()
        .flat_map(|change| &change.actions)
        .collect();
    for unit in [
        "var-lib-longhorn.mount",
        "selfheal-longhorn-mount-point.service",
    ] {
        assert!(
            actions.contains(&&Action::Stop(unit.to_owned())),
            "{unit}: {actions:?}"
        );
        assert!(actions.contains(&&Action::Disable(unit.to_owned())));
    }
    assert_eq!(
        (node.text(mount), before.text(mount)),
        (String::new(), String::new())
    );
}
