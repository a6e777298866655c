//! The image that every container of the lab runs: one static program, as an OCI image in a tar.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use serde_json::{Value, json};

use super::{sha256, tar};
use crate::process;

/// What the double knows it as.
const NAME: &str = "docker.io/rancher/mirrored-pause:3.6";
pub(super) const SOURCE: &str = include_str!("../../release/pause.c");

/// Builds it in the folder `scratch` and puts it where `image` says.
pub(super) fn build(scratch: &Path, image: &Path) -> Result<()> {
    let (root, layout) = (scratch.join("pause"), scratch.join("oci"));
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&root)?;
    fs::create_dir_all(&blobs)?;
    fs::write(scratch.join("pause.c"), SOURCE)?;
    process::output(
        Command::new("gcc")
            .args(["-Os", "-static", "-s", "-o"])
            .arg(root.join("pause"))
            .arg(scratch.join("pause.c")),
    )?;
    tar(&root, &scratch.join("layer.tar"))?;

    // Each blob is named by its hash, and described by what it is.
    let blob = |kind: &str, content: &[u8]| -> Result<Value> {
        let hash = sha256(content);
        fs::write(blobs.join(&hash), content)?;
        Ok(json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": format!("sha256:{hash}"),
            "size": content.len(),
        }))
    };
    let layer = blob("layer.v1.tar", &fs::read(scratch.join("layer.tar"))?)?;
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": { "Entrypoint": ["/pause"] },
        "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
    });
    let config = blob("config.v1+json", &serde_json::to_vec(&config)?)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [layer],
    });
    let mut manifest = blob("manifest.v1+json", &serde_json::to_vec(&manifest)?)?;
    manifest["platform"] = json!({ "architecture": "amd64", "os": "linux" });
    manifest["annotations"] = json!({
        "io.containerd.image.name": NAME,
        "org.opencontainers.image.ref.name": "3.6",
    });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(layout.join("index.json"), serde_json::to_vec(&index)?)?;
    fs::write(
        layout.join("oci-layout"),
        br#"{"imageLayoutVersion":"1.0.0"}"#,
    )?;
    tar(&layout, image)?;

    for folder in [root, layout] {
        fs::remove_dir_all(folder)?;
    }
    for file in ["pause.c", "layer.tar"] {
        fs::remove_file(scratch.join(file))?;
    }
    Ok(())
}
