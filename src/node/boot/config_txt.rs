//! config.txt: what a setting is at the next boot of this board.
//!
//! The grammar is the firmware's (domain.md §1.1): case-sensitive, `#` only at the start of a line, no blanks around
//! `=`, later lines win, and `[filters]` that hold until another filter of the same kind or `[all]`. The bytes are kept
//! as they are; nothing here has to be text.

use super::config_line::{ConfigLine, overclocks};

/// The boards that config.txt's model filters tell apart, as far as k3s runs on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Board {
    /// Raspberry Pi 3 in all its forms.
    Pi3,
    /// Raspberry Pi 4 Model B.
    Pi4,
    /// Raspberry Pi 400.
    Pi400,
    /// Compute Module 4.
    Cm4,
    /// Compute Module 4S.
    Cm4s,
    /// Raspberry Pi 5.
    Pi5,
    /// Raspberry Pi 500 and 500+.
    Pi500,
    /// Compute Module 5.
    Cm5,
    /// Something else, a virtual Pi for one: which model filters hold for it is not known.
    Other,
}

/// A config.txt, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigTxt {
    assignments: Vec<Assignment>,
}

/// What a setting is at the next ordinary boot (not a `[tryboot]` one).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// No line sets it: the firmware's default holds.
    Default,
    /// The value of the last line that applies.
    Value(Vec<u8>),
    /// A line may apply or not, and nothing after it settles the matter.
    Unclear {
        /// That line, from 1.
        line: usize,
        /// The filter that cannot be judged from here, as written.
        filter: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Assignment {
    line: usize,
    key: Vec<u8>,
    value: Vec<u8>,
    filters: Filters,
}

/// The filters in force at a line: one of each kind, and all of them must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Filters {
    none: bool,
    tryboot: bool,
    model: Option<String>,
    /// Monitors, pins, serial numbers, partitions …: not to be judged from here. By kind.
    unknown: Vec<(String, String)>,
}

/// Whether a line applies.
enum Applies {
    Yes,
    No,
    Unclear(String),
}

impl Board {
    /// From the content of `/proc/device-tree/model`, such as `Raspberry Pi 4 Model B Rev 1.4` (a NUL at the end is
    /// tolerated).
    pub fn from_model(model: &str) -> Board {
        let model = model.trim_end_matches(['\0', '\n']);
        let Some(name) = model.strip_prefix("Raspberry Pi ") else {
            return Board::Other;
        };
        let known = [
            ("Compute Module 5", Board::Cm5),
            ("Compute Module 4S", Board::Cm4s),
            ("Compute Module 4", Board::Cm4),
            ("Compute Module 3", Board::Pi3),
            ("500", Board::Pi500),
            ("5", Board::Pi5),
            ("400", Board::Pi400),
            ("4", Board::Pi4),
            ("3", Board::Pi3),
        ];
        known
            .into_iter()
            .find(|(prefix, _)| name.starts_with(prefix))
            .map_or(Board::Other, |(_, board)| board)
    }

    /// Whether a model filter holds for this board; `None` when that is not known. The table is the one of the
    /// firmware's documentation on conditional filters, as of 2025.
    fn matches(self, filter: &str) -> Option<bool> {
        let own: &[&str] = match self {
            Board::Pi4 => &["pi4"],
            Board::Pi400 => &["pi4", "pi400"],
            Board::Cm4 => &["pi4", "cm4"],
            Board::Cm4s => &["pi4", "cm4s"],
            Board::Pi5 => &["pi5"],
            Board::Pi500 => &["pi5", "pi500"],
            Board::Cm5 => &["pi5", "cm5"],
            Board::Pi3 => &["pi3"],
            Board::Other => return None,
        };
        let finer = matches!(
            (self, filter),
            (Board::Pi3, "pi3+" | "cm3" | "cm3+") | (Board::Pi500, "pi500+")
        );
        (!finer).then(|| own.contains(&filter))
    }
}

