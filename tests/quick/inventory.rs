//! The inventory as users meet it: the examples, the schema, and all that can be wrong with one.

use camino::Utf8Path;
use insta::assert_snapshot;
use proptest::prelude::*;
use selfheal::inventory::write::{FoundHost, Proposal};
use selfheal::inventory::{self, Inventory, Model, Os, Report, Role, Secret};

const HOMELAB: &str = include_str!("../../inventory/homelab.toml");

fn parse(text: &str) -> (Option<Inventory>, Report) {
    inventory::parse("homelab.toml", text.as_bytes())
}

/// The inventories that are shipped.
fn shipped() -> Vec<(String, String)> {
    let root = Utf8Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut shipped = Vec::new();
    for folder in ["inventory", "examples"] {
        for entry in root.join(folder).read_dir_utf8().unwrap() {
            let path = entry.unwrap().into_path();
            if path.extension() == Some("toml") {
                shipped.push((
                    path.strip_prefix(root).unwrap().to_string(),
                    std::fs::read_to_string(&path).unwrap(),
                ));
            }
        }
    }
    shipped.sort();
    shipped
}

#[test]
fn every_shipped_inventory_is_valid_and_points_at_the_schema() {
    let shipped = shipped();
    assert!(shipped.len() >= 5, "{}", shipped.len());
    for (path, text) in shipped {
        let (inventory, report) = inventory::parse(path.as_str(), text.as_bytes());
        assert_eq!(report.diagnostics(), [], "{report}");
        assert!(inventory.is_some(), "{path}");
        let schema = text
            .lines()
            .next()
            .unwrap()
            .strip_prefix("#:schema ")
            .unwrap();
        let beside = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join(&path);
        assert!(
            beside.parent().unwrap().join(schema).exists(),
            "{path}: {schema}"
        );
    }
}

/// What stands commented out in the homelab inventory is the default, so it must parse, and change nothing.
#[test]
fn the_commented_defaults_are_the_defaults() {
    let mut text = String::new();
    let mut shown = 0;
    for line in HOMELAB.lines() {
        let comment = line.strip_prefix("# ").filter(|rest| {
            let key = rest.split(" = ").next().unwrap();
            rest.contains(" = ")
                && key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
                && !rest.contains('…')
        });
        shown += usize::from(comment.is_some());
        text += comment.unwrap_or(line);
        text += "\n";
    }
    assert!(shown > 25, "{shown}");
    let (inventory, report) = parse(&text);
    let inventory = inventory.unwrap_or_else(|| panic!("{report}"));
    let plain = parse(HOMELAB).0.unwrap();
    let (shown, plain) = (
        inventory.node("jarvis").unwrap(),
        plain.node("jarvis").unwrap(),
    );
    assert_eq!(shown.hardening.journald, plain.hardening.journald);
    assert_eq!(shown.boot.panic_timeout, plain.boot.panic_timeout);
    assert_eq!(shown.watchdog.safe_mode, plain.watchdog.safe_mode);
    assert_eq!(shown.ssh.run_timeout, plain.ssh.run_timeout);
}

#[test]
fn the_schema_in_the_repository_is_the_one_of_this_code() {
    let path = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("inventory/homelab.schema.json");
    let current = serde_json::to_string_pretty(&inventory::schema()).unwrap() + "\n";
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    if committed != current && std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(&path, &current).unwrap();
        return;
    }
    assert!(
        committed == current,
        "run `UPDATE_SCHEMA=1 cargo test --test quick schema` and commit the schema"
    );
}

/// A default that the reader itself would refuse could not be written into an inventory.
#[test]
fn every_default_of_the_schema_can_be_written_into_an_inventory() {
    let schema = inventory::schema();
    let mut text = String::from("[nodes.jarvis]\nhost = \"10.0.0.1\"\nrole = \"control-plane\"\n");
    let mut given = 0;
    for (section, path) in [
        ("Cluster", "cluster"),
        ("Ssh", "ssh"),
        ("Hardening", "hardening"),
        ("Sshd", "hardening.sshd"),
        ("Journald", "hardening.journald"),
        ("Firewall", "hardening.firewall"),
        ("Boot", "boot"),
    ] {
        text += &format!("[{path}]\n");
        for (key, schema) in schema["definitions"][section]["properties"]
            .as_object()
            .unwrap()
        {
            if let Some(default) = schema.get("default") {
                let default = if default.is_object() {
                    "{}".to_owned()
                } else {
                    default.to_string()
                };
                text += &format!("{key} = {default}\n");
                given += 1;
            }
        }
    }
    assert!(given > 40, "{given}");
    let (inventory, report) = parse(&text);
    assert_eq!(report.diagnostics(), [], "{report}");
    let plain = parse("[nodes.jarvis]\nhost = \"10.0.0.1\"\nrole = \"control-plane\"\n").0;
    assert_eq!(inventory, plain);
}

