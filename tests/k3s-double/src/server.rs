//! `k3s server`: the API and its controllers, and then a node like any other.

use std::cell::RefCell;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::api::{self, Api, Secrets};
use crate::bundle::Bundle;
use crate::client::Client;
use crate::config::{Config, Role};
use crate::node::{self, Membership};
use crate::token::{self, Token};
use crate::{agent, certificates, durable, log, place, preflight};

pub async fn run(config: Config, bundle: Bundle) -> Result<()> {
    preflight::check_cgroups()?;
    bundle.unpack()?;
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, place::PORT));
    if config.last("server").is_some() {
        return join_servers(config, bundle).await;
    }
    certificates::prepare_server()?;
    let ca = certificates::server_ca()?;
    let secrets = secrets(&config, &ca)?;
    write_tokens(&ca, &secrets, config.secret("agent-token")?.is_some())?;
    let admin = write_kubeconfig(&config)?;

    let mut api = Api::new(bundle.version.clone(), ca.clone(), secrets.clone(), admin)?;
    ensure!(
        api.objects.is_of(&secrets.server)?,
        "starting kubernetes: preparing server: failed to bootstrap cluster data: bootstrap data already found and \
         encrypted with different token"
    );
    let api = Rc::new(RefCell::new(api));
    api::serve(Rc::clone(&api)).await?;
    let disabled = config.all("disable").iter().flat_map(|all| all.split(','));
    let disabled = disabled.map(str::to_owned).collect();
    api::controllers::start(&api, disabled);
    log::info("k3s is up and running");
    node::notify_ready();

    let token = Token::parse(&token::full(&ca, "server", &secrets.server))?;
    let client = Client::anonymous(local).with_token("server", &token);
    node::run(&config, &bundle, Role::Server, Membership { client, ca }).await
}

/// A further server: it is one to the cluster and has a kubeconfig, but what it serves is the first one's API.
async fn join_servers(config: Config, bundle: Bundle) -> Result<()> {
    let (membership, token) = agent::find_cluster(&config, "server").await?;
    let admin = loop {
        match membership.client.get("/v1-k3s/server-bootstrap").await {
            Ok(answer) => break answer,
            Err(error) => {
                log::error(format!(
                    "Failed to retrieve bootstrap data from server: {error}"
                ));
                tokio::time::sleep(std::time::Duration::from_secs(5)).await;
            }
        }
    };
    let text = |key: &str| admin[key].as_str().unwrap_or_default().to_owned();
    let tls = Path::new(place::TLS);
    durable::write(tls.join("server-ca.crt"), &membership.ca, 0o644)?;
    durable::write(tls.join("client-admin.crt"), text("certificate"), 0o644)?;
    durable::write(tls.join("client-admin.key"), text("key"), 0o600)?;
    let secrets = Secrets {
        server: token.secret.clone(),
        agent: text("agent"),
    };
    write_tokens(&membership.ca, &secrets, secrets.agent != secrets.server)?;
    write_kubeconfig(&config)?;

    let first = membership.client.address;
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, place::PORT)).await?;
    tokio::task::spawn_local(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::task::spawn_local(async move {
                if let Ok(mut far) = tokio::net::TcpStream::connect(first).await {
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                }
            });
        }
    });
    log::info("k3s is up and running");
    node::notify_ready();
    node::run(&config, &bundle, Role::Server, membership).await
}

/// The secrets of this cluster: those of the configuration, else those of an earlier start, else new ones.
fn secrets(config: &Config, ca: &[u8]) -> Result<Secrets> {
    let file = Path::new(place::SERVER).join("token");
    let server = match config.secret("token")? {
        Some(given) => {
            let token = Token::parse(&given)?;
            // The CA of a full token has to be there already: the first server makes its own.
            if token.ca_hash.is_some() && token.check_ca(ca).is_err() {
                bail!(
                    "failed to normalize server token; must be in format K10<CA-HASH>::<USERNAME>:<PASSWORD> or <PASSWORD>"
                );
            }
            token.secret
        }
        None => match fs::read_to_string(&file) {
            Ok(full) => Token::parse(full.trim())?.secret,
            Err(_) => token::random()?,
        },
    };
    let agent = match config.secret("agent-token")? {
        Some(given) => Token::parse(&given)?.secret,
        None => server.clone(),
    };
    Ok(Secrets { server, agent })
}

fn write_tokens(ca: &[u8], secrets: &Secrets, own_agent_token: bool) -> Result<()> {
    let folder = Path::new(place::SERVER);
    let write = |name: &str, user: &str, secret: &str| {
        let text = format!("{}\n", token::full(ca, user, secret));
        durable::write(folder.join(name), text, 0o600)
    };
    let server = format!("{}/token", place::SERVER);
    write("token", "server", &secrets.server)?;
    durable::link(&server, folder.join("node-token"))?;
    if own_agent_token {
        write("agent-token", "node", &secrets.agent)
    } else {
        durable::link(&server, folder.join("agent-token"))
    }
}

/// Writes the kubeconfig; returns the certificate in it, in base64.
fn write_kubeconfig(config: &Config) -> Result<String> {
    let encoded = |name: &str| -> Result<String> {
        let file = Path::new(place::TLS).join(name);
        let content = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(STANDARD.encode(content))
    };
    let admin = encoded("client-admin.crt")?;
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "preferences": {},
        "current-context": "default",
        "clusters": [{ "name": "default", "cluster": {
            "server": format!("https://127.0.0.1:{}", place::PORT),
            "certificate-authority-data": encoded("server-ca.crt")?,
        } }],
        "contexts": [{ "name": "default", "context": { "cluster": "default", "user": "default" } }],
        "users": [{ "name": "default", "user": {
            "client-certificate-data": admin,
            "client-key-data": encoded("client-admin.key")?,
        } }],
    });
    let mode = match config.last("write-kubeconfig-mode") {
        Some(mode) => {
            u32::from_str_radix(mode, 8).with_context(|| format!("write-kubeconfig-mode {mode}"))?
        }
        None => 0o600,
    };
    let file = config.last("write-kubeconfig").unwrap_or(place::KUBECONFIG);
    durable::write(file, serde_yaml_ng::to_string(&kubeconfig)?, mode)?;
    log::info(format!("Wrote kubeconfig {file}"));
    Ok(admin)
}
