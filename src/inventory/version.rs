//! `[versions]`: what the cluster runs.

use super::define::{section, text};
use super::diagnostic::Wrong;
use super::name::shown;

section! {
    /// The versions the cluster is to run. What is not said here is the version this selfheal was tested with.
    pub struct Versions {
        /// k3s, with its build: `v1.36.3+k3s1`.
        k3s: Option<K3sVersion> = None,
        /// Longhorn: `1.12.1`.
        longhorn: Option<ChartVersion> = None,
        /// Argo CD: `v3.5.1`.
        argo_cd: Option<TagVersion> = None,
        /// The Gitea chart: `12.7.0`.
        gitea_chart: Option<ChartVersion> = None,
    }
}

text! {
    /// A version of k3s with its build: `v1.36.3+k3s1`.
    pub struct K3sVersion: "a version of k3s", Some(r"^v[0-9]+\.[0-9]+\.[0-9]+\+k3s[0-9]+$"), k3s;
}

text! {
    /// Three numbers: `1.12.1`.
    pub struct ChartVersion: "a version", Some(r"^[0-9]+\.[0-9]+\.[0-9]+$"), chart;
}

text! {
    /// Three numbers after a `v`: `v3.5.1`.
    pub struct TagVersion: "a version", Some(r"^v[0-9]+\.[0-9]+\.[0-9]+$"), tag;
}

impl Versions {
    /// The k3s to run: the one that is pinned, else the one this selfheal was tested with.
    pub fn k3s(&self) -> K3sVersion {
        let tested = || K3sVersion("v1.36.3+k3s1".to_owned());
        self.k3s.clone().unwrap_or_else(tested)
    }
}

impl K3sVersion {
    /// Its numbers, for comparing: 1, 36, 3 and the build.
    pub fn numbers(&self) -> [u32; 4] {
        let plain = self.0.trim_start_matches('v').replace("+k3s", ".");
        let mut numbers = [0; 4];
        for (number, part) in numbers.iter_mut().zip(plain.split('.')) {
            *number = part.parse().unwrap_or_default();
        }
        numbers
    }

    /// The minor version of Kubernetes: 36 for `v1.36.3+k3s1`.
    pub fn minor(&self) -> u32 {
        self.0
            .split('.')
            .nth(1)
            .and_then(|minor| minor.parse().ok())
            .unwrap_or_default()
    }
}

fn three_numbers(text: &str) -> bool {
    let number = |part: &str| {
        (1..=5).contains(&part.len())
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
    };
    text.split('.').count() == 3 && text.split('.').all(number)
}

fn is_k3s(text: &str) -> bool {
    let parts = text
        .strip_prefix('v')
        .and_then(|rest| rest.split_once("+k3s"));
    parts.is_some_and(|(version, build)| {
        three_numbers(version) && three_numbers(&format!("0.0.{build}"))
    })
}

fn k3s(text: &str) -> Result<String, Wrong> {
    if is_k3s(text) {
        return Ok(text.to_owned());
    }
    let wrong = Wrong::new(format!("`{}` is no version of k3s", shown(text)));
    let near = format!(
        "v{}",
        text.strip_prefix('v')
            .unwrap_or(text)
            .replace("-k3s", "+k3s")
    );
    let built = format!("{near}+k3s1");
    Err(if is_k3s(&near) {
        wrong.help(format!("did you mean `{near}`?"))
    } else if is_k3s(&built) {
        wrong.help(format!("the build belongs to it: `{built}`"))
    } else {
        wrong.help("write the whole tag: `v1.36.3+k3s1`")
    })
}

fn chart(text: &str) -> Result<String, Wrong> {
    if three_numbers(text) {
        return Ok(text.to_owned());
    }
    let wrong = Wrong::new(format!("`{}` is no version", shown(text)));
    Err(
        match text.strip_prefix('v').filter(|rest| three_numbers(rest)) {
            Some(rest) => wrong.help(format!("without the `v`: `{rest}`")),
            None => wrong.help("write three numbers: `1.12.1`"),
        },
    )
}

fn tag(text: &str) -> Result<String, Wrong> {
    if text.strip_prefix('v').is_some_and(three_numbers) {
        return Ok(text.to_owned());
    }
    let wrong = Wrong::new(format!("`{}` is no version", shown(text)));
    Err(if three_numbers(text) {
        wrong.help(format!("with a `v`: `v{text}`"))
    } else {
        wrong.help("like `v3.5.1`")
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_whole() {
        let version = Versions::default().k3s();
        assert_eq!(version.as_str().parse::<K3sVersion>().unwrap(), version);
        let version = "v1.36.3+k3s10".parse::<K3sVersion>().unwrap();
        assert_eq!((version.minor(), version.numbers()), (36, [1, 36, 3, 10]));
        for (text, help) in [
            ("1.36.3+k3s1", "did you mean `v1.36.3+k3s1`?"),
            ("v1.36.3-k3s1", "did you mean `v1.36.3+k3s1`?"),
            ("v1.36.3", "the build belongs to it: `v1.36.3+k3s1`"),
            ("stable", "write the whole tag: `v1.36.3+k3s1`"),
            ("v1.36.3+k3s1 ; rm", "write the whole tag: `v1.36.3+k3s1`"),
        ] {
            let wrong = text.parse::<K3sVersion>().unwrap_err();
            assert_eq!(wrong.help.unwrap(), help, "{text}");
        }
        "1.12.1".parse::<ChartVersion>().unwrap();
        "v3.5.1".parse::<TagVersion>().unwrap();
        for text in ["v1.12.1", "1.12", "1.12.01", "1.12.1.2", "1.12.x", ""] {
            text.parse::<ChartVersion>().unwrap_err();
        }
    }
}