#[test]
fn everything_wrong_is_shown_at_once_where_it_is() {
    let (inventory, report) = parse(include_str!("broken.toml"));
    assert_eq!(inventory, None);
    assert_snapshot!(report);
}

#[test]
fn syntax_errors_are_shown_together_with_the_rest() {
    let (inventory, report) = parse(
        "[ssh\nuser = \"pi\"\n[hardening]\nswap = off\nholds = true\n[nodes.jarvis]\nhost = \"10.0.0.1\nrol = \"worker\"\n\
         [nodes.jarvis]\nrole = 'worker'\nport = 022\nsudo_password = 'a\nx = \"\\q\"\npackages = [\"a b\",\n\n  tags = 1\n[boot]\npsi = 1\n",
    );
    assert_eq!(inventory, None);
    assert_snapshot!(report);
}

#[test]
fn a_cluster_needs_a_control_plane_and_better_not_two() {
    let nodes = |roles: &[&str]| {
        let node = |(at, role): (usize, &&str)| {
            format!(
                "[nodes.n{at}]\nhost = \"10.0.0.{}\"\nrole = \"{role}\"\n",
                at + 1
            )
        };
        let text: String = roles.iter().enumerate().map(node).collect();
        let (inventory, report) = parse(&text);
        (
            inventory.is_some(),
            report
                .diagnostics()
                .first()
                .map(|found| found.message.clone()),
        )
    };
    assert_eq!(nodes(&["control-plane"]), (true, None));
    assert_eq!(
        nodes(&["worker", "worker"]),
        (false, Some("no node is a control plane".into()))
    );
    assert_eq!(
        nodes(&["control-plane"; 2]),
        (true, Some("2 control planes are an even number".into()))
    );
    assert_eq!(nodes(&["control-plane"; 3]), (true, None));
    assert_eq!(nodes(&[]), (false, Some("`nodes` is missing here".into())));
    assert_eq!(
        parse("[nodes]").1.diagnostics()[0].message,
        "there are no nodes"
    );
}

/// A jump host in `[ssh]` and a proxy command for one node: the node has to take one back.
#[test]
fn what_contradicts_itself_only_after_merging_is_found() {
    let text = |own: &str| {
        format!(
            "[ssh]\njump = [\"gate\"]\n[nodes.a]\nhost = \"10.0.0.1\"\nrole = \"control-plane\"\n[nodes.a.ssh]\n{own}"
        )
    };
    let (inventory, report) = parse(&text("proxy_command = \"nc %h %p\"\n"));
    assert_eq!(inventory, None);
    assert_eq!(
        report.diagnostics()[0].message,
        "a proxy command and a jump host exclude each other"
    );
    let (inventory, _) = parse(&text("proxy_command = \"nc %h %p\"\njump = []\n"));
    let inventory = inventory.unwrap();
    assert_eq!(
        inventory.nodes[0].ssh.proxy_command.command(),
        Some("nc %h %p")
    );
    let (inventory, _) = parse(&text("user = \"root\"\n"));
    assert!(inventory.is_some());
    let (inventory, report) =
        parse(&(text("user = \"root\"\n") + "[hardening]\nsshd.permit_root_login = \"no\"\n"));
    assert_eq!(inventory, None);
    assert!(
        report.diagnostics()[0]
            .message
            .contains("locks out the user `root`"),
        "{report}"
    );
}

