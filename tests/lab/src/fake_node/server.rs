//! The SSH server behind a fake node.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::{HashAlg, PublicKey};
use russh::server::{
    Auth, ChannelOpenHandle, Config, Handler, Msg, PublicKeyOffer, Response, Session,
    VerifiedPublicKey,
};
use russh::{Channel, ChannelId, MethodKind, MethodSet};
use tokio::sync::mpsc;

use super::line::{Fate, Line};
use super::shell::spawn;
use super::{Exec, Fault, Shared, Shell, lock, public_line};

/// Serves one connection to its end.
pub(super) async fn serve(line: Line, fate: Fate, shared: Arc<Shared>) {
    let config = Config {
        keys: lock(&shared.host_keys).clone(),
        methods: MethodSet::from(methods(&shared.config).as_slice()),
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: Some(Duration::ZERO),
        // Counted here, as sshd counts: refused offers too.
        max_auth_attempts: usize::MAX,
        nodelay: true,
        ..Config::default()
    };
    let connection = Connection {
        shared,
        fate,
        failures: 0,
        stdins: HashMap::new(),
        channels: HashMap::new(),
    };
    if let Ok(session) = russh::server::run_stream(Arc::new(config), line, connection).await {
        let _ = session.await;
    }
}

fn methods(config: &super::Config) -> Vec<MethodKind> {
    let password = config.password.as_ref().map(|_| {
        if config.keyboard_interactive {
            MethodKind::KeyboardInteractive
        } else {
            MethodKind::Password
        }
    });
    let key = (!config.no_public_keys).then_some(MethodKind::PublicKey);
    key.into_iter().chain(password).collect()
}

struct Connection {
    shared: Arc<Shared>,
    fate: Fate,
    failures: usize,
    /// Where a running command's stdin goes; dropped at its end.
    stdins: HashMap<ChannelId, mpsc::UnboundedSender<Vec<u8>>>,
    /// Which of the recorded execs a channel runs.
    channels: HashMap<ChannelId, usize>,
}

impl Connection {
    fn fault(&self) -> Option<Fault> {
        *lock(&self.shared.fault)
    }

    fn note(&self, login: String) {
        lock(&self.shared.logins).push(login);
    }

    fn decide(&mut self, good: bool) -> Result<Auth, russh::Error> {
        if good {
            return Ok(Auth::Accept);
        }
        self.failures += 1;
        if self.failures >= self.shared.config.max_auth_tries {
            self.fate.cut();
        }
        // A method that failed may be tried again, as with sshd.
        Ok(Auth::Reject {
            proceed_with_methods: Some(methods(&self.shared.config).as_slice().into()),
            partial_success: false,
        })
    }

    fn authorized(&self, key: &PublicKey) -> bool {
        let config = &self.shared.config;
        let known = config
            .authorized_keys
            .iter()
            .filter_map(|line| PublicKey::from_openssh(line).ok());
        let own = PublicKey::from_openssh(&public_line(&self.shared.identity)).ok();
        !config.no_public_keys
            && known
                .chain(own)
                .any(|known| known.key_data() == key.key_data())
    }
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_none(&mut self, _: &str) -> Result<Auth, Self::Error> {
        // Costs no try, as with sshd.
        self.note("none".to_owned());
        Ok(Auth::reject())
    }

    async fn auth_publickey_offered(
        &mut self,
        _: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        self.note(format!(
            "offer {}",
            offer.public_key.fingerprint(HashAlg::Sha256)
        ));
        let good = self.authorized(offer.public_key);
        self.decide(good)
    }

    async fn auth_publickey(
        &mut self,
        _: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        self.note(format!(
            "key {}",
            key.public_key.fingerprint(HashAlg::Sha256)
        ));
        let good = self.authorized(key.public_key);
        self.decide(good)
    }

