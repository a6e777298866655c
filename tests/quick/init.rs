//! `selfheal init`.

use selfheal::inventory::{self, Inventory};
use selfheal::ssh::HostKey;
use selfheal_lab::fake_node::{Config, FakeNode, KeyKind, Sudo};

use crate::binary::{Ended, Home};

const DEFAULT: &str = "inventory/homelab.toml";

fn fingerprint(node: &FakeNode) -> String {
    node.host_key().parse::<HostKey>().unwrap().fingerprint()
}

fn address(node: &FakeNode) -> String {
    format!("127.0.0.1:{}", node.port())
}

fn written(home: &Home, file: &str) -> Inventory {
    let (inventory, report) = inventory::parse(file, home.read(file).as_bytes());
    assert_eq!(report.errors(), 0, "{report}");
    inventory.unwrap()
}

/// Runs init for a host with its key and with its host key's fingerprint.
async fn init(home: &Home, node: &FakeNode, arguments: &[&str]) -> Ended {
    let identity = node.identity().unwrap();
    let fingerprint = fingerprint(node);
    let mut all = vec!["init", "--identity", identity.as_str()];
    all.extend(["--fingerprint", &fingerprint]);
    all.extend(arguments);
    home.selfheal(&all).await
}

#[tokio::test]
async fn hosts_become_an_inventory_that_later_commands_use() {
    let home = Home::new();
    let (jarvis, ultron) = (
        FakeNode::running_sh().await.unwrap(),
        FakeNode::running_sh().await.unwrap(),
    );
    let identities = [&jarvis, &ultron].map(|node| node.identity().unwrap());
    let fingerprints = [fingerprint(&jarvis), fingerprint(&ultron)];
    let hosts = [
        format!("jarvis={}", address(&jarvis)),
        format!("ultron=admin@{}", address(&ultron)),
    ];
    let mut arguments = vec!["init", "--cluster", "lab"];
    for identity in &identities {
        arguments.extend(["--identity", identity.as_str()]);
    }
    for fingerprint in &fingerprints {
        arguments.extend(["--fingerprint", fingerprint]);
    }
    arguments.extend(hosts.iter().map(String::as_str));
    let ended = home.selfheal(&arguments).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let inventory = written(&home, DEFAULT);
    assert_eq!(inventory.cluster.name.as_str(), "lab");
    let names: Vec<&str> = inventory
        .nodes
        .iter()
        .map(|node| node.name.as_str())
        .collect();
    assert_eq!(names, ["jarvis", "ultron"]);
    let users: Vec<&str> = inventory
        .nodes
        .iter()
        .map(|node| node.user.as_str())
        .collect();
    assert_eq!(users, ["pi", "admin"]);
    let roles: Vec<&str> = inventory
        .nodes
        .iter()
        .map(|node| node.role.as_str())
        .collect();
    assert_eq!(
        roles
            .iter()
            .filter(|role| **role == "control-plane")
            .count(),
        1
    );
    for (node, fake) in inventory.nodes.iter().zip([&jarvis, &ultron]) {
        assert_eq!(node.port.get(), fake.port());
        assert_eq!(node.host_key.as_ref().unwrap().to_string(), fake.host_key());
        assert!(node.model.is_some());
        assert!(ended.stdout.contains(&fingerprint(fake)), "{ended:?}");
    }
    let text = home.read(DEFAULT);
    assert!(text.contains("# Secrets are never written here"), "{text}");
    for next in ["selfheal check\n", "selfheal bootstrap\n"] {
        assert!(ended.stdout.contains(next), "{ended:?}");
    }

    let check = home.selfheal(&["check"]).await;
    assert_eq!(check.code, Some(0), "{check:?}");
    let trust = home.selfheal(&["trust", "ultron"]).await;
    assert_eq!(trust.code, Some(0), "{trust:?}");
    assert!(trust.stdout.contains("the same"), "{trust:?}");
}

