//! Which labels a kubelet takes at its registration; with another one it does not start (domain.md §4.3).

use anyhow::{Result, bail, ensure};

const ALLOWED: &[&str] = &[
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
const ALLOWED_PREFIXES: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];

/// The labels of `node-label`, each `key=value`.
pub fn parse(labels: &[String]) -> Result<Vec<(String, String)>> {
    let mut unknown = Vec::new();
    let mut parsed = Vec::new();
    for label in labels.iter().flat_map(|all| all.split(',')) {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        ensure!(
            is_name(key.rsplit('/').next().unwrap_or_default())
                && (value.is_empty() || is_name(value)),
            "failed to validate kubelet flags: invalid node labels: {label}"
        );
        if is_kubernetes(key) && !is_allowed(key) {
            unknown.push(key.to_owned());
        }
        parsed.push((key.to_owned(), value.to_owned()));
    }
    if !unknown.is_empty() {
        bail!(
            "failed to validate kubelet flags: unknown 'kubernetes.io' or 'k8s.io' labels specified with --node-labels: \
             [{}]\n--node-labels in the 'kubernetes.io' namespace must begin with an allowed prefix ({}) or be in the \
             specifically allowed set ({})",
            unknown.join(" "),
            ALLOWED_PREFIXES.join(", "),
            ALLOWED.join(", ")
        );
    }
    Ok(parsed)
}

/// A taint: `key=value:Effect` or `key:Effect`, as key, value and effect.
pub fn parse_taint(taint: &str) -> Result<(String, Option<String>, String)> {
    let Some((key, effect)) = taint.rsplit_once(':') else {
        bail!("invalid taint spec: {taint}");
    };
    ensure!(
        matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute"),
        "invalid taint effect: {effect}, unsupported taint effect"
    );
    let (key, value) = match key.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (key, None),
    };
    ensure!(!key.is_empty(), "invalid taint spec: {taint}");
    Ok((key.to_owned(), value, effect.to_owned()))
}

fn is_within(domain: &str, name: &str) -> bool {
    name == domain
        || name
            .strip_suffix(domain)
            .is_some_and(|rest| rest.ends_with('.'))
}

fn is_kubernetes(key: &str) -> bool {
    let Some((domain, _)) = key.split_once('/') else {
        return false;
    };
    ["kubernetes.io", "k8s.io"]
        .iter()
        .any(|of| is_within(of, domain))
}

fn is_allowed(key: &str) -> bool {
    let domain = key.split('/').next().unwrap_or_default();
    ALLOWED.contains(&key) || ALLOWED_PREFIXES.iter().any(|of| is_within(of, domain))
}

/// What Kubernetes takes for the last part of a key, and for a value.
fn is_name(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && ends(text.chars().next())
        && ends(text.chars().last())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(label: &str) -> Result<Vec<(String, String)>> {
        parse(&[label.to_owned()])
    }

    #[test]
    fn labels_of_kubernetes_itself_are_refused_but_for_a_few() {
        for label in [
            "disk=ssd",
            "node.longhorn.io/create-default-disk=true",
            "topology.kubernetes.io/zone=attic",
            "node.kubernetes.io/exclude-from-external-load-balancers=",
            "x.kubelet.kubernetes.io/a=b",
            "notkubernetes.io/a=b",
        ] {
            assert!(parsed(label).is_ok(), "{label}");
        }
        for label in [
            "node-role.kubernetes.io/worker=true",
            "kubernetes.io/role=a",
            "my.k8s.io/a=b",
        ] {
            let error = parsed(label).unwrap_err().to_string();
            assert!(
                error.contains("unknown 'kubernetes.io' or 'k8s.io' labels"),
                "{error}"
            );
        }
        assert!(parsed("a=b c").is_err() && parsed("=b").is_err());
    }

    #[test]
    fn a_taint_has_an_effect() {
        assert_eq!(
            parse_taint("dedicated=db:NoSchedule").unwrap(),
            ("dedicated".into(), Some("db".into()), "NoSchedule".into())
        );
        assert_eq!(
            parse_taint("a:NoExecute").unwrap(),
            ("a".into(), None, "NoExecute".into())
        );
        assert!(
            parse_taint("a=b").is_err()
                && parse_taint("a=b:Never").is_err()
                && parse_taint(":NoExecute").is_err()
        );
    }
}
