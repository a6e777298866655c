//! `selfheal::artifact` against a small HTTP server.

mod server;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use selfheal::artifact::{
    self, Arch, Artifact, ArtifactError, Asset, Patience, Request, Sha256, Source,
};
use sha2::Digest;

use server::{Page, Server};

const TAG: &str = "v1.36.3+k3s1";
const FILE: &str = "/v1.36.3%2Bk3s1/k3s-arm64";
const LIST: &str = "/v1.36.3%2Bk3s1/sha256sum-arm64.txt";
const K3S: Asset = Asset::Binary(Arch::Arm64);

/// A program for a processor, as far as its header goes, of some length.
fn program(machine: u8, filling: u8) -> Vec<u8> {
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
    bytes.resize(18, 0);
    bytes.extend([machine, 0]);
    bytes.extend((0..3_000_000_u32).map(|at| (at % 251) as u8 ^ filling));
    bytes
}

fn for_arm64() -> Vec<u8> {
    program(183, 0)
}

fn sha256(bytes: &[u8]) -> Sha256 {
    let digest = sha2::Sha256::digest(bytes);
    let text: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    text.parse().unwrap()
}

/// The list of a release with that k3s for arm64, the bundle's line first.
fn list(bytes: &[u8]) -> String {
    let other = "0".repeat(64);
    format!(
        "{other}  k3s-airgap-images-arm64.tar.zst\n{}  k3s-arm64\n{other}  k3s-arm64.old\n",
        sha256(bytes)
    )
}

struct Release {
    server: Server,
    source: Source,
    _folder: tempfile::TempDir,
    cache: Utf8PathBuf,
}

impl Release {
    /// A server that has a release with this k3s.
    async fn of(bytes: &[u8]) -> Release {
        let server = Server::start().await;
        server.put(FILE, Page::of(bytes));
        server.put(LIST, Page::of(list(bytes)));
        let folder = tempfile::tempdir().unwrap();
        let cache = Utf8PathBuf::try_from(folder.path().join("cache")).unwrap();
        Release {
            source: Source::mirror(&server.url()).unwrap(),
            server,
            _folder: folder,
            cache,
        }
    }

    fn request(&self) -> Request<'_> {
        request(&self.source, &self.cache)
    }

    async fn fetch(&self) -> Result<Artifact, ArtifactError> {
        artifact::fetch(&self.request(), &mut |_, _| {}).await
    }

    async fn refused(&self) -> String {
        self.fetch()
            .await
            .map_err(|error| explained(&error))
            .unwrap_err()
    }

    /// The file in the cache.
    fn file(&self) -> Utf8PathBuf {
        self.cache.join(TAG).join("k3s-arm64")
    }

    /// Leaves the release as it is in the cache, but for the good copy and its hash.
    fn forget(&self) {
        fs::remove_file(self.file()).unwrap();
    }
}

fn request<'a>(source: &'a Source, cache: &'a Utf8Path) -> Request<'a> {
    Request {
        source,
        tag: TAG,
        asset: K3S,
        pin: None,
        cache,
        patience: Patience {
            pause: Duration::from_millis(1),
            ..Patience::default()
        },
    }
}

/// An error as the user sees it, which always comes with a next step.
fn explained(error: &ArtifactError) -> String {
    format!("{error}; {}", error.hint().expect("a next step"))
}

#[tokio::test]
async fn a_file_is_downloaded_verified_and_kept() {
    let bytes = for_arm64();
    let release = Release::of(&bytes).await;
    let mut steps = Vec::new();
    let mut progress = |done, total| steps.push((done, total));
    let artifact = artifact::fetch(&release.request(), &mut progress)
        .await
        .unwrap();
    assert_eq!(artifact.sha256, sha256(&bytes));
    assert_eq!(artifact.size, bytes.len() as u64);
    assert!(!artifact.cached);
    assert_eq!(fs::read(&artifact.path).unwrap(), bytes);
    let all = bytes.len() as u64;
    assert_eq!(steps.first(), Some(&(0, Some(all))));
    assert_eq!(steps.last(), Some(&(all, Some(all))));
    assert!(steps.is_sorted());
    let mut left: Vec<_> = release
        .cache
        .join(TAG)
        .read_dir_utf8()
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_owned())
        .collect();
    left.sort();
    assert_eq!(
        left,
        [
            "k3s-arm64",
            "k3s-arm64.lock",
            "k3s-arm64.sha256",
            "sha256sum-arm64.txt"
        ]
    );
}