#[tokio::test]
async fn nothing_is_written_on_a_host() {
    let home = Home::new();
    let node = FakeNode::running_sh().await.unwrap();
    let ended = init(&home, &node, &["--name", "jarvis", &address(&node)]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(node.connections(), 1);
    assert_eq!(node.execs().len(), 1, "one probe, which only reads");
}

#[tokio::test]
async fn a_file_that_is_there_is_not_overwritten_and_no_host_is_contacted() {
    let home = Home::new();
    let node = FakeNode::running_sh().await.unwrap();
    let file = home.write("mine.toml", "# mine\n");
    let host = address(&node);
    let before = home.selfheal(&["-i", file.as_str(), "init", &host]).await;
    let after = home.selfheal(&["init", "-i", file.as_str(), &host]).await;
    for ended in [before, after] {
        assert_eq!(ended.code, Some(3), "{ended:?}");
        assert!(ended.stderr.contains("is there already"), "{ended:?}");
    }
    assert_eq!(home.read("mine.toml"), "# mine\n");
    assert_eq!(node.connections(), 0);
}

#[tokio::test]
async fn a_host_key_is_never_confirmed_by_another_fingerprint_or_by_nobody() {
    let home = Home::new();
    let node = FakeNode::running_sh().await.unwrap();
    let identity = node.identity().unwrap();
    let host = format!("jarvis={}", address(&node));
    let another = format!("SHA256:{}", "A".repeat(43));
    let base = ["init", "--identity", identity.as_str(), &host];
    for more in [&[][..], &["--fingerprint", &another]] {
        let arguments: Vec<&str> = base.iter().chain(more).copied().collect();
        let ended = home.selfheal(&arguments).await;
        assert_eq!(ended.code, Some(5), "{ended:?}");
        for part in [
            &fingerprint(&node),
            "--fingerprint SHA256:",
            "Nothing was written",
        ] {
            assert!(ended.stderr.contains(part), "{part}: {ended:?}");
        }
    }
    assert!(node.logins().is_empty());
    assert!(!home.has("inventory") && !home.has(".ssh"));
}

#[tokio::test]
async fn at_the_terminal_hosts_are_asked_for_and_keys_confirmed() {
    let home = Home::new();
    let node = FakeNode::running_sh().await.unwrap();
    let identity = node.identity().unwrap();
    let host = format!("jarvis={}\n", address(&node));
    let ended = home
        .selfheal_at_terminal(
            &["init", "--identity", identity.as_str(), "-i", "mine.toml"],
            &[
                ("host 1: ", "Jarvis=nowhere\n"),
                ("`jarvis` would be one", &host),
                ("host 2: ", "\n"),
                ("trust it from now on: ", "yes\n"),
            ],
        )
        .await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stdout.contains("selfheal check -i mine.toml"),
        "{ended:?}"
    );
    let inventory = written(&home, "mine.toml");
    let key = inventory.node("jarvis").unwrap().host_key.as_ref().unwrap();
    assert_eq!(key.to_string(), node.host_key());
}

#[tokio::test]
async fn a_changed_key_is_refused_with_the_remedy() {
    let home = Home::new();
    let node = FakeNode::running_sh().await.unwrap();
    let known = home.know(&node);
    let unchanged = init(&home, &node, &["-i", "a.toml", &address(&node)]).await;
    assert_eq!(unchanged.code, Some(0), "{unchanged:?}");
    node.change_host_keys(&[KeyKind::Ed25519]).unwrap();
    let ended = init(&home, &node, &["-i", "b.toml", &address(&node)]).await;
    assert_eq!(ended.code, Some(5), "{ended:?}");
    assert!(
        ended.stderr.contains("ssh-keygen -R '[127.0.0.1]:"),
        "{ended:?}"
    );
    assert!(!home.has("b.toml"));
    assert!(home.read(".ssh/known_hosts").ends_with(&known));
}

