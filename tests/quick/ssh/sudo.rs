//! Becoming root.

use std::time::Duration;

use selfheal::ssh::{ErrorClass, ExecError, Sudo, SudoRefusal};
use selfheal_lab::fake_node::{self, Config, FakeNode, Reply};

use super::{LIMIT, connect, target};

const LECTURE: &str =
    "We trust you have received the usual lecture.\n    #1) Respect the privacy of others.";

async fn node(sudo: fake_node::Sudo) -> FakeNode {
    FakeNode::start(Config {
        sudo,
        ..Config::default()
    })
    .await
    .unwrap()
}

fn asking() -> fake_node::Sudo {
    fake_node::Sudo::Password {
        password: "s3cret \\ $x".to_owned(),
        lecture: LECTURE.to_owned(),
    }
}

async fn refused(node: &FakeNode, sudo: Sudo) -> (SudoRefusal, String) {
    let mut target = target(node);
    target.sudo = sudo;
    let session = connect(&target).await.unwrap();
    let error = session.run("echo never", LIMIT).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Refused);
    assert!(error.hint().is_some());
    let shown = format!("{error} {error:?}");
    match error {
        ExecError::SudoRefused { refusal, .. } => (refusal, shown),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_password_goes_over_stdin_and_the_script_follows() {
    let node = node(asking()).await;
    let mut target = target(&node);
    target.sudo = Sudo::Password("s3cret \\ $x".into());
    let session = connect(&target).await.unwrap();
    let output = session.run("echo out", LIMIT).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "out\n");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("usual lecture"), "{stderr}");
    assert!(!stderr.contains("selfheal-"), "{stderr}");
    assert_eq!(node.sudo_attempts(), 1);
    let [exec] = &node.execs()[..] else { panic!() };
    assert!(!exec.command.contains("s3cret"), "{}", exec.command);
    assert!(!format!("{target:?} {session:?}").contains("s3cret"));
}

#[tokio::test]
async fn a_password_that_sudo_did_not_want_is_neither_run_nor_shown() {
    let node = node(fake_node::Sudo::Passwordless).await;
    let mut target = target(&node);
    target.sudo = Sudo::Password("echo leaked; echo leaked >&2".into());
    let session = connect(&target).await.unwrap();
    let output = session.run("echo out", LIMIT).await.unwrap();
    assert_eq!(output.stdout, b"out\n");
    assert_eq!(output.stderr, b"");
}

#[tokio::test]
async fn a_wrong_password_costs_one_attempt_and_no_script() {
    let node = node(asking()).await;
    let (refusal, shown) = refused(&node, Sudo::Password("wr0ng".into())).await;
    assert_eq!(refusal, SudoRefusal::WrongPassword);
    assert_eq!(node.sudo_attempts(), 1);
    assert!(!shown.contains("wr0ng"), "{shown}");
    let [exec] = &node.execs()[..] else { panic!() };
    assert_eq!(exec.stdin, b"wr0ng\n", "the script must not be sent");
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let password_wanted = node(asking()).await;
    let (refusal, _) = refused(&password_wanted, Sudo::Passwordless).await;
    assert_eq!(refusal, SudoRefusal::PasswordRequired);
    for (says, expected) in [
        ("pi is not in the sudoers file.", SudoRefusal::NotAllowed),
        (
            "sudo: sorry, you must have a tty to run sudo",
            SudoRefusal::TtyRequired,
        ),
        (
            "sudo: account validation failure, is your account locked?",
            SudoRefusal::Expired,
        ),
        (
            "sudo: interactive authentication is required",
            SudoRefusal::PasswordRequired,
        ),
        ("sudo: unable to stat /etc/sudoers", SudoRefusal::Other),
    ] {
        let node = node(fake_node::Sudo::Refuse(says.to_owned())).await;
        for sudo in [Sudo::Passwordless, Sudo::Password("s3cret".into())] {
            let (refusal, shown) = refused(&node, sudo).await;
            assert_eq!(refusal, expected, "{says}");
            assert!(shown.contains(says), "{shown}");
        }
    }
}

#[tokio::test]
async fn a_script_that_fails_like_sudo_is_not_taken_for_sudo() {
    let node = FakeNode::running_sh().await.unwrap();
    let session = connect(&target(&node)).await.unwrap();
    let output = session
        .run("echo 'sudo: a password is required' >&2; exit 1", LIMIT)
        .await
        .unwrap();
    assert!(!output.success());
}

#[tokio::test]
async fn waiting_for_sudo_is_bounded() {
    let node = FakeNode::answering(|_| Reply::ok("")).await.unwrap();
    node.set_fault(Some(fake_node::Fault::NoReply));
    let mut target = target(&node);
    target.sudo = Sudo::Password("s3cret".into());
    let session = connect(&target).await.unwrap();
    let error = session
        .run("echo never", Duration::from_secs(1))
        .await
        .unwrap_err();
    assert!(matches!(error, ExecError::Timeout { .. }), "{error:?}");
    let [exec] = &node.execs()[..] else { panic!() };
    assert!(!String::from_utf8_lossy(&exec.stdin).contains("never"));
}