    async fn auth_password(&mut self, _: &str, password: &str) -> Result<Auth, Self::Error> {
        self.note("password".to_owned());
        let good = self.shared.config.password.as_deref() == Some(password);
        self.decide(good)
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _: &str,
        _: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        let Some(response) = response else {
            return Ok(Auth::Partial {
                name: "".into(),
                instructions: "".into(),
                prompts: vec![("Password: ".into(), false)].into(),
            });
        };
        let given: Vec<Vec<u8>> = response.map(|bytes| bytes.to_vec()).collect();
        self.note("keyboard-interactive".to_owned());
        let right = self
            .shared
            .config
            .password
            .as_ref()
            .map(|password| password.as_bytes().to_vec());
        let good = right.is_some_and(|right| given == [right]);
        self.decide(good)
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        if !self.shared.config.forwarding {
            return Ok(());
        }
        lock(&self.shared.forwards).push(format!("{host}:{port}"));
        let port = u16::try_from(port).unwrap_or_default();
        let to = tokio::net::TcpStream::connect((host, port)).await;
        match to {
            Ok(mut to) => {
                reply.accept().await;
                tokio::spawn(async move {
                    let _ =
                        tokio::io::copy_bidirectional(&mut channel.into_stream(), &mut to).await;
                });
            }
            Err(_) => reply.reject(russh::ChannelOpenFailure::ConnectFailed).await,
        }
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let command = String::from_utf8_lossy(command).into_owned();
        let nth = {
            let mut execs = lock(&self.shared.execs);
            execs.push(Exec {
                command: command.clone(),
                stdin: Vec::new(),
            });
            execs.len() - 1
        };
        self.channels.insert(channel, nth);
        match self.fault() {
            Some(Fault::CutAtExec) => self.fate.cut(),
            Some(Fault::GoDead) => self.fate.go_dead(),
            Some(Fault::RefuseExec) => session.channel_failure(channel)?,
            Some(Fault::NoReply) => session.channel_success(channel)?,
            _ => {
                session.channel_success(channel)?;
                match &self.shared.config.shell {
                    Shell::Sh(shell) => {
                        let cut = match self.fault() {
                            Some(Fault::CutInReply(bytes)) => Some((bytes, self.fate.clone())),
                            _ => None,
                        };
                        let handle = session.handle();
                        let stdin = spawn(&self.shared, shell, &command, channel, handle, cut)?;
                        self.stdins.insert(channel, stdin);
                    }
                    Shell::Answer(_) => {
                        if let Some(ready) = ready_line(&command) {
                            session.data(channel, format!("{ready}\n"))?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    async fn data(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(nth) = self.channels.get(&channel) else {
            return Ok(());
        };
        let (before, after) = {
            let mut execs = lock(&self.shared.execs);
            let Some(exec) = execs.get_mut(*nth) else {
                return Ok(());
            };
            let before = exec.stdin.len();
            if !self.shared.config.forget_stdin {
                exec.stdin.extend_from_slice(data);
            }
            (before, exec.stdin.len())
        };
        let (mut data, mut cut) = (data, false);
        if let Some(Fault::CutAfterStdin(limit)) = self.fault()
            && after >= limit
        {
            data = &data[..limit.saturating_sub(before).min(data.len())];
            cut = true;
        }
        if let Some(stdin) = self.stdins.get(&channel) {
            let _ = stdin.send(data.to_vec());
        }
        if cut {
            // The command sees its stdin end there, as it does when sshd goes.
            self.stdins.remove(&channel);
            self.fate.cut();
        }
        Ok(())
    }

    async fn channel_eof(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.stdins.remove(&channel);
        let Some(nth) = self.channels.get(&channel) else {
            return Ok(());
        };
        if let (Shell::Answer(answer), None | Some(Fault::CutInReply(_))) =
            (&self.shared.config.shell, self.fault())
        {
            let exec = lock(&self.shared.execs)
                .get(*nth)
                .cloned()
                .unwrap_or_default();
            let mut reply = answer(&exec);
            let cut = match self.fault() {
                Some(Fault::CutInReply(limit)) => {
                    reply.stdout.truncate(limit);
                    true
                }
                _ => false,
            };
            let (fate, handle) = (self.fate.clone(), session.handle());
            tokio::spawn(async move {
                let _ = handle.data(channel, reply.stdout).await;
                if cut {
                    fate.cut();
                    return;
                }
                if !reply.stderr.is_empty() {
                    let _ = handle.extended_data(channel, 1, reply.stderr).await;
                }
                let _ = handle.exit_status_request(channel, reply.exit).await;
                let _ = handle.eof(channel).await;
                let _ = handle.close(channel).await;
            });
        }
        Ok(())
    }

    async fn channel_close(
        &mut self,
        channel: ChannelId,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.stdins.remove(&channel);
        Ok(())
    }
}

/// The word that the client's wrapper echoes first.
fn ready_line(command: &str) -> Option<&str> {
    let from = &command[command.find("selfheal-ready-")?..];
    let end = from
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .unwrap_or(from.len());
    Some(&from[..end])
}
