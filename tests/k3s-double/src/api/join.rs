//! Who is let in, and how a node joins (domain.md §4.4).

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use http::request::Parts;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::objects::now;
use super::{Api, Failure};
use crate::bundle::hex;
use crate::client::CERTIFICATE;
use crate::{log, place};

pub fn secret_name(node: &str) -> String {
    format!("{node}.node-password.k3s")
}

/// A node by its token, or kubectl by its certificate.
pub fn authorize(api: &Api, request: &Parts) -> Result<(), Failure> {
    let header = |name: &str| {
        request
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let login = header("authorization")
        .and_then(|value| value.strip_prefix("Basic "))
        .and_then(|value| STANDARD.decode(value).ok())
        .and_then(|login| String::from_utf8(login).ok());
    let by_token = login.is_some_and(|login| match login.split_once(':') {
        Some(("server", secret)) => secret == api.secrets.server,
        Some(("node", secret)) => secret == api.secrets.agent || secret == api.secrets.server,
        _ => false,
    });
    if by_token || header(CERTIFICATE) == Some(&api.admin) {
        return Ok(());
    }
    Err(Failure::new(
        StatusCode::UNAUTHORIZED,
        "Unauthorized",
        "Unauthorized",
    ))
}

/// What a further server needs: only by the server's token.
pub fn bootstrap(api: &Api, request: &Parts) -> Result<Value, Failure> {
    let login = STANDARD.encode(format!("server:{}", api.secrets.server));
    let shown = request
        .headers
        .get("authorization")
        .and_then(|value| value.to_str().ok());
    if shown != Some(&format!("Basic {login}")) {
        return Err(Failure::new(
            StatusCode::UNAUTHORIZED,
            "Unauthorized",
            "Unauthorized",
        ));
    }
    let file = |name: &str| -> anyhow::Result<String> {
        Ok(fs::read_to_string(Path::new(place::TLS).join(name))?)
    };
    Ok(json!({
        "certificate": file("client-admin.crt")?, "key": file("client-admin.key")?, "agent": api.secrets.agent,
    }))
}

/// A node says who it is: `node`, `password`, and the object it would be. It gets the object that it is.
pub fn join(api: &mut Api, question: &Value) -> Result<Value, Failure> {
    let text = |key: &str| question[key].as_str().unwrap_or_default();
    let (node, password) = (text("node"), text("password"));
    if node.is_empty() || password.is_empty() {
        return Err(Failure::new(
            StatusCode::BAD_REQUEST,
            "BadRequest",
            "node name not set",
        ));
    }
    let hash = STANDARD.encode(hex(&Sha256::digest(password)));
    let secret = secret_name(node);
    match api.objects.get("secrets", "kube-system", &secret) {
        Some(known) if known["data"]["hash"] != hash.as_str() => {
            let reason = "hash does not match";
            log::error(format!(
                "unable to verify password for node {node}: {reason}"
            ));
            return Err(Failure::new(
                StatusCode::FORBIDDEN,
                "Forbidden",
                "node password rejected",
            ));
        }
        Some(_) => {}
        None => {
            let object = json!({
                "kind": "Secret", "apiVersion": "v1", "type": "Opaque", "immutable": true,
                "metadata": { "name": secret, "namespace": "kube-system" },
                "data": { "hash": hash },
            });
            api.objects.create("secrets", object)?;
        }
    }
    api.heard.insert(node.to_owned(), Instant::now());
    if let Some(known) = api.objects.get("nodes", "", node) {
        let mut object = known.clone();
        // What the kubelet keeps true of itself; the labels and taints of the configuration count only the first time.
        let labels = question["object"]["metadata"]["labels"].as_object();
        for (key, value) in labels.into_iter().flatten() {
            if key.starts_with("kubernetes.io/") || key.starts_with("node-role.kubernetes.io/") {
                object["metadata"]["labels"][key] = value.clone();
            }
        }
        return Ok(api.objects.update("nodes", object)?);
    }
    let mut object = question["object"].clone();
    object["spec"]["podCIDR"] = json!(free_range(api));
    object["spec"]["podCIDRs"] = json!([object["spec"]["podCIDR"]]);
    object["spec"]["providerID"] = json!(format!("k3s://{node}"));
    Ok(api.objects.create("nodes", object)?)
}

fn free_range(api: &Api) -> String {
    let taken = api.objects.list("nodes", None);
    let range = |number: u32| format!("10.42.{number}.0/24");
    let is_free = |number: &u32| {
        let range = range(*number);
        !taken
            .iter()
            .any(|node| node["spec"]["podCIDR"] == range.as_str())
    };
    range((0..256).find(is_free).unwrap_or(255))
}

/// A node is alive: `ready`, `message`, `info`, `addresses`.
pub fn alive(api: &mut Api, name: &str, question: &Value) -> Result<Value, Failure> {
    let Some(node) = api.objects.get("nodes", "", name) else {
        return Err(Failure::not_found("nodes", name));
    };
    let mut node = node.clone();
    api.heard.insert(name.to_owned(), Instant::now());
    let ready = question["ready"] == true;
    let (status, reason, message) = if ready {
        ("True", "KubeletReady", "kubelet is posting ready status")
    } else {
        let message = question["message"].as_str().unwrap_or_default();
        ("False", "KubeletNotReady", message)
    };
    node["status"]["nodeInfo"] = question["info"].clone();
    node["status"]["addresses"] = question["addresses"].clone();
    node["status"]["capacity"] = json!({ "cpu": "2", "pods": "110" });
    node["status"]["allocatable"] = node["status"]["capacity"].clone();
    set_condition(&mut node, "Ready", status, reason, message);
    for (kind, reason) in [
        ("MemoryPressure", "KubeletHasSufficientMemory"),
        ("DiskPressure", "KubeletHasNoDiskPressure"),
        ("PIDPressure", "KubeletHasSufficientPID"),
    ] {
        set_condition(&mut node, kind, "False", reason, "kubelet has enough");
    }
    Ok(api.objects.update("nodes", node)?)
}

/// Sets a condition of a node; when it last changed is kept if it did not.
pub fn set_condition(node: &mut Value, kind: &str, status: &str, reason: &str, message: &str) {
    if !node["status"]["conditions"].is_array() {
        node["status"]["conditions"] = json!([]);
    }
    let Some(all) = node["status"]["conditions"].as_array_mut() else {
        return;
    };
    let old = all.iter().position(|condition| condition["type"] == kind);
    let since = old
        .and_then(|at| all.get(at))
        .filter(|condition| condition["status"] == status)
        .map_or_else(
            || json!(now()),
            |condition| condition["lastTransitionTime"].clone(),
        );
    let condition = json!({
        "type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since,
    });
    match old.and_then(|at| all.get_mut(at)) {
        Some(old) => *old = condition,
        None => all.push(condition),
    }
}
