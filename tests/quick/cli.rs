//! The command line itself: what each command takes, and what it says about itself.

use std::collections::BTreeSet;

use crate::binary::{Ended, Home};

/// What every command takes.
const EVERYWHERE: [&str; 5] = ["--inventory", "--quiet", "--verbose", "--color", "--help"];

/// Every command with an argument that it needs, and the options that only some take.
const COMMANDS: [(&[&str], &[&str]); 17] = [
    (
        &["init", "jarvis=127.0.0.1:1"],
        &[
            "--user",
            "--port",
            "--identity",
            "--fingerprint",
            "--parallel",
            "--cluster",
            "--name",
            "--json",
        ],
    ),
    (&["check"], &["--json"]),
    (
        &["plan"],
        &["--on", "--parallel", "--only", "--skip", "--json"],
    ),
    (&["doctor"], &["--on", "--parallel", "--json"]),
    (&["bootstrap"], CONVERGE),
    (&["apply"], CONVERGE),
    (&["status"], &["--on", "--parallel", "--json"]),
    (&["heal", "jarvis"], &["--yes", "--json"]),
    (&["kubeconfig"], &["--file", "--replace"]),
    (&["trust", "jarvis"], &["--fingerprint", "--json"]),
    (
        &["node", "restore", "jarvis"],
        &["--yes", "--no-reboot", "--json"],
    ),
    (
        &["node", "remove", "jarvis"],
        &["--gone", "--yes", "--json"],
    ),
    (&["node", "reset", "jarvis"], &["--yes", "--json"]),
    (&["node", "resume", "jarvis"], &["--yes", "--json"]),
    (&["schema"], &[]),
    (&["completions", "bash"], &[]),
    (&["man"], &[]),
];

const CONVERGE: &[&str] = &[
    "--on",
    "--parallel",
    "--only",
    "--skip",
    "--yes",
    "--no-reboot",
    "--json",
];

async fn help(home: &Home, command: &[&str]) -> Ended {
    let ended = home.selfheal(&[command, &["--help"]].concat()).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended
}

/// The long options that a help text lists.
fn listed(help: &str) -> BTreeSet<&str> {
    let lines = help.lines().map(str::trim_start);
    let options = lines.filter(|line| line.starts_with('-'));
    options
        .flat_map(|line| line.split([' ', ',']))
        .filter(|word| word.starts_with("--"))
        .collect()
}

#[tokio::test]
async fn a_command_lists_and_takes_the_options_it_heeds_and_no_other() {
    let home = Home::new();
    let all: BTreeSet<&str> = COMMANDS.iter().flat_map(|(_, own)| *own).copied().collect();
    for (command, own) in COMMANDS {
        let expected: BTreeSet<&str> = EVERYWHERE.iter().chain(own).copied().collect();
        let help = help(&home, command).await;
        assert_eq!(listed(&help.stdout), expected, "{command:?}");
        for other in all.difference(&expected) {
            let ended = home.selfheal(&[command, &[other]].concat()).await;
            assert_eq!(ended.code, Some(3), "{command:?} {other}: {ended:?}");
            let complaint = format!("unexpected argument '{other}'");
            assert!(ended.stderr.contains(&complaint), "{command:?}: {ended:?}");
            assert!(ended.stdout.is_empty(), "{command:?} {other}: {ended:?}");
        }
    }
}

#[tokio::test]
async fn the_table_above_has_every_command() {
    let home = Home::new();
    let names = |help: &str| -> BTreeSet<String> {
        let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
        let lines = lines.take_while(|line| !line.is_empty());
        let names = lines.filter_map(|line| {
            line.strip_prefix("  ")?
                .split(' ')
                .next()
                .map(str::to_owned)
        });
        names
            .filter(|name| !name.is_empty() && name != "help")
            .collect()
    };
    let first: BTreeSet<String> = COMMANDS
        .iter()
        .map(|(words, _)| words[0].to_owned())
        .collect();
    assert_eq!(names(&help(&home, &[]).await.stdout), first);
    let of_a_node: BTreeSet<String> = COMMANDS
        .iter()
        .filter(|(words, _)| words[0] == "node")
        .map(|(words, _)| words[1].to_owned())
        .collect();
    assert_eq!(names(&help(&home, &["node"]).await.stdout), of_a_node);
}

#[tokio::test]
async fn the_manual_page_has_every_command_with_its_options_and_every_exit_code() {
    let home = Home::new();
    let page = home.selfheal(&["man"]).await;
    assert_eq!(page.code, Some(0), "{page:?}");
    let page = page.stdout;
    assert!(
        page.lines().any(|line| line.starts_with(".TH SELFHEAL 1 ")),
        "{page}"
    );
    for (command, own) in COMMANDS {
        let words: Vec<&str> = command
            .iter()
            .copied()
            .take_while(|word| !word.contains(['.', '=']))
            .collect();
        let words = match words.as_slice() {
            ["trust" | "heal" | "completions", ..] => &words[..1],
            ["node", ..] => &words[..2],
            words => words,
        };
        let heading = format!(".SS \"selfheal {} [OPTIONS]", words.join(" "));
        let (_, rest) = page
            .split_once(&heading)
            .unwrap_or_else(|| panic!("{heading}"));
        let section = rest.split("\n.S").next().unwrap();
        for option in own {
            let written = format!("\\fB{}\\fR", option.replace('-', "\\-"));
            assert!(section.contains(&written), "{heading}: {option}: {section}");
        }
    }
    let (_, codes) = page.split_once(".SH \"EXIT STATUS\"\n").unwrap();
    let codes = codes.split("\n.SH").next().unwrap();
    let items: Vec<&str> = codes
        .split(".TP\n")
        .skip(1)
        .map(|item| item.lines().next().unwrap())
        .collect();
    assert_eq!(
        items,
        ["0", "1", "2", "3", "4", "5", "6", "130"].map(|code| format!("\\fB{code}\\fR"))
    );
}

#[tokio::test]
async fn groff_has_nothing_to_say_about_the_manual_page() {
    let home = Home::new();
    let page = home.write("selfheal.1", &home.selfheal(&["man"]).await.stdout);
    let groff = std::process::Command::new("groff")
        .args(["-man", "-Tutf8", "-Kutf8", "-ww", "-z", page.as_str()])
        .output()
        .expect("groff, which tests/lab/install.sh installs");
    let said = String::from_utf8_lossy(&groff.stderr);
    assert!(groff.status.success() && said.is_empty(), "{said}");
}

#[tokio::test]
async fn an_inventory_that_cannot_be_read_is_named_with_the_reason_and_the_remedy() {
    let home = Home::new();
    home.write("folder/file", "");
    for command in ["check", "plan", "apply"] {
        for (file, why) in [
            ("nope.toml", "No such file or directory"),
            ("folder", "Is a directory"),
        ] {
            let ended = home.selfheal(&[command, "-i", file]).await;
            assert_eq!(ended.code, Some(3), "{ended:?}");
            let error = format!("error: cannot read the inventory {file}: {why}");
            assert!(ended.stderr.contains(&error), "{ended:?}");
            assert!(ended.stderr.contains("hint: `selfheal init`"), "{ended:?}");
        }
        let ended = home.selfheal(&[command]).await;
        assert_eq!(ended.code, Some(3), "{ended:?}");
        assert!(
            ended
                .stderr
                .contains("inventory/homelab.toml or homelab.toml"),
            "{ended:?}"
        );
    }
}
