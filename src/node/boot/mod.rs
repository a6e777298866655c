//! The boot files of a Pi: which file the firmware reads, how its one line may be changed, and what config.txt says.
//!
//! Everything here is a pure function of bytes that the probe read. Writing is `templates/session/boot.sh`. The rules
//! are those of domain.md §1: on the plain layout nothing can undo a kernel that does not boot, so whatever is not
//! understood is refused.

mod command_line;
mod config_line;
mod config_txt;
mod layout;
mod standing;
mod token;
mod trial;

pub use command_line::{CommandLine, CommandLineError, Edit, EditError, MAX_LENGTH};
pub use config_line::{ConfigLine, ConfigLineError};
pub use config_txt::{Board, ConfigTxt, Setting};
pub use layout::{BootFacts, BootFile, BootMount, BootProblem, Layout, boot_mount, resolve};
pub use standing::{Standing, Values};
pub use token::{Token, TokenError};
pub use trial::{Trial, Written};
