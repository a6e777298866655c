//! Exit codes: fixed, documented in the man page, the same for every command (design.md §1).

use std::process::ExitCode;

use crate::fleet::Class;

/// How a command ended. The order is the order in which outcomes win when nodes fare differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// 130: the user interrupted it.
    Interrupted,
    /// 3: the inventory or the command line is wrong; nothing was sent to any node.
    Usage,
    /// 6: another run holds a node.
    Held,
    /// 5: a host key or a login was refused.
    LoginRefused,
    /// 4: a node could not be reached.
    Unreachable,
    /// 1: it failed.
    Failed,
    /// 2: changes are pending, or there are warnings.
    Pending,
    /// 0: nothing to do, or done.
    Done,
}

impl Exit {
    /// All of them, by number.
    pub const ALL: [Exit; 8] = [
        Exit::Done,
        Exit::Failed,
        Exit::Pending,
        Exit::Usage,
        Exit::Unreachable,
        Exit::LoginRefused,
        Exit::Held,
        Exit::Interrupted,
    ];

    /// What it means, for `--help` and the manual page.
    pub fn meaning(self) -> &'static str {
        match self {
            Exit::Done => "nothing to do, done, or healthy (doctor)",
            Exit::Failed => "failed, or something is broken (doctor)",
            Exit::Pending => "changes pending (plan), or warnings (doctor)",
            Exit::Usage => "bad inventory or usage, or nobody there to confirm",
            Exit::Unreachable => "a node is unreachable",
            Exit::LoginRefused => "a host key or login was refused",
            Exit::Held => "another run holds the lock",
            Exit::Interrupted => "interrupted, or not confirmed",
        }
    }

    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Pending => 2,
            Exit::Usage => 3,
            Exit::Unreachable => 4,
            Exit::LoginRefused => 5,
            Exit::Held => 6,
            Exit::Interrupted => 130,
        }
    }

    /// The outcome of several: the first in order wins.
    pub fn worst(outcomes: impl IntoIterator<Item = Exit>) -> Exit {
        outcomes.into_iter().min().unwrap_or(Exit::Done)
    }
}

impl From<Class> for Exit {
    fn from(class: Class) -> Exit {
        match class {
            Class::Interrupted => Exit::Interrupted,
            Class::Held => Exit::Held,
            Class::LoginRefused => Exit::LoginRefused,
            Class::Unreachable => Exit::Unreachable,
            Class::Failed => Exit::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// Which one it is when nodes fare differently.
pub const PRECEDENCE: &str =
    "When nodes fare differently, the first of 130, 3, 6, 5, 4, 1, 2, 0 wins.";

/// The table that ends `selfheal --help`.
pub fn table() -> String {
    let lines = Exit::ALL.map(|exit| format!("  {:<4} {}\n", exit.code(), exit.meaning()));
    format!("Exit codes:\n{}{PRECEDENCE}", lines.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcomes_win_in_the_documented_order() {
        use Exit::*;
        let order = [
            Interrupted,
            Usage,
            Held,
            LoginRefused,
            Unreachable,
            Failed,
            Pending,
            Done,
        ];
        for (position, exit) in order.iter().enumerate() {
            assert_eq!(Exit::worst(order[position..].iter().copied()), *exit);
        }
        assert_eq!(order.map(Exit::code), [130, 3, 6, 5, 4, 1, 2, 0]);
    }
}
