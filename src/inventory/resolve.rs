//! Fetches the value of a secret from where the inventory says it is.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use secrecy::SecretString;
use tokio::process::Command;
use tokio::time::timeout;
use zeroize::Zeroize as _;

use super::secret::{Secret, VariableName};
use super::ssh::Line;

/// How long a command may take to print a secret: somebody may have to unlock a vault.
const PATIENCE: Duration = Duration::from_secs(120);

/// Why a secret is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The variable is not set, or empty.
    #[error(
        "the environment variable {0} is not set, or empty; the inventory takes a secret from it"
    )]
    Unset(VariableName),
    /// The file cannot be read.
    #[error("cannot read the secret in {path}")]
    Unreadable {
        /// The file.
        path: Utf8PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Everybody on this machine can read the file.
    #[error("everybody on this machine can read the secret in {0}; close it first: chmod 600 {0}")]
    Open(Utf8PathBuf),
    /// The command could not be started.
    #[error("cannot run `{program}`, which is to print a secret")]
    Command {
        /// The program.
        program: String,
        /// What the system says.
        source: io::Error,
    },
    /// The command failed; what it said went to stderr.
    #[error("`{program}`, which is to print a secret, failed ({status}); its own message is above")]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// The command did not end.
    #[error("`{program}`, which is to print a secret, did not end within {} s", PATIENCE.as_secs())]
    Slow {
        /// The program.
        program: String,
    },
    /// There is nothing, or no text.
    #[error("the secret from {0} is empty, or no UTF-8 text of one line")]
    Useless(String),
}

impl Secret {
    /// The value of the secret, without the newline at its end. `home` is what `~/` stands for.
    ///
    /// A command gets the terminal, so that it can ask for a passphrase, and two minutes.
    ///
    /// # Errors
    /// Where it is not to be had; no error ever holds a part of it.
    pub async fn resolve(&self, home: &Utf8Path) -> Result<SecretString, SecretError> {
        match self {
            Self::Env(name) => {
                let bytes = std::env::var_os(name.as_str())
                    .unwrap_or_default()
                    .into_encoded_bytes();
                if bytes.is_empty() {
                    return Err(SecretError::Unset(name.clone()));
                }
                text(bytes, || format!("the environment variable {name}"))
            }
            Self::File(path) => {
                let path = path.expand(home);
                let unreadable = |source| SecretError::Unreadable {
                    path: path.clone(),
                    source,
                };
                let mode = std::fs::metadata(&path)
                    .map_err(unreadable)?
                    .permissions()
                    .mode();
                if mode & 0o007 != 0 {
                    return Err(SecretError::Open(path));
                }
                text(std::fs::read(&path).map_err(unreadable)?, || {
                    path.to_string()
                })
            }
            Self::Command(words) => run(words, PATIENCE).await,
        }
    }
}

async fn run(words: &[Line], patience: Duration) -> Result<SecretString, SecretError> {
    let mut words = words.iter().map(Line::as_str);
    let program = words.next().unwrap_or_default().to_owned();
    let failed = |source| SecretError::Command {
        program: program.clone(),
        source,
    };
    let child = Command::new(&program)
        .args(words)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    match timeout(patience, child.wait_with_output()).await {
        Err(_) => Err(SecretError::Slow { program }),
        Ok(output) => {
            let mut output = output.map_err(failed)?;
            if !output.status.success() {
                output.stdout.zeroize();
                return Err(SecretError::Failed {
                    program,
                    status: output.status,
                });
            }
            text(output.stdout, || format!("`{program}`"))
        }
    }
}

/// A secret goes to a prompt, so it is one line; its newline is not a part of it.
fn text(bytes: Vec<u8>, source: impl FnOnce() -> String) -> Result<SecretString, SecretError> {
    match String::from_utf8(bytes) {
        Ok(mut text) => {
            if text.ends_with('\n') {
                text.pop();
            }
            if text.ends_with('\r') {
                text.pop();
            }
            let useless = text.is_empty() || text.contains(['\n', '\r', '\0']);
            let secret = SecretString::from(text);
            if useless {
                Err(SecretError::Useless(source()))
            } else {
                Ok(secret)
            }
        }
        Err(error) => {
            error.into_bytes().zeroize();
            Err(SecretError::Useless(source()))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    fn line(text: &str) -> Line {
        text.parse().unwrap()
    }

    async fn shell(script: &str) -> Result<String, SecretError> {
        let secret = Secret::Command(vec![line("sh"), line("-c"), line(script)]);
        let secret = secret.resolve(Utf8Path::new("/")).await?;
        Ok(secret.expose_secret().to_owned())
    }

    #[tokio::test]
    async fn a_command_prints_one_line() {
        assert_eq!(shell("echo 'a b'").await.unwrap(), "a b");
        assert_eq!(shell("printf ' x '").await.unwrap(), " x ");
        assert!(matches!(
            shell("exit 3").await,
            Err(SecretError::Failed { .. })
        ));
        assert!(matches!(
            shell("echo; echo").await,
            Err(SecretError::Useless(_))
        ));
        assert!(matches!(
            shell("printf '\\377'").await,
            Err(SecretError::Useless(_))
        ));
        let nowhere = Secret::Command(vec![line("/nonexistent/program")])
            .resolve(Utf8Path::new("/"))
            .await;
        assert!(matches!(nowhere, Err(SecretError::Command { .. })));
    }

    #[tokio::test]
    async fn a_command_that_does_not_end_is_given_up() {
        let words = [line("sleep"), line("1000")];
        assert!(matches!(
            run(&words, Duration::ZERO).await,
            Err(SecretError::Slow { .. })
        ));
    }

    #[tokio::test]
    async fn a_file_is_read_only_if_it_is_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let home = Utf8Path::from_path(folder.path()).unwrap();
        let secret = Secret::File("~/sudo".parse().unwrap());
        assert!(matches!(
            secret.resolve(home).await,
            Err(SecretError::Unreadable { .. })
        ));
        std::fs::write(home.join("sudo"), "raspberry\r\n").unwrap();
        std::fs::set_permissions(home.join("sudo"), std::fs::Permissions::from_mode(0o644))
            .unwrap();
        let error = secret.resolve(home).await.unwrap_err().to_string();
        assert!(
            error.ends_with(&format!("chmod 600 {home}/sudo")),
            "{error}"
        );
        std::fs::set_permissions(home.join("sudo"), std::fs::Permissions::from_mode(0o600))
            .unwrap();
        let value = secret.resolve(home).await.unwrap();
        assert_eq!(value.expose_secret(), "raspberry");
        assert!(!format!("{value:?}").contains("raspberry"));
    }

    #[tokio::test]
    async fn a_variable_that_is_not_set_is_named() {
        let secret = Secret::Env("SELFHEAL_TEST_NOT_SET".parse().unwrap());
        let error = secret
            .resolve(Utf8Path::new("/"))
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("SELFHEAL_TEST_NOT_SET is not set"),
            "{error}"
        );
    }
}
