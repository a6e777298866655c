//! A fake node in process: an SSH server on the loopback that counts, and fails on demand.
//!
//! It answers scripts from a closure ([`FakeNode::answering`]) or runs them through this machine's `sh`, with a stand-in
//! for sudo ([`FakeNode::running_sh`]). It knows one thing of the client's protocol: a command that contains
//! `echo selfheal-ready-…` gets that line as its first output, as a shell would give it.

mod config;
mod line;
mod server;
mod shell;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context, Result};
use camino::Utf8PathBuf;
use russh::keys::PrivateKey;
use russh::keys::ssh_key::LineEnding;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub use config::{Answer, Config, Exec, Fault, KeyKind, Reply, Shell, Sudo};
use line::{Fate, Line};

/// A running fake node. Dropping it ends it.
#[derive(Debug)]
pub struct FakeNode {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    config: Config,
    folder: TempDir,
    identity: PrivateKey,
    host_keys: Mutex<Vec<PrivateKey>>,
    fault: Mutex<Option<Fault>>,
    connections: AtomicUsize,
    open: AtomicUsize,
    logins: Mutex<Vec<String>>,
    execs: Mutex<Vec<Exec>>,
    forwards: Mutex<Vec<String>>,
    lines: Mutex<Vec<Fate>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl FakeNode {
    /// Starts a node on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When there is no port, no randomness or no temporary folder.
    pub async fn start(config: Config) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let folder = tempfile::tempdir()?;
        let identity = KeyKind::Ed25519.generate()?;
        identity.write_openssh_file(folder.path().join("id_ed25519"), LineEnding::LF)?;
        let host_keys = config
            .host_keys
            .iter()
            .map(|kind| kind.generate())
            .collect::<Result<_>>()?;
        shell::install_sudo(folder.path())?;
        let shared = Arc::new(Shared {
            config,
            folder,
            identity,
            host_keys: Mutex::new(host_keys),
            fault: Mutex::default(),
            connections: AtomicUsize::default(),
            open: AtomicUsize::default(),
            logins: Mutex::default(),
            execs: Mutex::default(),
            forwards: Mutex::default(),
            lines: Mutex::default(),
        });
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self {
            address,
            shared,
            accepting,
        })
    }

    /// A node that runs scripts through this machine's `sh`.
    ///
    /// # Errors
    /// As for [`FakeNode::start`].
    pub async fn running_sh() -> Result<Self> {
        Self::start(Config::default()).await
    }

    /// A node that answers scripts from a closure.
    ///
    /// # Errors
    /// As for [`FakeNode::start`].
    pub async fn answering(
        answer: impl Fn(&Exec) -> Reply + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::start(Config {
            shell: Shell::Answer(Arc::new(answer)),
            ..Config::default()
        })
        .await
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// A private key file that is let in.
    ///
    /// # Errors
    /// When the temporary folder's path is not UTF-8.
    pub fn identity(&self) -> Result<Utf8PathBuf> {
        let path = self.shared.folder.path().join("id_ed25519");
        Utf8PathBuf::try_from(path).context("temporary folder")
    }

    /// The first host key, as `TYPE BASE64`.
    #[must_use]
    pub fn host_key(&self) -> String {
        lock(&self.shared.host_keys)
            .first()
            .map(public_line)
            .unwrap_or_default()
    }

    /// All host keys, each as `TYPE BASE64`.
    #[must_use]
    pub fn host_keys(&self) -> Vec<String> {
        lock(&self.shared.host_keys)
            .iter()
            .map(public_line)
            .collect()
    }

    /// Replaces the host keys, as a re-flash does.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn change_host_keys(&self, kinds: &[KeyKind]) -> Result<()> {
        let fresh = kinds
            .iter()
            .map(|kind| kind.generate())
            .collect::<Result<_>>()?;
        *lock(&self.shared.host_keys) = fresh;
        Ok(())
    }

    /// Sets the fault that strikes from now on, or mends it.
    pub fn set_fault(&self, fault: Option<Fault>) {
        *lock(&self.shared.fault) = fault;
    }

    /// Closes all connections there are.
    pub fn cut_all(&self) {
        for fate in lock(&self.shared.lines).drain(..) {
            fate.cut();
        }
    }

    /// Stops listening: from now on TCP is refused.
    pub async fn stop_listening(&mut self) {
        self.accepting.abort();
        let _ = (&mut self.accepting).await;
    }

    /// TCP connections accepted so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// SSH connections open right now.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Login attempts so far: `none`, `offer FINGERPRINT`, `key FINGERPRINT`, `password`, `keyboard-interactive`.
    #[must_use]
    pub fn logins(&self) -> Vec<String> {
        lock(&self.shared.logins).clone()
    }

    /// Commands so far, each with what came on its stdin so far.
    #[must_use]
    pub fn execs(&self) -> Vec<Exec> {
        lock(&self.shared.execs).clone()
    }

    /// Where connections were forwarded to (`host:port`).
    #[must_use]
    pub fn forwards(&self) -> Vec<String> {
        lock(&self.shared.forwards).clone()
    }

    /// How often the stand-in for sudo checked a password.
    #[must_use]
    pub fn sudo_attempts(&self) -> usize {
        let log = std::fs::read_to_string(self.shared.folder.path().join("sudo.log"));
        log.map_or(0, |log| log.lines().count())
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut_all();
    }
}

fn public_line(key: &PrivateKey) -> String {
    key.public_key()
        .to_openssh()
        .unwrap_or_default()
        .trim_end()
        .to_owned()
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(serve(stream, Arc::clone(&shared)));
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let fault = *lock(&shared.fault);
    let _ = stream.set_nodelay(true);
    match fault {
        Some(Fault::HangUp) => {}
        Some(Fault::NotSsh) => {
            let mut stream = stream;
            let _ = tokio::io::AsyncWriteExt::write_all(
                &mut stream,
                b"HTTP/1.1 400 Bad Request\r\n\r\n",
            )
            .await;
        }
        Some(Fault::Stall) => {
            // Until the client has had enough.
            let mut stream = stream;
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        }
        _ => {
            let fate = Fate::default();
            lock(&shared.lines).push(fate.clone());
            shared.open.fetch_add(1, Ordering::SeqCst);
            server::serve(
                Line {
                    stream,
                    fate: fate.clone(),
                },
                fate,
                Arc::clone(&shared),
            )
            .await;
            shared.open.fetch_sub(1, Ordering::SeqCst);
        }
    }
}
