//! SSH to a node: who it is, how to get in, how to run a script as root.
//!
//! The only part that names russh; everything else speaks of [`Target`], [`Session`] and [`Output`]. It knows nothing
//! of the inventory: all values arrive resolved.
//!
//! - [`config`] asks the user's own `ssh -G` how a host is reached.
//! - [`connect`] opens the way (TCP, jump hosts, ProxyCommand), verifies the host key, logs in.
//! - [`Session::run`] runs a POSIX sh script as root, script over stdin, in two round trips.
//! - [`known_hosts`] reads and writes OpenSSH's own file.

pub mod config;
mod connect;
mod error;
mod exec;
mod home;
mod host_key;
mod jump_host;
mod key_file;
pub mod known_hosts;
mod login;
mod patience;
mod prompt;
mod record;
mod session;
mod sudo;
mod target;
mod transport;

pub use connect::{connect, scan_host_key};
pub use error::{ConnectError, ErrorClass, ExecError, Peer, Place, Stage};
pub use exec::{Limits, Output, Status, Upload};
pub use home::home;
pub use host_key::{Fingerprint, HostKey, InvalidFingerprint, InvalidHostKey};
pub use login::Method;
pub use prompt::{NoPrompt, Prompt, Terminal, UnknownHostKey, Vouched};
pub use record::{Record, Verdict};
pub use session::Session;
pub use sudo::SudoRefusal;
pub use target::{Agent, Hop, Sudo, Target, Timeouts};