#[test]
fn a_watchdog_that_other_settings_work_against_is_found() {
    let said = |settings: &str| {
        let node = "[nodes.a]\nhost = \"10.0.0.1\"\nrole = \"control-plane\"\n";
        let (_, report) = parse(&format!("{settings}{node}"));
        let messages = report.diagnostics().iter().map(|found| &found.message);
        messages.cloned().collect::<Vec<_>>().join("; ")
    };
    for (settings, message) in [
        (
            "[hardening]\npackages = [\"watchdog\"]\n",
            "the package `watchdog` wants",
        ),
        (
            "[hardening]\nsysctls = { \"kernel.panic\" = 5 }\n",
            "`kernel.panic` is a part of the watchdog layer",
        ),
        (
            "[hardening]\nsysctls = { \"kernel/panic_on_rcu_stall\" = 1 }\n",
            "`kernel.panic_on_rcu_stall` is a part of",
        ),
        (
            "[watchdog]\nhardware = false\ntimeout = \"20s\"\n",
            "`timeout` does nothing without `hardware`",
        ),
        ("[watchdog]\ntimeout = \"5s\"\n", "out of bounds"),
        ("[watchdog]\ntimeout = \"10m\"\n", "out of bounds"),
        ("[watchdog]\nunclean_boots = 0\n", "0"),
    ] {
        assert!(
            said(settings).contains(message),
            "{settings}: {}",
            said(settings)
        );
    }
    for settings in [
        "",
        "[watchdog]\nhardware = false\n[hardening]\npackages = [\"watchdog\"]\n",
        "[watchdog]\ntimeout = \"20s\"\n[nodes.a.watchdog]\nhardware = false\n",
    ] {
        assert_eq!(said(settings), "", "{settings}");
    }
}

#[test]
fn a_secret_in_clear_is_never_shown() {
    for text in [
        "[ssh]\nsudo_password = \"hunter2\"\n",
        "[ssh]\nsudo_password = { value = \"hunter2\" }\nsudo_pasword = \"hunter2\"\n",
        "[ssh]\nsudo_password = { env = \"hunter2!\" }\n",
        "[ssh]\nsudo_password = { command = \"hunter2\" }\n",
        "[ssh]\nsudo_password = [\"hunter2\"]\n",
        "[ssh]\nsudo_password = \"\"\"\nhunter2\"\"\"\nuser = 3\n",
        "[ssh]\nsudo_password = hunter2\n",
        "[ssh]\nsudo_password = \"hunter2\n",
        "[nodes.x]\npassword = 'hunter2'\n",
        "x = \"\\q\"\n[ssh]\n  login_password='hunter2' # hunter2\n",
    ] {
        let (inventory, report) = parse(text);
        assert_eq!(inventory, None, "{text}");
        let shown = format!("{report} {:?} {}", report, report.to_json());
        assert!(!shown.contains("hunter2"), "{text}\n{shown}");
    }
}

#[test]
fn what_a_program_reads_has_lines_and_columns() {
    let (_, report) = parse("[ssh]\n\"ü\" = 1\nidentity = [\"ü\", 1]\n[nodes]\n");
    assert_snapshot!(serde_json::to_string_pretty(&report.to_json()).unwrap());
}

#[test]
fn a_file_that_is_no_inventory_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let file = Utf8Path::from_path(folder.path())
        .unwrap()
        .join("homelab.toml");
    let refused = || inventory::load(&file).unwrap_err();
    assert!(
        refused()
            .to_string()
            .starts_with("cannot read the inventory "),
        "{}",
        refused()
    );
    assert!(std::error::Error::source(&refused()).is_some());
    std::fs::write(&file, b"[ssh]\nuser = \"\xfc\"\n").unwrap();
    let found = refused();
    let report = found.report().unwrap();
    assert_eq!(report.to_json()["diagnostics"][0]["at"]["line"], 2);
    assert_eq!(report.to_json()["diagnostics"][0]["at"]["column"], 9);
    std::fs::write(&file, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert!(matches!(refused(), inventory::Invalid::TooBig { .. }));
    std::fs::write(&file, HOMELAB).unwrap();
    assert_eq!(inventory::load(&file).unwrap().inventory.nodes.len(), 2);
}

