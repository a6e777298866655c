//! The one line of cmdline.txt: read as the firmware and the kernel read it, changed without losing any of it.

use std::fmt;

use super::token::{Arity, Token};

/// The longest file that selfheal writes, in bytes: arm64 takes 2048 with the firmware's own prefix of about 225
/// (domain.md §1.1, §1.2).
pub const MAX_LENGTH: usize = 1700;

/// The command line that a cmdline.txt holds, as tokens in their order.
///
/// [`fmt::Display`] gives the content of the file: the tokens joined by one space, and a newline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    tokens: Vec<Token>,
}

/// Why the content of a cmdline.txt is not a command line that may be edited.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandLineError {
    /// The file has no bytes, or only blanks. A power cut during a write to vfat leaves such a file.
    #[error(
        "the file is empty: the Pi would not find its root file system at the next boot; put a copy back, from \
         `cmdline.txt.selfheal-bak` beside it or from /var/lib/selfheal/boot-backup"
    )]
    Empty,
    /// A byte that no command line holds: NUL, another control character, or anything beyond ASCII.
    #[error(
        "byte {byte:#04x} at offset {offset} is not printable ASCII: the file is damaged, or saved in a wrong encoding"
    )]
    Byte {
        /// The byte found.
        byte: u8,
        /// Its place in the file, from 0.
        offset: usize,
    },
    /// Text after the first line, which the firmware does not read.
    #[error(
        "line {line} holds text, but the firmware reads only the first line: join it to the first with a blank if its \
         tokens are meant, or delete it"
    )]
    TextAfterFirstLine {
        /// The first such line, from 1.
        line: usize,
    },
    /// A `"` that is never closed: the kernel would take everything that follows into that value.
    #[error("a double quote is opened and never closed")]
    UnclosedQuote,
}

/// Why an edit was refused. The line is unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The line has no `root=`: it is not the one that the Pi booted with.
    #[error(
        "the command line has no `root=`: this is not the line a Pi boots with, so it is not edited"
    )]
    NoRoot,
    /// The edit names a token that selfheal never sets, changes or removes.
    #[error(
        "`{0}` decides whether the Pi boots or can be reached: selfheal neither sets nor removes it"
    )]
    Untouchable(Token),
    /// The edit wants two things at once.
    #[error("`{0}` and `{1}` contradict each other: keep one of them")]
    Contradiction(Token, Token),
    /// The line would not fit into what the kernel takes.
    #[error(
        "the command line would have {length} bytes; more than {MAX_LENGTH} do not fit beside what the firmware adds"
    )]
    TooLong {
        /// The length it would have, in bytes.
        length: usize,
    },
    /// The result differs in a token that must come out unchanged. A mistake of selfheal's own: nothing is written.
    #[error("editing would change `{0}`, which must stay as it is; please report this as a bug")]
    WouldChange(String),
}

/// A wanted change of a command line. The order of `set` is the order in which missing tokens are appended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edit {
    /// Tokens that the line must hold.
    pub set: Vec<Token>,
    /// Tokens that it must not hold. Of a comma list only the members named here go.
    pub remove: Vec<Token>,
}

