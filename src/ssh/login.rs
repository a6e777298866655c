//! Logging in, in OpenSSH's spirit: keys of the agent, key files, then a password.

use std::sync::Arc;

use russh::client::{AuthResult, KeyboardInteractiveAuthResponse};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{Algorithm, HashAlg};
use russh::{MethodKind, MethodSet};
use secrecy::{ExposeSecret, SecretString};
use tokio::net::UnixStream;

use super::connect::Link;
use super::error::{ConnectError, Peer};
use super::key_file::{KeyFile, KeySigner};
use super::patience::Patience;
use super::{Agent, Hop, Prompt};

/// How the node let us in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// A key that the agent holds.
    Agent,
    /// A key file.
    PublicKey,
    /// A password (also by keyboard-interactive): first contact.
    Password,
}

/// sshd cuts the connection at the sixth failure (MaxAuthTries, sshd_config(5)).
const MAX_TRIES: usize = 6;

/// How often the user may mistype.
const MAX_PASSWORDS: usize = 3;

/// Logs in over a connection whose host key is verified.
pub(super) async fn log_in(
    link: &mut Link,
    hop: &Hop,
    peer: &Peer,
    prompt: &Arc<dyn Prompt>,
    patience: &Arc<Patience>,
) -> Result<Method, ConnectError> {
    let mut login = Login {
        link,
        hop,
        peer,
        prompt,
        patience,
        tried: Vec::new(),
        failures: 0,
        left_out: 0,
        methods: None,
    };
    match login.run().await {
        Some(method) => Ok(method),
        None => {
            let Login {
                link,
                mut tried,
                left_out,
                methods,
                ..
            } = login;
            if link.handle.is_closed() {
                // Its reason may say it all, such as "Too many authentication failures".
                tried.extend(link.notes.lock().farewell.take());
            }
            let methods = methods
                .iter()
                .flat_map(|set| set.iter())
                .map(String::from)
                .collect();
            Err(ConnectError::LoginRefused {
                peer: Box::new(peer.clone()),
                tried,
                left_out,
                methods,
            })
        }
    }
}

struct Login<'a> {
    link: &'a mut Link,
    hop: &'a Hop,
    peer: &'a Peer,
    prompt: &'a Arc<dyn Prompt>,
    patience: &'a Arc<Patience>,
    tried: Vec<String>,
    failures: usize,
    left_out: usize,
    /// What the server would still take; unknown before the first failure.
    methods: Option<MethodSet>,
}

/// A key to offer.
enum Candidate {
    Agent(AgentIdentity),
    File(KeyFile),
}