#[test]
fn relative_paths_start_at_the_folder_of_the_inventory() {
    let text = "[ssh]\nidentity = [\"keys/a\", \"~/b\", \"/c\"]\nsudo_password = { file = \"sudo\" }\n\
                [nodes.a]\nhost = \"10.0.0.1\"\nrole = \"control-plane\"\n";
    let (inventory, _) = inventory::parse("lab/homelab.toml", text.as_bytes());
    let ssh = inventory.unwrap().nodes.remove(0).ssh;
    let paths: Vec<_> = ssh
        .identity
        .iter()
        .map(|path| path.expand(Utf8Path::new("/home/me")))
        .collect();
    assert_eq!(paths, ["lab/keys/a", "/home/me/b", "/c"]);
    let Some(inventory::Secret::File(file)) = ssh.sudo_password else {
        panic!()
    };
    assert_eq!(file.as_str(), "lab/sudo");
}

/// Whatever the bytes: an answer that can be shown, and an inventory exactly if there is no error.
fn survives(text: &[u8]) {
    let (inventory, report) = inventory::parse("homelab.toml", text);
    assert_eq!(inventory.is_some(), report.errors() == 0);
    assert!(report.to_string().ends_with(&report.summary()));
    assert!(report.render(true).len() >= report.render(false).len());
    assert!(report.to_json().is_object());
}

/// An inventory with some of its bytes replaced, removed or doubled.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let texts: Vec<String> = shipped()
        .into_iter()
        .map(|(_, text)| text)
        .chain([include_str!("broken.toml").to_owned()])
        .collect();
    let change = (
        any::<prop::sample::Index>(),
        0..40_usize,
        prop::collection::vec(any::<u8>(), 0..4),
    );
    (
        prop::sample::select(texts),
        prop::collection::vec(change, 1..6),
    )
        .prop_map(|(text, changes)| {
            let mut bytes = text.into_bytes();
            for (at, length, new) in changes {
                let start = at.index(bytes.len() + 1);
                let end = (start + length).min(bytes.len());
                bytes.splice(start..end, new);
            }
            bytes
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_get_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        survives(&bytes);
    }

    #[test]
    fn any_text_of_toml_pieces_gets_an_answer(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "[", "]", "[[", "nodes", ".", "jarvis", "ssh", "boot", "add", "=", "\"", "'", "\"\"\"", "\n", "\r", "\t", " ", "{",
            "}", ",", "1", "-", "true", "host", "role", "\"worker\"", "#", "ü", "\u{202e}", "\u{0}", "sudo_password", "\\", "👍",
        ]), 0..60)
    ) {
        survives(pieces.concat().as_bytes());
    }

    #[test]
    fn a_spoilt_inventory_gets_an_answer(bytes in mutated()) {
        survives(&bytes);
    }
}

fn found(name: &str, host: &str) -> FoundHost {
    FoundHost {
        name: name.parse().unwrap(),
        host: host.parse().unwrap(),
        port: inventory::Port::SSH,
        address: None,
        role: None,
        model: None,
        os: None,
        user: None,
        memory_mib: None,
        host_key: None,
    }
}

fn proposal(hosts: Vec<FoundHost>) -> Proposal {
    Proposal {
        cluster: "lab".parse().unwrap(),
        schema: None,
        user: "me".parse().unwrap(),
        identity: Vec::new(),
        jump: Vec::new(),
        sudo_password: None,
        login_password: None,
        hosts,
    }
}

#[test]
fn what_init_writes_says_what_was_found_and_is_valid() {
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
    let jarvis = FoundHost {
        model: Some(Model::Pi4),
        os: Some(Os::RaspiosTrixie),
        host_key: Some(key.parse().unwrap()),
        ..found("jarvis", "192.168.1.10")
    };
    let ultron = FoundHost {
        model: Some(Model::Pi5),
        port: "2222".parse().unwrap(),
        user: Some("admin".parse().unwrap()),
        address: Some("192.168.1.11".parse().unwrap()),
        ..found("ultron", "ultron.local")
    };
    let proposal = Proposal {
        schema: Some("./homelab.schema.json".into()),
        identity: vec!["~/.ssh/a \"b\"".parse().unwrap()],
        jump: vec!["me@[fd00::1]:22".parse().unwrap()],
        sudo_password: Some(Secret::Command(vec![
            "op".parse().unwrap(),
            "read \\ x".parse().unwrap(),
        ])),
        login_password: Some(Secret::Env("FIRST".parse().unwrap())),
        ..proposal(vec![jarvis, ultron])
    };
    let text = proposal.render();
    assert_snapshot!(text);
    let (inventory, report) = parse(&text);
    assert_eq!(report.diagnostics(), [], "{report}");
    let inventory = inventory.unwrap();
    assert_eq!(inventory.cluster.name, proposal.cluster);
    for (node, host) in inventory.nodes.iter().zip(&proposal.hosts) {
        assert_eq!(
            (&node.name, &node.host, node.port),
            (&host.name, &host.host, host.port)
        );
        assert_eq!(
            (node.model, node.os, node.address, &node.host_key),
            (host.model, host.os, host.address, &host.host_key)
        );
        assert_eq!(
            (&node.user, &node.ssh.identity, &node.ssh.jump),
            (
                host.user.as_ref().unwrap_or(&proposal.user),
                &proposal.identity,
                &proposal.jump
            )
        );
        assert_eq!(
            (&node.ssh.sudo_password, &node.ssh.login_password),
            (&proposal.sudo_password, &proposal.login_password)
        );
    }
}