impl ConfigTxt {
    /// Reads a config.txt. Never fails: the firmware skips what it does not understand, and so does this.
    ///
    /// Files named by `include` are not read. Ubuntu up to 20.04 had them; should one of them move the command line, the
    /// cross-check against /proc/cmdline refuses (see [`super::resolve`]).
    pub fn parse(content: &[u8]) -> ConfigTxt {
        let mut filters = Filters::default();
        let mut assignments = Vec::new();
        for (index, line) in content.split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.starts_with(b"#") {
                continue;
            }
            if let Some(filter) = line
                .strip_prefix(b"[")
                .and_then(|rest| rest.split(|byte| *byte == b']').next())
            {
                filters.enter(&String::from_utf8_lossy(filter));
            } else if let Some(equals) = line.iter().position(|byte| *byte == b'=') {
                assignments.push(Assignment {
                    line: index + 1,
                    key: line[..equals].to_vec(),
                    value: line[equals + 1..].to_vec(),
                    filters: filters.clone(),
                });
            }
        }
        ConfigTxt { assignments }
    }

    /// Whether `line` is in force at the next ordinary boot of `board`. A `dtparam` counts by its own name, other keys as
    /// in [`ConfigTxt::setting`], but for `dtoverlay`, of which each one counts.
    pub fn holds(&self, line: &ConfigLine, board: Board) -> bool {
        let applying = || {
            let of_key = |one: &&Assignment| one.key == line.key().as_bytes();
            let applies = |one: &&Assignment| matches!(one.filters.apply(board), Applies::Yes);
            self.assignments.iter().rev().filter(of_key).filter(applies)
        };
        let wanted = line.value().as_bytes();
        let name = |parameter: &[u8]| {
            parameter
                .split(|byte| *byte == b'=')
                .next()
                .map(<[u8]>::to_vec)
        };
        match line.key() {
            "dtoverlay" => applying().any(|one| one.value == wanted),
            "dtparam" => applying()
                .flat_map(|one| one.value.split(|byte| *byte == b',').rev())
                .find(|parameter| name(parameter) == name(wanted))
                .is_some_and(|parameter| parameter == wanted),
            key => self.setting(key, board) == Setting::Value(wanted.to_vec()),
        }
    }

    /// What is in force and raises a clock or a voltage, as `key=value`: freezes of such a Pi cannot be told from a
    /// fault (domain.md §1.5).
    pub fn overclocking(&self, board: Board) -> Vec<String> {
        let in_force = |one: &&Assignment| !matches!(one.filters.apply(board), Applies::No);
        let mut found: Vec<String> = Vec::new();
        for one in self.assignments.iter().filter(in_force) {
            let (key, value) = (
                String::from_utf8_lossy(&one.key),
                String::from_utf8_lossy(&one.value),
            );
            found.retain(|earlier| !earlier.starts_with(&format!("{key}=")));
            if overclocks(&one.key, &one.value) {
                found.push(format!("{key}={value}"));
            }
        }
        found
    }

    /// What `key` is at the next ordinary boot of `board`.
    pub fn setting(&self, key: &str, board: Board) -> Setting {
        for assignment in self
            .assignments
            .iter()
            .rev()
            .filter(|assignment| assignment.key == key.as_bytes())
        {
            match assignment.filters.apply(board) {
                Applies::Yes => return Setting::Value(assignment.value.clone()),
                Applies::No => {}
                Applies::Unclear(filter) => {
                    return Setting::Unclear {
                        line: assignment.line,
                        filter,
                    };
                }
            }
        }
        Setting::Default
    }
}

impl Filters {
    fn enter(&mut self, filter: &str) {
        match filter {
            "all" => *self = Filters::default(),
            "none" => self.none = true,
            "tryboot" => self.tryboot = true,
            _ if is_model(filter) => self.model = Some(filter.to_owned()),
            _ => {
                let kind = if filter.starts_with("0x") {
                    "serial"
                } else {
                    kind_of(filter)
                };
                self.unknown.retain(|(known, _)| known != kind);
                self.unknown.push((kind.to_owned(), filter.to_owned()));
            }
        }
    }

    fn apply(&self, board: Board) -> Applies {
        let model = self
            .model
            .as_deref()
            .map_or(Some(true), |filter| board.matches(filter));
        if self.none || self.tryboot || model == Some(false) {
            return Applies::No;
        }
        let unclear = if model.is_none() {
            self.model.as_ref()
        } else {
            self.unknown.first().map(|(_, text)| text)
        };
        unclear.map_or(Applies::Yes, |filter| Applies::Unclear(filter.clone()))
    }
}

/// `pi4`, `pi3+`, `cm4s`, `pi02`: families with a number.
fn is_model(filter: &str) -> bool {
    let digits = filter
        .strip_prefix("pi")
        .or_else(|| filter.strip_prefix("cm"))
        .unwrap_or_default();
    digits.starts_with(|c: char| c.is_ascii_digit())
}

/// `EDID=…` is one kind, `gpio4=1` another: what stands before a number or a sign.
fn kind_of(filter: &str) -> &str {
    filter.split(['=', ':']).next().unwrap_or(filter)
}
