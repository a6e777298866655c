//! `selfheal trust`.

use std::os::unix::fs::PermissionsExt;

use selfheal::ssh::HostKey;
use selfheal_lab::fake_node::{FakeNode, KeyKind};

use crate::binary::Home;

const INVENTORY: &str = "homelab.toml";
const QUESTION: &str = "to trust it from now on: ";

fn fingerprint(node: &FakeNode) -> String {
    node.host_key().parse::<HostKey>().unwrap().fingerprint()
}

/// An inventory with one node, its host key pinned or not, and remarks that have to stay.
fn inventory(node: &FakeNode, pin: &str) -> String {
    format!(
        "# Mine.\n[ssh]\nidentity = [\"{}\"]\nsudo_password = {{ env = \"NOT_SET\" }}\n\n\
         [nodes.jarvis]   # the big one\nhost = \"127.0.0.1\"\nport = {}\n{pin}role  = 'control-plane'\n",
        node.identity().unwrap(),
        node.port()
    )
}

fn pin(node: &FakeNode) -> String {
    format!("host_key =  '{}' # since May\n", node.host_key())
}

/// A re-flashed node whose old key is pinned, and the old fingerprint.
async fn reflashed(home: &Home) -> (FakeNode, String, String) {
    let node = FakeNode::running_sh().await.unwrap();
    let text = inventory(&node, &pin(&node));
    home.write(INVENTORY, &text);
    let old = fingerprint(&node);
    node.change_host_keys(&[KeyKind::Ed25519]).unwrap();
    (node, text, old)
}

#[tokio::test]
async fn the_given_fingerprint_moves_the_pin_and_nothing_else() {
    let home = Home::new();
    let (node, text, old) = reflashed(&home).await;
    let file = home.path.join(INVENTORY);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    let old_pin = text
        .lines()
        .find(|line| line.starts_with("host_key"))
        .unwrap();
    let new = fingerprint(&node);
    let ended = home
        .selfheal(&["trust", "jarvis", "--fingerprint", &new])
        .await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for part in [&old, &new, "pinned in the inventory", "ssh-ed25519"] {
        assert!(ended.stdout.contains(part), "{part}: {ended:?}");
    }
    let new_pin = format!("host_key =  \"{}\" # since May", node.host_key());
    assert_eq!(home.read(INVENTORY), text.replace(old_pin, &new_pin));
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o640);
    assert!(node.logins().is_empty(), "nobody logs in");
    assert!(!home.has(".ssh"));

    let again = home.selfheal(&["trust", "jarvis"]).await;
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(again.stdout.contains("the same"), "{again:?}");
}

#[tokio::test]
async fn without_a_terminal_a_key_is_refused_and_there_is_no_yes_for_it() {
    let home = Home::new();
    let (node, text, _) = reflashed(&home).await;
    let ended = home.selfheal(&["trust", "jarvis"]).await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stderr.contains("--fingerprint"), "{ended:?}");
    assert!(ended.stdout.contains(&fingerprint(&node)), "{ended:?}");
    let ended = home.selfheal(&["trust", "jarvis", "--yes"]).await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert_eq!(home.read(INVENTORY), text);
}

#[tokio::test]
async fn a_wrong_fingerprint_is_refused() {
    let home = Home::new();
    let (node, text, old) = reflashed(&home).await;
    // At a terminal, too: nobody is asked after all.
    let arguments = ["trust", "jarvis", "--fingerprint", &old];
    for ended in [
        home.selfheal(&arguments).await,
        home.selfheal_at_terminal(&arguments, &[]).await,
    ] {
        assert_eq!(ended.code, Some(5), "{ended:?}");
        let said = ended.stdout + &ended.stderr;
        assert!(said.contains("not the one given"), "{said}");
    }
    let part = &fingerprint(&node)[..20];
    let ended = home
        .selfheal(&["trust", "jarvis", "--fingerprint", part])
        .await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert_eq!(home.read(INVENTORY), text);
}

#[tokio::test]
async fn at_the_terminal_yes_or_the_fingerprint_pins_and_anything_else_does_not() {
    let home = Home::new();
    let (node, text, _) = reflashed(&home).await;
    for no in ["no\n", "\n", "y\n", "SHA256:x\n"] {
        let ended = home
            .selfheal_at_terminal(&["trust", "jarvis"], &[(QUESTION, no)])
            .await;
        assert_eq!(ended.code, Some(130), "{no:?}: {ended:?}");
        assert_eq!(home.read(INVENTORY), text);
    }
    for yes in ["yes".to_owned(), fingerprint(&node)] {
        home.write(INVENTORY, &text);
        let input = format!("{yes}\n");
        let ended = home
            .selfheal_at_terminal(&["trust", "jarvis"], &[(QUESTION, &input)])
            .await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(home.read(INVENTORY).contains(&node.host_key()));
    }
}

