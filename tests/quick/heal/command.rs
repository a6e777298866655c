//! `selfheal heal`: the reaper's lines on their way through the command.

use selfheal_lab::fake_node::{FakeNode, Reply};

use crate::binary::Home;

fn written(fake: &FakeNode) -> Home {
    let home = Home::new();
    let (identity, port, key) = (fake.identity().unwrap(), fake.port(), fake.host_key());
    home.write(
        "homelab.toml",
        &format!(
            "[k3s]\ninstall = false\n[ssh]\nagent = false\nidentity = [\"{identity}\"]\n[nodes.jarvis]\nhost = \"127.0.0.1\"\n\
             port = {port}\nrole = \"control-plane\"\nhost_key = \"{key}\"\n"
        ),
    );
    home
}

/// A node whose reaper says this to `look` and `now`; their last line is the exit code.
async fn reaping(look: &'static str, now: &'static str) -> FakeNode {
    FakeNode::answering(move |exec| {
        let script = exec.script();
        let nonce = script
            .split("nonce=")
            .nth(1)
            .unwrap()
            .split_whitespace()
            .next()
            .unwrap();
        let said = match () {
            () if script.contains("\nreaper now\n") => now,
            () if script.contains("\nreaper look\n") => look,
            () => {
                return Reply::ok(format!(
                    "\n@{nonce} begin\n\n@{nonce} fact user\n0\n\n@{nonce} end\n"
                ));
            }
        };
        let (lines, code) = said.rsplit_once('\n').unwrap_or(("", said));
        Reply::ok(format!("{lines}\n@{nonce} exit {code}\n"))
    })
    .await
    .unwrap()
}

const ID: &str = "aaaaaaaaaaaabbbbbbbbbbbbccccccccccccddddddddddddeeeeeeeeeeeeffff";
const GHOST: &str = "before sandboxes 3 ready 2 ghosts 1\n\
    ghost aaaaaaaaaaaabbbbbbbbbbbbccccccccccccddddddddddddeeeeeeeeeeeeffff default/web gone";

fn text(before: &str, rest: &str) -> &'static str {
    Box::leak(format!("{before}\n{rest}").into_boxed_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn ghosts_are_shown_before_and_after() {
    let now = text(
        GHOST,
        &format!("removed {ID} default/web (gone)\nafter sandboxes 2 ready 2 ghosts 0\n0"),
    );
    let fake = reaping(text(GHOST, "1"), now).await;
    let home = written(&fake);
    let ended = home.selfheal(&["heal", "jarvis", "--yes"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended
            .stdout
            .contains("3 sandboxes, 2 ready, 1 ghosts\n  aaaaaaaaaaaa  default/web (gone)\n"),
        "{ended:?}"
    );
    assert!(
        ended.stdout.ends_with("jarvis has no ghosts any more.\n"),
        "{ended:?}"
    );
    // The reaper's lines pass by as they come.
    assert!(
        ended
            .stderr
            .contains(&format!("removed {ID} default/web (gone)")),
        "{ended:?}"
    );
    assert!(!ended.stderr.contains(" exit 0"), "{ended:?}");
    let ended = home.selfheal(&["heal", "jarvis", "--yes", "--json"]).await;
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["before"]["ghosts"][0]["pod"], "default/web");
    assert_eq!(
        (&report["after"]["ready"], &report["clean"]),
        (&2.into(), &true.into())
    );
    // Nobody is there to be asked: nothing is done.
    let execs = fake.execs().len();
    let ended = home.selfheal(&["heal", "jarvis"]).await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert_eq!(fake.execs().len(), execs + 2, "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ghosts_that_stay_are_a_failure() {
    let after = GHOST.replace("before", "after");
    let now = text(GHOST, &format!("failed {ID} default/web: busy\n{after}\n1"));
    let fake = reaping(text(GHOST, "1"), now).await;
    let ended = written(&fake).selfheal(&["heal", "jarvis", "--yes"]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stdout.contains("jarvis still has ghosts."),
        "{ended:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_ghosts_nothing_is_asked_and_nothing_done() {
    let fake = reaping("before sandboxes 2 ready 2 ghosts 0\n0", "never").await;
    let ended = written(&fake).selfheal(&["heal", "jarvis"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stdout, "jarvis has no ghosts among 2 sandboxes.\n");
    assert_eq!(fake.execs().len(), 2, "probe and look");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_on_the_node_is_said() {
    // The script itself, in this machine's shell, which has no reaper.
    let fake = FakeNode::running_sh().await.unwrap();
    let ended = written(&fake).selfheal(&["heal", "jarvis", "--yes"]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("the reaper is not on the node"),
        "{ended:?}"
    );
    assert!(ended.stderr.contains("selfheal apply"), "{ended:?}");
    for (said, words) in [
        (
            "containerd does not answer: is k3s running?\n3",
            "containerd does not answer",
        ),
        ("no-k3s", "k3s is not on the node"),
    ] {
        let fake = reaping(said, "never").await;
        let ended = written(&fake).selfheal(&["heal", "jarvis", "--yes"]).await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains(words), "{ended:?}");
    }
    let fake = reaping(text(GHOST, "1"), "another reaper is at work\n4").await;
    let ended = written(&fake).selfheal(&["heal", "jarvis", "--yes"]).await;
    assert_eq!(ended.code, Some(6), "{ended:?}");
}
