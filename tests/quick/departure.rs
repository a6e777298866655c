//! `selfheal status`, `selfheal node remove` and `node reset` against nodes that only answer.

use selfheal_lab::fake_node::{FakeNode, Reply};

use crate::binary::Home;

const NODES: &str = r#"{"items":[
    {"metadata":{"name":"jarvis"},"status":{"conditions":[{"type":"Ready","status":"True"}]}},
    {"metadata":{"name":"ultron"},"status":{"conditions":[{"type":"Ready","status":"False"}]}}]}"#;

/// A server whose API shows `nodes`.
async fn server(nodes: &'static str) -> FakeNode {
    FakeNode::answering(move |exec| {
        let script = exec.script();
        let nonce = script.split("nonce=").nth(1).unwrap();
        let nonce = nonce.split_whitespace().next().unwrap().to_owned();
        let frame = |name: &str, text: &str| format!("\n@{nonce} {name}\n{text}\n");
        let frames = [
            ("begin", ""),
            ("fact user", "0"),
            ("k3s-version", "k3s version v1.36.3+k3s1 (paper)"),
            ("cluster-nodes", nodes),
            ("nodes", nodes),
            ("end", ""),
        ];
        let asks_nodes = script.contains("\nask() {");
        let frames = frames.into_iter().filter(|(name, _)| match *name {
            "fact user" | "k3s-version" | "cluster-nodes" => !asks_nodes,
            "nodes" => asks_nodes,
            _ => true,
        });
        Reply::ok(
            frames
                .map(|(name, text)| frame(name, text))
                .collect::<String>(),
        )
    })
    .await
    .unwrap()
}

/// An inventory of this server and of a worker that does not answer.
fn written(server: &FakeNode) -> Home {
    let home = Home::new();
    let (identity, port, key) = (server.identity().unwrap(), server.port(), server.host_key());
    home.write(
        "homelab.toml",
        &format!(
            "[ssh]\nagent = false\nidentity = [\"{identity}\"]\nconnect_timeout = \"1s\"\n\
             [nodes.jarvis]\nhost = \"127.0.0.1\"\naddress = \"192.0.2.1\"\nport = {port}\nrole = \"control-plane\"\nhost_key = \"{key}\"\n\
             [nodes.ultron]\nhost = \"127.0.0.2\"\naddress = \"192.0.2.2\"\nport = 1\nrole = \"worker\"\nhost_key = \"{key}\"\n"
        ),
    );
    home
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_every_node_and_what_the_cluster_says_of_it() {
    let server = server(NODES).await;
    let home = written(&server);
    let ended = home.selfheal(&["status"]).await;
    assert_eq!(ended.code, Some(4), "{ended:?}");
    let lines: Vec<Vec<&str>> = ended
        .stdout
        .lines()
        .map(|line| {
            line.split("  ")
                .map(str::trim)
                .filter(|it| !it.is_empty())
                .collect()
        })
        .collect();
    assert_eq!(lines[0], ["NODE", "ROLE", "CLUSTER", "K3S", "SYSTEM", "UP"]);
    assert_eq!(
        lines[1][..4],
        ["jarvis", "control-plane", "ready", "v1.36.3+k3s1"]
    );
    assert_eq!(lines[2][..3], ["ultron", "worker", "no answer"]);
    let json = home.selfheal(&["status", "--json", "--on", "jarvis"]).await;
    assert_eq!(json.code, Some(0), "{json:?}");
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["nodes"][0]["state"]["cluster"], "ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_server_of_others_is_not_removed() {
    let server = server(NODES).await;
    let home = written(&server);
    let ended = home.selfheal(&["node", "remove", "jarvis", "--yes"]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("jarvis is the cluster's only server"),
        "{ended:?}"
    );
    assert!(
        ended.stderr.contains("selfheal node reset jarvis"),
        "{ended:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_only_server_that_does_not_tell_its_nodes_is_not_removed() {
    let server = server("").await;
    let home = written(&server);
    let ended = home.selfheal(&["node", "remove", "jarvis", "--yes"]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("shows no cluster"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_answer_is_removed_only_as_gone_and_not_unasked() {
    let server = server(NODES).await;
    let home = written(&server);
    let ended = home.selfheal(&["node", "remove", "ultron", "--yes"]).await;
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(
        ended.stderr.contains("selfheal node remove ultron --gone"),
        "{ended:?}"
    );
    let unasked = home.selfheal(&["node", "remove", "ultron", "--gone"]).await;
    assert_eq!(unasked.code, Some(3), "{unasked:?}");
    assert!(
        unasked.stderr.contains("nobody is at a terminal"),
        "{unasked:?}"
    );
    let gone = home
        .selfheal(&["node", "remove", "ultron", "--gone", "--yes"])
        .await;
    assert_eq!(gone.code, Some(0), "{gone:?}");
    assert!(
        gone.stdout.contains("ultron is out of the cluster"),
        "{gone:?}"
    );
    let forgotten = server
        .execs()
        .iter()
        .any(|exec| exec.script().contains("\nforget ultron ||"));
    assert!(forgotten);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_none_stops_a_run_before_it_writes() {
    let server = server("").await;
    let home = written(&server);
    let token = home.write("token", "one line\nand-a-second\n");
    std::fs::set_permissions(token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let section = "[k3s]\ntoken = { file = \"token\" }\n[ssh]";
    let text = home.read("homelab.toml").replace("[ssh]", section);
    home.write("homelab.toml", &text);
    let apply = ["apply", "--yes", "--on", "jarvis", "--only", "k3s"];
    let ended = home.selfheal(&apply).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let error = "jarvis: no k3s.token, and nothing was changed: the secret from";
    assert!(ended.stderr.contains(error), "{ended:?}");
    assert!(!ended.stderr.contains("and-a-second"), "{ended:?}");
    assert_eq!(server.execs().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_ready_is_not_gone() {
    let server = server(&*Box::leak(NODES.replace("False", "True").into_boxed_str())).await;
    let home = written(&server);
    let ended = home
        .selfheal(&["node", "remove", "ultron", "--gone", "--yes"])
        .await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("ultron is not gone"), "{ended:?}");
}
