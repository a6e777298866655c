//! Secrets: the inventory holds only where they come from.

use camino::Utf8Path;
use serde_json::json;

use super::define::text;
use super::diagnostic::{Diagnostic, Wrong, nearest};
use super::schema::{Definitions, Schema};
use super::setting::{Found, Problems, Value, entries, listed};
use super::ssh::{Line, LocalPath};

/// Where a secret comes from. Its value is read by [`Secret::resolve`], when it is needed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Secret {
    /// An environment variable.
    Env(VariableName),
    /// A file that only its owner can read; one trailing newline is dropped.
    File(LocalPath),
    /// The program and arguments of a command that prints it; one trailing newline is dropped.
    Command(Vec<Line>),
}

impl Secret {
    pub(crate) fn under(self, folder: &Utf8Path) -> Self {
        match self {
            Self::File(path) => Self::File(path.under(folder)),
            Self::Env(_) | Self::Command(_) => self,
        }
    }
}

text! {
    /// The name of an environment variable.
    pub struct VariableName: "the name of an environment variable", Some("^[A-Za-z_][A-Za-z0-9_]*$"), variable;
}

fn variable(text: &str) -> Result<String, Wrong> {
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if starts
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    {
        return Ok(text.to_owned());
    }
    // The text may be the secret itself: it is not repeated.
    Err(
        Wrong::new("this is not the name of an environment variable")
            .help("write the name only, without `$`: `{ env = \"JARVIS_SUDO\" }`"),
    )
}

const KINDS: [&str; 3] = ["env", "file", "command"];
const FORMS: &str = "write `{ env = \"NAME\" }`, `{ file = \"path\" }` or `{ command = [\"program\", \"argument\"] }`";

impl Value for Secret {
    fn schema(definitions: &mut Definitions) -> Schema {
        let env = <VariableName as Value>::schema(definitions);
        let file = <LocalPath as Value>::schema(definitions);
        let form = |kind: &str, schema: Schema| json!({ "type": "object", "properties": { kind: schema }, "required": [kind], "additionalProperties": false });
        json!({ "oneOf": [
            form("env", env),
            form("file", file),
            form("command", json!({ "type": "array", "items": { "type": "string" }, "minItems": 1 })),
        ] })
    }

    fn read(value: &Found<'_>, problems: &mut Problems) -> Option<Self> {
        let before = problems.found.len();
        let secret = read(value, problems);
        if problems.found.len() > before {
            // Whatever stands here may be the secret: no message shows it.
            problems.secrets.push(value.span());
        }
        secret
    }
}

fn read(value: &Found<'_>, problems: &mut Problems) -> Option<Secret> {
    let Some(table) = value.get_ref().as_table() else {
        let message = "a secret stands here in clear, or something that is none";
        problems.push(
            Diagnostic::error(value.span(), message)
                .help(FORMS)
                .note("the inventory is made to be shared and committed, so it holds secrets by reference only"),
        );
        return None;
    };
    let mut secret = None;
    for (key, value) in entries(Some(table)) {
        match &**key.get_ref() {
            "env" => secret = VariableName::read(value, problems).map(Secret::Env),
            "file" => secret = LocalPath::read(value, problems).map(Secret::File),
            "command" => secret = command(value, problems).map(Secret::Command),
            other => {
                let unknown = Diagnostic::error(key.span(), "this is no source of secrets");
                problems.push(match nearest(other, KINDS) {
                    Some(near) => unknown.help(format!("did you mean `{near}`?")),
                    None => unknown.help(format!("the sources are {}", listed(&KINDS))),
                });
            }
        }
    }
    if table.len() != 1 {
        problems.push(
            Diagnostic::error(value.span(), "a secret comes from exactly one source").help(FORMS),
        );
        return None;
    }
    secret
}

fn command(value: &Found<'_>, problems: &mut Problems) -> Option<Vec<Line>> {
    if value.get_ref().is_str() {
        let message = "a command is a list: the program, then each argument";
        problems.push(
            Diagnostic::error(value.span(), message)
                .help("like `[\"op\", \"read\", \"op://home/pi/sudo\"]`"),
        );
        return None;
    }
    let command = Vec::<Line>::read(value, problems)?;
    if command.is_empty() {
        problems.push(
            Diagnostic::error(value.span(), "the command is empty")
                .help("name at least the program"),
        );
    }
    Some(command)
}
