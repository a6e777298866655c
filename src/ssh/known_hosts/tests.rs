//! What the files say, and how they are kept.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::ssh::Verdict;

const ED25519: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
const OTHER: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGGAcaSJIvx88Y0Ff6zAQX3GWwk5nS+7bHnXZNcGnzwN";

fn key(text: &str) -> HostKey {
    text.parse().unwrap()
}

fn hop(host: &str, port: u16) -> Hop {
    let mut hop = Hop::new(host, "pi");
    hop.port = port;
    hop
}

fn judge(text: &str, hop: &Hop) -> Verdict {
    let folder = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::try_from(folder.path().join("known_hosts")).unwrap();
    fs::write(&path, text).unwrap();
    KnownHosts::file(path)
        .look_up(hop)
        .unwrap()
        .judge(&key(ED25519))
}

#[test]
fn names_ports_wildcards_and_negations() {
    let good = |hosts: &str, host: &str, port| {
        judge(&format!("{hosts} {ED25519} a comment\n"), &hop(host, port)) == Verdict::Known
    };
    assert!(good("jarvis", "jarvis", 22));
    assert!(good("jarvis", "JARVIS", 22));
    assert!(good("a,jarvis,b", "jarvis", 22));
    assert!(good("[jarvis]:2222", "jarvis", 2222));
    assert!(
        good("jarvis", "jarvis", 2222),
        "ssh takes a key on record without the port, too"
    );
    assert!(good("*.home", "jarvis.home", 22));
    assert!(good("[*.home]:*", "jarvis.home", 2222));
    assert!(good("pi-?", "pi-3", 22));
    assert!(!good("*.home,!jarvis.home", "jarvis.home", 22));
    assert!(!good("[jarvis]:2222", "jarvis", 22));
    assert!(!good("jarvis", "jarvis.home", 22));
    assert!(!good("pi-?", "pi-33", 22));
}

#[test]
fn hashed_names() {
    // From `ssh-keygen -H` on a line for jarvis.
    let text = format!("|1|9G/QfuvI8DWDBPQ2I7qHZYv1gYI=|2XQvFarw89gE9a0WhXnqr9MvH9k= {ED25519}\n");
    let name = hashed("jarvis").unwrap();
    assert_eq!(
        judge(&format!("{name} {ED25519}\n"), &hop("jarvis", 22)),
        Verdict::Known
    );
    assert_eq!(
        judge(&format!("{name} {ED25519}\n"), &hop("ultron", 22)),
        Verdict::Unknown
    );
    assert_eq!(judge(&text, &hop("jarvis", 22)), Verdict::Known);
    assert_eq!(judge(&text, &hop("ultron", 22)), Verdict::Unknown);
}

#[test]
fn another_key_is_a_changed_key() {
    let text = format!("# mine\n\nultron {ED25519}\njarvis {OTHER}\n");
    let Verdict::Changed(recorded) = judge(&text, &hop("jarvis", 22)) else {
        unreachable!("{:?}", judge(&text, &hop("jarvis", 22)));
    };
    let [(on_record, Place::Line(_, 4))] = recorded.as_slice() else {
        unreachable!("{recorded:?}");
    };
    assert_eq!(*on_record, key(OTHER));
    // Two keys on record: either is good.
    assert_eq!(
        judge(&format!("{text}jarvis {ED25519}\n"), &hop("jarvis", 22)),
        Verdict::Known
    );
    // On record without the port, another key means nothing.
    assert_eq!(judge(&text, &hop("jarvis", 2222)), Verdict::Unknown);
}

#[test]
fn revoked_is_revoked_and_authorities_are_no_host_keys() {
    let text = format!("jarvis {ED25519}\n@revoked * {ED25519}\n");
    assert!(matches!(
        judge(&text, &hop("jarvis", 22)),
        Verdict::Revoked(Place::Line(_, 2))
    ));
    assert!(matches!(
        judge(&text, &hop("jarvis", 2222)),
        Verdict::Revoked(_)
    ));
    let text = format!("@cert-authority * {ED25519}\n");
    assert_eq!(judge(&text, &hop("jarvis", 22)), Verdict::Unknown);
}

#[test]
fn an_alias_stands_for_host_and_port() {
    let mut hop = hop("10.0.0.1", 2222);
    hop.host_key_alias = Some("jarvis".to_owned());
    assert_eq!(judge(&format!("jarvis {ED25519}\n"), &hop), Verdict::Known);
    assert_eq!(
        judge(&format!("[10.0.0.1]:2222 {ED25519}\n"), &hop),
        Verdict::Unknown
    );
}

#[test]
fn odd_lines_are_passed_over() {
    let text = format!(
        "jarvis\n@revoked\n@x jarvis {ED25519}\njarvis ssh-rsa %%%\n|1|x jarvis\n|1|a|b {ED25519}\n\tjarvis\t{ED25519}\n"
    );
    assert_eq!(
        judge(
            &text.replace(
                "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7",
                "ssh-ed25519\tAAAAC3NzaC1lZDI1NTE5AAAAIJdD7"
            ),
            &hop("jarvis", 22)
        ),
        Verdict::Known
    );
}

#[test]
fn a_key_is_remembered_and_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::try_from(folder.path().join(".ssh/known_hosts")).unwrap();
    let mut known_hosts = KnownHosts::file(&path);
    let (jarvis, ultron) = (hop("jarvis", 22), hop("ultron", 2222));
    known_hosts.remember(&jarvis, &key(ED25519)).unwrap();
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        format!("jarvis {ED25519}\n")
    );
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(
        fs::metadata(path.parent().unwrap())
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o700
    );

    // A file that somebody left without a last line break, in a mode of their own.
    fs::write(
        &path,
        format!("jarvis {ED25519}\n* {OTHER}\nodd \u{fffd}\n@revoked jarvis {OTHER}"),
    )
    .unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    known_hosts.hash = true;
    known_hosts.remember(&ultron, &key(OTHER)).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.lines().last().unwrap().starts_with("|1|"), "{text}");
    assert_eq!(
        known_hosts.look_up(&ultron).unwrap().judge(&key(OTHER)),
        Verdict::Known
    );

    assert_eq!(known_hosts.forget(&jarvis).unwrap(), 1);
    assert_eq!(known_hosts.forget(&ultron).unwrap(), 1);
    assert_eq!(known_hosts.forget(&ultron).unwrap(), 0);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(
        text,
        format!("* {OTHER}\nodd \u{fffd}\n@revoked jarvis {OTHER}\n")
    );
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o644
    );
}

proptest::proptest! {
    #[test]
    fn any_file_can_be_read(text in "(?s).{0,200}", fields in "(@revoked )?[|1a=*?!,\\[\\]:]{0,20} ssh-ed25519 [A-Za-z0-9+/=]{0,90}") {
        judge(&format!("{text}\n{fields}\n"), &hop("jarvis", 2222));
    }
}
