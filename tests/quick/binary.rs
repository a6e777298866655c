//! The real binary, with a home of its own and nobody's SSH configuration.

use std::process::Stdio;
use std::time::Duration;

use camino::Utf8PathBuf;
use selfheal_lab::fake_node::FakeNode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

const LIMIT: Duration = Duration::from_secs(60);

/// A user's home, which is also where commands are run.
pub struct Home {
    _folder: tempfile::TempDir,
    pub path: Utf8PathBuf,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Home {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        Self {
            _folder: folder,
            path: Utf8PathBuf::try_from(path).unwrap(),
        }
    }

    pub fn write(&self, file: &str, text: &str) -> Utf8PathBuf {
        let path = self.path.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    pub fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.path.join(file)).unwrap()
    }

    pub fn has(&self, file: &str) -> bool {
        self.path.join(file).exists()
    }

    /// A line of known_hosts for a node.
    pub fn know(&self, node: &FakeNode) -> String {
        let line = format!("[127.0.0.1]:{} {}\n", node.port(), node.host_key());
        self.write(".ssh/known_hosts", &format!("# mine\n{line}"));
        line
    }

    /// Runs selfheal without a terminal.
    pub async fn selfheal(&self, arguments: &[&str]) -> Ended {
        let mut command = Command::new(env!("CARGO_BIN_EXE_selfheal"));
        command.args(arguments);
        self.run(command, &[]).await
    }

    /// Runs selfheal at a terminal where somebody waits for each question and types the answer. All its output comes as
    /// stdout.
    pub async fn selfheal_at_terminal(
        &self,
        arguments: &[&str],
        answers: &[(&str, &str)],
    ) -> Ended {
        let words = [env!("CARGO_BIN_EXE_selfheal")];
        let line = shlex::try_join(words.into_iter().chain(arguments.iter().copied())).unwrap();
        let mut command = Command::new("/usr/bin/script");
        command.args([
            "--quiet",
            "--flush",
            "--return",
            "--command",
            &line,
            "/dev/null",
        ]);
        self.run(command, answers).await
    }

    async fn run(&self, mut command: Command, answers: &[(&str, &str)]) -> Ended {
        // No PATH to speak of: no program `ssh` that would read this machine's configuration.
        let mut child = command
            .env_clear()
            .env("HOME", &self.path)
            .env("PATH", self.path.join("bin"))
            .env("SHELL", "/bin/sh")
            .env("TERM", "xterm")
            .current_dir(&self.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let mut said = Vec::new();
        let reading = async {
            let mut from = 0;
            for (question, answer) in answers {
                let asked = loop {
                    let fresh = String::from_utf8_lossy(&said[from..]).into_owned();
                    if fresh.contains(question) || stdout.read_buf(&mut said).await.unwrap() == 0 {
                        break fresh;
                    }
                };
                assert!(asked.contains(question), "{question:?} not in {asked:?}");
                from = said.len();
                stdin.write_all(answer.as_bytes()).await.unwrap();
            }
            // The one who types stays at the terminal to the end.
            stdout.read_to_end(&mut said).await.unwrap();
        };
        let mut complaints = String::new();
        let ended = async {
            let complaining = stderr.read_to_string(&mut complaints);
            let (complained, ()) = tokio::join!(complaining, reading);
            complained.unwrap();
            child.wait().await.unwrap()
        };
        let status = tokio::time::timeout(LIMIT, ended)
            .await
            .expect("it does not end");
        Ended {
            code: status.code(),
            stdout: String::from_utf8(said).unwrap(),
            stderr: complaints,
        }
    }
}
