//! One file over HTTP: bounded in time, going on where it broke off, never all of it in memory.

use std::time::Duration;

use camino::Utf8Path;
use reqwest::header::{
    CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, IF_RANGE, LAST_MODIFIED, RANGE,
};
use reqwest::{Response, StatusCode};
use tokio::io::AsyncWriteExt;

use super::cache::{Part, failed};
use super::{ArtifactError, Request};

/// A release's list of hashes is far smaller.
const LIST_LIMIT: usize = 1 << 20;
/// However much each attempt brings, there are not more than these.
const MOST_ATTEMPTS: u32 = 50;

/// How long to wait for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// For the next byte.
    pub silence: Duration,
    /// Attempts that bring nothing new before it is given up.
    pub attempts: u32,
    /// Between two attempts; it doubles from one to the next.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            silence: Duration::from_secs(30),
            attempts: 4,
            pause: Duration::from_secs(1),
        }
    }
}

/// What is known of a file beforehand.
pub(super) struct Kind<'a> {
    /// The release.
    pub(super) tag: &'a str,
    /// The most bytes it may have.
    pub(super) limit: u64,
}

/// A client for one source.
pub(super) struct Client {
    http: reqwest::Client,
    patience: Patience,
}

/// Why an attempt came to nothing.
enum Stop {
    /// Another may do better.
    Passing(ArtifactError),
    /// No other would.
    Final(ArtifactError),
}

impl From<ArtifactError> for Stop {
    fn from(error: ArtifactError) -> Self {
        Self::Final(error)
    }
}

impl Client {
    pub(super) fn new(request: &Request<'_>) -> Result<Self, ArtifactError> {
        let tls = |error: &dyn std::error::Error| ArtifactError::Tls(chain(error));
        // The first one stands; another call in the same process changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let secure = request.source.url("", "").starts_with("https:");
        let http = reqwest::Client::builder()
            .user_agent(concat!("selfheal/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(request.patience.connect)
            .read_timeout(request.patience.silence)
            // No redirect leads from a secure source to a plain one.
            .https_only(secure)
            .build()
            .map_err(|error| tls(&error))?;
        Ok(Self {
            http,
            patience: request.patience,
        })
    }

    /// A small text.
    pub(super) async fn text(&self, url: &str, tag: &str) -> Result<String, ArtifactError> {
        let mut failures = 0;
        loop {
            match self.try_text(url, tag).await {
                Ok(text) => return Ok(text),
                Err(Stop::Final(error)) => return Err(error),
                Err(Stop::Passing(error)) => {
                    failures += 1;
                    self.pause(failures, error).await?;
                }
            }
        }
    }

    async fn try_text(&self, url: &str, tag: &str) -> Result<String, Stop> {
        let mut response = self.get(url, HeaderMap::new()).await?;
        expect_file(&response, url, tag)?;
        let mut text = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| broken(url, &error))?
        {
            text.extend_from_slice(&chunk);
            if text.len() > LIST_LIMIT {
                let limit = LIST_LIMIT as u64;
                return Err(too_long(url, limit).into());
            }
        }
        expect_no_page(&text, url)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Downloads a file into `part`, behind what is there already. Says whether it is put together from two attempts.
    pub(super) async fn file(
        &self,
        url: &str,
        kind: &Kind<'_>,
        part: &Part,
        progress: &mut (dyn FnMut(u64, Option<u64>) + Send),
    ) -> Result<bool, ArtifactError> {
        let (mut failures, mut furthest, mut resumed) = (0, 0, false);
        for _ in 0..MOST_ATTEMPTS {
            match self.try_file(url, kind, part, &mut resumed, progress).await {
                Ok(()) => return Ok(resumed),
                Err(Stop::Final(error)) => return Err(error),
                Err(Stop::Passing(error)) => {
                    let (got, _) = part.begun();
                    failures = if got > furthest { 1 } else { failures + 1 };
                    furthest = furthest.max(got);
                    self.pause(failures, error).await?;
                }
            }
        }
        let why = format!("it broke off {MOST_ATTEMPTS} times");
        Err(unreachable(url, why))
    }

    async fn try_file(
        &self,
        url: &str,
        kind: &Kind<'_>,
        part: &Part,
        resumed: &mut bool,
        progress: &mut (dyn FnMut(u64, Option<u64>) + Send),
    ) -> Result<(), Stop> {
        let (begun, version) = part.begun();
        let mut headers = HeaderMap::new();
        if begun > 0 {
            put(&mut headers, RANGE, &format!("bytes={begun}-"));
            // Without a name for its version the hash tells in the end.
            if let Some(version) = &version {
                put(&mut headers, IF_RANGE, version);
            }
        }
        let mut response = self.get(url, headers).await?;
        let status = response.status();
        if status == StatusCode::RANGE_NOT_SATISFIABLE {
            // There is nothing behind what is there: it may be whole, or of something else. The hash says.
            if range_total(&response) == Some(begun) {
                *resumed = true;
                return Ok(());
            }
            part.drop_it().await;
            return Err(Stop::Passing(unreachable(url, "it is shorter than before")));
        }
        expect_file(&response, url, kind.tag)?;
        let goes_on =
            status == StatusCode::PARTIAL_CONTENT && range_start(&response) == Some(begun);
        if status == StatusCode::PARTIAL_CONTENT && !goes_on {
            part.drop_it().await;
            return Err(Stop::Passing(unreachable(
                url,
                "it sends another part than it was asked for",
            )));
        }
        let mut done = if goes_on { begun } else { 0 };
        let total = response.content_length().map(|rest| done + rest);
        if total.is_some_and(|total| total > kind.limit) {
            return Err(too_long(url, kind.limit).into());
        }
        let file = if goes_on {
            *resumed = true;
            part.go_on()?
        } else {
            *resumed = false;
            part.begin(version_of(&response).as_deref())?
        };
        let mut file = tokio::fs::File::from_std(file);
        let written = |path: &Utf8Path| failed(path);
        progress(done, total);
        let outcome = loop {
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break Ok(()),
                Err(error) => break Err(broken(url, &error)),
            };
            if done == 0 {
                expect_no_page(&chunk, url)?;
            }
            done += chunk.len() as u64;
            if done > kind.limit {
                break Err(too_long(url, kind.limit).into());
            }
            file.write_all(&chunk).await.map_err(written(part.path()))?;
            progress(done, total);
        };
        file.flush().await.map_err(written(part.path()))?;
        match (outcome, total) {
            (Err(Stop::Passing(_)) | Ok(()), Some(total)) if done < total => {
                Err(Stop::Passing(ArtifactError::TooShort {
                    url: url.to_owned(),
                    got: done,
                    total,
                }))
            }
            (outcome, _) => outcome,
        }
    }

    async fn get(&self, url: &str, headers: HeaderMap) -> Result<Response, Stop> {
        let asked = self.http.get(url).headers(headers).send().await;
        let response = asked.map_err(|error| broken(url, &error))?;
        let status = response.status();
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(Stop::Passing(ArtifactError::Status {
                url: url.to_owned(),
                status: status.as_u16(),
            }));
        }
        Ok(response)
    }

