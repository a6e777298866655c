//! How a place in the document becomes a typed setting, and how the schema describes it.
//!
//! Merging is reading: the document's value is laid over what held before (default < section for all < node's own).

use std::collections::BTreeMap;
use std::ops::Range;
use std::str::FromStr;

use serde_json::json;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Wrong, nearest};
use super::name::shown;
use super::schema::{self, Definitions, Schema};

/// A value of the document together with its place.
pub(crate) type Found<'i> = Spanned<DeValue<'i>>;

/// All that was found wrong so far, and the places that hold a secret in clear.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    pub(crate) found: Vec<Diagnostic>,
    pub(crate) secrets: Vec<Range<usize>>,
    /// Whether syntax errors may have hidden a part of the document, so that nothing can be said to be missing.
    pub(crate) incomplete: bool,
}

impl Problems {
    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        self.found.push(diagnostic);
    }

    pub(crate) fn wrong(&mut self, span: Range<usize>, wrong: Wrong) {
        let Wrong { message, help } = wrong;
        self.push(Diagnostic {
            help,
            ..Diagnostic::error(span, message)
        });
    }

    /// The value has another type than the one that is wanted here.
    pub(crate) fn wrong_type(&mut self, value: &Found<'_>, expected: &str, help: Option<String>) {
        let message = format!("expected {expected}, found {}", kind(value.get_ref()));
        self.push(Diagnostic {
            help,
            ..Diagnostic::error(value.span(), message)
        });
    }

    fn unknown_key(&mut self, span: Range<usize>, key: &str, known: &[&str]) {
        let found = Diagnostic::error(span, format!("unknown key `{key}`", key = shown(key)));
        self.push(
            match (nearest(key, known.iter().copied()), schema::home(key)) {
                (Some(near), _) => found.help(format!("did you mean `{near}`?")),
                (None, Some(home)) => found.help(format!("`{key}` belongs into `[{home}]`")),
                (None, None) => found.help(format!("the keys here are {}", listed(known))),
            },
        );
    }
}

/// What a key may hold: read from the document and laid over what held before.
pub(crate) trait Setting: Sized {
    /// What the key takes, if it has to be there.
    const REQUIRED: Option<&'static str> = None;

    /// The JSON schema of what the document may hold here.
    fn schema(definitions: &mut Definitions) -> Schema;

    /// The document's value laid over `self`; on an error `self` stays.
    fn over(self, value: &Found<'_>, problems: &mut Problems) -> Self;
}

/// A value that stands for itself: a later one replaces an earlier one as a whole.
pub(crate) trait Value: Sized {
    /// The JSON schema of the value.
    fn schema(definitions: &mut Definitions) -> Schema;

    /// Reads the value; `None` after reporting why it cannot be.
    fn read(value: &Found<'_>, problems: &mut Problems) -> Option<Self>;
}

/// A value written as a string and parsed once.
pub(crate) trait Text: FromStr<Err = Wrong> {
    /// What the string is, with its article ("an IP address").
    const EXPECTED: &'static str;
    /// A regular expression every valid string matches (it may match some that are not valid), for editors.
    const PATTERN: Option<&'static str> = None;

    /// The JSON schema of the string.
    fn text_schema() -> Schema {
        match Self::PATTERN {
            Some(pattern) => json!({ "type": "string", "pattern": pattern }),
            None => json!({ "type": "string" }),
        }
    }
}

impl<T: Text> Value for T {
    fn schema(_: &mut Definitions) -> Schema {
        T::text_schema()
    }

    fn read(value: &Found<'_>, problems: &mut Problems) -> Option<Self> {
        let Some(text) = value.get_ref().as_str() else {
            let help = scalar(value.get_ref()).and_then(|text| match text.parse::<T>() {
                Ok(_) => Some(format!("write it in quotes: `\"{text}\"`")),
                Err(wrong) => wrong.help,
            });
            problems.wrong_type(value, &format!("{} (a string)", T::EXPECTED), help);
            return None;
        };
        text.parse()
            .map_err(|wrong| problems.wrong(value.span(), wrong))
            .ok()
    }
}

impl Value for bool {
    fn schema(_: &mut Definitions) -> Schema {
        json!({ "type": "boolean" })
    }

    fn read(value: &Found<'_>, problems: &mut Problems) -> Option<Self> {
        let read = value.get_ref().as_bool();
        if read.is_none() {
            let help = match value.get_ref().as_str().map(str::to_lowercase).as_deref() {
                Some("true" | "yes" | "on" | "y" | "1") => "write `true`, without quotes",
                Some("false" | "no" | "off" | "n" | "0") => "write `false`, without quotes",
                _ => "write `true` or `false`",
            };
            problems.wrong_type(value, "`true` or `false`", Some(help.to_owned()));
        }
        read
    }
}

/// Reads a whole number between `min` and `max`.
pub(crate) fn whole_number(
    value: &Found<'_>,
    min: i64,
    max: i64,
    problems: &mut Problems,
) -> Option<i64> {
    let expected = format!("a whole number from {min} to {max}");
    let Some(number) = value.get_ref().as_integer() else {
        let help = value
            .get_ref()
            .as_str()
            .and_then(|text| text.trim().parse::<i64>().ok())
            .map(|number| format!("write it without quotes: `{number}`"));
        problems.wrong_type(value, &expected, help);
        return None;
    };
    let read = i64::from_str_radix(number.as_str(), number.radix())
        .ok()
        .filter(|read| (min..=max).contains(read));
    if read.is_none() {
        problems.push(Diagnostic::error(
            value.span(),
            format!("expected {expected}, found {number}"),
        ));
    }
    read
}

impl<T: Value> Value for Vec<T> {
    fn schema(definitions: &mut Definitions) -> Schema {
        json!({ "type": "array", "items": T::schema(definitions) })
    }

