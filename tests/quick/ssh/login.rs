//! Getting in.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use selfheal::ssh::{Agent, ConnectError, ErrorClass, Method};
use selfheal_lab::fake_node::{Config, FakeNode};

use super::{Scripted, connect, connect_asking, eventually, folder, target};

/// Makes a key with OpenSSH's own tool; the public half is returned.
fn keygen(path: &Utf8Path, options: &[&str]) -> String {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-f", path.as_str()])
        .args(options)
        .status()
        .unwrap();
    assert!(made.success());
    std::fs::read_to_string(format!("{path}.pub")).unwrap()
}

async fn node_for(keys: Vec<String>) -> FakeNode {
    FakeNode::start(Config {
        authorized_keys: keys,
        ..Config::default()
    })
    .await
    .unwrap()
}

/// A real ssh-agent, ended with the test.
struct RunningAgent {
    child: Child,
    socket: Utf8PathBuf,
}

impl RunningAgent {
    async fn start(folder: &Utf8Path) -> Self {
        let socket = folder.join("agent");
        let child = Command::new("ssh-agent")
            .args(["-D", "-a", socket.as_str()])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        eventually("the agent listens", || socket.exists()).await;
        Self { child, socket }
    }

    fn add(&self, key: &Utf8Path) {
        let added = Command::new("ssh-add")
            .args(["-q", key.as_str()])
            .env("SSH_AUTH_SOCK", &self.socket)
            .status();
        assert!(added.unwrap().success());
    }
}

impl Drop for RunningAgent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn key_files_of_every_kind() {
    let (_folder, path) = folder();
    for (name, options) in [
        ("ed25519", &["-t", "ed25519", "-N", ""][..]),
        ("ecdsa256", &["-t", "ecdsa", "-b", "256", "-N", ""]),
        ("ecdsa521", &["-t", "ecdsa", "-b", "521", "-N", ""]),
        ("rsa", &["-t", "rsa", "-b", "2048", "-N", ""]),
        (
            "rsa-pem",
            &["-t", "rsa", "-b", "2048", "-m", "PEM", "-N", ""],
        ),
        ("ecdsa-pkcs8", &["-t", "ecdsa", "-m", "PKCS8", "-N", ""]),
    ] {
        let key = path.join(name);
        let node = node_for(vec![keygen(&key, options)]).await;
        let mut target = target(&node);
        target.destination.identities = vec![key];
        let session = connect(&target).await.unwrap();
        assert_eq!(session.authenticated_with(), Method::PublicKey, "{name}");
        assert_eq!(node.logins().len(), 2, "{name}: {:?}", node.logins());
    }
}

