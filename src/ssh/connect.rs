//! From a [`Target`] to a [`Session`]: the way there, the host keys, the logins.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard};

use russh::client::{self, DisconnectReason, Handle};
use russh::keys::{Algorithm, HashAlg, PublicKeyOrCertificate};
use russh::{Preferred, SshId};
use tokio::io::{AsyncRead, AsyncWrite};

use super::error::{ConnectError, Peer, Stage};
use super::login::{self, Method};
use super::patience::Patience;
use super::prompt::{Prompt, UnknownHostKey};
use super::record::{Record, Verdict};
use super::session::Session;
use super::transport::{self, ProxyCommand};
use super::{Hop, HostKey, Target, Timeouts};

/// Connects to a node and logs in, each jump host on the way included.
///
/// # Errors
/// What stood in the way, see [`ConnectError`].
pub async fn connect(target: &Target, prompt: &Arc<dyn Prompt>) -> Result<Session, ConnectError> {
    let mut way = Way::through(target, prompt).await?;
    let (link, method) = way.enter(&target.destination, false).await?;
    Ok(Session::new(target, method, link, way.links, way.proxy))
}

/// Asks the node for its host key, believing whatever it says and never logging in there. For `init` and `trust`, which
/// show the key to the user. Jump hosts on the way are verified and logged into as always.
///
/// # Errors
/// What stood in the way, see [`ConnectError`].
pub async fn scan_host_key(
    target: &Target,
    prompt: &Arc<dyn Prompt>,
) -> Result<HostKey, ConnectError> {
    let mut way = Way::through(target, prompt).await?;
    let mut gate = way.gate(&target.destination, false)?;
    gate.look_only = true;
    let (peer, notes) = (gate.peer.clone(), Arc::clone(&gate.notes));
    // The gate stays shut: what counts is the key that was shown before.
    let shut = way.knock(&target.destination, gate).await.err();
    let shown = notes.lock().key.take();
    shown.ok_or_else(|| shut.unwrap_or_else(|| handshake_failed(peer, russh::Error::UnknownKey)))
}

/// One live connection, to a jump host or to the node.
pub(super) struct Link {
    pub(super) handle: Handle<Gate>,
    pub(super) notes: Arc<Notes>,
}

/// What a connection's background task has to tell us.
#[derive(Debug, Default)]
pub(super) struct Notes(Mutex<Noted>);

#[derive(Debug, Default)]
pub(super) struct Noted {
    /// Why the host key was not accepted.
    refusal: Option<ConnectError>,
    /// The host key that was shown.
    pub(super) key: Option<HostKey>,
    /// Why the connection ended.
    pub(super) farewell: Option<String>,
}

impl Notes {
    pub(super) fn lock(&self) -> MutexGuard<'_, Noted> {
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The connections built up so far; each runs through the one before.
struct Way<'a> {
    target: &'a Target,
    prompt: &'a Arc<dyn Prompt>,
    links: Vec<Link>,
    proxy: Option<ProxyCommand>,
}

impl<'a> Way<'a> {
    /// Logs into the jump hosts, one through the other.
    async fn through(
        target: &'a Target,
        prompt: &'a Arc<dyn Prompt>,
    ) -> Result<Self, ConnectError> {
        let mut way = Self {
            target,
            prompt,
            links: Vec::new(),
            proxy: None,
        };
        for hop in &target.jump {
            let (link, _) = way.enter(hop, true).await?;
            way.links.push(link);
        }
        Ok(way)
    }

    /// One hop further: connected, verified, logged in.
    async fn enter(&mut self, hop: &Hop, jump: bool) -> Result<(Link, Method), ConnectError> {
        let gate = self.gate(hop, jump)?;
        let (peer, patience) = (gate.peer.clone(), Arc::clone(&gate.patience));
        let mut link = self.knock(hop, gate).await?;
        let login = patience
            .wait(login::log_in(&mut link, hop, &peer, self.prompt, &patience))
            .await;
        let method = login.map_err(|_| timed_out(&peer, Stage::Login, &patience))??;
        Ok((link, method))
    }