    fn read(value: &Found<'_>, problems: &mut Problems) -> Option<Self> {
        let Some(items) = value.get_ref().as_array() else {
            let help = match value.get_ref() {
                DeValue::String(text) => Some(format!("write `[{text:?}]` for a list of one")),
                other => scalar(other).map(|text| format!("write `[{text}]` for a list of one")),
            };
            problems.wrong_type(value, "a list", help);
            return None;
        };
        Some(
            items
                .iter()
                .filter_map(|item| T::read(item, problems))
                .collect(),
        )
    }
}

impl<T: Value> Setting for T {
    fn schema(definitions: &mut Definitions) -> Schema {
        T::schema(definitions)
    }

    fn over(self, value: &Found<'_>, problems: &mut Problems) -> Self {
        T::read(value, problems).unwrap_or(self)
    }
}

impl<T: Value> Setting for Option<T> {
    fn schema(definitions: &mut Definitions) -> Schema {
        T::schema(definitions)
    }

    fn over(self, value: &Found<'_>, problems: &mut Problems) -> Self {
        T::read(value, problems).or(self)
    }
}

/// A key that has to be there. `None` only after the error was reported.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Required<T>(pub(crate) Option<T>);

impl<T> Default for Required<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Text> Setting for Required<T> {
    const REQUIRED: Option<&'static str> = Some(T::EXPECTED);

    fn schema(definitions: &mut Definitions) -> Schema {
        <T as Value>::schema(definitions)
    }

    fn over(self, value: &Found<'_>, problems: &mut Problems) -> Self {
        Self(T::read(value, problems))
    }
}

/// A free table: merged key by key.
impl<K: Text + Ord + Clone, V: Value> Setting for BTreeMap<K, V> {
    fn schema(definitions: &mut Definitions) -> Schema {
        let mut schema =
            json!({ "type": "object", "additionalProperties": V::schema(definitions) });
        if let (Some(pattern), Some(object)) = (K::PATTERN, schema.as_object_mut()) {
            object.insert("propertyNames".to_owned(), json!({ "pattern": pattern }));
        }
        schema
    }

    fn over(mut self, value: &Found<'_>, problems: &mut Problems) -> Self {
        let mut seen = BTreeMap::<K, Range<usize>>::new();
        for (key, value) in entries(table(value, problems)) {
            let read = V::read(value, problems);
            let name = match key.get_ref().parse::<K>() {
                Ok(name) => name,
                Err(wrong) => {
                    problems.wrong(key.span(), wrong);
                    continue;
                }
            };
            if let Some(first) = seen.insert(name.clone(), key.span()) {
                let message = format!(
                    "`{}` says the same key again in another spelling",
                    key.get_ref()
                );
                problems.push(Diagnostic::error(key.span(), message).related(first, "first here"));
            }
            if let Some(read) = read {
                self.insert(name, read);
            }
        }
        self
    }
}

/// The value as a table, or an empty one after reporting that it is none.
pub(crate) fn table<'v, 'i>(
    value: &'v Found<'i>,
    problems: &mut Problems,
) -> Option<&'v DeTable<'i>> {
    let table = value.get_ref().as_table();
    if table.is_none() {
        let help = value
            .get_ref()
            .is_array()
            .then(|| "write `[name]` with single brackets".to_owned());
        problems.wrong_type(value, "a table", help);
    }
    table
}

/// The entries of a table in the order of the document.
pub(crate) fn entries<'v, 'i>(
    table: Option<&'v DeTable<'i>>,
) -> Vec<(&'v Spanned<std::borrow::Cow<'i, str>>, &'v Found<'i>)> {
    let mut entries: Vec<_> = table.into_iter().flat_map(DeTable::iter).collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// Reports the keys of a section that it does not know, and those that it misses.
pub(crate) fn check_keys(
    value: &Found<'_>,
    known: &[(&'static str, Option<&'static str>)],
    problems: &mut Problems,
) {
    let Some(table) = table(value, problems) else {
        return;
    };
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    for (key, _) in entries(Some(table)) {
        if !names.contains(&&**key.get_ref()) {
            problems.unknown_key(key.span(), key.get_ref(), &names);
        }
    }
    for (name, required) in known {
        if let Some(expected) =
            required.filter(|_| !problems.incomplete && !table.contains_key(*name))
        {
            let missing = Diagnostic::error(value.span(), format!("`{name}` is missing here"));
            problems.push(missing.help(format!("it takes {expected}")));
        }
    }
}

/// A scalar as the document would show it, for "write it in quotes".
fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(truth) => Some(truth.to_string()),
        DeValue::Datetime(time) => Some(time.to_string()),
        DeValue::String(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "a truth value",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// "`a`, `b` and `c`"
pub(crate) fn listed<T: AsRef<str>>(names: &[T]) -> String {
    let quoted: Vec<String> = names
        .iter()
        .map(|name| format!("`{}`", name.as_ref()))
        .collect();
    match quoted.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        [init @ .., last] => format!("{} and {last}", init.join(", ")),
    }
}
