//! How findings are shown.

use selfheal::doctor::check::Check;
use selfheal::doctor::text::{Shown, summary};
use selfheal::doctor::{Diagnosis, examine, json};
use selfheal::plan::text::Style;

use super::{healthy, inventory, measured, worker};

/// A Pi with several things wrong, beside a healthy one.
fn diagnoses() -> Vec<Diagnosis> {
    let inventory = inventory("");
    let mut sick = healthy();
    let mut is = |name: &str, text: &str| drop(sick.insert(name.to_owned(), text.to_owned()));
    is("sysctl kernel.panic", "0");
    is("doctor journal-storage", "Storage=volatile");
    is("fact swaps", "Filename\n/dev/zram0 partition");
    is("doctor throttled", "");
    is(
        "doctor fstab",
        "nas:/export /mnt/\u{1b}[31mnas nfs defaults 0 0",
    );
    is("doctor boots", "b4 312 unclean watchdog\nb5 - running -");
    let (sick, well) = (measured(&sick, None), measured(&worker(), None));
    examine(
        &inventory.versions,
        &[(&inventory.nodes[0], &sick), (&inventory.nodes[1], &well)],
    )
}

fn shown(diagnoses: &[Diagnosis], colour: bool, all: bool) -> String {
    let mut text = String::new();
    for diagnosis in diagnoses {
        let shown = Shown {
            diagnosis,
            about: "control-plane, 192.0.2.1".to_owned(),
            style: Style { colour },
            all,
        };
        text += &format!("{shown}\n");
    }
    text + &summary(diagnoses)
}

#[test]
fn the_table_has_the_worst_first_and_sums_up_what_is_well() {
    insta::assert_snapshot!(shown(&diagnoses(), false, false));
}

#[test]
fn every_check_on_request() {
    insta::assert_snapshot!(shown(&diagnoses()[..1], false, true));
}

#[test]
fn colours_change_nothing_but_colours() {
    let (plain, coloured) = (
        shown(&diagnoses(), false, false),
        shown(&diagnoses(), true, false),
    );
    assert!(coloured.contains("\u{1b}[31mfail"), "{coloured}");
    let mut bare = coloured;
    for code in ["1", "31", "32", "33", "0"] {
        bare = bare.replace(&format!("\u{1b}[{code}m"), "");
    }
    assert_eq!(bare, plain);
}

#[test]
fn json_has_every_check() {
    insta::assert_snapshot!(format!("{:#}", json::node(&diagnoses()[0])));
}

/// The table in the README has a row for each check.
#[test]
fn the_readme_knows_every_check() {
    let readme = include_str!("../../../README.md");
    for check in Check::ALL {
        let spec = check.spec();
        let row = format!("| {} | `{}` | ", spec.number, spec.id);
        assert!(readme.contains(&row), "{row}");
    }
}
