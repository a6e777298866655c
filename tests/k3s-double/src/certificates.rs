//! The certificates that lie on a node, under the names that k3s gives them. Nothing here speaks TLS: they are there to be
//! looked at, and the CA to be named in tokens.
//!
//! k3s renews, when it starts, what expires within 120 days (domain.md §4.7); so does this. A test that needs old ones
//! puts their days into [`AGE_FILE`].

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use time::{Duration, OffsetDateTime};
use x509_parser::pem::parse_x509_pem;

use crate::{durable, log, place};

/// How many days new certificates are valid for, instead of 365.
const AGE_FILE: &str = "/etc/rancher/k3s/double-certificate-days";
const CA_DAYS: i64 = 3650;
const RENEWED_WITHIN: i64 = 120;

const AUTHORITIES: &[&str] = &["server-ca", "client-ca", "request-header-ca"];
const OF_SERVER: &[(&str, &str, &str)] = &[
    ("client-admin", "client-ca", "system:admin"),
    (
        "client-auth-proxy",
        "request-header-ca",
        "system:auth-proxy",
    ),
    (
        "client-controller",
        "client-ca",
        "system:kube-controller-manager",
    ),
    (
        "client-k3s-cloud-controller",
        "client-ca",
        "k3s-cloud-controller-manager",
    ),
    (
        "client-k3s-controller",
        "client-ca",
        "system:k3s-controller",
    ),
    ("client-kube-apiserver", "client-ca", "system:apiserver"),
    ("client-kube-proxy", "client-ca", "system:kube-proxy"),
    ("client-scheduler", "client-ca", "system:kube-scheduler"),
    ("client-supervisor", "client-ca", "system:k3s-supervisor"),
    ("serving-kube-apiserver", "server-ca", "kube-apiserver"),
];
const OF_AGENT: &[(&str, &str)] = &[
    ("client-k3s-controller", "system:k3s-controller"),
    ("client-kube-proxy", "system:kube-proxy"),
    ("client-kubelet", "system:node"),
    ("serving-kubelet", "kubelet"),
];

fn days() -> i64 {
    fs::read_to_string(AGE_FILE)
        .ok()
        .and_then(|days| days.trim().parse().ok())
        .unwrap_or(365)
}

/// Makes or renews a server's certificates.
pub fn prepare_server() -> Result<()> {
    for name in AUTHORITIES {
        let (certificate, key) = files(place::TLS, name);
        if certificate.exists() {
            continue;
        }
        let now = OffsetDateTime::now_utc();
        let mut params = params(&format!("k3s-{name}@{}", now.unix_timestamp()), CA_DAYS);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pair = KeyPair::generate()?;
        let authority = params.self_signed(&pair)?;
        durable::write(key, pair.serialize_pem(), 0o600)?;
        durable::write(certificate, authority.pem(), 0o644)?;
    }
    for (name, authority, subject) in OF_SERVER {
        issue(place::TLS, name, authority, subject)?;
    }
    Ok(())
}

/// Makes or renews what an agent has. Its server signs them with k3s; here they sign themselves.
pub fn prepare_agent(server_ca: &[u8]) -> Result<()> {
    durable::write(
        Path::new(place::AGENT).join("server-ca.crt"),
        server_ca,
        0o600,
    )?;
    for (name, subject) in OF_AGENT {
        issue(place::AGENT, name, "", subject)?;
    }
    Ok(())
}

fn issue(folder: &str, name: &str, authority: &str, subject: &str) -> Result<()> {
    let (certificate, key) = files(folder, name);
    if let Ok(old) = expiry(&certificate) {
        if old - OffsetDateTime::now_utc() > Duration::days(RENEWED_WITHIN) {
            return Ok(());
        }
        log::info(format!("Renewing certificate {}", certificate.display()));
    }
    let params = params(subject, days());
    let pair = KeyPair::generate()?;
    let signed = if authority.is_empty() {
        params.self_signed(&pair)?
    } else {
        let (ca, ca_key) = files(place::TLS, authority);
        let ca =
            fs::read_to_string(&ca).with_context(|| format!("cannot read {}", ca.display()))?;
        let issuer =
            Issuer::from_ca_cert_pem(&ca, KeyPair::from_pem(&fs::read_to_string(ca_key)?)?)?;
        params.signed_by(&pair, &issuer)?
    };
    durable::write(key, pair.serialize_pem(), 0o600)?;
    durable::write(certificate, signed.pem(), 0o644)
}

fn params(subject: &str, days: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, subject);
    let now = OffsetDateTime::now_utc();
    params.not_before = now;
    params.not_after = now + Duration::days(days);
    params
}

fn files(folder: &str, name: &str) -> (std::path::PathBuf, std::path::PathBuf) {
    let folder = Path::new(folder);
    (
        folder.join(format!("{name}.crt")),
        folder.join(format!("{name}.key")),
    )
}

/// When the first certificate of a file expires.
pub fn expiry(file: &Path) -> Result<OffsetDateTime> {
    let content = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let (_, pem) = parse_x509_pem(&content).context("no PEM")?;
    let certificate = pem.parse_x509().context("no certificate")?;
    Ok(certificate.validity().not_after.to_datetime())
}

/// The CA that tokens name.
pub fn server_ca() -> Result<Vec<u8>> {
    let file = Path::new(place::TLS).join("server-ca.crt");
    fs::read(&file).with_context(|| format!("cannot read {}", file.display()))
}

/// `k3s certificate check`: the certificates of this node, in a table.
pub fn check() -> Result<()> {
    println!(
        "{:<36} {:<32} {:<24} {:<16} STATUS",
        "FILENAME", "SUBJECT", "EXPIRES", "RESIDUAL TIME"
    );
    for folder in [place::TLS, place::AGENT] {
        let mut names: Vec<_> = fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "crt"))
            .collect();
        names.sort();
        for file in names {
            let content = fs::read(&file)?;
            let (_, pem) = parse_x509_pem(&content).context("no PEM")?;
            let certificate = pem.parse_x509().context("no certificate")?;
            let until = certificate.validity().not_after.to_datetime();
            let left = until - OffsetDateTime::now_utc();
            let status = if left.is_negative() {
                "EXPIRED"
            } else if left < Duration::days(RENEWED_WITHIN) {
                "WARNING"
            } else {
                "OK"
            };
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            let expires = jiff::Timestamp::from_second(until.unix_timestamp())?
                .strftime("%b %d, %Y %H:%M UTC")
                .to_string();
            let left = match left.whole_days() {
                days if days >= 60 => format!("{} months", days / 30),
                days => format!("{days} days"),
            };
            println!(
                "{name:<36} {:<32} {expires:<24} {left:<16} {status}",
                certificate.subject().to_string()
            );
        }
    }
    Ok(())
}
