//! What a run that died left on a node: a step that goes on without it.

use selfheal_lab::fake_node::{FakeNode, Reply};

use crate::binary::Home;

const DEAD: &str = "0dead0dead0dead0";

/// A node on which a step of the dead run is at work, until its end was waited for.
async fn node() -> FakeNode {
    let ended = std::sync::atomic::AtomicBool::new(false);
    FakeNode::answering(move |exec| {
        let script = exec.script();
        let nonce = script.split("nonce=").nth(1).unwrap();
        let nonce = nonce.split_whitespace().next().unwrap().to_owned();
        let order = std::sync::atomic::Ordering::Relaxed;
        let lease = format!("@{nonce} lease\n{DEAD} 9999 me@here (process 1)\n\n");
        let lease = match ended.load(order) {
            true => String::new(),
            false => lease,
        };
        if script.contains("\ntake_lease\n") {
            assert!(script.contains(&format!("dead_token={DEAD}")), "{script}");
            ended.store(true, order);
        }
        Reply::ok(format!(
            "\n@{nonce} begin\n\n@{nonce} fact user\n0\n\n{lease}@{nonce} end\n"
        ))
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_a_dead_run_is_waited_for_before_anything_is_planned() {
    let fake = node().await;
    let home = Home::new();
    let (identity, port, key) = (fake.identity().unwrap(), fake.port(), fake.host_key());
    home.write(
        "homelab.toml",
        &format!(
            "[k3s]\ninstall = false\n[ssh]\nagent = false\nidentity = [\"{identity}\"]\n[nodes.jarvis]\nhost = \"127.0.0.1\"\n\
             port = {port}\nrole = \"control-plane\"\nhost_key = \"{key}\"\n"
        ),
    );
    home.write(&format!(".local/state/selfheal/runs/{DEAD}"), "");
    let apply = ["apply", "--yes", "--only", "k3s"];
    let ended = home.selfheal(&apply).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let said = "jarvis: waiting for the last step of an interrupted run";
    assert!(ended.stderr.contains(said), "{ended:?}");
    assert_eq!(fake.execs().len(), 3, "looked, waited, looked again");
    // It is waited for once.
    let again = home.selfheal(&apply).await;
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(fake.execs().len(), 4);
}