#[tokio::test]
async fn encrypted_key_files_ask_for_their_passphrase() {
    let (_folder, path) = folder();
    for (name, options) in [
        (
            "openssh",
            &["-t", "ed25519", "-a", "1", "-N", "open sesame"][..],
        ),
        (
            "pkcs8",
            &["-t", "ecdsa", "-m", "PKCS8", "-N", "open sesame"],
        ),
        (
            "pem",
            &["-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "open sesame"],
        ),
    ] {
        let key = path.join(name);
        let node = node_for(vec![keygen(&key, options)]).await;
        let mut target = target(&node);
        target.destination.identities = vec![key.clone()];
        for public_at_hand in [true, false] {
            if !public_at_hand {
                std::fs::remove_file(format!("{key}.pub")).unwrap();
            }
            let user = Scripted::with_secrets(&["wrong", "open sesame"]);
            let session = connect_asking(&target, &user).await.unwrap();
            assert_eq!(session.authenticated_with(), Method::PublicKey, "{name}");
            assert_eq!(user.questions(), [key.as_str(), key.as_str()], "{name}");
        }
        let error = connect(&target).await.unwrap_err();
        assert!(
            error.to_string().contains("no passphrase"),
            "{name}: {error}"
        );
    }
}

#[tokio::test]
async fn no_passphrase_is_asked_for_a_key_that_the_server_does_not_want() {
    let (_folder, path) = folder();
    let stranger = path.join("stranger");
    keygen(
        &stranger,
        &["-t", "ed25519", "-a", "1", "-N", "open sesame"],
    );
    let node = FakeNode::running_sh().await.unwrap();
    let mut target = target(&node);
    target.destination.identities.insert(0, stranger);
    let user = Scripted::with_secrets(&[]);
    connect_asking(&target, &user).await.unwrap();
    assert!(user.questions().is_empty(), "{:?}", user.questions());
}

#[tokio::test]
async fn keys_of_a_real_agent() {
    let (_folder, path) = folder();
    let agent = RunningAgent::start(&path).await;
    let mut public = Vec::new();
    for (name, options) in [
        ("stranger", &["-t", "ed25519", "-N", ""][..]),
        ("rsa", &["-t", "rsa", "-b", "2048", "-N", ""]),
        ("ecdsa", &["-t", "ecdsa", "-N", ""]),
    ] {
        let key = path.join(name);
        public.push(keygen(&key, options));
        agent.add(&key);
    }
    for (nth, name) in [(1, "rsa"), (2, "ecdsa")] {
        let node = node_for(vec![public[nth].clone()]).await;
        let mut target = target(&node);
        target.destination.agent = Agent::Socket(agent.socket.clone());
        target.destination.identities = Vec::new();
        target.destination.identities_only = false;
        let session = connect(&target).await.unwrap();
        assert_eq!(session.authenticated_with(), Method::Agent);
        // Named as identity, it comes first: nothing else is offered, though the file is but the public half.
        let before = node.logins().len();
        let key = path.join(name);
        std::fs::remove_file(&key).unwrap();
        target.destination.identities = vec![format!("{key}.pub").into()];
        target.destination.identities_only = true;
        let session = connect(&target).await.unwrap();
        assert_eq!(session.authenticated_with(), Method::Agent);
        assert_eq!(node.logins().len() - before, 2, "{:?}", node.logins());
    }
}

#[tokio::test]
async fn an_agent_that_is_gone_does_not_matter() {
    let node = FakeNode::running_sh().await.unwrap();
    let mut target = target(&node);
    target.destination.agent = Agent::Socket("/nonexistent/agent".into());
    connect(&target).await.unwrap();
}

#[tokio::test]
async fn an_agent_that_never_answers_does_not_hold_us() {
    let (_folder, path) = folder();
    let socket = path.join("mute");
    let _mute = tokio::net::UnixListener::bind(&socket).unwrap();
    let node = FakeNode::running_sh().await.unwrap();
    let mut target = target(&node);
    target.destination.agent = Agent::Socket(socket);
    target.timeouts.connect = Duration::from_millis(300);
    let error = connect(&target).await.unwrap_err();
    assert!(matches!(error, ConnectError::Timeout { .. }), "{error:?}");
}

#[tokio::test]
async fn a_refused_login_tells_what_was_tried() {
    let node = FakeNode::running_sh().await.unwrap();
    let (_folder, path) = folder();
    let stranger = path.join("stranger");
    keygen(&stranger, &["-t", "ed25519", "-N", ""]);
    let broken = path.join("broken");
    std::fs::write(
        &broken,
        "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
    )
    .unwrap();
    let missing = path.join("missing");
    let mut target = target(&node);
    target.destination.identities = vec![broken.clone(), missing.clone(), stranger.clone()];
    let error = connect(&target).await.unwrap_err();
    let shown = error.to_string();
    for file in [&broken, &missing, &stranger] {
        assert!(shown.contains(file.as_str()), "{shown}");
    }
    assert_eq!(error.class(), ErrorClass::Refused);
    let ConnectError::LoginRefused { methods, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(methods, ["publickey"]);
}

#[tokio::test]
async fn we_stop_before_the_server_cuts_us_off() {
    let (_folder, path) = folder();
    let node = FakeNode::start(Config {
        password: Some("s3cret".to_owned()),
        ..Config::default()
    })
    .await
    .unwrap();
    let mut target = target(&node);
    target.destination.identities = (0..9).map(|n| path.join(format!("key{n}"))).collect();
    for key in &target.destination.identities {
        keygen(key, &["-t", "ed25519", "-N", ""]);
    }
    let error = connect(&target).await.unwrap_err();
    let ConnectError::LoginRefused { left_out, .. } = &error else {
        panic!("{error:?}")
    };
    assert!(*left_out >= 3, "{error:?}");
    assert!(error.hint().unwrap().contains("identity"));

    // With a password at hand, its try is spared.
    target.destination.login_password = Some("s3cret".into());
    let session = connect(&target).await.unwrap();
    assert_eq!(session.authenticated_with(), Method::Password);
}

#[tokio::test]
async fn a_server_that_cuts_off_early_is_a_refused_login() {
    let (_folder, path) = folder();
    let node = FakeNode::start(Config {
        max_auth_tries: 2,
        ..Config::default()
    })
    .await
    .unwrap();
    let mut target = target(&node);
    target.destination.identities = (0..4).map(|n| path.join(format!("key{n}"))).collect();
    for key in &target.destination.identities {
        keygen(key, &["-t", "ed25519", "-N", ""]);
    }
    let error = connect(&target).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::LoginRefused { .. }),
        "{error:?}"
    );
    assert_eq!(node.connections(), 1);
}

