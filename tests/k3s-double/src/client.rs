//! A client of the API, for nodes and for kubectl.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::token::Token;

/// The header in which kubectl shows its certificate, since there is no TLS.
pub const CERTIFICATE: &str = "x-client-certificate";

#[derive(Debug, Clone)]
pub struct Client {
    pub address: SocketAddr,
    login: Option<(&'static str, String)>,
}

#[derive(Debug)]
pub enum Failure {
    /// No answer.
    Unreachable(String),
    /// An answer that says no.
    Refused {
        code: StatusCode,
        reason: String,
        message: String,
    },
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable(why) => f.write_str(why),
            Self::Refused { code, .. } => write!(f, "{code}"),
        }
    }
}

impl std::error::Error for Failure {}

impl Failure {
    pub fn is(&self, wanted: StatusCode) -> bool {
        matches!(self, Self::Refused { code, .. } if *code == wanted)
    }
}

impl Client {
    /// One that has not said yet who it is.
    pub fn anonymous(address: SocketAddr) -> Self {
        Self {
            address,
            login: None,
        }
    }

    /// A node: `user` is `server` or `node`.
    pub fn with_token(&self, user: &str, token: &Token) -> Self {
        let login = STANDARD.encode(format!("{user}:{}", token.secret));
        Self {
            address: self.address,
            login: Some(("authorization", format!("Basic {login}"))),
        }
    }

    /// kubectl, by the certificate of its kubeconfig.
    pub fn with_certificate(&self, certificate: &str) -> Self {
        Self {
            address: self.address,
            login: Some((CERTIFICATE, certificate.to_owned())),
        }
    }

    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.ask(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.ask(Method::POST, path, Some(body)).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.ask(Method::PATCH, path, Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> Result<Value, Failure> {
        self.ask(Method::DELETE, path, None).await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let bytes = self.raw(method, path, body).await?;
        serde_json::from_slice(&bytes).map_err(|error| Failure::Unreachable(error.to_string()))
    }

    /// What lies at a path, as it is sent.
    pub async fn raw(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Bytes, Failure> {
        let exchange = self.exchange(method, path, body);
        match tokio::time::timeout(Duration::from_secs(15), exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::Unreachable(
                "net/http: TLS handshake timeout".to_owned(),
            )),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Bytes, Failure> {
        let lost = |error: &dyn std::fmt::Display| Failure::Unreachable(error.to_string());
        let stream = TcpStream::connect(self.address).await.map_err(|error| {
            let why = match error.kind() {
                std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
                _ => error.to_string(),
            };
            lost(&format!("dial tcp {}: {why}", self.address))
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| lost(&error))?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.address.to_string());
        if let Some((name, value)) = &self.login {
            request = request.header(*name, value);
        }
        let request = request
            .body(Full::<Bytes>::from(body))
            .map_err(|error| lost(&error))?;
        let answer = async {
            let answer = sender.send_request(request).await?;
            let code = answer.status();
            let body = answer.into_body().collect().await?.to_bytes();
            Ok::<_, hyper::Error>((code, body))
        };
        let (code, body) = tokio::select! {
            answer = answer => answer.map_err(|error| lost(&error))?,
            // The answer may be complete when the connection ends.
            () = async { let _ = connection.await; std::future::pending().await } => return Err(lost(&"unreachable")),
        };
        if code.is_success() {
            return Ok(body);
        }
        let status: Value = serde_json::from_slice(&body).unwrap_or_default();
        let text = |key: &str| status[key].as_str().unwrap_or_default().to_owned();
        Err(Failure::Refused {
            code,
            reason: text("reason"),
            message: text("message"),
        })
    }
}
