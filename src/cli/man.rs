//! `selfheal man`: one manual page with every command, its options, and the exit codes.

use clap::{Arg, Command, CommandFactory};
use roff::{Inline, Roff, bold, italic, roman};

use super::Cli;
use super::exit::{Exit, PRECEDENCE};
use super::output::{Failure, print};

/// Files of the user's that selfheal reads or writes; what lies on a node stands in the README.
const FILES: [(&str, &str); 4] = [
    (
        "inventory/homelab.toml, homelab.toml",
        "The inventory, unless --inventory names another file.",
    ),
    (
        "~/.ssh/config, ~/.ssh/known_hosts",
        "What the inventory does not say about SSH, asked of `ssh -G`; host keys that are not pinned in the inventory.",
    ),
    (
        "~/.local/state/selfheal/logs/",
        "What each run did that could write: the last 50, without secrets or file contents. Below $XDG_STATE_HOME if that \
         is set.",
    ),
    (
        "/var/lib/selfheal/ledger",
        "On a node: what selfheal owns there, and what was there before.",
    ),
];

pub(super) fn run() -> Result<Exit, Failure> {
    print(&page());
    Ok(Exit::Done)
}

fn page() -> String {
    let mut whole = Cli::command().disable_help_subcommand(true);
    whole.build();
    let mut page = Roff::new();
    let source = format!("selfheal {}", whole.get_version().unwrap_or_default());
    page.control("TH", ["SELFHEAL", "1", " ", &source, "User Commands"]);
    let about = whole.get_about().map(ToString::to_string);
    let about = about.unwrap_or_default();
    section(&mut page, "NAME");
    page.text([roman(format!("selfheal - {}", lower_first(&about)))]);
    section(&mut page, "SYNOPSIS");
    page.text([
        bold("selfheal"),
        roman(" "),
        italic("COMMAND"),
        roman(" ["),
        italic("OPTIONS"),
        roman("]"),
    ]);
    section(&mut page, "DESCRIPTION");
    page.text([roman(format!("{about}."))]);
    page.text([roman(
        "It reads one inventory, connects to the nodes over SSH, looks at them, shows what it would change, changes it, \
         and looks again. Results go to stdout, progress and errors to stderr.",
    )]);
    section(&mut page, "COMMANDS");
    commands(&mut page, &whole);
    section(&mut page, "OPTIONS OF EVERY COMMAND");
    arguments(&mut page, whole.get_arguments());
    section(&mut page, "EXIT STATUS");
    for exit in Exit::ALL {
        item(
            &mut page,
            vec![bold(exit.code().to_string())],
            exit.meaning(),
        );
    }
    page.control("PP", []);
    page.text([roman(PRECEDENCE)]);
    section(&mut page, "ENVIRONMENT");
    item(
        &mut page,
        vec![bold("NO_COLOR")],
        "If it is set and not empty, --color auto means never.",
    );
    section(&mut page, "FILES");
    for (file, about) in FILES {
        item(&mut page, vec![italic(file)], about);
    }
    page.render()
}

fn section(page: &mut Roff, title: &str) {
    page.control("SH", [title]);
}

/// The commands below `parent` that do something themselves, each with its own options.
fn commands(page: &mut Roff, parent: &Command) {
    for command in parent
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
    {
        if command.has_subcommands() {
            commands(page, command);
            continue;
        }
        let usage = command.clone().render_usage().to_string();
        page.control("SS", [usage.trim_start_matches("Usage: ")]);
        let about = command.get_about().map(ToString::to_string);
        page.text([roman(format!("{}.", about.unwrap_or_default()))]);
        let own = command.get_arguments();
        let own = own.filter(|argument| !argument.is_global_set() && argument.get_id() != "help");
        arguments(page, own);
    }
}

fn arguments<'a>(page: &mut Roff, arguments: impl Iterator<Item = &'a Arg>) {
    for argument in arguments.filter(|argument| !argument.is_hide_set()) {
        let help = argument.get_help().map(ToString::to_string);
        let mut help = format!("{}.", help.unwrap_or_default());
        let takes_value = argument.get_action().takes_values();
        let words: Vec<String> = argument
            .get_possible_values()
            .iter()
            .map(|word| word.get_name().to_owned())
            .collect();
        if takes_value && !words.is_empty() {
            help += &format!(" One of: {}.", words.join(", "));
        }
        let usual: Vec<_> = argument
            .get_default_values()
            .iter()
            .map(|value| value.to_string_lossy())
            .collect();
        if takes_value && !usual.is_empty() {
            help += &format!(" Default: {}.", usual.join(", "));
        }
        item(page, name(argument), &help);
    }
}

/// How an argument is written: `-y, --yes`, `--on NODES`, `NODE`.
fn name(argument: &Arg) -> Vec<Inline> {
    let value = argument
        .get_value_names()
        .map(|names| names.join(" "))
        .filter(|_| argument.get_action().takes_values());
    let short = argument.get_short().map(|short| format!("-{short}"));
    let long = argument.get_long().map(|long| format!("--{long}"));
    let mut name = Vec::new();
    for option in [short, long].into_iter().flatten() {
        if !name.is_empty() {
            name.push(roman(", "));
        }
        name.push(bold(option));
    }
    if let Some(value) = value {
        if !name.is_empty() {
            name.push(roman(" "));
        }
        name.push(italic(value));
    }
    name
}

/// An entry of a list: what it is about, and the text beside it.
fn item(page: &mut Roff, tag: Vec<Inline>, text: &str) {
    page.control("TP", []);
    page.text(tag);
    page.text([roman(text)]);
}

/// The one line of `NAME`, as `apropos` shows it.
fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(letters).collect()
    })
}