#[tokio::test]
async fn first_contact_by_password() {
    for keyboard_interactive in [false, true] {
        let config = Config {
            password: Some("raspberry".to_owned()),
            no_public_keys: true,
            keyboard_interactive,
            ..Config::default()
        };
        let node = FakeNode::start(config).await.unwrap();
        let mut target = target(&node);
        target.destination.identities = Vec::new();

        let user = Scripted::with_secrets(&["wrong", "raspberry"]);
        let session = connect_asking(&target, &user).await.unwrap();
        assert_eq!(session.authenticated_with(), Method::Password);
        assert_eq!(user.questions(), ["pi on jarvis", "pi on jarvis"]);

        target.destination.login_password = Some("raspberry".into());
        let user = Arc::new(Scripted::default());
        connect_asking(&target, &user).await.unwrap();
        assert!(user.questions().is_empty());

        // A configured password that is wrong is tried once.
        target.destination.login_password = Some("wr0ng".into());
        let before = node.logins().len();
        let error = connect_asking(&target, &user).await.unwrap_err();
        assert!(
            matches!(error, ConnectError::LoginRefused { .. }),
            "{error:?}"
        );
        assert!(!format!("{error} {error:?} {target:?}").contains("wr0ng"));
        assert_eq!(node.logins()[before..].len(), 2, "{:?}", node.logins());
        assert!(user.questions().is_empty());
    }
}

#[tokio::test]
async fn time_for_typing_does_not_count() {
    let config = Config {
        password: Some("raspberry".to_owned()),
        no_public_keys: true,
        ..Config::default()
    };
    let node = FakeNode::start(config).await.unwrap();
    let mut target = target(&node);
    target.destination.identities = Vec::new();
    // Ample for the login alone, on this machine as busy as it is, but not for the typing.
    let start = std::time::Instant::now();
    let swift: Arc<dyn selfheal::ssh::Prompt> = Arc::new(SlowTypist(Duration::ZERO));
    selfheal::ssh::connect(&target, &swift).await.unwrap();
    target.timeouts.connect = start.elapsed() * 10;
    let slow: Arc<dyn selfheal::ssh::Prompt> = Arc::new(SlowTypist(target.timeouts.connect));
    selfheal::ssh::connect(&target, &slow).await.unwrap();
}

/// Takes longer than the time-out.
struct SlowTypist(Duration);

impl selfheal::ssh::Prompt for SlowTypist {
    fn confirm_host_key(&self, _: &selfheal::ssh::UnknownHostKey) -> bool {
        false
    }
    fn passphrase(&self, _: &Utf8Path) -> Option<secrecy::SecretString> {
        None
    }
    fn password(&self, _: &str, _: &str) -> Option<secrecy::SecretString> {
        std::thread::sleep(self.0 * 2);
        Some("raspberry".into())
    }
}
