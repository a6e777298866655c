//! Where releases come from.

use std::fmt;
use std::str::FromStr;

use camino::Utf8PathBuf;

/// The public releases (domain.md §4.1).
const PUBLIC: &str = "https://github.com/k3s-io/k3s/releases/download";

/// Where releases come from: always `<base>/<tag>/<file>`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Source {
    /// The project's own.
    #[default]
    Public,
    /// A mirror: the URL before the tag, without a slash at its end.
    Mirror(String),
    /// A folder of this computer; `~/` is the home folder.
    Folder(Utf8PathBuf),
}

/// A text that names no source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no source of releases: {why}")]
pub struct InvalidSource {
    text: String,
    why: &'static str,
}

impl FromStr for Source {
    type Err = InvalidSource;

    /// Reads the inventory's `k3s.source`: an `http(s)://` URL, or a folder that begins with `/`, `./`, `../` or `~/`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let folder = ["/", "./", "../", "~/"];
        if folder.iter().any(|start| text.starts_with(start)) {
            return Ok(Self::Folder(text.into()));
        }
        let invalid = |text: &str, why| InvalidSource {
            text: text.to_owned(),
            why,
        };
        if !text.contains("://") {
            let why = "expected a URL (https://…) or a folder (/…, ./… or ~/…)";
            return Err(invalid(text, why));
        }
        let Ok(url) = reqwest::Url::parse(text) else {
            return Err(invalid(text, "this is no URL"));
        };
        let why = match url.scheme() {
            "http" | "https" => {
                if !url.username().is_empty() || url.password().is_some() {
                    // Not repeated: it holds a secret.
                    let why = "a name or a password in a URL shows in plans and logs";
                    return Err(invalid(&format!("{}://…@…", url.scheme()), why));
                } else if url.query().is_some() || url.fragment().is_some() {
                    "the URL must end with a path: tag and file are put behind it"
                } else {
                    return Ok(Self::Mirror(text.trim_end_matches('/').to_owned()));
                }
            }
            "file" => "write a folder without file://",
            _ => "only http:// and https:// are understood",
        };
        Err(invalid(text, why))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Public => f.write_str("the public releases"),
            Self::Mirror(base) => f.write_str(base),
            Self::Folder(folder) => write!(f, "{folder}"),
        }
    }
}

impl Source {
    /// The folder, if it is one.
    pub(super) fn folder(&self) -> Option<Utf8PathBuf> {
        let Self::Folder(folder) = self else {
            return None;
        };
        let home = || Utf8PathBuf::try_from(etcetera::home_dir().ok()?).ok();
        let below = folder.strip_prefix("~").ok();
        Some(
            below
                .and_then(|below| Some(home()?.join(below)))
                .unwrap_or_else(|| folder.clone()),
        )
    }

    /// The URL of a file. A `+` in a path is a blank to some servers, so it goes as `%2B`.
    pub(super) fn url(&self, tag: &str, file: &str) -> String {
        let base = match self {
            Self::Public => PUBLIC,
            Self::Mirror(base) => base,
            Self::Folder(folder) => folder.as_str(),
        };
        format!("{base}/{}/{file}", tag.replace('+', "%2B"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read() {
        let mirror = |base: &str| Ok(Source::Mirror(base.to_owned()));
        assert_eq!(
            "https://m.example/k3s/".parse(),
            mirror("https://m.example/k3s")
        );
        assert_eq!(
            "http://10.0.0.1:8080".parse(),
            mirror("http://10.0.0.1:8080")
        );
        for folder in ["/srv/k3s", "./k3s", "../k3s", "~/k3s"] {
            assert_eq!(folder.parse(), Ok(Source::Folder(folder.into())));
        }
        for (text, why) in [
            ("m.example/k3s", "expected a URL"),
            ("", "expected a URL"),
            ("ftp://m.example", "only http"),
            ("file:///srv", "without file://"),
            ("https://", "no URL"),
            ("https://m.example/k3s?token=1", "must end with a path"),
            ("https://me:s3cret@m.example", "shows in plans and logs"),
        ] {
            let error = text.parse::<Source>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn a_plus_is_escaped_in_a_url() {
        assert_eq!(
            Source::Public.url("v1.36.3+k3s1", "k3s-arm64"),
            "https://github.com/k3s-io/k3s/releases/download/v1.36.3%2Bk3s1/k3s-arm64"
        );
    }
}
