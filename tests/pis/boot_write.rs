//! Power cuts while the boot files are written: whatever the card holds then, the firmware finds the whole old file or
//! the whole new one, and the next apply converges.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use selfheal_lab::firmware::{BootFiles, BootMode, BootPartition};
use selfheal_lab::recording::Cut;

use crate::homelab::{Homelab, NO_PACKAGES};

/// As many files as on a real card: new names do not get into the sector where cmdline.txt has its entry.
const MORE_FILES: &str =
    "for i in $(seq 40); do echo $i >/boot/firmware/bcm2711-rpi-$i.dtb; done; sync";
const BOOT: Duration = Duration::from_secs(240);

/// What the firmware reads: config.txt, and the command line file that it names.
fn files(image: &Path) -> [(String, Option<Vec<u8>>); 2] {
    let partition = BootPartition::new(image);
    let config = partition.read("config.txt").ok();
    let text = String::from_utf8_lossy(config.as_deref().unwrap_or_default()).into_owned();
    let path = BootFiles::named_by(&text, BootMode::Normal).cmdline_path();
    let line = partition.read(&path).ok();
    [("config.txt".to_owned(), config), (path, line)]
}

/// The files of which fsck.vfat, which a Pi runs when it boots, has something to say. mtools may read more than is there.
fn damaged(image: &Path, paths: &[String]) -> Option<String> {
    let fsck = Command::new("fsck.vfat").arg("-n").arg(image).output();
    let said = String::from_utf8(fsck.unwrap().stdout).unwrap();
    let names = |line: &str| {
        let line = line.trim().trim_end_matches(" and").to_ascii_lowercase();
        paths.iter().any(|path| line == format!("/{path}"))
    };
    said.lines().any(names).then_some(said)
}

#[test]
fn at_every_power_cut_the_card_holds_the_old_file_or_the_new_one() {
    let homelab = Homelab::new(
        &["jarvis"],
        &format!("{NO_PACKAGES}[boot]\nconfig = [\"gpu_mem=16\"]\n"),
    );
    let pi = homelab.pi();
    pi.root(MORE_FILES).unwrap();
    pi.power_cut().unwrap();
    pi.power_on_recording().unwrap();
    pi.wait_for_ssh(BOOT).unwrap();
    homelab.ok(&["apply", "--yes", "--only", "boot", "--no-reboot"]);
    pi.power_cut().unwrap();

    let recording = pi.recording().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let image = scratch.path().join("boot.vfat");
    recording.prefix(0, &image).unwrap();
    let old = files(&image);
    let new = files(&pi.boot_partition_image());
    let paths = old.clone().map(|(path, _)| path);
    let (mut states, mut last_old, mut wrong) = (0, [0; 2], Vec::new());
    for index in [0, 1] {
        assert!(old[index].1.is_some() && new[index].1.is_some() && old[index] != new[index]);
    }
    recording
        .every_power_cut(&image, |cut, image| {
            states += 1;
            let now = files(image);
            for index in [0, 1] {
                if now[index] != old[index] && now[index] != new[index] {
                    let (path, content) = &now[index];
                    let content = content.as_deref().map(String::from_utf8_lossy);
                    wrong.push(format!("{cut:?}: {path} holds {content:?}"));
                }
                if let Cut::After(writes) = cut
                    && now[index] == old[index]
                {
                    last_old[index] = writes;
                }
            }
            wrong.extend(damaged(image, &paths).map(|said| format!("{cut:?}: {said}")));
            Ok(())
        })
        .unwrap();
    eprintln!(
        "{} sectors written, {states} states looked at; the last with the old files are {last_old:?}",
        recording.writes()
    );
    assert_eq!(wrong, [""; 0], "of {states} states");
    let [config, line] = last_old;
    assert!(0 < config.min(line) && config.max(line) < recording.writes());

    // Before a file takes its name, and after; in a full run many more.
    let full = std::env::var_os("SELFHEAL_FULL").is_some();
    let mut boots = vec![config.min(line), config.max(line) + 1];
    if full {
        boots.extend((1..recording.writes()).step_by(4));
    }
    for writes in boots {
        recording
            .prefix(writes, &pi.boot_partition_image())
            .unwrap();
        pi.power_on().unwrap();
        pi.wait_for_ssh(BOOT).unwrap();
        homelab.ok(&["apply", "--yes", "--only", "boot"]);
        let run = homelab.selfheal(&["plan", "--only", "boot"]);
        assert_eq!(run.code, Some(0), "after {writes} writes: {run}");
        pi.power_cut().unwrap();
        let converged = files(&pi.boot_partition_image());
        assert_eq!(converged, new, "after {writes} writes");
    }
}

#[test]
#[ignore = "minutes more: tests/run.sh --full"]
fn at_every_power_cut_the_first_set_is_whole_and_no_torn_line_waits_for_its_trial() {
    let homelab = Homelab::ubuntu(&["jarvis"], NO_PACKAGES);
    let pi = homelab.pi();
    pi.power_cut().unwrap();
    pi.power_on_recording().unwrap();
    pi.wait_for_ssh(BOOT).unwrap();
    homelab.ok(&["apply", "--yes", "--only", "boot", "--no-reboot"]);
    pi.power_cut().unwrap();

    let read = |image: &Path, path: &str| BootPartition::new(image).read(path).ok();
    let recording = pi.recording().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let image = scratch.path().join("boot.vfat");
    recording.prefix(0, &image).unwrap();
    let old = read(&image, "current/cmdline.txt").unwrap();
    let new = read(&pi.boot_partition_image(), "new/cmdline.txt").unwrap();
    assert_ne!(old, new);
    let (mut states, mut copied, mut edited, mut wrong) = (0, 0, 0, Vec::new());
    // Before selfheal's first name for the new line, flash-kernel's own writes may still be on their way to the card.
    let mut begun = false;
    recording
        .every_power_cut(&image, |cut, image| {
            states += 1;
            let current =
                ["cmdline.txt", "state"].map(|name| read(image, &format!("current/{name}")));
            if current != [Some(old.clone()), Some(b"good\n".to_vec())] {
                wrong.push(format!("{cut:?}: current/ holds {current:?}"));
            }
            begun |= read(image, "new/cmdline.txt.selfheal-new").is_some();
            if read(image, "new/state").as_deref() != Some(b"unknown\n") {
                return Ok(());
            }
            match read(image, "new/cmdline.txt") {
                Some(line) if line == old => copied += 1,
                Some(line) if line == new => edited += 1,
                _ if !begun => {}
                line => wrong.push(format!("{cut:?}: new/cmdline.txt holds {line:?}")),
            }
            Ok(())
        })
        .unwrap();
    eprintln!(
        "{} sectors written, {states} states looked at; the copy waited in {copied} of them, the new line in {edited}",
        recording.writes()
    );
    assert_eq!(wrong, [""; 0], "of {states} states");
    assert!(begun && copied > 0 && edited > 0);

    // What was on the card in the middle of it boots, and converges.
    recording
        .prefix(recording.writes() / 2, &pi.boot_partition_image())
        .unwrap();
    pi.power_on().unwrap();
    pi.wait_for_ssh(2 * BOOT).unwrap();
    homelab.ok(&["apply", "--yes", "--only", "boot"]);
    pi.ok("grep -qw psi=1 /proc/cmdline && grep -qw psi=1 /boot/firmware/current/cmdline.txt")
        .unwrap();
}
