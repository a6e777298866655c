//! A file of 70 MB to two virtual Pis at once, side by side with `scp` to the same two: `cargo bench --bench upload`.
//!
//! selfheal's side logs in, sends, has the file hashed and written out to the card (fsync); scp's side logs in and
//! sends. The target is 1.15 times scp's time. It needs what the lab needs (`tests/lab/install.sh`), and about 600 MB on
//! each virtual card.
#![allow(clippy::unwrap_used, dead_code, missing_docs)]

mod side;

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;

use camino::Utf8PathBuf;
use selfheal::apply::script::Holder;
use selfheal::apply::upload::upload;
use selfheal::artifact::{Arch, Artifact, Asset};
use selfheal::ssh::{self, Agent, Hop, NoPrompt, Prompt, Target};
use selfheal_lab::Pi;
use sha2::Digest;
use tokio::runtime::Runtime;

const SIZE: u64 = 70_000_000;
const ROUNDS: usize = 5;
const DESTINATION: &str = "/usr/local/bin/upload-bench";

fn main() {
    let homelab = side::Homelab::new();
    let folder = tempfile::tempdir().unwrap();
    let artifact = noise(Utf8PathBuf::try_from(folder.path().join("file")).unwrap());
    let runtime = Runtime::new().unwrap();
    let (mut own, mut scp) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        for pi in &homelab.pis {
            pi.root(&format!("rm -f {DESTINATION}* /home/pi/file; sync"))
                .unwrap();
        }
        // Who goes first must not matter.
        for turn in [round % 2, (round + 1) % 2] {
            if turn == 0 {
                own.push(side::timed(|| {
                    runtime.block_on(both(&homelab.pis, &artifact))
                }));
            } else {
                scp.push(side::timed(|| copy(&homelab.pis, &artifact)));
            }
            for pi in &homelab.pis {
                pi.root("sync").unwrap();
            }
        }
    }
    let (own, scp) = (
        side::median(own).as_secs_f64(),
        side::median(scp).as_secs_f64(),
    );
    println!("selfheal's upload of 70 MB, 2 nodes: median of {ROUNDS}: {own:.2} s");
    println!("scp of the same, 2 nodes: median of {ROUNDS}: {scp:.2} s");
    println!("ratio: {:.2}", own / scp);
}

/// A file that does not compress.
fn noise(path: Utf8PathBuf) -> Artifact {
    let mut file = BufWriter::new(File::create(&path).unwrap());
    let mut random = File::open("/dev/urandom").unwrap().take(SIZE);
    std::io::copy(&mut random, &mut file).unwrap();
    file.flush().unwrap();
    let digest = sha2::Sha256::digest(std::fs::read(&path).unwrap());
    let sha256: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Artifact {
        asset: Asset::Binary(Arch::Arm64),
        path,
        sha256: sha256.parse().unwrap(),
        size: SIZE,
        cached: true,
    }
}

async fn both(pis: &[Pi; 2], artifact: &Artifact) {
    tokio::join!(send(&pis[0], artifact), send(&pis[1], artifact));
}

async fn send(pi: &Pi, artifact: &Artifact) {
    let mut hop = Hop::new("127.0.0.1", "pi");
    hop.port = pi.port();
    hop.agent = Agent::None;
    hop.identities = vec![Utf8PathBuf::try_from(pi.key().to_owned()).unwrap()];
    hop.identities_only = true;
    hop.host_key = Some(pi.host_key().parse().unwrap());
    let prompt: Arc<dyn Prompt> = Arc::new(NoPrompt);
    let session = ssh::connect(&Target::new(pi.name(), hop), &prompt)
        .await
        .unwrap();
    let holder = Holder {
        token: "bec4".into(),
        who: "the bench".into(),
        dead: None,
    };
    let mut sent = 0;
    let mut progress = |done, _| sent = done;
    upload(
        &session,
        artifact,
        DESTINATION.into(),
        &holder,
        &mut progress,
    )
    .await
    .unwrap();
    assert_eq!(sent, SIZE, "it was there already");
    session.close().await;
}

fn copy(pis: &[Pi; 2], artifact: &Artifact) {
    let children = pis.each_ref().map(|pi| {
        let mut scp = Command::new("scp");
        scp.args(["-F", "none", "-q", "-P", &pi.port().to_string(), "-i"]);
        scp.arg(pi.key());
        let known = format!("UserKnownHostsFile=\"{}\"", pi.known_hosts().display());
        for option in [
            &known,
            "IdentitiesOnly=yes",
            "GlobalKnownHostsFile=/dev/null",
            "StrictHostKeyChecking=yes",
        ] {
            scp.args(["-o", option]);
        }
        scp.args([artifact.path.as_str(), "pi@127.0.0.1:file"]);
        scp.stdin(Stdio::null()).spawn().unwrap()
    });
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
}
