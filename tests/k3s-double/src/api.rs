//! The API server, as much of it as a double needs: a small object store behind paths like those of Kubernetes.
//!
//! Real k3s speaks TLS here and checks client certificates. The double speaks plain HTTP: whoever joins says user and
//! secret of its token, and kubectl shows the certificate of its kubeconfig.

pub mod controllers;
mod join;
pub mod objects;
mod route;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::rc::Rc;

use anyhow::{Context, Result};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::{log, place};
use objects::Objects;

/// What a server knows. All of it runs in one thread.
pub struct Api {
    pub objects: Objects,
    /// When each node was last heard of.
    pub heard: BTreeMap<String, Instant>,
    pub version: String,
    ca: Vec<u8>,
    secrets: Secrets,
    /// The certificate that a kubeconfig holds, in base64.
    admin: String,
}

/// What nodes join with.
#[derive(Clone)]
pub struct Secrets {
    pub server: String,
    pub agent: String,
}

pub type Shared = Rc<RefCell<Api>>;

/// A failure, as Kubernetes tells it.
#[derive(Debug)]
pub struct Failure {
    code: StatusCode,
    reason: &'static str,
    message: String,
}

impl Failure {
    pub fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            code,
            reason,
            message,
        }
    }

    pub fn not_found(resource: &str, name: &str) -> Self {
        let message = format!("{resource} {name:?} not found");
        Self::new(StatusCode::NOT_FOUND, "NotFound", message)
    }

    fn status(&self) -> Value {
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code.as_u16(),
        })
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let message = format!("{error:#}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }
}

impl Api {
    pub fn new(version: String, ca: Vec<u8>, secrets: Secrets, admin: String) -> Result<Self> {
        let objects = Objects::load(place::STATE.into())?;
        let now = Instant::now();
        let names = objects.list("nodes", None);
        let heard = names
            .iter()
            .map(|node| (objects::name(node).to_owned(), now))
            .collect();
        Ok(Self {
            objects,
            heard,
            version,
            ca,
            secrets,
            admin,
        })
    }
}

/// Listens; returns once the port is open.
pub async fn serve(api: Shared) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, place::PORT))
        .await
        .with_context(|| format!("cannot listen on port {}", place::PORT))?;
    tokio::task::spawn_local(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            };
            let api = Rc::clone(&api);
            tokio::task::spawn_local(async move {
                let service = service_fn(move |request| answer(Rc::clone(&api), request));
                let connection = hyper::server::conn::http1::Builder::new();
                // A client that goes away is its own affair.
                let _ = connection
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    Ok(())
}

async fn answer(
    api: Shared,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let (code, content) = match route::route(&mut api.borrow_mut(), &parts, &body) {
        Ok(route::Answer::Text(text)) => (StatusCode::OK, text),
        Ok(route::Answer::Object(value)) => (StatusCode::OK, value.to_string()),
        Err(failure) => {
            if failure.code.is_server_error() {
                log::error(&failure.message);
            }
            (failure.code, failure.status().to_string())
        }
    };
    let mut response = Response::new(Full::from(content));
    *response.status_mut() = code;
    Ok(response)
}
