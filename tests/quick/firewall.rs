//! selfheal's own nftables table (`templates/etc/selfheal/firewall.nft`; domain.md §3.2).

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior, Value, context};

use crate::crash::template;

fn render(values: &Value) -> String {
    let mut jinja = Environment::new();
    jinja.set_undefined_behavior(UndefinedBehavior::Strict);
    let mut syntax = SyntaxConfig::builder();
    syntax.keep_trailing_newline(true);
    jinja.set_syntax(syntax.build().unwrap());
    let source = std::fs::read_to_string(template("etc/selfheal/firewall.nft")).unwrap();
    jinja.render_str(&source, values).unwrap()
}

fn control_plane() -> Value {
    context! {
        admins => ["192.168.1.0/24", "fd00:1::/64"],
        ssh_ports => [22],
        nodes => ["192.168.1.10", "192.168.1.11", "fd00:1::10"],
        cluster => ["10.42.0.0/16", "10.43.0.0/16", "fd42::/56"],
        server => true,
        etcd => true,
        wireguard => true,
        allow => [
            context! { port => 9100, protocol => "tcp", from => ["192.168.1.5"], why => "metrics" },
            context! { port => "8000-8010", protocol => "udp", from => Vec::<String>::new(), why => "games, \"fun\"" },
        ],
    }
}

fn worker() -> Value {
    context! {
        admins => Vec::<String>::new(),
        ssh_ports => [22, 2222],
        nodes => ["192.168.1.10", "192.168.1.11"],
        cluster => ["10.42.0.0/16", "10.43.0.0/16"],
        server => false,
        etcd => false,
        wireguard => false,
        allow => Vec::<String>::new(),
    }
}

#[test]
fn the_rules_of_each_role() {
    insta::assert_snapshot!("firewall_control_plane", render(&control_plane()));
    insta::assert_snapshot!("firewall_worker", render(&worker()));
}

#[test]
fn nobody_elses_rules_are_touched() {
    for rules in [render(&control_plane()), render(&worker())] {
        let commands: Vec<&str> = rules
            .lines()
            .filter(|line| !line.starts_with(['#', '\t', '}']) && !line.is_empty())
            .collect();
        assert_eq!(
            commands,
            [
                "add table inet selfheal",
                "delete table inet selfheal",
                "table inet selfheal {"
            ]
        );
        assert_eq!(rules.matches(" hook ").count(), 1);
        assert!(!rules.contains("flush"));
    }
}

/// nft needs a kernel with nf_tables, and rights; where one is missing the lab has to show it, and this says so.
#[test]
fn nft_takes_the_rules() {
    let nft = ["/usr/sbin/nft", "/usr/bin/nft"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    let check = |rules: &str| {
        let mut child = Command::new(nft?)
            .args(["-c", "-f", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(rules.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        Some((
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ))
    };
    let Some((true, _)) = check("add table inet selfheal\n") else {
        eprintln!("NOT CHECKED: nft cannot check rules here; the lab checks them on a node");
        return;
    };
    for rules in [render(&control_plane()), render(&worker())] {
        assert_eq!(check(&rules), Some((true, String::new())), "{rules}");
    }
    let broken = check(&render(&worker()).replace("accept", "akzept")).unwrap();
    assert!(!broken.0, "nft checks nothing");
}
