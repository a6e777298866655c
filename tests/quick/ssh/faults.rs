//! A line that fails at any moment.

use std::time::Duration;

use selfheal::ssh::{ConnectError, ErrorClass, ExecError, Stage};
use selfheal_lab::fake_node::{FakeNode, Fault, Reply};

use super::{LIMIT, connect, eventually, target};

async fn lost(fault: Fault, script: &str) -> (FakeNode, ExecError) {
    let node = FakeNode::running_sh().await.unwrap();
    node.set_fault(Some(fault));
    let mut target = target(&node);
    if fault == Fault::GoDead {
        target.timeouts.keepalive = Duration::from_millis(50);
    }
    let session = connect(&target).await.unwrap();
    let error = session.run(script, LIMIT).await.unwrap_err();
    (node, error)
}

fn is_lost(error: &ExecError) {
    assert!(
        matches!(error, ExecError::ConnectionLost { .. }),
        "{error:?}"
    );
    assert_eq!(error.class(), ErrorClass::Unreachable);
    assert!(error.to_string().starts_with("jarvis: "), "{error}");
}

#[tokio::test]
async fn a_closed_port_and_a_name_that_is_none() {
    let mut node = FakeNode::running_sh().await.unwrap();
    let mut target = target(&node);
    node.stop_listening().await;
    let error = connect(&target).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::Unreachable { .. }),
        "{error:?}"
    );
    assert_eq!(error.class(), ErrorClass::Unreachable);
    assert!(error.to_string().contains("jarvis"), "{error}");
    assert!(
        error.hint().unwrap().contains("listens"),
        "{:?}",
        error.hint()
    );

    target.destination.host = "no such host.invalid".to_owned();
    let error = connect(&target).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::Unreachable { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn silence_ends_in_a_timeout() {
    let node = FakeNode::running_sh().await.unwrap();
    node.set_fault(Some(Fault::Stall));
    let mut target = target(&node);
    target.timeouts.connect = Duration::from_millis(500);
    let error = connect(&target).await.unwrap_err();
    assert!(
        matches!(
            error,
            ConnectError::Timeout {
                stage: Stage::Handshake,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(error.class(), ErrorClass::Unreachable);
    assert!(error.to_string().contains("500ms"), "{error}");
}

#[tokio::test]
async fn what_is_no_ssh_is_told() {
    let node = FakeNode::running_sh().await.unwrap();
    for fault in [Fault::HangUp, Fault::NotSsh] {
        node.set_fault(Some(fault));
        let mut target = target(&node);
        target.timeouts.connect = LIMIT;
        let error = connect(&target).await.unwrap_err();
        assert!(
            matches!(error, ConnectError::Handshake { .. }),
            "{fault:?} {error:?}"
        );
        assert_eq!(error.class(), ErrorClass::Unreachable);
    }
}

#[tokio::test]
async fn a_cut_at_the_exec() {
    let (_node, error) = lost(Fault::CutAtExec, "echo never").await;
    is_lost(&error);
}

#[tokio::test]
async fn a_cut_within_the_script() {
    let script = format!(": {}\n", "x".repeat(200_000));
    let (node, error) = lost(Fault::CutAfterStdin(100_000), &script).await;
    is_lost(&error);
    assert!(node.execs()[0].stdin.len() < script.len());
}

#[tokio::test]
async fn a_cut_within_the_reply() {
    let (_node, error) = lost(Fault::CutInReply(1000), "head -c 100000 /dev/zero").await;
    is_lost(&error);
}

#[tokio::test]
async fn a_line_that_goes_dead_is_noticed() {
    let (_node, error) = lost(Fault::GoDead, "echo never").await;
    is_lost(&error);
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("no sign of life"), "{cause}");
}

#[tokio::test]
async fn a_line_that_goes_dead_within_a_big_script_is_noticed() {
    let (_node, error) = lost(Fault::GoDead, &"# a comment\n".repeat(1_000_000)).await;
    is_lost(&error);
}

#[tokio::test]
async fn a_command_that_is_refused() {
    let (_node, error) = lost(Fault::RefuseExec, "echo never").await;
    assert!(matches!(error, ExecError::NoShell { .. }), "{error:?}");
}

#[tokio::test]
async fn a_script_that_takes_too_long_is_given_up_and_the_session_lives() {
    let node = FakeNode::running_sh().await.unwrap();
    let session = connect(&target(&node)).await.unwrap();
    let script = "echo begun >&2; i=0; while [ $i -lt 1200 ]; do i=$((i + 1)); sleep 0.05; done";
    // What came on stderr by then is told; a busy machine needs longer for it.
    let mut limit = Duration::from_millis(100);
    loop {
        let error = session.run(script, limit).await.unwrap_err();
        assert!(matches!(error, ExecError::Timeout { .. }), "{error:?}");
        if error.to_string().contains("begun") {
            break;
        }
        limit *= 2;
        assert!(limit < LIMIT, "{error}");
    }
    assert!(session.run("exit 0", LIMIT).await.unwrap().success());
}

#[tokio::test]
async fn a_session_whose_line_was_cut_says_so_at_once() {
    let node = FakeNode::answering(|_| Reply::ok("")).await.unwrap();
    let session = connect(&target(&node)).await.unwrap();
    node.cut_all();
    let error = session.run("echo never", LIMIT).await.unwrap_err();
    is_lost(&error);
    eventually("the session is closed", || session.is_closed()).await;
}

#[tokio::test]
async fn more_output_than_we_keep_is_an_error() {
    let node = FakeNode::running_sh().await.unwrap();
    let session = connect(&target(&node)).await.unwrap();
    let script = "head -c 9000000 /dev/zero >&2";
    let error = session.run(script, LIMIT).await.unwrap_err();
    assert!(
        matches!(
            error,
            ExecError::TooMuchOutput {
                stream: "stderr",
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_session_that_is_dropped_hangs_up() {
    let node = FakeNode::running_sh().await.unwrap();
    let session = connect(&target(&node)).await.unwrap();
    assert_eq!(node.open_connections(), 1);
    drop(session);
    eventually("the connection is closed", || node.open_connections() == 0).await;
    let session = connect(&target(&node)).await.unwrap();
    session.close().await;
    eventually("the connection is closed", || node.open_connections() == 0).await;
}