#[tokio::test]
async fn a_good_copy_needs_no_server() {
    let bytes = for_arm64();
    let mut release = Release::of(&bytes).await;
    release.fetch().await.unwrap();
    release.server = Server::start().await;
    let again = release.fetch().await.unwrap();
    assert!(again.cached);
    assert_eq!(again.sha256, sha256(&bytes));
    assert!(release.server.requests().is_empty());
    // A power cut between the file and its hash: the list is there, too.
    fs::write(release.cache.join(TAG).join("k3s-arm64.sha256"), "").unwrap();
    assert!(release.fetch().await.unwrap().cached);
}

#[tokio::test]
async fn a_copy_that_has_changed_is_fetched_anew() {
    let bytes = for_arm64();
    let release = Release::of(&bytes).await;
    release.fetch().await.unwrap();
    let mut rotten = bytes.clone();
    rotten[1_000_000] ^= 1;
    fs::write(release.file(), &rotten).unwrap();
    let again = release.fetch().await.unwrap();
    assert!(!again.cached);
    assert_eq!(fs::read(release.file()).unwrap(), bytes);
}

#[tokio::test]
async fn a_cut_download_goes_on_where_it_was_cut() {
    let bytes = for_arm64();
    let release = Release::of(&bytes).await;
    let page = Page {
        etag: Some("\"one\""),
        cuts: 2,
        cut_at: 1_000_000,
        ..Page::of(&bytes[..])
    };
    release.server.put(FILE, page);
    let artifact = release.fetch().await.unwrap();
    assert_eq!(artifact.sha256, sha256(&bytes));
    let asked = release.server.requests();
    let ranges: Vec<_> = asked
        .iter()
        .filter(|asked| asked.target == FILE)
        .map(|asked| (asked.headers.get("range"), asked.headers.get("if-range")))
        .collect();
    let etag = "\"one\"".to_owned();
    assert_eq!(ranges[0], (None, None));
    assert_eq!(ranges[1], (Some(&"bytes=1000000-".to_owned()), Some(&etag)));
    assert_eq!(ranges[2], (Some(&"bytes=2000000-".to_owned()), Some(&etag)));
}

#[tokio::test]
async fn a_later_run_goes_on_too() {
    let bytes = for_arm64();
    let release = Release::of(&bytes).await;
    let mut page = Page {
        cuts: 100,
        cut_at: 0,
        ..Page::of(&bytes[..])
    };
    release.server.put(FILE, page.clone());
    // Cut at once, over and over: given up, with what there is said.
    let error = release.refused().await;
    assert!(
        error.contains("broke off after 0 of 3000020 bytes"),
        "{error}"
    );
    (page.cuts, page.cut_at) = (1, 2_000_000);
    release.server.put(FILE, page);
    let mut request = release.request();
    request.patience.attempts = 1;
    artifact::fetch(&request, &mut |_, _| {}).await.unwrap_err();
    let mut first = None;
    let mut progress = |done, _| {
        first.get_or_insert(done);
    };
    artifact::fetch(&request, &mut progress).await.unwrap();
    assert_eq!(first, Some(2_000_000));
    assert_eq!(fs::read(release.file()).unwrap(), bytes);
}

#[tokio::test]
async fn a_server_without_ranges_begins_again() {
    let bytes = for_arm64();
    let release = Release::of(&bytes).await;
    let page = Page {
        ranges: false,
        cuts: 1,
        cut_at: 1_000_000,
        ..Page::of(&bytes[..])
    };
    release.server.put(FILE, page);
    assert_eq!(release.fetch().await.unwrap().sha256, sha256(&bytes));
    assert_eq!(release.server.count("k3s-arm64"), 2);
}

