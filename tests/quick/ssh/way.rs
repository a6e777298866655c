//! The way to a node: jump hosts, ProxyCommand, ssh_config.

use std::sync::Arc;

use selfheal::ssh::config::{self, Overrides};
use selfheal::ssh::known_hosts::KnownHosts;
use selfheal::ssh::{self, Agent, ConnectError, ErrorClass, NoPrompt, Prompt, Sudo, Timeouts};
use selfheal_lab::fake_node::{Config, FakeNode, Fault, KeyKind};

use super::{LIMIT, Scripted, connect, connect_asking, eventually, folder, hop, target};

async fn jump_host() -> FakeNode {
    FakeNode::start(Config {
        forwarding: true,
        ..Config::default()
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn through_a_chain_of_jump_hosts() {
    let (first, second, node) = (
        jump_host().await,
        jump_host().await,
        FakeNode::running_sh().await.unwrap(),
    );
    let mut target = target(&node);
    target.jump = vec![hop(&first), hop(&second)];
    let session = connect(&target).await.unwrap();
    assert_eq!(
        session.run("echo out", LIMIT).await.unwrap().stdout,
        b"out\n"
    );
    assert_eq!(first.forwards(), [format!("127.0.0.1:{}", second.port())]);
    assert_eq!(second.forwards(), [format!("127.0.0.1:{}", node.port())]);
    assert!(first.execs().is_empty() && second.execs().is_empty());
    session.close().await;
    for node in [&first, &second, &node] {
        eventually("all have hung up", || node.open_connections() == 0).await;
    }
}

#[tokio::test]
async fn a_dropped_session_hangs_up_on_the_jump_hosts() {
    let (jump, node) = (jump_host().await, FakeNode::running_sh().await.unwrap());
    let mut target = target(&node);
    target.jump = vec![hop(&jump)];
    drop(connect(&target).await.unwrap());
    eventually("the jump host is left", || jump.open_connections() == 0).await;
    eventually("the node is left", || node.open_connections() == 0).await;
}

#[tokio::test]
async fn a_jump_host_is_verified_and_its_errors_name_it() {
    let (jump, mut node) = (jump_host().await, FakeNode::running_sh().await.unwrap());
    let mut target = target(&node);
    target.jump = vec![hop(&jump)];

    node.stop_listening().await;
    let error = connect(&target).await.unwrap_err();
    assert!(
        matches!(&error, ConnectError::Jump { jump_host, .. } if jump_host == "127.0.0.1"),
        "{error:?}"
    );
    assert_eq!(error.class(), ErrorClass::Unreachable);

    jump.change_host_keys(&[KeyKind::Ed25519]).unwrap();
    let error = connect(&target).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::HostKeyChanged { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("jump host"), "{error}");
    assert!(
        !error.hint().unwrap().contains("selfheal trust"),
        "{:?}",
        error.hint()
    );
}

#[tokio::test]
async fn a_jump_host_that_forwards_nothing() {
    let (jump, node) = (
        FakeNode::running_sh().await.unwrap(),
        FakeNode::running_sh().await.unwrap(),
    );
    let mut target = target(&node);
    target.jump = vec![hop(&jump)];
    let error = connect(&target).await.unwrap_err();
    assert!(matches!(error, ConnectError::Jump { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("forwarding"));
}

#[tokio::test]
async fn scanning_through_a_jump_host() {
    let (jump, node) = (jump_host().await, FakeNode::running_sh().await.unwrap());
    let mut target = target(&node);
    target.jump = vec![hop(&jump)];
    let nobody: Arc<dyn Prompt> = Arc::new(NoPrompt);
    let key = ssh::scan_host_key(&target, &nobody).await.unwrap();
    assert_eq!(key.to_string(), node.host_key());
    assert!(node.logins().is_empty());
}

/// A ProxyCommand that writes its process id, and that of a child of its own, to a file and then relays.
fn relay(pids: &camino::Utf8Path) -> String {
    // Not the last command, so that the shell stays.
    format!("sleep 1000 & echo $$ $! >{pids}; python3 -c '{RELAY}' %h %p; exit")
}

const RELAY: &str = "
import os, socket, sys, threading
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def up():
    while (b := os.read(0, 65536)): s.sendall(b)
    s.shutdown(1)
threading.Thread(target=up, daemon=True).start()
while (b := s.recv(65536)): os.write(1, b)
";

fn gone(pids: &camino::Utf8Path) -> bool {
    let pids = std::fs::read_to_string(pids).unwrap();
    pids.split_whitespace().all(
        |pid| match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            // A zombie waits for its parent only.
            Ok(stat) => stat.contains(") Z "),
            Err(_) => true,
        },
    )
}

#[tokio::test]
async fn a_proxy_command_carries_the_connection_and_ends_with_it() {
    let (_folder, path) = folder();
    let pids = path.join("pids");
    let (jump, node) = (jump_host().await, FakeNode::running_sh().await.unwrap());
    for jumps in [vec![], vec![hop(&jump)]] {
        let mut target = target(&node);
        target.jump = jumps;
        target.proxy_command = Some(relay(&pids));
        for close in [true, false] {
            let session = connect(&target).await.unwrap();
            assert_eq!(
                session.run("echo out", LIMIT).await.unwrap().stdout,
                b"out\n"
            );
            assert!(!gone(&pids));
            if close {
                session.close().await
            } else {
                drop(session)
            }
            eventually("the ProxyCommand is gone", || gone(&pids)).await;
        }
    }
}

#[tokio::test]
async fn a_connect_that_is_dropped_leaves_no_proxy_command() {
    let (_folder, path) = folder();
    let pids = path.join("pids");
    let node = FakeNode::running_sh().await.unwrap();
    node.set_fault(Some(Fault::Stall));
    let mut target = target(&node);
    target.proxy_command = Some(relay(&pids));
    target.timeouts.connect = LIMIT;
    tokio::select! {
        outcome = connect(&target) => panic!("{outcome:?}"),
        () = eventually("the relay is connected", || node.connections() == 1) => {}
    }
    eventually("the ProxyCommand is gone", || gone(&pids)).await;
}

#[tokio::test]
async fn a_proxy_command_that_fails_is_quoted() {
    let node = FakeNode::running_sh().await.unwrap();
    let mut target = target(&node);
    target.proxy_command = Some("echo 'no route to %h' >&2; exit 1".to_owned());
    let error = connect(&target).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::ProxyCommand { .. }),
        "{error:?}"
    );
    assert!(
        error.to_string().contains("no route to 127.0.0.1"),
        "{error}"
    );
    assert_eq!(error.class(), ErrorClass::Unreachable);
}

#[tokio::test]
async fn the_users_ssh_config_leads_to_the_node() {
    if std::process::Command::new("ssh")
        .arg("-V")
        .output()
        .is_err()
    {
        eprintln!("skipped: no ssh on this machine");
        return;
    }
    let (_folder, path) = folder();
    let (outer, inner, node) = (
        jump_host().await,
        jump_host().await,
        FakeNode::running_sh().await.unwrap(),
    );
    let known_hosts = path.join("known hosts").to_string().replace(' ', "_");
    let lines: String = [&outer, &inner, &node]
        .map(|node| format!("[127.0.0.1]:{} {}\n", node.port(), node.host_key()))
        .concat();
    std::fs::write(&known_hosts, lines).unwrap();
    let block = |name: &str, node: &FakeNode, more: &str| {
        format!(
            "Host {name}\nHostName 127.0.0.1\nPort {}\nUser pi\nIdentityFile {}\n{more}\n",
            node.port(),
            node.identity().unwrap()
        )
    };
    let config_file = path.join("config");
    let text = [
        block("jarvis", &node, "ProxyJump inner\nConnectTimeout 11"),
        block("inner", &inner, "ProxyJump outer"),
        block("outer", &outer, ""),
        format!(
            "Host *\nUserKnownHostsFile {known_hosts}\nIdentityAgent none\nIdentitiesOnly yes\n"
        ),
    ];
    std::fs::write(&config_file, text.concat()).unwrap();
    let overrides = Overrides {
        config_file: Some(config_file.clone()),
        ..Overrides::default()
    };
    let resolved = config::resolve("jarvis", &overrides).await.unwrap();
    assert_eq!(resolved.destination.agent, Agent::None);
    let target = resolved.into_target("jarvis", Sudo::Passwordless, Timeouts::default());
    assert_eq!(target.timeouts.connect.as_secs(), 11);
    let session = connect(&target).await.unwrap();
    assert!(session.run("exit 0", LIMIT).await.unwrap().success());
    assert_eq!(outer.connections(), 1);
    assert_eq!(inner.forwards(), [format!("127.0.0.1:{}", node.port())]);

    // What is said explicitly wins.
    let straight = Overrides {
        jump: Some(Vec::new()),
        ..overrides.clone()
    };
    let target = config::resolve("jarvis", &straight).await.unwrap();
    assert!(target.jump.is_empty());

    // Jump hosts that lead to one another, and a configuration that is wrong.
    std::fs::write(&config_file, "Host a\nProxyJump b\nHost b\nProxyJump a\n").unwrap();
    let error = config::resolve("a", &overrides).await.unwrap_err();
    assert!(
        matches!(error, config::ConfigError::Loop { .. }),
        "{error:?}"
    );
    std::fs::write(&config_file, "Nonsense yes\n").unwrap();
    let error = config::resolve("a", &overrides).await.unwrap_err();
    assert!(
        error.to_string().to_lowercase().contains("nonsense"),
        "{error}"
    );
}

#[tokio::test]
async fn a_new_jump_host_is_introduced_like_a_node() {
    let (_folder, path) = folder();
    let (jump, node) = (jump_host().await, FakeNode::running_sh().await.unwrap());
    let file = path.join("known_hosts");
    let mut target = target(&node);
    let mut hop = hop(&jump);
    hop.host_key = None;
    hop.known_hosts = KnownHosts::file(&file);
    target.jump = vec![hop];
    let user = Arc::new(Scripted {
        confirms: true,
        ..Scripted::default()
    });
    connect_asking(&target, &user).await.unwrap();
    assert_eq!(user.questions().len(), 1);
    assert!(
        std::fs::read_to_string(&file)
            .unwrap()
            .contains(&jump.host_key())
    );
}
