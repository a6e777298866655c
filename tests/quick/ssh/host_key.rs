//! Knowing the server.

use std::sync::Arc;

use selfheal::ssh::known_hosts::KnownHosts;
use selfheal::ssh::{self, ConnectError, ErrorClass, HostKey, NoPrompt, Place, Prompt, Target};
use selfheal_lab::fake_node::{Config, FakeNode, KeyKind};

use super::{Scripted, connect, connect_asking, folder, target};

fn unpinned(node: &FakeNode, file: &camino::Utf8Path) -> Target {
    let mut target = target(node);
    target.destination.host_key = None;
    target.destination.known_hosts = KnownHosts::file(file);
    target
}

fn line(node: &FakeNode) -> String {
    format!("[127.0.0.1]:{} {}\n", node.port(), node.host_key())
}

#[tokio::test]
async fn a_first_contact_is_refused_without_a_user_and_leaves_no_trace() {
    let node = FakeNode::running_sh().await.unwrap();
    let (_folder, path) = folder();
    let file = path.join("ssh/known_hosts");
    let error = connect(&unpinned(&node, &file)).await.unwrap_err();
    let ConnectError::HostKeyUnknown { key, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(key.to_string(), node.host_key());
    assert!(error.to_string().contains("SHA256:"), "{error}");
    assert_eq!(error.class(), ErrorClass::Refused);
    assert!(error.hint().unwrap().contains("selfheal trust jarvis"));
    assert!(!file.exists());
    assert!(
        node.logins().is_empty(),
        "no login before the host key is good"
    );
}

#[tokio::test]
async fn a_confirmed_key_is_put_on_record_and_not_asked_about_again() {
    let node = FakeNode::running_sh().await.unwrap();
    let (_folder, path) = folder();
    let file = path.join("ssh/known_hosts");
    let target = unpinned(&node, &file);
    let user = Arc::new(Scripted {
        confirms: true,
        ..Scripted::default()
    });
    connect_asking(&target, &user).await.unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), line(&node));
    let fingerprint = node.host_key().parse::<HostKey>().unwrap().fingerprint();
    assert_eq!(user.questions(), [format!("jarvis {fingerprint}")]);
    connect(&target).await.unwrap();
}

#[tokio::test]
async fn a_key_that_is_not_confirmed_is_not_put_on_record() {
    let node = FakeNode::running_sh().await.unwrap();
    let (_folder, path) = folder();
    let file = path.join("known_hosts");
    let user = Arc::new(Scripted::default());
    let error = connect_asking(&unpinned(&node, &file), &user)
        .await
        .unwrap_err();
    assert!(
        matches!(error, ConnectError::HostKeyUnknown { .. }),
        "{error:?}"
    );
    assert!(!file.exists());
}

#[tokio::test]
async fn a_known_type_is_asked_for_even_if_the_server_has_better_ones() {
    let host_keys = vec![KeyKind::Ed25519, KeyKind::Ecdsa];
    let node = FakeNode::start(Config {
        host_keys,
        ..Config::default()
    })
    .await
    .unwrap();
    let (_folder, path) = folder();
    let file = path.join("known_hosts");
    for known in node.host_keys() {
        std::fs::write(&file, format!("[127.0.0.1]:{} {known}\n", node.port())).unwrap();
        connect(&unpinned(&node, &file)).await.unwrap();
        let mut pinned = target(&node);
        pinned.destination.host_key = Some(known.parse().unwrap());
        connect(&pinned).await.unwrap();
    }
}

#[tokio::test]
async fn a_changed_key_names_both_and_the_place_and_the_remedy() {
    let node = FakeNode::running_sh().await.unwrap();
    let (_folder, path) = folder();
    let file = path.join("known_hosts");
    std::fs::write(&file, format!("# first\n{}", line(&node))).unwrap();
    let old: HostKey = node.host_key().parse().unwrap();
    let pinned = target(&node);
    // Of another type, too: the old one is asked for first, but is not there any more.
    for kind in [KeyKind::Ed25519, KeyKind::Ecdsa] {
        node.change_host_keys(&[kind]).unwrap();
        let new: HostKey = node.host_key().parse().unwrap();
        for (target, place) in [
            (unpinned(&node, &file), Place::Line(file.clone(), 2)),
            (pinned.clone(), Place::Pin),
        ] {
            let error = connect(&target).await.unwrap_err();
            let shown = error.to_string();
            assert!(
                shown.contains(&old.fingerprint()) && shown.contains(&new.fingerprint()),
                "{shown}"
            );
            assert!(shown.contains(&place.to_string()), "{shown}");
            assert!(error.hint().unwrap().contains("selfheal trust jarvis"));
            assert_eq!(error.class(), ErrorClass::Refused);
            let ConnectError::HostKeyChanged {
                offered, recorded, ..
            } = error
            else {
                panic!("{error:?}")
            };
            assert_eq!(offered, new);
            assert_eq!(recorded, [(old.clone(), place)]);
        }
    }
    assert!(node.logins().is_empty());
}

#[tokio::test]
async fn a_revoked_key_is_refused_even_if_pinned() {
    let node = FakeNode::running_sh().await.unwrap();
    let (_folder, path) = folder();
    let file = path.join("known_hosts");
    std::fs::write(
        &file,
        format!("{}@revoked * {}\n", line(&node), node.host_key()),
    )
    .unwrap();
    let mut pinned = target(&node);
    pinned.destination.known_hosts = KnownHosts::file(&file);
    for target in [unpinned(&node, &file), pinned] {
        let error = connect(&target).await.unwrap_err();
        assert!(
            matches!(error, ConnectError::HostKeyRevoked { .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains("known_hosts:2"), "{error}");
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_no_empty_file() {
    let node = FakeNode::running_sh().await.unwrap();
    let (_folder, path) = folder();
    // A folder in its place: unreadable for root, too.
    let error = connect(&unpinned(&node, &path)).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::KnownHosts { .. }),
        "{error:?}"
    );
    assert_eq!(error.class(), ErrorClass::Failed);
}

#[tokio::test]
async fn a_scan_sees_the_key_and_does_not_log_in() {
    let node = FakeNode::running_sh().await.unwrap();
    let (_folder, path) = folder();
    let nobody: Arc<dyn Prompt> = Arc::new(NoPrompt);
    let pinned = target(&node);
    node.change_host_keys(&[KeyKind::Ecdsa]).unwrap();
    for target in [unpinned(&node, &path.join("known_hosts")), pinned] {
        let key = ssh::scan_host_key(&target, &nobody).await.unwrap();
        assert_eq!(key.to_string(), node.host_key());
    }
    assert!(node.logins().is_empty());
    assert!(!path.join("known_hosts").exists());
}
