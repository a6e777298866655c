//! From a node of the inventory to a target of SSH: paths are resolved, secrets are fetched.

use camino::{Utf8Path, Utf8PathBuf};
use secrecy::SecretString;
use thiserror::Error;

use crate::inventory::{Jump, Node, Secret, SecretError, Ssh};
use crate::ssh::{Agent, Hop, InvalidHostKey, Sudo, Target, Timeouts};

/// Why the login could not be prepared.
#[derive(Debug, Error)]
pub enum TargetError {
    /// There is no home folder to start from.
    #[error("this user has no home folder")]
    NoHome,
    /// A secret is not to be had.
    #[error("the {what} is not to be had")]
    Secret {
        /// What it is for.
        what: &'static str,
        /// Why not.
        #[source]
        source: SecretError,
    },
    /// The pinned host key is none.
    #[error("the pinned host key cannot be used")]
    HostKey(#[from] InvalidHostKey),
}

/// Keys that ssh tries when it is not told which (ssh_config(5), IdentityFile).
const USUAL_KEYS: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];

/// How `node` is reached.
///
/// # Errors
/// A [`TargetError`] when a path or a secret cannot be resolved.
pub async fn target(node: &Node) -> Result<Target, TargetError> {
    let home = etcetera::home_dir().ok().and_then(|home| Utf8PathBuf::try_from(home).ok()).ok_or(TargetError::NoHome)?;
    let ssh = &node.ssh;
    let mut destination = hop(ssh, &home, node.host.to_string(), node.user.to_string(), node.port.get());
    destination.host_key = node.host_key.as_ref().map(|key| key.to_string().parse()).transpose()?;
    let jump = |jump: &Jump| {
        let user = jump.user.as_ref().map_or_else(|| node.user.to_string(), ToString::to_string);
        hop(ssh, &home, jump.host.to_string(), user, jump.port.map_or(22, |port| port.get()))
    };
    destination.login_password = secret("login password", ssh.login_password.as_ref(), &home).await?;
    let sudo = match secret("sudo password", ssh.sudo_password.as_ref(), &home).await? {
        _ if node.user.as_str() == "root" => Sudo::AlreadyRoot,
        Some(password) => Sudo::Password(password),
        None => Sudo::Passwordless,
    };
    Ok(Target {
        node: node.name.to_string(),
        destination,
        jump: ssh.jump.iter().map(jump).collect(),
        proxy_command: ssh.proxy_command.command().map(str::to_owned),
        sudo,
        timeouts: Timeouts { connect: ssh.connect_timeout.get(), ..Timeouts::default() },
    })
}

async fn secret(
    what: &'static str,
    secret: Option<&Secret>,
    home: &Utf8Path,
) -> Result<Option<SecretString>, TargetError> {
    match secret {
        None => Ok(None),
        Some(secret) => match secret.resolve(home).await {
            Ok(value) => Ok(Some(value)),
            Err(source) => Err(TargetError::Secret { what, source }),
        },
    }
}

fn hop(ssh: &Ssh, home: &Utf8Path, host: String, user: String, port: u16) -> Hop {
    let identities = match ssh.identity.as_slice() {
        [] => USUAL_KEYS.iter().map(|name| home.join(".ssh").join(name)).collect(),
        named => named.iter().map(|path| path.expand(home)).collect(),
    };
    Hop {
        port,
        identities,
        identities_only: !ssh.identity.is_empty(),
        agent: if ssh.agent { Agent::from_env() } else { Agent::None },
        ..Hop::new(host, user)
    }
}

/// The same target with keys only: for a login that must prove that passwords are not needed.
pub fn without_password(target: &Target) -> Target {
    let mut target = target.clone();
    target.destination.login_password = None;
    target
}
