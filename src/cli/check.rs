//! `selfheal check`: validates the inventory offline.

use super::exit::Exit;
use super::load::{find, unreadable};
use super::options::{Options, Output};
use super::output::{Failure, print, print_json};
use crate::inventory;
use crate::plan::json::VERSION;

pub(super) fn run(output: Output, options: &Options) -> Result<Exit, Failure> {
    let file = find(options)?;
    let (valid, report) = match inventory::load(&file) {
        Ok(loaded) => (true, loaded.report),
        Err(invalid) => match invalid.report() {
            Some(report) => (false, report.clone()),
            None => return Err(unreadable(invalid)),
        },
    };
    if output.json {
        let mut value = report.to_json();
        value["version"] = VERSION.into();
        print_json(&value);
    } else {
        print(&report.render(options.style().colour));
        print(&format!("{}\n", report.summary()));
    }
    Ok(if valid { Exit::Done } else { Exit::Usage })
}
