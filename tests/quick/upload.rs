//! A file on its way to a node: `selfheal::apply::upload` and `Session::upload` against fake nodes that run real sh.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use camino::Utf8PathBuf;
use selfheal::apply::script::Holder;
use selfheal::apply::script::receive::{self, Incoming};
use selfheal::apply::upload::{upload, upload_within};
use selfheal::artifact::{Arch, Artifact, Asset};
use selfheal::fleet::NodeError;
use selfheal::report::{Event, Events, telling};
use selfheal::ssh::{
    self, Agent, ExecError, Hop, Limits, NoPrompt, Prompt, Session, Sudo, Target, Upload,
};
use selfheal_lab::fake_node::{self, Config, FakeNode, Fault};
use sha2::Digest;
use tokio::io::AsyncReadExt as _;

/// More than any window, and no whole number of anything.
const SIZE: usize = 9_000_001;
const LIMITS: Limits = Limits {
    silence: Duration::from_secs(60),
    total: Duration::from_secs(120),
};

fn target(node: &FakeNode) -> Target {
    let mut hop = Hop::new("127.0.0.1", "pi");
    hop.port = node.port();
    hop.agent = Agent::None;
    hop.identities = vec![node.identity().unwrap()];
    hop.identities_only = true;
    hop.host_key = Some(node.host_key().parse().unwrap());
    hop.known_hosts = Default::default();
    Target::new("jarvis", hop)
}

/// A node whose scripts keep their lease and their lock in its own folder and not in this machine's /run; `first` is what
/// they do before anything else.
async fn node_that(config: Config, first: &str) -> FakeNode {
    let node = FakeNode::start(config).await.unwrap();
    let base64 = home(&node).join("bin/base64");
    let real = "PATH=${PATH#*:} base64";
    let run = "s#^run=/run/selfheal$#run=$HOME/run#";
    let stub = format!("#!/bin/sh\nprintf '%s\\n' '{first}'\n{real} \"$@\" | sed '{run}'\n");
    fs::write(&base64, stub).unwrap();
    fs::set_permissions(&base64, fs::Permissions::from_mode(0o755)).unwrap();
    node
}

async fn node() -> FakeNode {
    node_that(Config::default(), "").await
}

/// The node's own folder.
fn home(node: &FakeNode) -> Utf8PathBuf {
    node.identity().unwrap().parent().unwrap().to_owned()
}

/// Waits for the end of a step whose connection is gone: only then is its lock free.
async fn step_ended(session: &Session) {
    let wait = "flock -w 60 \"$HOME/run/step.lock\" true";
    let ended = session.run(wait, Duration::from_secs(90)).await.unwrap();
    assert!(ended.success(), "{ended:?}");
}

async fn connect(target: &Target) -> Session {
    ssh::connect(target, &(Arc::new(NoPrompt) as Arc<dyn Prompt>))
        .await
        .unwrap()
}

/// A workstation with a file, and a place for it.
struct Desk {
    _folder: tempfile::TempDir,
    folder: Utf8PathBuf,
    bytes: Vec<u8>,
    artifact: Artifact,
}

