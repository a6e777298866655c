//! An HTTP server on the loopback that answers as well, or as badly, as a test wants.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What lies behind a path.
#[derive(Debug, Clone, Default)]
pub struct Page {
    pub body: Vec<u8>,
    pub status: u16,
    pub content_type: &'static str,
    pub etag: Option<&'static str>,
    /// Range is understood.
    pub ranges: bool,
    /// The first so many answers break off behind that many bytes of the body.
    pub cuts: usize,
    pub cut_at: usize,
    /// Say no length: the end of the connection is the end of the file.
    pub no_length: bool,
    /// Say nothing more after the head.
    pub stalls: bool,
}

impl Page {
    pub fn of(body: impl Into<Vec<u8>>) -> Page {
        Page {
            body: body.into(),
            status: 200,
            content_type: "application/octet-stream",
            ranges: true,
            ..Page::default()
        }
    }
}

#[derive(Debug, Default)]
struct State {
    pages: BTreeMap<String, Page>,
    requests: Vec<Asked>,
}

/// A request: its first line's target, and its headers in lower case.
#[derive(Debug, Clone)]
pub struct Asked {
    pub target: String,
    pub headers: BTreeMap<String, String>,
}

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    accepting: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Server {
    pub async fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Server {
            address,
            state,
            accepting,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Puts a page behind a path (or, for a proxy, behind a whole URL).
    pub fn put(&self, path: &str, page: Page) {
        self.state
            .lock()
            .unwrap()
            .pages
            .insert(path.to_owned(), page);
    }

    pub fn requests(&self) -> Vec<Asked> {
        self.state.lock().unwrap().requests.clone()
    }

    /// How often a path was asked for.
    pub fn count(&self, end: &str) -> usize {
        let requests = self.requests();
        requests
            .iter()
            .filter(|asked| asked.target.ends_with(end))
            .count()
    }
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.lines();
    let target = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let (page, cut) = {
        let mut state = state.lock().unwrap();
        state.requests.push(Asked {
            target: target.clone(),
            headers: headers.clone(),
        });
        match state.pages.get_mut(&target) {
            Some(page) => {
                let cut = page.cuts > 0;
                page.cuts = page.cuts.saturating_sub(1);
                (page.clone(), cut)
            }
            None => (
                Page {
                    status: 404,
                    ..Page::of("Not Found")
                },
                false,
            ),
        }
    };
    let mut status = page.status;
    let mut answer = String::new();
    let mut from = 0;
    let same = match (headers.get("if-range"), page.etag) {
        (Some(wanted), Some(etag)) => wanted == etag,
        (Some(_), None) => false,
        (None, _) => true,
    };
    if let Some(range) = headers.get("range")
        && page.ranges
        && same
    {
        let first = range.strip_prefix("bytes=").unwrap().trim_end_matches('-');
        from = first.parse().unwrap();
        let length = page.body.len();
        if from >= length {
            status = 416;
            answer += &format!("Content-Range: bytes */{length}\r\n");
        } else {
            status = 206;
            answer += &format!("Content-Range: bytes {from}-{}/{length}\r\n", length - 1);
        }
    }
    let body = page.body.get(from..).unwrap_or_default();
    if !page.no_length {
        answer += &format!("Content-Length: {}\r\n", body.len());
    }
    if let Some(etag) = page.etag {
        answer += &format!("ETag: {etag}\r\n");
    }
    let answer = format!(
        "HTTP/1.1 {status} Said\r\nContent-Type: {}\r\nConnection: close\r\n{answer}\r\n",
        page.content_type
    );
    stream.write_all(answer.as_bytes()).await?;
    if page.stalls {
        let mut nothing = Vec::new();
        return stream.read_to_end(&mut nothing).await.map(drop);
    }
    let body = match cut {
        true => &body[..body.len().min(page.cut_at)],
        false => body,
    };
    stream.write_all(body).await?;
    stream.shutdown().await
}