#[tokio::test]
async fn a_host_that_is_down_is_named_and_nothing_is_written() {
    let home = Home::new();
    let (up, mut down) = (
        FakeNode::running_sh().await.unwrap(),
        FakeNode::running_sh().await.unwrap(),
    );
    down.stop_listening().await;
    let hosts = [&up, &down].map(address);
    let ended = init(&home, &up, &["--json", &hosts[0], &hosts[1]]).await;
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(
        ended.stderr.contains(&format!("port {}", down.port())),
        "{ended:?}"
    );
    let json: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(json["written"], serde_json::Value::Null);
    assert_eq!(json["failed"].as_array().unwrap().len(), 1);
    assert!(!home.has("inventory"));
}

#[tokio::test]
async fn a_refused_login_says_how_to_name_user_and_key() {
    let home = Home::new();
    let config = Config {
        no_public_keys: true,
        ..Config::default()
    };
    let node = FakeNode::start(config).await.unwrap();
    let ended = init(&home, &node, &[&address(&node)]).await;
    assert_eq!(ended.code, Some(5), "{ended:?}");
    assert!(ended.stderr.contains("--user and --identity"), "{ended:?}");
    assert!(!home.has("inventory"));
}

#[tokio::test]
async fn a_login_by_password_is_asked_for_at_the_terminal() {
    let home = Home::new();
    let config = Config {
        no_public_keys: true,
        password: Some("raspberry".to_owned()),
        ..Config::default()
    };
    let node = FakeNode::start(config).await.unwrap();
    let host = format!("jarvis={}", address(&node));
    let ended = home
        .selfheal_at_terminal(
            &["init", &host],
            &[
                ("trust it from now on: ", "yes\n"),
                ("Password of pi on jarvis: ", "raspberry\n"),
            ],
        )
        .await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("login_password"), "{ended:?}");
    // The progress is wiped off before a question, which it would wipe off else.
    let before = ended.stdout.split("The host key of").next().unwrap();
    let wiped = before
        .rsplit_once("connecting")
        .map_or("\u{1b}[2K", |(_, rest)| rest);
    assert!(wiped.contains("\u{1b}[2K"), "{before:?}");
    assert!(!home.read(DEFAULT).contains("raspberry"));
}

#[tokio::test]
async fn a_sudo_that_wants_a_password_is_said_and_does_not_stop_it() {
    let home = Home::new();
    let sudo = Sudo::Password {
        password: "raspberry".to_owned(),
        lecture: String::new(),
    };
    let config = Config {
        sudo,
        ..Config::default()
    };
    let node = FakeNode::start(config).await.unwrap();
    let host = format!("jarvis={}", address(&node));
    let ended = init(&home, &node, &[&host]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stdout.contains("sudo asks for a password"),
        "{ended:?}"
    );
    let json = init(&home, &node, &["--json", "-i", "b.toml", &host]).await;
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["written"], "b.toml");
    let host = &json["hosts"][0];
    assert_eq!(
        (&host["name"], &host["sudo"]),
        (&"jarvis".into(), &false.into())
    );
    assert_eq!(host["host_key"]["key"], node.host_key());
    assert!(host["memory_mib"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn hosts_that_cannot_be_are_refused_before_any_is_contacted() {
    let home = Home::new();
    let node = FakeNode::running_sh().await.unwrap();
    let host = address(&node);
    let named = format!("jarvis={host}");
    for (arguments, why) in [
        (&["init"][..], "which hosts?"),
        (&["init", &host, &host], "already the node"),
        (
            &["init", &named, "jarvis=10.0.0.1"],
            "two hosts are to be named jarvis",
        ),
        (&["init", &host, "10.0.0.1", "--name", "jarvis"], "--name"),
        (&["init", "Jarvis=10.0.0.1"], "`jarvis` would be one"),
        (&["init", "10.0.0.1/24"], "network"),
        (&["init", "10.0.0.1", "--user", "A"], "no login name"),
        (
            &["init", "10.0.0.1", "--fingerprint", "yes"],
            "not a fingerprint",
        ),
    ] {
        let ended = home.selfheal(arguments).await;
        assert_eq!(ended.code, Some(3), "{ended:?}");
        assert!(ended.stderr.contains(why), "{why}: {ended:?}");
    }
    assert_eq!(node.connections(), 0);
    assert!(!home.has("inventory"));
}
