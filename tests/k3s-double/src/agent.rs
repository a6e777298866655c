//! `k3s agent`: a node that joins a server.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http::Method;
use tokio::time::sleep;

use crate::bundle::Bundle;
use crate::client::Client;
use crate::config::{Config, Role};
use crate::node::{self, Membership};
use crate::token::Token;
use crate::{log, preflight};

pub async fn run(config: Config, bundle: Bundle) -> Result<()> {
    preflight::check_cgroups()?;
    bundle.unpack()?;
    let (membership, _) = find_cluster(&config, "node").await?;
    node::run(&config, &bundle, Role::Agent, membership).await
}

/// The cluster that the configuration names, once it answers and has the CA that the token says.
pub async fn find_cluster(config: &Config, user: &str) -> Result<(Membership, Token)> {
    let Some(url) = config.last("server") else {
        bail!("--server is required");
    };
    let address = address(url)?;
    let token = config.secret("token")?.context("--token is required")?;
    let token = Token::parse(&token)?;
    log::info(format!("Starting k3s agent of {url}"));
    loop {
        let anonymous = Client::anonymous(address);
        let answer = anonymous.raw(Method::GET, "/cacerts", None).await;
        let checked = match answer {
            Ok(ca) => token.check_ca(&ca).map(|()| ca),
            Err(error) => Err(anyhow::anyhow!(
                "failed to get CA certs: Get \"{url}/cacerts\": {error}"
            )),
        };
        match checked {
            Ok(ca) => {
                let user = token.user.clone().unwrap_or_else(|| user.to_owned());
                let membership = Membership {
                    client: anonymous.with_token(&user, &token),
                    ca: ca.to_vec(),
                };
                return Ok((membership, token));
            }
            Err(error) => log::error(format!(
                "Failed to validate connection to cluster at {url}: {error:#}"
            )),
        }
        sleep(Duration::from_secs(2)).await;
    }
}

fn address(url: &str) -> Result<SocketAddr> {
    let Some(rest) = url.strip_prefix("https://") else {
        bail!("only https:// URLs are supported, invalid scheme: {url}");
    };
    rest.trim_end_matches('/')
        .parse()
        .with_context(|| format!("{url}: the double takes an address and a port only"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_an_address_behind_https() {
        assert_eq!(address("https://10.99.0.1:6443").unwrap().port(), 6443);
        assert!(
            address("http://10.99.0.1:6443").is_err() && address("https://jarvis:6443").is_err()
        );
    }
}