#[tokio::test]
async fn a_file_that_changed_meanwhile_is_not_glued_together() {
    let bytes = for_arm64();
    for etag in [Some("\"two\""), None] {
        let release = Release::of(&bytes).await;
        // What is there is the beginning of another file with the same name and, where there is one, another ETag.
        let old = Page {
            etag: etag.map(|_| "\"one\""),
            cuts: 1,
            cut_at: 1_000_000,
            ..Page::of(program(183, 1))
        };
        release.server.put(FILE, old);
        let mut request = release.request();
        request.patience.attempts = 1;
        artifact::fetch(&request, &mut |_, _| {}).await.unwrap_err();
        release.server.put(
            FILE,
            Page {
                etag,
                ..Page::of(&bytes[..])
            },
        );
        let artifact = artifact::fetch(&request, &mut |_, _| {}).await.unwrap();
        assert_eq!(artifact.sha256, sha256(&bytes), "{etag:?}");
    }
}

#[tokio::test]
async fn a_server_that_falls_silent_is_given_up() {
    let release = Release::of(&for_arm64()).await;
    release.server.put(
        FILE,
        Page {
            stalls: true,
            ..Page::of(for_arm64())
        },
    );
    let mut request = release.request();
    request.patience.silence = Duration::from_millis(200);
    request.patience.attempts = 2;
    let began = Instant::now();
    let error = artifact::fetch(&request, &mut |_, _| {}).await.unwrap_err();
    assert!(
        matches!(error, ArtifactError::TooShort { got: 0, .. }),
        "{error:?}"
    );
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(release.server.count("k3s-arm64"), 2);
}

#[tokio::test]
async fn a_version_that_does_not_exist_is_named_with_its_source() {
    let release = Release::of(&for_arm64()).await;
    let mut request = release.request();
    request.tag = "v1.99.0+k3s1";
    let error = artifact::fetch(&request, &mut |_, _| {}).await.unwrap_err();
    let error = explained(&error);
    assert!(
        error.contains("no v1.99.0+k3s1 at http://127.0.0.1:"),
        "{error}"
    );
    assert!(error.contains("versions.k3s"), "{error}");
}

#[tokio::test]
async fn a_web_page_is_no_file() {
    let release = Release::of(&for_arm64()).await;
    let page = "<!DOCTYPE html>\n<html><title>Log in</title></html>";
    for content_type in ["text/html; charset=utf-8", "application/octet-stream"] {
        for path in [LIST, FILE] {
            let release = Release::of(&for_arm64()).await;
            release.server.put(
                path,
                Page {
                    content_type,
                    ..Page::of(page)
                },
            );
            let error = release.refused().await;
            assert!(error.contains("is a web page (HTML)"), "{path} {error}");
        }
    }
    drop(release);
}

#[tokio::test]
async fn a_server_in_trouble_is_asked_again_and_a_refusal_is_final() {
    let release = Release::of(&for_arm64()).await;
    for (status, asked) in [(503, 4), (403, 1)] {
        release.server.put(
            FILE,
            Page {
                status,
                ..Page::of("no")
            },
        );
        let before = release.server.count("k3s-arm64");
        let error = release.refused().await;
        assert!(error.contains(&format!("answers {status}")), "{error}");
        assert_eq!(release.server.count("k3s-arm64") - before, asked);
    }
    let mut request = release.request();
    let nobody = Source::mirror("http://127.0.0.1:1").unwrap();
    request.source = &nobody;
    let error = artifact::fetch(&request, &mut |_, _| {}).await.unwrap_err();
    let error = explained(&error);
    assert!(
        error.contains("cannot download http://127.0.0.1:1/"),
        "{error}"
    );
    assert!(error.contains("refused"), "{error}");
}

#[tokio::test]
async fn a_wrong_hash_names_both_and_harms_nothing() {
    let (old, bad) = (for_arm64(), program(183, 9));
    let release = Release::of(&old).await;
    release.fetch().await.unwrap();
    // Another pin makes it look again; the server now has something else than its list says.
    release.server.put(FILE, Page::of(&bad[..]));
    let promised = program(183, 5);
    release.server.put(LIST, Page::of(list(&promised)));
    let pin = sha256(&promised);
    let mut request = release.request();
    request.pin = Some(&pin);
    let error = artifact::fetch(&request, &mut |_, _| {}).await.unwrap_err();
    let error = explained(&error);
    for part in [
        sha256(&bad).as_str(),
        pin.as_str(),
        "k3s-arm64",
        &release.server.url(),
    ] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(fs::read(release.file()).unwrap(), old);
    assert!(!release.cache.join(TAG).join("k3s-arm64.part").exists());
    assert!(
        release.fetch().await.unwrap().cached,
        "the old one still is good"
    );
}

