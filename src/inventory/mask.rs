//! Keeps secrets that somebody wrote into the inventory out of what is shown of it.

use std::ops::Range;

use toml::de::DeValue;

use super::setting::Found;

/// The source with these spans masked, every line where it was. `broken` sources, of which the parser may not have seen
/// everything, are also masked where a line looks as if it held a password.
pub(crate) fn secrets(source: &str, spans: &[Range<usize>], broken: bool) -> String {
    let mut masked = source.as_bytes().to_vec();
    let mut hide = |span: Range<usize>| {
        for byte in masked.get_mut(span).into_iter().flatten() {
            if !matches!(byte, b'\n' | b'\r') {
                *byte = b'*';
            }
        }
    };
    spans.iter().cloned().for_each(&mut hide);
    if broken {
        let mut start = 0;
        for line in source.split_inclusive('\n') {
            if let Some((key, value)) = line.split_once('=').filter(|(key, _)| is_suspect(key)) {
                let blank = value.len() - value.trim_start().len();
                hide(start + key.len() + 1 + blank..start + line.len());
            }
            start += line.len();
        }
    }
    // Masking turns whole characters into as many asterisks as they have bytes, so it stays text.
    String::from_utf8(masked).unwrap_or_default()
}

/// Adds the places of the strings whose keys sound like a secret's, and of addresses with a login in them.
pub(crate) fn suspects(value: &Found<'_>, secrets: &mut Vec<Range<usize>>) {
    match value.get_ref() {
        DeValue::Table(table) => {
            for (key, value) in table.iter() {
                match value.get_ref() {
                    DeValue::String(_) if is_suspect(key.get_ref()) => secrets.push(value.span()),
                    DeValue::String(text) if has_login(text) => secrets.push(value.span()),
                    _ => suspects(value, secrets),
                }
            }
        }
        DeValue::Array(items) => items.iter().for_each(|item| suspects(item, secrets)),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => {}
    }
}

fn is_suspect(key: &str) -> bool {
    let key = key.trim().to_lowercase();
    !key.contains("authentication")
        && ["pas", "pwd", "secret", "token"]
            .iter()
            .any(|word| key.contains(word))
}

fn has_login(text: &str) -> bool {
    let host = |rest: &str| {
        rest.split('/')
            .next()
            .is_some_and(|host| host.contains('@'))
    };
    text.split_once("://").is_some_and(|(_, rest)| host(rest))
}