impl CommandLine {
    /// Reads the content of a cmdline.txt.
    ///
    /// # Errors
    /// See [`CommandLineError`]; whatever the firmware or the kernel would read differently than a person does.
    pub fn parse(content: &[u8]) -> Result<CommandLine, CommandLineError> {
        let blank = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | 0x0b | 0x0c);
        if let Some(offset) = content
            .iter()
            .position(|byte| !(blank(byte) || (0x20..0x7f).contains(byte)))
        {
            return Err(CommandLineError::Byte {
                byte: content[offset],
                offset,
            });
        }
        let text = String::from_utf8_lossy(content);
        let mut lines = text.split('\n');
        let first = lines.next().unwrap_or_default();
        if let Some(after) = lines.position(|line| !line.trim().is_empty()) {
            return Err(CommandLineError::TextAfterFirstLine { line: after + 2 });
        }
        let tokens = split(first).map_err(|UnclosedQuote| CommandLineError::UnclosedQuote)?;
        if tokens.is_empty() {
            return Err(CommandLineError::Empty);
        }
        Ok(CommandLine { tokens })
    }

    /// The tokens in their order.
    pub fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// Whether the line already holds what `token` asks for.
    pub fn holds(&self, token: &Token) -> bool {
        let kernel = self.for_kernel();
        let mut same_key = kernel.iter().filter(|have| have.key() == token.key());
        match token.arity() {
            Arity::Single => same_key.next_back().is_some_and(|last| last.means(token)),
            Arity::Repeated => same_key.any(|have| have.means(token)),
            Arity::RepeatedList => {
                let have: Vec<&str> = same_key.flat_map(Token::items).collect();
                token.items().iter().all(|item| have.contains(item))
            }
            Arity::List => same_key
                .next_back()
                .is_some_and(|last| token.items().iter().all(|item| last.items().contains(item))),
        }
    }

    /// The line with the edit carried out. Equal to `self` when there is nothing to do; then the file, however it is
    /// spaced, need not be written.
    ///
    /// A single-valued key changes in place, what is missing is appended (before a `--`, after which everything belongs
    /// to init), the order of the rest stays. `console=`, `cgroup_enable=` and the like may occur many times and are
    /// never merged; the comma lists `module_blacklist=` and `usb-storage.quirks=` grow and shrink by members.
    ///
    /// # Errors
    /// See [`EditError`]: the edit touches what must stay, contradicts itself, or makes the line too long.
    pub fn edit(&self, edit: &Edit) -> Result<CommandLine, EditError> {
        if !self
            .for_kernel()
            .iter()
            .any(|token| token.key() == "root" && token.value().is_some_and(|v| !v.is_empty()))
        {
            return Err(EditError::NoRoot);
        }
        edit.check()?;
        let mut after = self.clone();
        edit.set.iter().for_each(|token| after.set(token));
        edit.remove.iter().for_each(|token| after.remove(token));
        if let Some(changed) = first_difference(&self.untouchable(), &after.untouchable()) {
            return Err(EditError::WouldChange(changed));
        }
        let written = after.to_string();
        if after != *self && written.len() > MAX_LENGTH {
            return Err(EditError::TooLong {
                length: written.len(),
            });
        }
        // Quotes in odd places could make the kernel cut the new line elsewhere.
        match CommandLine::parse(written.as_bytes()) {
            Ok(read_back) if read_back == after => Ok(after),
            _ => Err(EditError::WouldChange(written)),
        }
    }

    /// The tokens that the running kernel was not started with, from the content of `/proc/cmdline`.
    ///
    /// The firmware puts its own tokens in front, and replaces `console=serial0` by the board's port, or drops it: that
    /// token says nothing and is never reported.
    pub fn not_booted(&self, proc_cmdline: &str) -> Vec<Token> {
        let running = split(proc_cmdline.trim_end_matches('\0')).unwrap_or_default();
        let firmware_owns = |token: &Token| {
            matches!(token.key().as_ref(), "console" | "kgdboc")
                && token
                    .value()
                    .is_some_and(|v| v.split(',').next() == Some("serial0"))
        };
        let missing =
            |token: &&Token| !firmware_owns(token) && !running.iter().any(|have| have.means(token));
        self.tokens.iter().filter(missing).cloned().collect()
    }

    /// What the kernel reads itself: all before a bare `--`.
    fn for_kernel(&self) -> &[Token] {
        let end = self
            .tokens
            .iter()
            .position(|token| token.as_str() == "--")
            .unwrap_or(self.tokens.len());
        &self.tokens[..end]
    }

    fn untouchable(&self) -> Vec<&Token> {
        let kernel = self.for_kernel();
        let guarded = kernel.iter().filter(|token| token.is_untouchable());
        guarded.chain(&self.tokens[kernel.len()..]).collect()
    }

    fn set(&mut self, token: &Token) {
        if self.holds(token) {
            return;
        }
        let end = self.for_kernel().len();
        let last = self.tokens[..end]
            .iter()
            .rposition(|have| have.key() == token.key());
        match (token.arity(), last) {
            (Arity::Single, Some(at)) => self.tokens[at] = token.clone(),
            (Arity::List, Some(at)) => {
                let mut items = self.tokens[at].items();
                items.extend(
                    token
                        .items()
                        .into_iter()
                        .filter(|item| !items.contains(item))
                        .collect::<Vec<_>>(),
                );
                if let Some(grown) = self.tokens[at].with_items(&items) {
                    self.tokens[at] = grown;
                }
            }
            _ => self.tokens.insert(end, token.clone()),
        }
    }

    fn remove(&mut self, token: &Token) {
        let end = self.for_kernel().len();
        let for_init = self.tokens.split_off(end);
        self.tokens = std::mem::take(&mut self.tokens)
            .into_iter()
            .filter_map(|have| without(have, token))
            .collect();
        self.tokens.extend(for_init);
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, token) in self.tokens.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{token}")?;
        }
        writeln!(f)
    }
}