    fn gate(&self, hop: &Hop, jump: bool) -> Result<Gate, ConnectError> {
        let peer = Box::new(Peer {
            node: self.target.node.clone(),
            user: hop.user.clone(),
            host: hop.host.clone(),
            port: hop.port,
            jump,
        });
        let record = Record::of(hop).map_err(|(file, source)| ConnectError::KnownHosts {
            peer: peer.clone(),
            file,
            source,
        })?;
        Ok(Gate {
            peer,
            hop: hop.clone(),
            record,
            prompt: Arc::clone(self.prompt),
            patience: Arc::new(Patience::new(self.target.timeouts.connect)),
            notes: Arc::default(),
            look_only: false,
        })
    }

    /// Dials and shakes hands; the gate decides on the host key.
    async fn knock(&mut self, hop: &Hop, gate: Gate) -> Result<Link, ConnectError> {
        let (peer, patience) = (gate.peer.clone(), Arc::clone(&gate.patience));
        let config = Arc::new(self.config(&gate.record));
        let dial_timeout = |_| timed_out(&peer, Stage::Dial, &patience);
        if let Some(previous) = self.links.last() {
            let (host, port) = (hop.host.clone(), u32::from(hop.port));
            // We have no address of our own to report.
            let open = previous
                .handle
                .channel_open_direct_tcpip(host, port, "127.0.0.1", 0);
            let channel = patience
                .wait(open)
                .await
                .map_err(dial_timeout)?
                .map_err(|source| {
                    let jump_host = self.jump_host_before(hop);
                    ConnectError::Jump {
                        peer: peer.clone(),
                        jump_host,
                        source: source.into(),
                    }
                })?;
            shake_hands(config, channel.into_stream(), gate).await
        } else if let Some(command) = &self.target.proxy_command {
            let (proxy, pipes) =
                ProxyCommand::start(command, hop).map_err(|source| ConnectError::ProxyCommand {
                    peer: peer.clone(),
                    command: command.clone(),
                    stderr: String::new(),
                    source: source.into(),
                })?;
            let proxy = self.proxy.insert(proxy);
            match shake_hands(config, pipes, gate).await {
                Err(ConnectError::Handshake { peer, source }) => Err(ConnectError::ProxyCommand {
                    peer,
                    stderr: proxy.last_words().await,
                    command: proxy.line.clone(),
                    source,
                }),
                outcome => outcome,
            }
        } else {
            let stream = patience
                .wait(transport::tcp(
                    &hop.host,
                    hop.port,
                    self.target.timeouts.until_dead(),
                ))
                .await
                .map_err(dial_timeout)?;
            let stream = stream.map_err(|source| ConnectError::Unreachable { peer, source })?;
            shake_hands(config, stream, gate).await
        }
    }

    fn jump_host_before(&self, hop: &Hop) -> String {
        let reached = self
            .links
            .len()
            .checked_sub(1)
            .and_then(|last| self.target.jump.get(last));
        reached.unwrap_or(hop).host.clone()
    }

    fn config(&self, record: &Record) -> client::Config {
        client::Config {
            client_id: SshId::Standard(Cow::Borrowed(concat!(
                "SSH-2.0-selfheal_",
                env!("CARGO_PKG_VERSION")
            ))),
            preferred: Preferred {
                key: host_key_algorithms(record).into(),
                ..Preferred::DEFAULT
            },
            keepalive_interval: Some(self.target.timeouts.keepalive),
            keepalive_max: Timeouts::KEEPALIVES,
            nodelay: true,
            ..client::Config::default()
        }
    }
}

async fn shake_hands<S>(
    config: Arc<client::Config>,
    stream: S,
    gate: Gate,
) -> Result<Link, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (peer, patience, notes) = (
        gate.peer.clone(),
        Arc::clone(&gate.patience),
        Arc::clone(&gate.notes),
    );
    match patience
        .wait(client::connect_stream(config, stream, gate))
        .await
    {
        Err(_) => Err(timed_out(&peer, Stage::Handshake, &patience)),
        Ok(Ok(handle)) => Ok(Link { handle, notes }),
        Ok(Err(error)) => {
            let refusal = notes.lock().refusal.take();
            Err(refusal.unwrap_or_else(|| handshake_failed(peer, error)))
        }
    }
}