impl Login<'_> {
    async fn run(&mut self) -> Option<Method> {
        let mut agent = self.agent().await;
        let candidates = self.candidates(agent.as_mut()).await;
        // A password needs a try of its own.
        let tries = if self.hop.login_password.is_some() {
            MAX_TRIES - 1
        } else {
            MAX_TRIES
        };
        for candidate in candidates {
            if !self.methods_include(MethodKind::PublicKey) {
                break;
            }
            if self.failures >= tries || self.link.handle.is_closed() {
                self.left_out += 1;
            } else if let Some(method) = self.offer(candidate, agent.as_mut()).await {
                return Some(method);
            }
        }
        self.passwords().await
    }

    /// Whether the server takes this method, as far as it has said so. A server that is gone has named none.
    fn methods_include(&self, kind: MethodKind) -> bool {
        let named = self.methods.as_ref().filter(|methods| !methods.is_empty());
        named.is_none_or(|methods| methods.contains(&kind))
    }

    async fn agent(&self) -> Option<AgentClient<UnixStream>> {
        let Agent::Socket(socket) = &self.hop.agent else {
            return None;
        };
        let mut agent = AgentClient::connect_uds(socket).await.ok()?;
        if let Some(binding) = self.link.handle.agent_session_binding() {
            // Only agents with keys restricted to certain hosts care.
            let _ = agent.bind_session(binding, false).await;
        }
        Some(agent)
    }

    /// The agent's keys that are also named as identities, the agent's others, then the files that the agent lacks.
    async fn candidates(&mut self, agent: Option<&mut AgentClient<UnixStream>>) -> Vec<Candidate> {
        let held = match agent {
            Some(agent) => agent.request_identities().await.unwrap_or_default(),
            None => Vec::new(),
        };
        let mut files = Vec::new();
        for path in &self.hop.identities {
            match KeyFile::read(path) {
                Ok(Some(file)) => files.push(file),
                Ok(None) if self.hop.identities_only => {
                    self.tried.push(format!("{path} (no such file)"))
                }
                Ok(None) => {}
                Err(problem) => self.tried.push(format!("{path} ({problem})")),
            }
        }
        let named = |identity: &AgentIdentity| {
            let public = identity.public_key();
            files.iter().position(|file| {
                file.public()
                    .is_some_and(|key| key.key_data() == public.key_data())
            })
        };
        let mut first: Vec<(usize, AgentIdentity)> = Vec::new();
        let mut others = Vec::new();
        for identity in held {
            match named(&identity) {
                Some(position) => first.push((position, identity)),
                None if !self.hop.identities_only => others.push(identity),
                None => {}
            }
        }
        first.sort_by_key(|(position, _)| *position);
        let in_agent: Vec<usize> = first.iter().map(|(position, _)| *position).collect();
        let mut missing = Vec::new();
        for (position, file) in files.into_iter().enumerate() {
            if in_agent.contains(&position) {
                continue;
            }
            if file.is_private() {
                missing.push(file);
            } else {
                self.tried
                    .push(format!("{} (the agent does not hold it)", file.path()));
            }
        }
        first
            .into_iter()
            .map(|(_, identity)| identity)
            .chain(others)
            .map(Candidate::Agent)
            .chain(missing.into_iter().map(Candidate::File))
            .collect()
    }

    async fn offer(
        &mut self,
        candidate: Candidate,
        agent: Option<&mut AgentClient<UnixStream>>,
    ) -> Option<Method> {
        let user = &self.hop.user;
        let (label, method, outcome) = match (candidate, agent) {
            (Candidate::Agent(identity), Some(agent)) => {
                let label = format!("key {:?} of the agent", identity.comment());
                let hash = self.hash_for(&identity.public_key().algorithm()).await;
                let handle = &mut self.link.handle;
                let outcome = match identity {
                    AgentIdentity::PublicKey { key, .. } => {
                        handle
                            .authenticate_publickey_with(user, key, hash, agent)
                            .await
                    }
                    AgentIdentity::Certificate { certificate, .. } => {
                        handle
                            .authenticate_certificate_with(user, certificate, hash, agent)
                            .await
                    }
                };
                (
                    label,
                    Method::Agent,
                    outcome.map_err(|error| error.to_string()),
                )
            }
            (Candidate::File(file), _) => {
                let label = file.path().to_string();
                let mut signer =
                    KeySigner::new(file, Arc::clone(self.prompt), Arc::clone(self.patience));
                let outcome = match signer.public().await {
                    Some(public) => {
                        let hash = self.hash_for(&public.algorithm()).await;
                        let handle = &mut self.link.handle;
                        let outcome = handle
                            .authenticate_publickey_with(user, public, hash, &mut signer)
                            .await;
                        outcome.map_err(|error| error.to_string())
                    }
                    None => Err("no passphrase".to_owned()),
                };
                (label, Method::PublicKey, outcome)
            }
            (Candidate::Agent(_), None) => return None,
        };
        match outcome {
            Ok(result) => self.settle(label, result).then_some(method),
            Err(problem) => {
                self.tried.push(format!("{label} ({problem})"));
                None
            }
        }
    }

    /// RSA keys sign with SHA-2. The server's wishes come right behind the handshake, if at all: no waiting for them.
    async fn hash_for(&self, algorithm: &Algorithm) -> Option<HashAlg> {
        if !matches!(algorithm, Algorithm::Rsa { .. }) {
            return None;
        }
        const ALREADY_THERE: std::time::Duration = std::time::Duration::from_millis(50);
        let wish =
            tokio::time::timeout(ALREADY_THERE, self.link.handle.best_supported_rsa_hash()).await;
        match wish {
            Ok(Ok(Some(Some(hash)))) => Some(hash),
            _ => Some(HashAlg::Sha512),
        }
    }

    /// Takes note of a server's answer. True: we are in.
    fn settle(&mut self, label: String, result: AuthResult) -> bool {
        match result {
            AuthResult::Success => true,
            AuthResult::Failure {
                remaining_methods,
                partial_success,
            } => {
                let note = if partial_success {
                    " (accepted, but more is asked for)"
                } else {
                    ""
                };
                self.tried.push(format!("{label}{note}"));
                self.failures += usize::from(!partial_success);
                self.methods = Some(remaining_methods);
                false
            }
        }
    }

    async fn passwords(&mut self) -> Option<Method> {
        if self.methods.is_none() && !self.link.handle.is_closed() {
            // Nothing was tried yet: ask what there is. This costs no try.
            let answer = self
                .link
                .handle
                .authenticate_none(&self.hop.user)
                .await
                .ok()?;
            match answer {
                AuthResult::Success => return Some(Method::Password),
                AuthResult::Failure {
                    remaining_methods, ..
                } => self.methods = Some(remaining_methods),
            }
        }
        let mut given = self.hop.login_password.clone();
        for _ in 0..MAX_PASSWORDS {
            let kind = [MethodKind::Password, MethodKind::KeyboardInteractive]
                .into_iter()
                .find(|kind| self.methods_include(*kind))?;
            if self.failures >= MAX_TRIES || self.link.handle.is_closed() {
                return None;
            }
            let password = match given.take() {
                Some(password) => password,
                // A configured password that is wrong is not worth a question: the configuration is to be mended.
                None if self.hop.login_password.is_some() => return None,
                None => {
                    let prompt = Arc::clone(self.prompt);
                    let (user, node) = (self.hop.user.clone(), self.peer.node.clone());
                    self.patience
                        .ask(move || prompt.password(&user, &node))
                        .await??
                }
            };
            let result = match kind {
                MethodKind::Password => {
                    let handle = &mut self.link.handle;
                    handle
                        .authenticate_password(&self.hop.user, password.expose_secret())
                        .await
                        .ok()?
                }
                _ => self.interactive(&password).await?,
            };
            if self.settle("password".to_owned(), result) {
                return Some(Method::Password);
            }
        }
        None
    }

    /// Answers every hidden question with the password. Other questions (one-time codes) nobody can answer for us.
    async fn interactive(&mut self, password: &SecretString) -> Option<AuthResult> {
        let handle = &mut self.link.handle;
        let mut answer = handle
            .authenticate_keyboard_interactive_start(&self.hop.user, None)
            .await
            .ok()?;
        loop {
            match answer {
                KeyboardInteractiveAuthResponse::Success => return Some(AuthResult::Success),
                KeyboardInteractiveAuthResponse::Failure {
                    remaining_methods,
                    partial_success,
                } => {
                    return Some(AuthResult::Failure {
                        remaining_methods,
                        partial_success,
                    });
                }
                KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } => {
                    let answers = prompts
                        .iter()
                        .map(|prompt| {
                            if prompt.echo {
                                String::new()
                            } else {
                                password.expose_secret().to_owned()
                            }
                        })
                        .collect();
                    answer = handle
                        .authenticate_keyboard_interactive_respond(answers)
                        .await
                        .ok()?;
                }
            }
        }
    }
}
