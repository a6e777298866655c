//! The units and drop-ins around the scripts.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior, context};

use crate::crash::template;

const UNITS: [&str; 8] = [
    "k3s.service.d/20-selfheal-guard.conf",
    "k3s-agent.service.d/20-selfheal-guard.conf",
    "selfheal-clock.service",
    "selfheal-clock-record.service",
    "selfheal-clock-record.timer",
    "selfheal-reap.service",
    "selfheal-alive.service",
    "selfheal-alive.timer",
];

fn render(unit: &str) -> String {
    let mut jinja = Environment::new();
    jinja.set_undefined_behavior(UndefinedBehavior::Strict);
    let mut syntax = SyntaxConfig::builder();
    syntax.keep_trailing_newline(true);
    jinja.set_syntax(syntax.build().unwrap());
    let source = std::fs::read_to_string(template("etc/systemd/system").join(unit)).unwrap();
    jinja
        .render_str(&source, context! { readyz => "yes" })
        .unwrap()
}

#[test]
fn units_as_they_land() {
    let landed: String = UNITS
        .iter()
        .map(|unit| format!("=== {unit}\n{}\n", render(unit)))
        .collect();
    insta::assert_snapshot!(landed);
}

#[test]
fn servers_and_agents_start_alike() {
    assert_eq!(render(UNITS[0]), render(UNITS[1]));
}

/// What a unit runs has to be there, and everything around k3s must let it start.
#[test]
fn units_run_the_scripts_that_there_are() {
    for unit in UNITS {
        for line in render(unit).lines() {
            let Some((key, command)) = line.split_once('=') else {
                continue;
            };
            if !key.starts_with("Exec") {
                continue;
            }
            if unit.starts_with("k3s") {
                assert!(command.starts_with('-'), "{unit}: {line}");
            }
            let program = command.trim_start_matches('-').split(' ').next().unwrap();
            if let Some(script) = program.strip_prefix("/usr/local/libexec/selfheal/") {
                let path = template("usr/local/libexec/selfheal").join(script);
                assert!(path.exists(), "{unit}: {line}");
            }
        }
    }
}