fn sha256(bytes: &[u8]) -> String {
    let digest = sha2::Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn desk() -> Desk {
    let folder = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::try_from(folder.path().to_owned()).unwrap();
    let mut state = 1_u32;
    let bytes: Vec<u8> = (0..SIZE)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    fs::write(path.join("k3s-arm64"), &bytes).unwrap();
    let artifact = Artifact {
        asset: Asset::Binary(Arch::Arm64),
        path: path.join("k3s-arm64"),
        sha256: sha256(&bytes).parse().unwrap(),
        size: bytes.len() as u64,
        cached: true,
    };
    Desk {
        _folder: folder,
        folder: path,
        bytes,
        artifact,
    }
}

fn holder() -> Holder {
    Holder {
        token: "5eed".into(),
        who: "the quick tests".into(),
        dead: None,
    }
}

impl Desk {
    fn destination(&self) -> Utf8PathBuf {
        self.folder.join("bin/k3s")
    }

    fn waiting(&self) -> Utf8PathBuf {
        self.folder.join("bin/k3s.selfheal-new")
    }

    async fn send(&self, session: &Session) -> Result<Vec<u64>, NodeError> {
        let mut steps = Vec::new();
        let mut progress = |done, total| {
            assert_eq!(total, SIZE as u64);
            steps.push(done);
        };
        upload(
            session,
            &self.artifact,
            &self.destination(),
            &holder(),
            &mut progress,
        )
        .await?;
        Ok(steps)
    }

    fn arrived(&self) -> bool {
        fs::read(self.waiting()).is_ok_and(|bytes| bytes == self.bytes)
    }
}

#[tokio::test]
async fn a_file_arrives_whole_and_waits_beside_its_place() {
    let node = node().await;
    let (desk, session) = (desk(), connect(&target(&node)).await);
    let steps = desk.send(&session).await.unwrap();
    assert!(desk.arrived());
    assert!(!desk.destination().exists());
    assert_eq!(
        fs::metadata(desk.waiting()).unwrap().permissions().mode() & 0o7777,
        0o755
    );
    assert!(steps.is_sorted() && steps.len() > 100);
    assert_eq!(
        (steps.first(), steps.last()),
        (Some(&0), Some(&(SIZE as u64)))
    );
    assert_eq!(node.execs().len(), 1, "one exec");
    // The lease's token lets its holder write: it is in no argument, where every user of the node could read it.
    assert!(!node.execs()[0].command.contains("5eed"));
}

#[tokio::test]
async fn what_is_there_is_not_sent_again() {
    let node = node().await;
    let (desk, session) = (desk(), connect(&target(&node)).await);
    desk.send(&session).await.unwrap();
    // Killed between the last byte and its mode.
    fs::set_permissions(desk.waiting(), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(desk.send(&session).await.unwrap(), [0; 0]);
    assert_eq!(
        fs::metadata(desk.waiting()).unwrap().permissions().mode() & 0o7777,
        0o755
    );
    fs::rename(desk.waiting(), desk.destination()).unwrap();
    assert_eq!(desk.send(&session).await.unwrap(), [0; 0]);
    assert!(!desk.waiting().exists());
    // Another file in its place is no reason to skip it.
    fs::write(desk.destination(), "old").unwrap();
    assert!(!desk.send(&session).await.unwrap().is_empty());
    assert!(desk.arrived());
    assert_eq!(fs::read(desk.destination()).unwrap(), b"old");
}

#[tokio::test]
async fn every_way_to_become_root_works() {
    let asking = fake_node::Sudo::Password {
        password: "s3cret".to_owned(),
        lecture: "We trust you have received the usual lecture.".to_owned(),
    };
    for (has, sudo) in [
        (fake_node::Sudo::Passwordless, Sudo::Passwordless),
        (fake_node::Sudo::Passwordless, Sudo::AlreadyRoot),
        (asking, Sudo::Password("s3cret".into())),
        // sudo does not want the line that it gets.
        (
            fake_node::Sudo::Passwordless,
            Sudo::Password("exit 3".into()),
        ),
    ] {
        for shell in ["sh", "dash", "bash", "fish", "zsh", "tcsh"] {
            if Command::new(shell).args(["-c", "exit 0"]).status().is_err() {
                continue;
            }
            let config = Config {
                sudo: has.clone(),
                shell: fake_node::Shell::Sh(shell.to_owned()),
                ..Config::default()
            };
            let node = node_that(config, "").await;
            let mut target = target(&node);
            target.sudo = sudo.clone();
            let (desk, session) = (desk(), connect(&target).await);
            desk.send(&session).await.unwrap();
            assert!(desk.arrived(), "{sudo:?} {shell}");
            assert!(!node.execs()[0].command.contains("s3cret"));
        }
    }
}

#[tokio::test]
async fn a_cut_leaves_nothing_and_the_next_run_sends_it_all() {
    let node = node().await;
    let desk = desk();
    for bytes in [100, 1_000_000, 5_000_000] {
        node.set_fault(Some(Fault::CutAfterStdin(bytes)));
        let error = desk.send(&connect(&target(&node)).await).await.unwrap_err();
        assert!(
            matches!(error, NodeError::Exec(ExecError::ConnectionLost { .. })),
            "{error:?}"
        );
    }
    node.set_fault(None);
    let session = connect(&target(&node)).await;
    step_ended(&session).await;
    assert!(!desk.waiting().exists());
    assert!(!desk.send(&session).await.unwrap().is_empty());
    assert!(desk.arrived());
}

#[tokio::test]
async fn a_file_that_is_not_what_was_verified_is_not_kept() {
    let node = node().await;
    let (mut desk, session) = (desk(), connect(&target(&node)).await);
    desk.bytes[5_000_000] ^= 1;
    fs::write(&desk.artifact.path, &desk.bytes).unwrap();
    let error = desk.send(&session).await.unwrap_err().chain();
    assert!(error.contains(desk.artifact.sha256.as_str()), "{error}");
    assert!(error.contains(&sha256(&desk.bytes)), "{error}");
    assert!(!desk.waiting().exists());
    // It became shorter under our hands.
    fs::write(&desk.artifact.path, &desk.bytes[..3_000_000]).unwrap();
    let error = desk.send(&session).await.unwrap_err();
    assert!(
        matches!(error, NodeError::Exec(ExecError::Source { .. })),
        "{error:?}"
    );
    step_ended(&session).await;
    assert!(!desk.waiting().exists());
}

#[tokio::test]
async fn without_room_nothing_is_sent() {
    let node = node().await;
    let (mut desk, session) = (desk(), connect(&target(&node)).await);
    // More than any disk has.
    desk.artifact.size = 1 << 60;
    let mut sent = Vec::new();
    let error = upload(
        &session,
        &desk.artifact,
        &desk.destination(),
        &holder(),
        &mut |done, _| sent.push(done),
    )
    .await
    .unwrap_err();
    assert!(matches!(error, NodeError::Full { .. }), "{error:?}");
    assert!(error.hint().is_some());
    assert!(sent.is_empty());
    assert!(!desk.folder.join("bin").exists(), "nothing was written");
}

#[tokio::test]
async fn a_node_that_takes_nothing_is_given_up() {
    let node = node().await;
    let (desk, session) = (desk(), connect(&target(&node)).await);
    let mut file = tokio::fs::File::open(&desk.artifact.path).await.unwrap();
    let upload = Upload {
        reader: &mut file,
        length: SIZE as u64,
        go: "now",
    };
    let limits = Limits {
        silence: Duration::from_millis(500),
        ..LIMITS
    };
    let began = Instant::now();
    let script = "echo now; echo stuck >&2; sleep 60";
    let error = session
        .upload(script, upload, limits, &mut |_| {})
        .await
        .unwrap_err();
    assert!(
        matches!(&error, ExecError::Stalled { stderr, .. } if stderr.contains("stuck")),
        "{error:?}"
    );
    assert!(began.elapsed() < LIMITS.silence);
}

#[tokio::test]
async fn silence_does_not_count_before_the_go_and_words_do_after_it() {
    let node = node().await;
    let (desk, session) = (desk(), connect(&target(&node)).await);
    let limits = Limits {
        silence: Duration::from_secs(2),
        ..LIMITS
    };
    let mut file = tokio::fs::File::open(&desk.artifact.path).await.unwrap();
    let upload = Upload {
        reader: &mut file,
        length: SIZE as u64,
        go: "now",
    };
    let script =
        "sleep 3; echo now; wc -c; for n in 1 2 3 4 5 6 7 8; do sleep 0.4; echo $n; done; exit 7";
    let output = session
        .upload(script, upload, limits, &mut |_| {})
        .await
        .unwrap();
    assert_eq!(output.status, ssh::Status::Exited(7));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        format!("now\n{SIZE}\n1\n2\n3\n4\n5\n6\n7\n8\n")
    );
}

#[tokio::test]
async fn a_script_that_never_asks_gets_nothing() {
    let node = node().await;
    let (desk, session) = (desk(), connect(&target(&node)).await);
    let mut file = tokio::fs::File::open(&desk.artifact.path).await.unwrap();
    let upload = Upload {
        reader: &mut file,
        length: SIZE as u64,
        go: "now",
    };
    let mut steps = 0;
    let output = session
        .upload("echo later; exit 4", upload, LIMITS, &mut |_| steps += 1)
        .await
        .unwrap();
    assert_eq!((output.status, steps), (ssh::Status::Exited(4), 0));
    assert!(node.execs()[0].stdin.len() < 200);
}

#[tokio::test]
async fn a_disk_that_gives_out_on_the_way_keeps_nothing() {
    // No file may grow beyond 2 MiB (sh counts in 512 bytes).
    let node = node_that(Config::default(), "ulimit -f 4096").await;
    let (desk, session) = (desk(), connect(&target(&node)).await);
    let error = desk.send(&session).await.unwrap_err();
    assert!(matches!(error, NodeError::Step { .. }), "{error:?}");
    let error = error.chain();
    assert!(
        error.contains(&format!("only 2097152 of {SIZE} bytes")),
        "{error}"
    );
    assert!(!desk.waiting().exists());
}

#[tokio::test]
async fn a_node_gives_up_a_line_that_falls_silent() {
    let node = node().await;
    let (desk, session) = (desk(), connect(&target(&node)).await);
    let destination = desk.destination();
    let incoming = Incoming {
        destination: &destination,
        size: SIZE as u64,
        sha256: desk.artifact.sha256.as_str(),
        mode: 0o755,
    };
    let script = receive::receive(&incoming, &holder(), "0123456789abcdef")
        .replace("receive_patience=60", "receive_patience=1");
    let (_silent, rest) = tokio::io::duplex(1);
    let upload = Upload {
        reader: &mut desk.bytes[..1_000_000].chain(rest),
        length: SIZE as u64,
        go: &receive::go("0123456789abcdef"),
    };
    let output = session.upload(&script, upload, LIMITS, &mut |_| {}).await;
    let output = output.unwrap();
    assert_eq!(output.status, ssh::Status::Exited(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&format!(" of {SIZE} bytes")), "{said}");
    assert!(!desk.waiting().exists());
    step_ended(&session).await;
}

#[tokio::test]
async fn another_runs_lease_is_respected() {
    let node = node().await;
    let (desk, session) = (desk(), connect(&target(&node)).await);
    let run = home(&node).join("run");
    fs::create_dir(&run).unwrap();
    fs::write(run.join("lease"), "0dd 99999999999 somebody else\n").unwrap();
    let error = desk.send(&session).await.unwrap_err();
    assert!(
        matches!(&error, NodeError::Held { holder } if holder == "somebody else"),
        "{error:?}"
    );
    assert!(!desk.folder.join("bin").exists());
    // The dead do not count, and while it works the lease is ours.
    let holder = Holder {
        dead: Some("0dd".into()),
        ..holder()
    };
    upload(
        &session,
        &desk.artifact,
        &desk.destination(),
        &holder,
        &mut |_, _| {},
    )
    .await
    .unwrap();
    let lease = fs::read_to_string(run.join("lease")).unwrap();
    assert!(
        lease.starts_with("5eed ") && lease.ends_with(" the quick tests\n"),
        "{lease}"
    );
}

#[tokio::test]
async fn limits_of_ones_own_hold() {
    let node = node_that(Config::default(), "sleep 5 </dev/null").await;
    let (desk, session) = (desk(), connect(&target(&node)).await);
    let limits = Limits {
        total: Duration::from_millis(300),
        ..LIMITS
    };
    let error = upload_within(
        &session,
        &desk.artifact,
        &desk.destination(),
        &holder(),
        limits,
        &mut |_, _| {},
    )
    .await
    .unwrap_err();
    assert!(
        matches!(error, NodeError::Exec(ExecError::Timeout { .. })),
        "{error:?}"
    );
}

/// What the nodes of the next test are sent, and how many there are.
const BIG: u64 = 70_000_000;
const NODES: usize = 20;

/// The controller of the next test.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by another test, in a process of its own"]
async fn controller() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("big");
    fs::File::create(&path).unwrap().set_len(BIG).unwrap();
    let nodes = std::env::var("UPLOAD_NODES").unwrap();
    let uploads: Vec<_> = nodes
        .lines()
        .map(|node| {
            let [port, identity, key] = node.splitn(3, ' ').collect::<Vec<_>>().try_into().unwrap();
            let mut hop = Hop::new("127.0.0.1", "pi");
            hop.port = port.parse().unwrap();
            hop.agent = Agent::None;
            hop.identities = vec![identity.into()];
            hop.identities_only = true;
            hop.host_key = Some(key.parse().unwrap());
            let (target, path) = (Target::new(port, hop), path.clone());
            tokio::spawn(async move {
                let session = connect(&target).await;
                let mut file = tokio::fs::File::open(path).await.unwrap();
                let upload = Upload {
                    reader: &mut file,
                    length: BIG,
                    go: "now",
                };
                let limits = Limits {
                    silence: Duration::from_secs(300),
                    total: Duration::from_secs(600),
                };
                let output = session
                    .upload("echo now; wc -c", upload, limits, &mut |_| {})
                    .await
                    .unwrap();
                assert_eq!(
                    String::from_utf8_lossy(&output.stdout),
                    format!("now\n{BIG}\n")
                );
            })
        })
        .collect();
    for upload in uploads {
        upload.await.unwrap();
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    println!("{peak}");
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_uploads_at_once_take_little_memory() {
    let mut nodes = Vec::new();
    let mut lines = Vec::new();
    for _ in 0..NODES {
        let config = Config {
            forget_stdin: true,
            ..Config::default()
        };
        let node = node_that(config, "").await;
        lines.push(format!(
            "{} {} {}",
            node.port(),
            node.identity().unwrap(),
            node.host_key()
        ));
        nodes.push(node);
    }
    let controller = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "upload::controller", "--nocapture"])
        .env("UPLOAD_NODES", lines.join("\n"))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let said = tokio::task::spawn_blocking(|| controller.wait_with_output().unwrap());
    let said = String::from_utf8(said.await.unwrap().stdout).unwrap();
    let peak = said
        .split_once("VmHWM:")
        .and_then(|(_, rest)| rest.split_whitespace().next()?.parse::<u64>().ok());
    let peak = peak.unwrap_or_else(|| panic!("{said}"));
    println!("{NODES} uploads of {BIG} bytes: at most {peak} KiB");
    assert!(peak < 64 * 1024, "{peak} KiB");
}

#[tokio::test]
async fn an_upload_is_told_once_for_each_percent() {
    let (events, mut receiver) = Events::channel();
    let mut progress = telling(&events, "jarvis", "uploading", "k3s-arm64");
    for done in 0..=100_000_u64 {
        progress(done, 100_000);
    }
    drop((progress, events));
    let mut told = Vec::new();
    while let Some(event) = receiver.recv().await {
        told.push(event);
    }
    assert_eq!(told.len(), 101);
    let Some(
        event @ Event::Transferring {
            done: 0,
            total: 100_000,
            ..
        },
    ) = told.first()
    else {
        panic!("{told:?}");
    };
    assert_eq!(event.text(), "uploading k3s-arm64: 0 B of 97.66 KiB");
}