#[tokio::test]
async fn ctrl_c_at_the_question_ends_it() {
    let home = Home::new();
    let (_node, text, _) = reflashed(&home).await;
    let ended = home
        .selfheal_at_terminal(&["trust", "jarvis"], &[(QUESTION, "\u{3}")])
        .await;
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert!(
        ended.stdout.contains("interrupted; nothing was changed"),
        "{ended:?}"
    );
    assert_eq!(home.read(INVENTORY), text);
}

#[tokio::test]
async fn a_key_on_record_in_known_hosts_is_replaced_there() {
    let home = Home::new();
    let node = FakeNode::running_sh().await.unwrap();
    let text = inventory(&node, "");
    home.write(INVENTORY, &text);
    let old = home.know(&node);
    let other = format!("ultron {}\n", node.host_key());
    home.write(".ssh/known_hosts", &format!("# mine\n{old}{other}"));
    node.change_host_keys(&[KeyKind::Ecdsa]).unwrap();
    let new = fingerprint(&node);
    let ended = home
        .selfheal(&["trust", "jarvis", "--json", "--fingerprint", &new])
        .await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let json: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let place = json["recorded"][0]["place"].as_str().unwrap();
    assert_eq!(place, home.path.join(".ssh/known_hosts:2"));
    assert_eq!(json["shown"]["fingerprint"], new);
    assert_eq!(json["shown"]["type"], "ecdsa-sha2-nistp256");
    assert_eq!(json["written"], home.path.join(".ssh/known_hosts").as_str());
    let now = format!(
        "# mine\n{other}[127.0.0.1]:{} {}\n",
        node.port(),
        node.host_key()
    );
    assert_eq!(home.read(".ssh/known_hosts"), now);
    assert_eq!(home.read(INVENTORY), text);
}

#[tokio::test]
async fn a_first_key_goes_into_known_hosts() {
    let home = Home::new();
    let node = FakeNode::running_sh().await.unwrap();
    home.write(INVENTORY, &inventory(&node, ""));
    let new = fingerprint(&node);
    let ended = home
        .selfheal(&["trust", "jarvis", "--fingerprint", &new])
        .await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let line = format!("[127.0.0.1]:{} {}\n", node.port(), node.host_key());
    assert_eq!(home.read(".ssh/known_hosts"), line);
}

#[tokio::test]
async fn a_pattern_that_still_lets_the_old_key_through_is_named() {
    let home = Home::new();
    let node = FakeNode::running_sh().await.unwrap();
    home.write(INVENTORY, &inventory(&node, ""));
    home.write(
        ".ssh/known_hosts",
        &format!("[127.0.0.*]:* {}\n", node.host_key()),
    );
    node.change_host_keys(&[KeyKind::Ed25519]).unwrap();
    let new = fingerprint(&node);
    let ended = home
        .selfheal(&["trust", "jarvis", "--fingerprint", &new])
        .await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stdout.contains("still accepted") && ended.stdout.contains("known_hosts:1"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn a_revoked_key_is_not_trusted() {
    let home = Home::new();
    let (node, text, _) = reflashed(&home).await;
    home.write(
        ".ssh/known_hosts",
        &format!("@revoked * {}\n", node.host_key()),
    );
    let new = fingerprint(&node);
    let ended = home
        .selfheal(&["trust", "jarvis", "--fingerprint", &new])
        .await;
    assert_eq!(ended.code, Some(5), "{ended:?}");
    assert!(ended.stderr.contains("revoked"), "{ended:?}");
    assert_eq!(home.read(INVENTORY), text);
}

#[tokio::test]
async fn a_node_that_is_down_or_not_in_the_inventory_is_named() {
    let home = Home::new();
    let (mut node, text, _) = reflashed(&home).await;
    node.stop_listening().await;
    let down = home.selfheal(&["trust", "jarvis"]).await;
    assert_eq!(down.code, Some(4), "{down:?}");
    assert!(
        down.stderr.contains("jarvis") && down.stderr.contains("hint:"),
        "{down:?}"
    );
    let nobody = home.selfheal(&["trust", "vision"]).await;
    assert_eq!(nobody.code, Some(3), "{nobody:?}");
    assert_eq!(home.read(INVENTORY), text);
}