#[test]
fn the_strongest_pi_becomes_the_control_plane_unless_one_is_named() {
    let pi = |model, memory_mib, role| FoundHost {
        model,
        memory_mib,
        role,
        ..found("a", "10.0.0.1")
    };
    let roles = |hosts: &[FoundHost]| -> Vec<&str> {
        proposal(hosts.to_vec())
            .roles()
            .into_iter()
            .map(Role::as_str)
            .collect()
    };
    let (pi4, pi5) = (Some(Model::Pi4), Some(Model::Pi5));
    assert_eq!(
        roles(&[pi(None, None, None), pi(None, None, None)]),
        ["control-plane", "worker"]
    );
    assert_eq!(
        roles(&[pi(pi4, Some(8192), None), pi(pi5, Some(4096), None)]),
        ["worker", "control-plane"]
    );
    assert_eq!(
        roles(&[pi(pi5, Some(4096), None), pi(pi5, Some(8192), None)]),
        ["worker", "control-plane"]
    );
    assert_eq!(
        roles(&[pi(pi5, None, None), pi(pi4, None, Some(Role::ControlPlane))]),
        ["worker", "control-plane"]
    );
    assert_eq!(
        roles(&[pi(pi5, None, Some(Role::Worker)), pi(pi4, None, None)]),
        ["worker", "control-plane"]
    );
}

/// The messages about a text, with their lines.
fn complaints(text: &str) -> Vec<String> {
    let diagnostics = parse(text).1.diagnostics().to_vec();
    let line = |at: usize| text[..at].matches('\n').count() + 1;
    let shown = diagnostics.iter().map(|found| {
        let help = found.help.clone().unwrap_or_default();
        format!("{}: {}; {help}", line(found.span.start), found.message)
    });
    shown.collect()
}

#[test]
fn what_only_follows_from_an_error_is_not_an_error_of_its_own() {
    const ULTRON: &str =
        "[nodes.ultron]\nhost = \"10.0.0.2\"\nrole = \"worker\"\nmodle = \"pi5\"\n";
    for (text, expected) in [
        // The header of a table is broken: its keys are not those of the table before.
        (
            format!("[nodes.jarvis\nhost = \"10.0.0.1\"\nuser = \"pi\"\n{ULTRON}"),
            vec!["1: unclosed table", "7: unknown key `modle`"],
        ),
        (
            format!("{ULTRON}{ULTRON}host = \"10.0.0.3\"\n"),
            vec!["4: unknown key `modle`", "5: duplicate key"],
        ),
        (
            "nodes = 3\n".to_owned(),
            vec!["1: expected a table, found a whole number"],
        ),
    ] {
        let found = complaints(&text);
        let found: Vec<&str> = found.iter().map(String::as_str).collect();
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}, not {expected}");
        }
    }
}

#[test]
fn a_number_where_a_text_belongs_is_told_what_would_be_right() {
    let found = complaints("[ssh]\nconnect_timeout = 15\nuser = 7\n[nodes]\n");
    assert!(found[0].contains("write the unit: `\"15s\"`"), "{found:?}");
    let version = complaints("[versions]\nk3s = 1.36\n[nodes]\n");
    assert!(!version[0].contains("write it in quotes"), "{version:?}");
}