    /// Waits a moment, or has had enough.
    async fn pause(&self, failures: u32, error: ArtifactError) -> Result<(), ArtifactError> {
        if failures >= self.patience.attempts {
            return Err(error);
        }
        let doubled = 1 << failures.saturating_sub(1).min(5);
        tokio::time::sleep(self.patience.pause * doubled).await;
        Ok(())
    }
}

/// Tells a file from the other things that servers answer.
fn expect_file(response: &Response, url: &str, tag: &str) -> Result<(), ArtifactError> {
    let status = response.status();
    if matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE) {
        return Err(ArtifactError::NotFound {
            tag: tag.to_owned(),
            at: url.to_owned(),
        });
    }
    if !matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
        return Err(ArtifactError::Status {
            url: url.to_owned(),
            status: status.as_u16(),
        });
    }
    let page = header(response, CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/html"));
    if page { Err(web_page(url)) } else { Ok(()) }
}

/// Not every server says what it sends.
fn expect_no_page(start: &[u8], url: &str) -> Result<(), ArtifactError> {
    let start = start.trim_ascii_start();
    let start = start.get(..start.len().min(15)).unwrap_or_default();
    let start = start.to_ascii_lowercase();
    if start.starts_with(b"<html") || start.starts_with(b"<!doctype html") {
        Err(web_page(url))
    } else {
        Ok(())
    }
}

/// The server's name for this version of the file that If-Range takes: no weak ETag (RFC 9110, section 13.1.5).
fn version_of(response: &Response) -> Option<String> {
    header(response, ETAG)
        .filter(|tag| !tag.starts_with("W/"))
        .or_else(|| header(response, LAST_MODIFIED))
        .map(str::to_owned)
}

/// The first byte of `Content-Range: bytes FIRST-LAST/TOTAL`.
fn range_start(response: &Response) -> Option<u64> {
    let range = header(response, CONTENT_RANGE)?.strip_prefix("bytes ")?;
    range.split_once('-')?.0.trim().parse().ok()
}

/// The total of `Content-Range: bytes */TOTAL`.
fn range_total(response: &Response) -> Option<u64> {
    header(response, CONTENT_RANGE)?
        .rsplit_once('/')?
        .1
        .parse()
        .ok()
}

fn header(response: &Response, name: HeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = value.parse() {
        headers.insert(name, value);
    }
}

fn web_page(url: &str) -> ArtifactError {
    ArtifactError::WebPage {
        url: url.to_owned(),
    }
}

fn too_long(url: &str, limit: u64) -> ArtifactError {
    ArtifactError::TooLong {
        url: url.to_owned(),
        limit,
    }
}

fn unreachable(url: &str, why: impl Into<String>) -> ArtifactError {
    ArtifactError::Unreachable {
        url: url.to_owned(),
        why: why.into(),
    }
}

fn broken(url: &str, error: &reqwest::Error) -> Stop {
    Stop::Passing(unreachable(url, chain(error)))
}

/// An error with its causes. The URL is named already.
fn chain(error: &dyn std::error::Error) -> String {
    let mut texts = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        let text = text
            .split_once(" for url (")
            .map_or(text.as_str(), |(text, _)| text);
        if !texts.iter().any(|told: &String| told.contains(text)) {
            texts.push(text.to_owned());
        }
        next = error.source();
    }
    texts.join(": ")
}
