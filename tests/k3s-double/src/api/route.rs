//! Which path does what.

use http::request::Parts;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::objects::{self, merge, now};
use super::{Api, Failure, join};

pub enum Answer {
    Text(String),
    Object(Value),
}

/// Resources that belong to no namespace.
const CLUSTER: &[&str] = &["nodes", "namespaces"];

pub fn kind(resource: &str) -> Option<(&'static str, &'static str)> {
    Some(match resource {
        "nodes" => ("Node", "v1"),
        "pods" => ("Pod", "v1"),
        "secrets" => ("Secret", "v1"),
        "events" => ("Event", "v1"),
        "deployments" => ("Deployment", "apps/v1"),
        "daemonsets" => ("DaemonSet", "apps/v1"),
        _ => return None,
    })
}

pub fn route(api: &mut Api, request: &Parts, body: &[u8]) -> Result<Answer, Failure> {
    let path = request.uri.path();
    let query = request.uri.query().unwrap_or_default();
    match path {
        "/cacerts" => return Ok(Answer::Text(String::from_utf8_lossy(&api.ca).into_owned())),
        "/readyz" | "/livez" | "/healthz" => return Ok(Answer::Text(health(path, query))),
        "/version" => {
            let version = json!({
                "major": "1", "minor": api.version.split('.').nth(1), "gitVersion": api.version,
                "platform": "linux/amd64", "goVersion": "none: this is selfheal's k3s double",
            });
            return Ok(Answer::Object(version));
        }
        _ => {}
    }
    join::authorize(api, request)?;
    let body: Value = if body.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(body).map_err(|error| {
            Failure::new(StatusCode::BAD_REQUEST, "BadRequest", error.to_string())
        })?
    };
    let words: Vec<&str> = path.split('/').filter(|word| !word.is_empty()).collect();
    match words.as_slice() {
        ["v1-k3s", "join"] => join::join(api, &body).map(Answer::Object),
        ["v1-k3s", "server-bootstrap"] => join::bootstrap(api, request).map(Answer::Object),
        ["v1-k3s", "alive", node] => join::alive(api, node, &body).map(Answer::Object),
        ["api", "v1", rest @ ..] | ["apis", "apps", "v1", rest @ ..] => {
            objects_at(api, &request.method, rest, query, body).map(Answer::Object)
        }
        _ => Err(unknown()),
    }
}

fn unknown() -> Failure {
    let message = "the server could not find the requested resource";
    Failure::new(StatusCode::NOT_FOUND, "NotFound", message)
}

fn health(path: &str, query: &str) -> String {
    if !query.contains("verbose") {
        return "ok".to_owned();
    }
    let name = path.trim_start_matches('/');
    let checks = [
        "ping",
        "log",
        "etcd",
        "poststarthook/start-apiextensions-controllers",
    ];
    let mut text: String = checks
        .iter()
        .map(|check| format!("[+]{check} ok\n"))
        .collect();
    text += &format!("{name} check passed\n");
    text
}

fn objects_at(
    api: &mut Api,
    method: &Method,
    path: &[&str],
    query: &str,
    body: Value,
) -> Result<Value, Failure> {
    let (namespace, path) = match path {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
        _ => (None, path),
    };
    let (resource, path) = path.split_first().ok_or_else(unknown)?;
    let (kind, version) = kind(resource).ok_or_else(unknown)?;
    let of = namespace.unwrap_or_default();
    match (method, path) {
        (&Method::GET, []) => {
            let items = api.objects.list(resource, namespace);
            let items: Vec<&Value> = items.into_iter().filter(|o| selects(query, o)).collect();
            Ok(
                json!({ "kind": format!("{kind}List"), "apiVersion": version, "metadata": {}, "items": items }),
            )
        }
        (&Method::GET, [name]) => find(api, resource, of, name).cloned(),
        (&Method::POST, []) => create(api, resource, namespace, body),
        (&Method::PATCH, [name]) => {
            let mut object = find(api, resource, of, name)?.clone();
            merge(&mut object, &body);
            Ok(api.objects.update(resource, object)?)
        }
        (&Method::DELETE, [name]) => delete(
            api,
            resource,
            of,
            name,
            query.contains("gracePeriodSeconds=0"),
        ),
        (&Method::POST, [name, "eviction"]) if *resource == "pods" => evict(api, of, name),
        _ => Err(unknown()),
    }
}

