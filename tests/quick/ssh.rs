//! `selfheal::ssh` against a fake node.

mod exec;
mod faults;
mod host_key;
mod login;
mod sudo;
mod way;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use secrecy::SecretString;
use selfheal::ssh::{
    self, Agent, ConnectError, Hop, NoPrompt, Prompt, Session, Target, UnknownHostKey,
};
use selfheal_lab::fake_node::FakeNode;

/// Far longer than any script here takes.
const LIMIT: Duration = Duration::from_secs(30);

/// A hop that lets us into the node, by its identity and its pinned host key, whatever this machine's user has set up.
fn hop(node: &FakeNode) -> Hop {
    let mut hop = Hop::new("127.0.0.1", "pi");
    hop.port = node.port();
    hop.agent = Agent::None;
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
    ssh::connect(target, &(Arc::new(NoPrompt) as Arc<dyn Prompt>)).await
}

/// A user who gives prepared answers and remembers the questions.
#[derive(Default)]
struct Scripted {
    confirms: bool,
    secrets: Mutex<Vec<&'static str>>,
    questions: Mutex<Vec<String>>,
}

impl Scripted {
    fn with_secrets(secrets: &[&'static str]) -> Arc<Self> {
        let secrets = Mutex::new(secrets.iter().rev().copied().collect());
        Arc::new(Self {
            secrets,
            ..Self::default()
        })
    }

    fn questions(&self) -> Vec<String> {
        self.questions.lock().unwrap().clone()
    }

    fn answer(&self, question: String) -> Option<SecretString> {
        self.questions.lock().unwrap().push(question);
        self.secrets.lock().unwrap().pop().map(SecretString::from)
    }
}

impl Prompt for Scripted {
    fn confirm_host_key(&self, unknown: &UnknownHostKey) -> bool {
        let question = format!("{} {}", unknown.node, unknown.key.fingerprint());
        self.questions.lock().unwrap().push(question);
        self.confirms
    }
    fn passphrase(&self, path: &Utf8Path) -> Option<SecretString> {
        self.answer(path.to_string())
    }
    fn password(&self, user: &str, node: &str) -> Option<SecretString> {
        self.answer(format!("{user} on {node}"))
    }
}

async fn connect_asking(target: &Target, user: &Arc<Scripted>) -> Result<Session, ConnectError> {
    ssh::connect(target, &(Arc::clone(user) as Arc<dyn Prompt>)).await
}

/// Waits until something is so.
async fn eventually(what: &str, so: impl Fn() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < LIMIT, "never so: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A folder for a test's files.
fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::try_from(folder.path().to_owned()).unwrap();
    (folder, path)
}
