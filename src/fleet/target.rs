//! From a node of the inventory to a target of SSH: the user's ~/.ssh/config fills in what the inventory leaves open,
//! secrets are fetched, paths are resolved.

use camino::{Utf8Path, Utf8PathBuf};
use secrecy::SecretString;
use thiserror::Error;

use crate::inventory::{Node, Secret, SecretError};
use crate::ssh::config::{ConfigError, JumpHost, Overrides, resolve};
use crate::ssh::{Agent, InvalidHostKey, Sudo, Target, Timeouts};

/// Why the login could not be prepared.
#[derive(Debug, Error)]
pub enum TargetError {
    /// There is no home folder to start from.
    #[error("this user has no home folder")]
    NoHome,
    /// The user's SSH configuration is of no use.
    #[error("the SSH configuration of this computer cannot be used")]
    Config(#[from] ConfigError),
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

/// How `node` is reached.
///
/// # Errors
/// A [`TargetError`] when a path, a secret or the SSH configuration cannot be resolved.
pub async fn target(node: &Node) -> Result<Target, TargetError> {
    let home = home()?;
    let ssh = &node.ssh;
    let identities: Vec<Utf8PathBuf> = ssh.identity.iter().map(|path| path.expand(&home)).collect();
    let jump = ssh.jump.iter().map(|jump| JumpHost {
        user: jump.user.as_ref().map(ToString::to_string),
        host: jump.host.to_string(),
        port: jump.port.map(|port| port.get()),
    });
    let overrides = Overrides {
        config_file: None,
        port: Some(node.port.get()),
        user: Some(node.user.to_string()),
        identities: identities.clone(),
        agent: (!ssh.agent).then_some(Agent::None),
        jump: (!ssh.jump.is_empty()).then(|| jump.collect()),
        proxy_command: ssh.proxy_command.command().map(str::to_owned),
    };
    let mut way = resolve(&node.host.to_string(), &overrides).await?;
    for hop in &mut way.jump {
        hop.identities.splice(0..0, identities.iter().cloned());
    }
    way.destination.host_key = node
        .host_key
        .as_ref()
        .map(|key| key.to_string().parse())
        .transpose()?;
    way.destination.login_password =
        secret("login password", ssh.login_password.as_ref(), &home).await?;
    let sudo = match secret("sudo password", ssh.sudo_password.as_ref(), &home).await? {
        _ if node.user.as_str() == "root" => Sudo::AlreadyRoot,
        Some(password) => Sudo::Password(password),
        None => Sudo::Passwordless,
    };
    let timeouts = Timeouts {
        connect: ssh.connect_timeout.get(),
        ..Timeouts::default()
    };
    Ok(way.into_target(node.name.to_string(), sudo, timeouts))
}

/// This user's home folder.
///
/// # Errors
/// [`TargetError::NoHome`].
pub fn home() -> Result<Utf8PathBuf, TargetError> {
    let home = etcetera::home_dir()
        .ok()
        .and_then(|home| Utf8PathBuf::try_from(home).ok());
    home.ok_or(TargetError::NoHome)
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

/// The same target with keys only: for a login that must prove that passwords are not needed.
pub fn without_password(target: &Target) -> Target {
    let mut target = target.clone();
    target.destination.login_password = None;
    target
}
