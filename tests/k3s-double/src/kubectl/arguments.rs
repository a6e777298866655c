//! Words and options in any order, as Go's programs take them.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

#[derive(Debug, Default)]
pub struct Arguments {
    pub words: Vec<String>,
    options: BTreeMap<String, Vec<String>>,
}

impl Arguments {
    /// `with_value` are the options that have one; all others are switches, or have theirs behind `=`.
    pub fn parse(arguments: &[String], with_value: &[&str]) -> Result<Self> {
        let mut parsed = Self::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            // A lone dash is a file name, and `key-` takes a label away.
            let option = argument.strip_prefix("--").or(argument.strip_prefix('-'));
            let Some(option) = option.filter(|option| !option.is_empty()) else {
                if argument == "--" {
                    parsed.words.extend(rest.by_ref().cloned());
                } else {
                    parsed.words.push(argument.clone());
                }
                continue;
            };
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name, value.to_owned()),
                None if with_value.contains(&option) => {
                    let value = rest
                        .next()
                        .with_context(|| format!("flag needs an argument: {argument}"))?;
                    (option, value.clone())
                }
                // `-nkube-system` and `-ojson`.
                None if !argument.starts_with("--") && option.len() > 1 => {
                    let (name, value) = option.split_at(1);
                    if with_value.contains(&name) {
                        (name, value.to_owned())
                    } else {
                        for letter in option.chars() {
                            parsed.set(&letter.to_string(), "true".to_owned());
                        }
                        continue;
                    }
                }
                None => (option, "true".to_owned()),
            };
            if name.is_empty() {
                bail!("bad flag syntax: {argument}");
            }
            parsed.set(name, value);
        }
        Ok(parsed)
    }

    fn set(&mut self, name: &str, value: String) {
        self.options.entry(name.to_owned()).or_default().push(value);
    }

    /// An option's last value, under any of its names.
    pub fn value(&self, names: &[&str]) -> Option<&str> {
        names
            .iter()
            .find_map(|name| self.options.get(*name)?.last())
            .map(String::as_str)
    }

    pub fn values(&self, names: &[&str]) -> Vec<&str> {
        let all = names.iter().filter_map(|name| self.options.get(*name));
        all.flatten().map(String::as_str).collect()
    }

    pub fn is_on(&self, names: &[&str]) -> bool {
        self.value(names).is_some_and(|value| value != "false")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_stand_anywhere() {
        let words = "--timeout 30s get -nkube-system pods -o json -aq --wait=false key- -f -";
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        let parsed = Arguments::parse(&words, &["timeout", "n", "o", "f"]).unwrap();
        assert_eq!(parsed.words, ["get", "pods", "key-"]);
        assert_eq!(parsed.value(&["timeout", "t"]), Some("30s"));
        assert_eq!(parsed.value(&["namespace", "n"]), Some("kube-system"));
        assert_eq!(parsed.value(&["f"]), Some("-"));
        assert!(parsed.is_on(&["a"]) && parsed.is_on(&["q"]) && !parsed.is_on(&["wait"]));
        assert!(Arguments::parse(&["-o".to_owned()], &["o"]).is_err());
    }
}
