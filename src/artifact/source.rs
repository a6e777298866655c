//! Where releases come from.

use std::fmt;

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
    /// A folder of this computer.
    Folder(Utf8PathBuf),
}

/// A text that names no mirror.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no mirror: {why}")]
pub struct InvalidSource {
    text: String,
    why: &'static str,
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
    /// A mirror by its `http(s)://` URL.
    ///
    /// # Errors
    /// When it is none. A login in it is an error that does not repeat it: the URL shows in plans and logs.
    pub fn mirror(text: &str) -> Result<Source, InvalidSource> {
        let invalid = |text: &str, why| InvalidSource {
            text: text.to_owned(),
            why,
        };
        let Ok(url) = reqwest::Url::parse(text) else {
            return Err(invalid(text, "this is no URL"));
        };
        if !url.username().is_empty() || url.password().is_some() {
            let why = "a name or a password in a URL shows in plans and logs";
            return Err(invalid(&format!("{}://…@…", url.scheme()), why));
        }
        let why = match url.scheme() {
            "http" | "https" if url.query().is_some() || url.fragment().is_some() => {
                "the URL must end with a path: tag and file are put behind it"
            }
            "http" | "https" => return Ok(Self::Mirror(text.trim_end_matches('/').to_owned())),
            "file" => "write a folder without file://",
            _ => "only http:// and https:// are understood",
        };
        Err(invalid(text, why))
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
    fn mirrors_are_read() {
        for (text, base) in [
            ("https://m.example/k3s/", "https://m.example/k3s"),
            ("http://10.0.0.1:8080", "http://10.0.0.1:8080"),
        ] {
            assert_eq!(Source::mirror(text), Ok(Source::Mirror(base.to_owned())));
        }
        for (text, why) in [
            ("m.example/k3s", "no URL"),
            ("", "no URL"),
            ("ftp://m.example", "only http"),
            ("file:///srv", "without file://"),
            ("https://", "no URL"),
            ("https://m.example/k3s?token=1", "must end with a path"),
            ("https://me:s3cret@m.example", "shows in plans and logs"),
            ("ftp://me:s3cret@m.example", "shows in plans and logs"),
        ] {
            let error = Source::mirror(text).unwrap_err().to_string();
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
