//! `selfheal::ssh` against a fake node.

use std::sync::Arc;
use std::time::Duration;

use selfheal::ssh::{self, ConnectError, Hop, Method, NoPrompt, Prompt, Session, Status, Target};
use selfheal_lab::fake_node::{FakeNode, Reply};

const LIMIT: Duration = Duration::from_secs(20);

fn nobody() -> Arc<dyn Prompt> {
    Arc::new(NoPrompt)
}

fn hop(node: &FakeNode) -> Hop {
    let mut hop = Hop::new("127.0.0.1", "pi");
    hop.port = node.port();
    hop.agent = ssh::Agent::None;
    hop.identities = vec![node.identity().unwrap()];
    hop.identities_only = true;
    hop.host_key = Some(node.host_key().parse().unwrap());
    hop.known_hosts = Default::default();
    hop
}

fn target(node: &FakeNode) -> Target {
    Target::new("jarvis", hop(node))
}

async fn connect(target: &Target) -> Result<Session, ConnectError> {
    ssh::connect(target, &nobody()).await
}

#[tokio::test]
async fn a_script_runs_over_one_connection_and_one_exec() {
    let node = FakeNode::running_sh().await.unwrap();
    let session = connect(&target(&node)).await.unwrap();
    let output = session
        .run("echo out; echo err >&2; exit 3", LIMIT)
        .await
        .unwrap();
    assert_eq!(output.status, Status::Exited(3));
    assert_eq!(output.stdout, b"out\n");
    assert_eq!(output.stderr, b"err\n");
    assert_eq!(session.authenticated_with(), Method::PublicKey);
    session.close().await;
    assert_eq!(node.connections(), 1);
    assert_eq!(node.execs().len(), 1);
    // One offer, one signature: no key that does not work, no query for methods.
    assert_eq!(node.logins().len(), 2, "{:?}", node.logins());
}

#[tokio::test]
async fn a_closure_sees_the_script_and_answers_it() {
    let node = FakeNode::answering(|exec| Reply::ok(exec.script().to_uppercase()))
        .await
        .unwrap();
    let session = connect(&target(&node)).await.unwrap();
    let output = session.run("echo hi\n", LIMIT).await.unwrap();
    assert_eq!(output.stdout, b"ECHO HI\n");
    assert!(output.success());
}