#[tokio::test]
async fn a_wrong_pin_is_told_before_the_download() {
    let bytes = for_arm64();
    let release = Release::of(&bytes).await;
    let pin: Sha256 = "AB".repeat(32).parse().unwrap();
    let mut request = release.request();
    request.pin = Some(&pin);
    let error = artifact::fetch(&request, &mut |_, _| {}).await.unwrap_err();
    assert!(matches!(error, ArtifactError::WrongPin { .. }));
    let error = explained(&error);
    assert!(
        error.contains(pin.as_str()) && error.contains(sha256(&bytes).as_str()),
        "{error}"
    );
    assert_eq!(release.server.count("k3s-arm64"), 0);
    let right = sha256(&bytes);
    request.pin = Some(&right);
    artifact::fetch(&request, &mut |_, _| {}).await.unwrap();
}

#[tokio::test]
async fn a_program_for_another_processor_is_refused() {
    let (x86, script) = (
        program(62, 0),
        b"#!/bin/sh\nexit 0 # not a program\n".to_vec(),
    );
    for (bytes, said) in [
        (&x86, "a program for amd64, but the node needs arm64"),
        (&script, "no ELF header"),
    ] {
        let release = Release::of(bytes).await;
        let error = release.refused().await;
        assert!(error.contains(said), "{error}");
        assert!(!release.file().exists());
    }
    // The header says more than the hash does.
    let release = Release::of(&for_arm64()).await;
    release.server.put(FILE, Page::of(x86));
    assert!(release.refused().await.contains("for amd64"));
}

#[tokio::test]
async fn a_file_without_a_hash_is_refused() {
    let release = Release::of(&for_arm64()).await;
    release.server.put(
        LIST,
        Page::of(format!("{}  k3s-arm64-old\n", "0".repeat(64))),
    );
    let error = release.refused().await;
    assert!(error.contains("has no hash for k3s-arm64"), "{error}");
}

#[tokio::test]
async fn a_file_without_a_length_is_taken_to_its_end() {
    let bytes = for_arm64();
    let release = Release::of(&bytes).await;
    release.server.put(
        FILE,
        Page {
            no_length: true,
            ..Page::of(&bytes[..])
        },
    );
    assert_eq!(release.fetch().await.unwrap().sha256, sha256(&bytes));
    // Cut, it looks whole: the hash tells, and nothing of it stays.
    release.forget();
    release.server.put(
        FILE,
        Page {
            no_length: true,
            cuts: 1,
            cut_at: 1_000_000,
            ..Page::of(&bytes[..])
        },
    );
    assert!(
        release
            .refused()
            .await
            .contains(sha256(&bytes[..1_000_000]).as_str())
    );
    assert!(release.fetch().await.is_ok());
}

#[tokio::test]
async fn a_file_that_is_far_too_long_is_not_fetched() {
    let release = Release::of(&for_arm64()).await;
    release.server.put(LIST, Page::of("x".repeat(2 << 20)));
    let error = release.refused().await;
    assert!(error.contains("longer than 1048576 bytes"), "{error}");
}

#[tokio::test]
async fn a_local_folder_is_used_where_it_lies() {
    let bytes = for_arm64();
    let folder = tempfile::tempdir().unwrap();
    let folder = Utf8Path::from_path(folder.path()).unwrap();
    let release = folder.join(TAG);
    fs::create_dir(&release).unwrap();
    let source = Source::Folder(folder.to_owned());
    let cache = folder.join("cache");
    let fetch = || async { artifact::fetch(&request(&source, &cache), &mut |_, _| {}).await };
    let error = explained(&fetch().await.unwrap_err());
    assert!(
        error.contains(&format!("no {TAG} at {release}/sha256sum-arm64.txt")),
        "{error}"
    );
    fs::write(release.join("k3s-arm64"), &bytes).unwrap();
    fs::write(release.join("sha256sum-arm64.txt"), list(&bytes)).unwrap();
    let artifact = fetch().await.unwrap();
    assert_eq!(artifact.path, release.join("k3s-arm64"));
    assert_eq!(
        (artifact.sha256, artifact.size),
        (sha256(&bytes), bytes.len() as u64)
    );
    assert!(!cache.exists());
    fs::write(release.join("k3s-arm64"), program(183, 1)).unwrap();
    assert!(matches!(
        fetch().await.unwrap_err(),
        ArtifactError::WrongHash { .. }
    ));
    fs::write(release.join("k3s-arm64"), program(62, 1)).unwrap();
    assert!(matches!(
        fetch().await.unwrap_err(),
        ArtifactError::WrongArchitecture { .. }
    ));
}