fn timed_out(peer: &Peer, stage: Stage, patience: &Patience) -> ConnectError {
    ConnectError::Timeout {
        peer: Box::new(peer.clone()),
        stage,
        after: patience.limit(),
    }
}

fn handshake_failed(peer: Box<Peer>, error: russh::Error) -> ConnectError {
    let source = ending(&error).into();
    ConnectError::Handshake { peer, source }
}

/// Why a connection ended, in words of ours where the library's are terse.
fn ending(error: &russh::Error) -> String {
    match error {
        russh::Error::HUP | russh::Error::Disconnect => {
            "the other side closed the connection".to_owned()
        }
        russh::Error::IO(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "the other side closed the connection".to_owned()
        }
        russh::Error::Version => "what answers does not speak SSH 2".to_owned(),
        russh::Error::KeepaliveTimeout => "no sign of life from the other side".to_owned(),
        error => error.to_string(),
    }
}

/// The types of known keys first, so that the server shows a key that can be compared; no SHA-1.
fn host_key_algorithms(record: &Record) -> Vec<Algorithm> {
    let rsa = [HashAlg::Sha512, HashAlg::Sha256].map(|hash| Algorithm::Rsa { hash: Some(hash) });
    let known = record.expected().flat_map(|key| match key.algorithm() {
        Algorithm::Rsa { .. } => rsa.to_vec(),
        other => vec![other],
    });
    let all = Preferred::DEFAULT
        .key
        .iter()
        .filter(|algorithm| !matches!(algorithm, Algorithm::Rsa { hash: None }));
    let mut ordered = Vec::new();
    for algorithm in known.chain(all.clone().cloned()) {
        if !ordered.contains(&algorithm) && all.clone().any(|supported| *supported == algorithm) {
            ordered.push(algorithm);
        }
    }
    ordered
}

/// Decides on the host key and notes why a connection ended.
pub(super) struct Gate {
    peer: Box<Peer>,
    hop: Hop,
    record: Record,
    prompt: Arc<dyn Prompt>,
    patience: Arc<Patience>,
    notes: Arc<Notes>,
    /// Note the key and shut the gate.
    look_only: bool,
}

impl Gate {
    /// Asks the user about a key seen for the first time, and puts it on record.
    async fn introduce(&mut self, key: HostKey) -> Result<(), ConnectError> {
        let question = UnknownHostKey {
            node: self.peer.node.clone(),
            host: self.hop.host.clone(),
            port: self.hop.port,
            key: key.clone(),
        };
        let prompt = Arc::clone(&self.prompt);
        let confirmed = self
            .patience
            .ask(move || prompt.confirm_host_key(&question))
            .await;
        if confirmed != Some(true) {
            return Err(ConnectError::HostKeyUnknown {
                peer: self.peer.clone(),
                key,
            });
        }
        self.hop
            .known_hosts
            .remember(&self.hop, &key)
            .map_err(|(file, source)| ConnectError::KnownHosts {
                peer: self.peer.clone(),
                file,
                source,
            })?;
        self.record.accept(key);
        Ok(())
    }

    async fn admit(&mut self, key: HostKey) -> Result<(), ConnectError> {
        let peer = self.peer.clone();
        match self.record.judge(&key) {
            Verdict::Known => Ok(()),
            Verdict::Unknown => self.introduce(key).await,
            Verdict::Changed(recorded) => Err(ConnectError::HostKeyChanged {
                peer,
                offered: key,
                recorded,
            }),
            Verdict::Revoked(place) => Err(ConnectError::HostKeyRevoked { peer, key, place }),
        }
    }
}

impl client::Handler for Gate {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        shown: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        let key = HostKey::new(&shown.public_key());
        self.notes.lock().key = Some(key.clone());
        if self.look_only {
            return Ok(false);
        }
        match self.admit(key).await {
            Ok(()) => Ok(true),
            Err(refusal) => {
                self.notes.lock().refusal = Some(refusal);
                Ok(false)
            }
        }
    }

    async fn disconnected(
        &mut self,
        reason: DisconnectReason<Self::Error>,
    ) -> Result<(), Self::Error> {
        let farewell = match reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                format!("the server said: {}", info.message)
            }
            DisconnectReason::Error(error) => ending(&error),
        };
        self.notes.lock().farewell = Some(farewell);
        Ok(())
    }
}
