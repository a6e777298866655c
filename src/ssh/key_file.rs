//! Private key files, decrypted only when the server has agreed to the key.

use std::fmt;
use std::io;
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};
use russh::Signer;
use russh::keys::agent::AgentIdentity;
use russh::keys::signature::Signer as _;
use russh::keys::ssh_encoding::Encode;
use russh::keys::ssh_key::private::KeypairData;
use russh::keys::{HashAlg, PrivateKey, PublicKey};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::Prompt;
use super::patience::Patience;

/// How often a passphrase may be mistyped.
const MAX_PASSPHRASES: usize = 3;

/// A private key as it lies in a file.
pub(super) struct KeyFile {
    path: Utf8PathBuf,
    key: Stored,
}

enum Stored {
    Open(PrivateKey),
    /// Encrypted in OpenSSH's own format, which shows the public key.
    Sealed(PrivateKey),
    /// Encrypted PEM, which does not; the file beside it (`.pub`) may.
    SealedPem {
        text: Zeroizing<String>,
        public: Option<PublicKey>,
    },
    /// Only the public half is here: it names a key of the agent's.
    Public(PublicKey),
}

impl KeyFile {
    /// Reads a key file. `None` if there is no such file; an error tells why it is of no use.
    pub(super) fn read(path: &Utf8Path) -> Result<Option<Self>, String> {
        let path = path.to_owned();
        let beside = || russh::keys::load_public_key(format!("{path}.pub")).ok();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let public = beside().map(Stored::Public);
                return Ok(public.map(|key| Self { path, key }));
            }
            Err(error) => return Err(error.to_string()),
        };
        let key = if text.contains("BEGIN OPENSSH PRIVATE KEY") {
            let key =
                PrivateKey::from_openssh(text.as_bytes()).map_err(|error| error.to_string())?;
            if key.is_encrypted() {
                Stored::Sealed(key)
            } else {
                Stored::Open(key)
            }
        } else if text.contains("ENCRYPTED") {
            let public = beside();
            Stored::SealedPem { text, public }
        } else if text.contains("PRIVATE KEY") {
            Stored::Open(
                russh::keys::decode_secret_key(&text, None).map_err(|error| error.to_string())?,
            )
        } else {
            let public =
                PublicKey::from_openssh(text.trim()).map_err(|_| "not a key file".to_owned())?;
            Stored::Public(public)
        };
        Ok(Some(Self { path, key }))
    }

    /// Whether it can sign, with a passphrase perhaps.
    pub(super) fn is_private(&self) -> bool {
        !matches!(self.key, Stored::Public(_))
    }

    pub(super) fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// The public key, as far as it shows without the passphrase.
    pub(super) fn public(&self) -> Option<&PublicKey> {
        match &self.key {
            Stored::Open(key) | Stored::Sealed(key) => Some(key.public_key()),
            Stored::SealedPem { public, .. } => public.as_ref(),
            Stored::Public(key) => Some(key),
        }
    }

    fn unlock(&self, passphrase: &SecretString) -> Option<PrivateKey> {
        let passphrase = passphrase.expose_secret();
        match &self.key {
            Stored::Open(key) => Some(key.clone()),
            Stored::Sealed(key) => key.decrypt(passphrase).ok(),
            Stored::SealedPem { text, .. } => {
                russh::keys::decode_secret_key(text, Some(passphrase)).ok()
            }
            Stored::Public(_) => None,
        }
    }
}

/// Signs with a key file, asking for its passphrase when it comes to that.
pub(super) struct KeySigner {
    file: Arc<KeyFile>,
    prompt: Arc<dyn Prompt>,
    patience: Arc<Patience>,
}

impl KeySigner {
    pub(super) fn new(file: KeyFile, prompt: Arc<dyn Prompt>, patience: Arc<Patience>) -> Self {
        Self {
            file: Arc::new(file),
            prompt,
            patience,
        }
    }

    /// The public key to offer. Asks for the passphrase only if it does not show otherwise.
    pub(super) async fn public(&mut self) -> Option<PublicKey> {
        if let Some(public) = self.file.public() {
            return Some(public.clone());
        }
        let key = self.unlocked().await?;
        let public = key.public_key().clone();
        let path = self.file.path.clone();
        self.file = Arc::new(KeyFile {
            path,
            key: Stored::Open(key),
        });
        Some(public)
    }

    async fn unlocked(&self) -> Option<PrivateKey> {
        if let Stored::Open(key) = &self.file.key {
            return Some(key.clone());
        }
        let (file, prompt) = (Arc::clone(&self.file), Arc::clone(&self.prompt));
        // Deriving a key from a passphrase is slow on purpose: off the async threads with it, too.
        let asked = self.patience.ask(move || {
            (0..MAX_PASSPHRASES).find_map(|_| match prompt.passphrase(&file.path) {
                Some(passphrase) => file.unlock(&passphrase).map(Some),
                None => Some(None),
            })
        });
        asked.await???.into()
    }
}

/// Why a key file did not sign.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignError {
    #[error("no passphrase")]
    NoPassphrase,
    #[error("signing failed: {0}")]
    Failed(Box<dyn std::error::Error + Send + Sync>),
    #[error("the connection ended")]
    Gone,
}

impl From<russh::SendError> for SignError {
    fn from(_: russh::SendError) -> Self {
        Self::Gone
    }
}

impl fmt::Debug for KeySigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySigner")
            .field("path", &self.file.path)
            .finish_non_exhaustive()
    }
}

impl Signer for KeySigner {
    type Error = SignError;

    async fn auth_sign(
        &mut self,
        _: &AgentIdentity,
        hash: Option<HashAlg>,
        mut data: Vec<u8>,
    ) -> Result<Vec<u8>, SignError> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| SignError::Failed(error);
        let key = self.unlocked().await.ok_or(SignError::NoPassphrase)?;
        let signature = match key.key_data() {
            KeypairData::Rsa(pair) => (pair, hash).try_sign(&data),
            pair => pair.try_sign(&data),
        }
        .map_err(|error| failed(error.into()))?;
        let mut blob = Vec::new();
        signature
            .encode(&mut blob)
            .map_err(|error| failed(error.into()))?;
        // The answer is the signed text with the signature behind it (RFC 4252, section 7).
        blob.encode(&mut data)
            .map_err(|error| failed(error.into()))?;
        Ok(data)
    }
}
