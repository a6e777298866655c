//! Kubernetes labels of a node.

use super::define::text;
use super::diagnostic::Wrong;
use super::name::shown;

text! {
    /// The key of a label, `[prefix/]name`, outside the prefixes that Kubernetes keeps for itself.
    ///
    /// Those with `kubernetes.io` and `k8s.io` are mostly refused at registration and make k3s fail to start
    /// (domain.md §4.3).
    pub struct LabelKey: "a label key", Some("^([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$"), key;
}

text! {
    /// The value of a label; it may be empty.
    pub struct LabelValue: "a label value", Some("^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$"), value;
}

const NAME: &str =
    "at most 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends";

fn is_name(text: &str) -> bool {
    let end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    text.len() <= 63
        && end(text.bytes().next())
        && end(text.bytes().last())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn is_prefix(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

fn key(text: &str) -> Result<String, Wrong> {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    if let Some(prefix) = prefix {
        if !is_prefix(prefix) {
            return Err(
                Wrong::new(format!("`{}` is no label prefix", shown(prefix)))
                    .help("a DNS name in lower case: `example.com/disk`"),
            );
        }
        let reserved = |domain: &str| {
            prefix == domain
                || prefix
                    .strip_suffix(domain)
                    .is_some_and(|p| p.ends_with('.'))
        };
        if reserved("kubernetes.io") || reserved("k8s.io") {
            let wrong = Wrong::new(format!(
                "Kubernetes keeps the prefix `{prefix}/` for itself"
            ));
            return Err(if prefix == "node-role.kubernetes.io" {
                wrong.help("`role` says what a node is")
            } else {
                wrong.help(format!(
                    "use a prefix of your own, or none: `{}`",
                    shown(name)
                ))
            });
        }
    }
    if is_name(name) {
        Ok(text.to_owned())
    } else {
        Err(Wrong::new(format!("`{}` is no label name", shown(name))).help(NAME))
    }
}

fn value(text: &str) -> Result<String, Wrong> {
    if text.is_empty() || is_name(text) {
        Ok(text.to_owned())
    } else {
        Err(Wrong::new(format!("`{}` is no label value", shown(text))).help(NAME))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_those_of_kubernetes_outside_its_own_prefixes() {
        for text in [
            "disk",
            "example.com/disk",
            "a.b_c-D",
            "node.longhorn.io/create-default-disk",
            "notk8s.io/x",
        ] {
            assert_eq!(text.parse::<LabelKey>().unwrap().as_str(), text);
        }
        for text in [
            "",
            "/a",
            "a/",
            "a/b/c",
            "-a",
            "a b",
            "Example.com/x",
            "kubernetes.io/x",
            "node.kubernetes.io/x",
            "k8s.io/x",
            "topology.k8s.io/x",
            &"a".repeat(64),
        ] {
            text.parse::<LabelKey>().unwrap_err();
        }
        let role = "node-role.kubernetes.io/worker"
            .parse::<LabelKey>()
            .unwrap_err();
        assert_eq!(role.help.unwrap(), "`role` says what a node is");
        for text in ["", "ssd", "1.0_a-b"] {
            text.parse::<LabelValue>().unwrap();
        }
        for text in ["a b", "-", "a/b", &"a".repeat(64)] {
            text.parse::<LabelValue>().unwrap_err();
        }
    }
}