#[tokio::test]
async fn a_cache_that_cannot_be_written_is_told() {
    let release = Release::of(&for_arm64()).await;
    fs::write(&release.cache, "a file and no folder").unwrap();
    let error = release.refused().await;
    assert!(error.contains("in the cache"), "{error}");
}

/// One process fetches; `tests::…` of it are told by its environment what to fetch.
#[tokio::test]
#[ignore = "run by other tests, in a process of its own"]
async fn child() {
    let from = Source::mirror(&std::env::var("ARTIFACT_SOURCE").unwrap()).unwrap();
    let cache = Utf8PathBuf::from(std::env::var("ARTIFACT_CACHE").unwrap());
    let artifact = artifact::fetch(&request(&from, &cache), &mut |_, _| {})
        .await
        .unwrap();
    println!("fetched {}", artifact.sha256);
}

fn spawn_child(source: &str, cache: &Utf8Path, proxy: Option<&str>) -> std::process::Child {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--ignored", "--exact", "artifact::child", "--nocapture"])
        .env("ARTIFACT_SOURCE", source)
        .env("ARTIFACT_CACHE", cache)
        .stdout(Stdio::piped());
    for name in [
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
        "all_proxy",
        "NO_PROXY",
        "no_proxy",
    ] {
        child.env_remove(name);
    }
    if let Some(proxy) = proxy {
        child.env("HTTP_PROXY", proxy);
    }
    child.spawn().unwrap()
}

async fn fetched(child: std::process::Child) -> String {
    let output = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap());
    String::from_utf8(output.await.unwrap().stdout).unwrap()
}

#[tokio::test]
async fn a_proxy_is_used() {
    let bytes = for_arm64();
    let proxy = Server::start().await;
    let nowhere = "http://releases.invalid/k3s";
    proxy.put(&format!("{nowhere}{FILE}"), Page::of(&bytes[..]));
    proxy.put(&format!("{nowhere}{LIST}"), Page::of(list(&bytes)));
    let folder = tempfile::tempdir().unwrap();
    let cache = Utf8Path::from_path(folder.path()).unwrap();
    let said = fetched(spawn_child(nowhere, cache, Some(&proxy.url()))).await;
    assert!(
        said.contains(&format!("fetched {}", sha256(&bytes))),
        "{said}"
    );
    assert_eq!(proxy.requests().len(), 2);
}

#[tokio::test]
async fn two_processes_download_once() {
    let bytes = for_arm64();
    let release = Release::of(&bytes).await;
    let url = release.server.url();
    let children = [(); 2].map(|()| spawn_child(&url, &release.cache, None));
    for child in children {
        let said = fetched(child).await;
        assert!(
            said.contains(&format!("fetched {}", sha256(&bytes))),
            "{said}"
        );
    }
    assert_eq!(release.server.count("k3s-arm64"), 1);
    assert_eq!(
        fs::metadata(release.file()).unwrap().permissions().mode() & 0o111,
        0
    );
}

#[test]
fn files_are_named_as_in_the_release() {
    let names: Vec<String> = [Arch::Amd64, Arch::Arm64, Arch::Arm]
        .into_iter()
        .flat_map(|arch| [Asset::Binary(arch), Asset::Images(arch)])
        .map(Asset::file_name)
        .collect();
    assert_eq!(
        names,
        [
            "k3s",
            "k3s-airgap-images-amd64.tar.zst",
            "k3s-arm64",
            "k3s-airgap-images-arm64.tar.zst",
            "k3s-armhf",
            "k3s-airgap-images-arm.tar.zst",
        ]
    );
}
