//! Power cuts while a boot file is written: whatever the card holds then, the firmware finds the whole old file or the
//! whole new one, and the next apply converges.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use selfheal_lab::firmware::{BootMode, BootPartition, cmdline_path};
use selfheal_lab::recording::Cut;

use crate::homelab::{Homelab, NO_PACKAGES};

/// As many files as on a real card: new names do not get into the sector where cmdline.txt has its entry.
const MORE_FILES: &str =
    "for i in $(seq 40); do echo $i >/boot/firmware/bcm2711-rpi-$i.dtb; done; sync";

/// The file that the firmware reads, and its content there.
fn booted(image: &Path) -> (String, Option<Vec<u8>>) {
    let partition = BootPartition::new(image);
    let config = partition.read("config.txt").unwrap_or_default();
    let path = cmdline_path(&String::from_utf8_lossy(&config), BootMode::Normal);
    let content = partition.read(&path).ok();
    (path, content)
}

/// What fsck.vfat has to say of a file, whose clusters other readers may look at more closely than mtools.
fn damage(image: &Path, path: &str) -> Option<String> {
    let output = Command::new("fsck.vfat")
        .arg("-n")
        .arg(image)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let names = |line: &str| {
        line.trim().trim_end_matches(" and").to_ascii_lowercase() == format!("/{path}")
    };
    said.lines().any(names).then_some(said)
}

#[test]
fn at_every_power_cut_the_card_holds_the_old_line_or_the_new_one() {
    let homelab = Homelab::new(&["jarvis"], NO_PACKAGES);
    let pi = homelab.pi();
    pi.root(MORE_FILES).unwrap();
    pi.power_cut().unwrap();
    pi.power_on_recording().unwrap();
    pi.wait_for_ssh(Duration::from_secs(240)).unwrap();
    homelab.ok(&["apply", "--yes", "--only", "boot", "--no-reboot"]);
    pi.power_cut().unwrap();

    let recording = pi.recording().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let image = scratch.path().join("boot.vfat");
    recording.prefix(0, &image).unwrap();
    let old = booted(&image).1.unwrap();
    let (path, new) = booted(&pi.boot_partition_image());
    let new = new.unwrap();
    assert_ne!(old, new);

    let (mut states, mut last_old, mut wrong) = (0, 0, Vec::new());
    recording
        .every_power_cut(&image, |cut, image| {
            states += 1;
            match (booted(image).1, damage(image, &path)) {
                (Some(content), None) if content == old || content == new => {
                    if let Cut::After(writes) = cut
                        && content == old
                    {
                        last_old = writes;
                    }
                }
                (content, damage) => wrong.push(format!(
                    "{cut:?}: {:?}\n{}",
                    content.map(|content| String::from_utf8_lossy(&content).into_owned()),
                    damage.unwrap_or_default()
                )),
            }
            Ok(())
        })
        .unwrap();
    eprintln!(
        "{} sectors written, {states} states looked at; the last with the old line is {last_old}",
        recording.writes()
    );
    assert!(
        wrong.is_empty(),
        "{} of {states}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(0 < last_old && last_old < recording.writes());
}