impl Edit {
    /// Refuses what may never be touched, and an edit that would undo itself (and so never come to rest).
    fn check(&self) -> Result<(), EditError> {
        let all = || self.set.iter().chain(&self.remove);
        if let Some(token) = all().find(|token| token.is_untouchable()) {
            return Err(EditError::Untouchable(token.clone()));
        }
        for (index, token) in self.set.iter().enumerate() {
            let rival = |other: &&Token| {
                token.arity() == Arity::Single && token.key() == other.key() && !token.means(other)
            };
            let undone = |other: &&Token| match token.arity() {
                Arity::Single | Arity::Repeated => token.means(other),
                Arity::RepeatedList | Arity::List => {
                    token.key() == other.key()
                        && token
                            .items()
                            .iter()
                            .any(|item| other.items().contains(item))
                }
            };
            let other = self.set[index + 1..]
                .iter()
                .find(rival)
                .or_else(|| self.remove.iter().find(undone));
            if let Some(other) = other {
                return Err(EditError::Contradiction(token.clone(), other.clone()));
            }
        }
        Ok(())
    }
}

/// A token after another was taken away from it.
fn without(have: Token, gone: &Token) -> Option<Token> {
    if have.key() != gone.key() {
        return Some(have);
    }
    match have.arity() {
        Arity::Single | Arity::Repeated => (!have.means(gone)).then_some(have),
        Arity::RepeatedList | Arity::List => {
            let gone = gone.items();
            if !have.items().iter().any(|item| gone.contains(item)) {
                return Some(have);
            }
            let left: Vec<&str> = have
                .items()
                .into_iter()
                .filter(|item| !gone.contains(item))
                .collect();
            have.with_items(&left)
        }
    }
}

fn first_difference(before: &[&Token], after: &[&Token]) -> Option<String> {
    let longest = before.len().max(after.len());
    let differs = (0..longest).find(|&index| before.get(index) != after.get(index))?;
    before
        .get(differs)
        .or(after.get(differs))
        .map(|token| token.to_string())
}

/// A quote without its end.
#[derive(Debug)]
pub(super) struct UnclosedQuote;

/// Cuts a line into tokens as the kernel does: at blanks, except between double quotes. It knows no escapes.
pub(super) fn split(line: &str) -> Result<Vec<Token>, UnclosedQuote> {
    let mut tokens = Vec::new();
    let mut token = String::new();
    let mut quoted = false;
    for character in line.chars() {
        if character == '"' {
            quoted = !quoted;
        }
        if !quoted && matches!(character, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c') {
            if !token.is_empty() {
                tokens.push(Token::from_split(std::mem::take(&mut token)));
            }
        } else {
            token.push(character);
        }
    }
    if quoted {
        return Err(UnclosedQuote);
    }
    if !token.is_empty() {
        tokens.push(Token::from_split(token));
    }
    Ok(tokens)
}
