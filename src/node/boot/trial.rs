//! A new command line between its writing and the boot that proves it: Ubuntu's trial (domain.md §1.3), and what
//! selfheal wrote since the last boot.

use super::command_line::CommandLine;
use super::layout::{BootFacts, BootFile, boot_mount};
use super::token::Token;

/// How Ubuntu's second set of boot files stands, by `new/state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// There is none: no second set, one that is not whole, or one that is never booted by itself.
    None,
    /// `unknown`: the next boot tries it.
    Waiting,
    /// `trying`: the node is in its trial boot, or has just come back from one.
    UnderWay,
    /// `bad`: it was tried, and the node went back to `current/`.
    Rejected,
}

impl Trial {
    /// The trial on the node's boot partition. [`Trial::None`] on a layout that knows none.
    pub fn of(facts: &BootFacts) -> Trial {
        let Ok(mount) = boot_mount(facts) else {
            return Trial::None;
        };
        let word = |name| {
            let content = facts.files.get(&mount.path.join(name))?;
            Some(String::from_utf8_lossy(content).trim().to_owned())
        };
        if word("current/cmdline.txt").is_none() {
            return Trial::None;
        }
        match word("new/state").as_deref() {
            Some("unknown") if word("new/cmdline.txt").is_some() => Trial::Waiting,
            Some("trying") => Trial::UnderWay,
            Some("bad") => Trial::Rejected,
            _ => Trial::None,
        }
    }

    /// Whether the set that is booted as a rule is marked as good, as it is once a trial was passed.
    pub fn is_passed(facts: &BootFacts) -> bool {
        let state = |folder: &str| {
            let path = boot_mount(facts).ok()?.path.join(folder).join("state");
            let content = facts.files.get(&path)?;
            Some(String::from_utf8_lossy(content).trim().to_owned())
        };
        state("current").as_deref() == Some("good") && state("new").is_none()
    }
}

/// What selfheal wrote since the last boot. It lies in /run, so that it is gone with that boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The line of the file that the running kernel was started from.
    pub before: CommandLine,
    /// The line that selfheal wrote last.
    pub after: CommandLine,
}

impl Written {
    /// Where it lies on a node.
    pub const PATH: &str = "/run/selfheal/boot-line";

    /// Reads it: two lines. `None` where it says nothing that can be relied upon.
    pub fn parse(content: &[u8]) -> Option<Written> {
        let mut lines = content.split(|&byte| byte == b'\n');
        let mut line = || CommandLine::parse(lines.next()?).ok();
        let (before, after) = (line()?, line()?);
        Some(Written { before, after })
    }
}

/// What waits for a reboot.
impl BootFile {
    /// Whether `line`, an edit of this one, makes a difference that the running kernel does not show yet.
    pub fn reboots_for(&self, line: &CommandLine) -> bool {
        let waits = |token: &Token| !self.line.holds(token) || self.pending.contains(token);
        line.not_booted(&self.running).iter().any(waits) || !self.left_out_of(line).is_empty()
    }

    /// Tokens that the running kernel was started with, and a boot with `line` would not.
    fn left_out_of(&self, line: &CommandLine) -> Vec<Token> {
        let asleep = self.booted.not_booted(&self.running);
        let left_out = |token: &&Token| {
            !line.holds(token) && !line.tokens().contains(token) && !asleep.contains(token)
        };
        self.booted
            .tokens()
            .iter()
            .filter(left_out)
            .cloned()
            .collect()
    }

    /// What of this line the running kernel does not show yet, in words; `None` where there is nothing.
    pub fn waits_for(&self) -> Option<String> {
        let words = |tokens: &[Token]| {
            let words: Vec<&str> = tokens.iter().map(Token::as_str).collect();
            words.join(" ")
        };
        match (&self.pending[..], &self.lingering()[..]) {
            ([], []) => None,
            ([], lingering) => Some(format!("the kernel still runs with {}", words(lingering))),
            (pending, _) => Some(format!(
                "the kernel was not yet started with {}",
                words(pending)
            )),
        }
    }

    /// Tokens that are taken away but stay in force until a reboot.
    pub fn lingering(&self) -> Vec<Token> {
        let mut lingering = self.left_out_of(&self.line);
        lingering.retain(|token| !self.pending.iter().any(|new| new.key() == token.key()));
        lingering
    }
}