/// `fieldSelector=spec.nodeName=NAME`, the only one there is.
fn selects(query: &str, object: &Value) -> bool {
    let wanted = query
        .split('&')
        .find_map(|part| part.strip_prefix("fieldSelector=spec.nodeName="));
    wanted.is_none_or(|node| object["spec"]["nodeName"] == node)
}

fn find<'a>(
    api: &'a Api,
    resource: &str,
    namespace: &str,
    name: &str,
) -> Result<&'a Value, Failure> {
    api.objects
        .get(resource, namespace, name)
        .ok_or_else(|| Failure::not_found(resource, name))
}

fn create(
    api: &mut Api,
    resource: &str,
    namespace: Option<&str>,
    mut object: Value,
) -> Result<Value, Failure> {
    let (kind, version) = kind(resource).ok_or_else(unknown)?;
    if !object.is_object() || !object["metadata"].is_object() {
        return Err(Failure::new(
            StatusCode::BAD_REQUEST,
            "BadRequest",
            "no object",
        ));
    }
    object["kind"] = json!(kind);
    object["apiVersion"] = json!(version);
    if !CLUSTER.contains(&resource) {
        object["metadata"]["namespace"] = json!(namespace.unwrap_or("default"));
    }
    let name = objects::name(&object).to_owned();
    if name.is_empty() {
        let message = format!("{kind} is invalid: metadata.name: Required value");
        return Err(Failure::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Invalid",
            message,
        ));
    }
    if api
        .objects
        .get(resource, objects::namespace(&object), &name)
        .is_some()
    {
        let message = format!("{resource} {name:?} already exists");
        return Err(Failure::new(StatusCode::CONFLICT, "AlreadyExists", message));
    }
    if resource == "pods" && object["status"]["phase"].is_null() {
        object["status"] = json!({ "phase": "Pending", "qosClass": "BestEffort" });
    }
    Ok(api.objects.create(resource, object)?)
}

/// A pod that a node may run goes when the node has ended it; all else goes at once.
fn delete(
    api: &mut Api,
    resource: &str,
    namespace: &str,
    name: &str,
    now_: bool,
) -> Result<Value, Failure> {
    let mut object = find(api, resource, namespace, name)?.clone();
    let node = object["spec"]["nodeName"].as_str().unwrap_or_default();
    if resource == "pods" && !now_ && api.objects.get("nodes", "", node).is_some() {
        if object["metadata"]["deletionTimestamp"].is_null() {
            object["metadata"]["deletionTimestamp"] = json!(now());
            object["metadata"]["deletionGracePeriodSeconds"] = json!(30);
            return Ok(api.objects.update("pods", object)?);
        }
        return Ok(object);
    }
    api.objects.remove(resource, namespace, name)?;
    if resource == "nodes" {
        // k3s's own controller does so.
        api.objects
            .remove("secrets", "kube-system", &join::secret_name(name))?;
        api.heard.remove(name);
    }
    Ok(object)
}

fn evict(api: &mut Api, namespace: &str, name: &str) -> Result<Value, Failure> {
    let pod = find(api, "pods", namespace, name)?;
    if pod["metadata"]["annotations"]["selfheal.test/undrainable"] == "true" {
        let message = "Cannot evict pod as it would violate the pod's disruption budget.";
        return Err(Failure::new(
            StatusCode::TOO_MANY_REQUESTS,
            "TooManyRequests",
            message,
        ));
    }
    delete(api, "pods", namespace, name, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_told_at_length_on_request() {
        assert_eq!(health("/readyz", ""), "ok");
        let long = health("/readyz", "verbose");
        assert!(long.contains("[+]ping ok\n") && long.ends_with("readyz check passed\n"));
    }

    #[test]
    fn pods_are_selected_by_their_node() {
        let pod = json!({ "spec": { "nodeName": "jarvis" } });
        assert!(selects("", &pod) && selects("fieldSelector=spec.nodeName=jarvis", &pod));
        assert!(!selects("fieldSelector=spec.nodeName=ultron", &pod));
    }
}
