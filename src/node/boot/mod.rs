//! The boot files of a Pi: which file the firmware reads, and how its one line may be changed.
//!
//! Everything here is a pure function of bytes that the probe read. Writing is `templates/session/boot.sh`. The rules
//! are those of domain.md §1: on the plain layout nothing can undo a kernel that does not boot, so whatever is not
//! understood is refused.

mod command_line;
mod config_txt;
mod layout;
mod token;

pub use command_line::{CommandLine, CommandLineError, Edit, EditError, MAX_LENGTH};
pub use config_txt::{Board, ConfigTxt, Setting};
pub use layout::{BootFacts, BootFile, BootMount, BootProblem, Layout, resolve};
pub use token::{Standing, Token, TokenError};
