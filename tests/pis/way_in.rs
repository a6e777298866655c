//! Ways to a node and to its root that are not the plain one.

use std::os::unix::fs::PermissionsExt;

use crate::homelab::{Homelab, LITTLE, Run};

#[test]
#[ignore = "minutes more: tests/run.sh --full"]
fn a_node_behind_another_is_converged_through_it() {
    let homelab = Homelab::new(&["jarvis", "ultron"], "");
    let (jump, node) = (&homelab.pis[0], &homelab.pis[1]);
    // The user's ssh knows the jump host by a name of its own, and its key.
    let home = homelab.home().to_str().unwrap();
    let known = format!("{home}/known_hosts");
    let key = format!("[127.0.0.1]:{} {}\n", jump.port(), jump.host_key());
    std::fs::write(&known, key).unwrap();
    let config = format!(
        "Host bastion\n HostName 127.0.0.1\n Port {}\nHost *\n User pi\n UserKnownHostsFile {known}\n",
        jump.port()
    );
    std::fs::write(format!("{home}/config"), config).unwrap();
    let ssh = format!("{home}/bin/ssh");
    std::fs::create_dir(format!("{home}/bin")).unwrap();
    std::fs::write(
        &ssh,
        format!("#!/bin/sh\nexec /usr/bin/ssh -F {home}/config \"$@\"\n"),
    )
    .unwrap();
    std::fs::set_permissions(&ssh, PermissionsExt::from_mode(0o755)).unwrap();
    let inventory = format!(
        "[ssh]\nuser = \"pi\"\nidentity = [\"{}\"]\nagent = false\njump = [\"bastion\"]\n{LITTLE}\n\
         [nodes.ultron]\nhost = \"{}\"\nrole = \"control-plane\"\nmodel = \"virtual\"\nhost_key = \"{}\"\n",
        jump.key().display(),
        node.lan_address(),
        node.host_key(),
    );
    std::fs::write(homelab.inventory(), inventory).unwrap();
    let selfheal = |arguments: &[&str]| -> Run {
        let mut command = homelab.command(arguments);
        command.env("PATH", format!("{home}/bin:/usr/bin:/bin"));
        Run::of(&command.output().unwrap())
    };

    // sshd's settings go in behind the dead man's switch, so this takes a second connection on the same way.
    let run = selfheal(&["apply", "--yes"]);
    assert_eq!(run.code, Some(0), "{run}");
    assert!(
        run.stderr.contains("guarded settings: 1 change made"),
        "{run}"
    );
    let run = selfheal(&["plan"]);
    assert_eq!(run.code, Some(0), "{run}");
    let from = node
        .root("journalctl -u ssh | sed -n 's/.*Accepted publickey for pi from \\([^ ]*\\) .*/\\1/p' | sort -u")
        .unwrap();
    assert!(
        from.lines()
            .any(|from| from == jump.lan_address().to_string()),
        "{from}"
    );

    // A jump host that lets nobody through is the one that is named.
    jump.root("echo 'AllowTcpForwarding no' > /etc/ssh/sshd_config.d/90-mine.conf && systemctl reload ssh")
        .unwrap();
    let run = selfheal(&["plan"]);
    assert_eq!(run.code, Some(4), "{run}");
    for part in ["error: ultron: ", "127.0.0.1", "hint: "] {
        assert!(run.stderr.contains(part), "{part}: {run}");
    }
}

#[test]
#[ignore = "minutes more: tests/run.sh --full"]
fn a_sudo_that_wants_a_password_gets_it_where_nobody_sees_it() {
    const PASSWORD: &str = "Kaffee $mit 'Milch'";
    let homelab = Homelab::new(&["jarvis"], LITTLE);
    let pi = homelab.pi();
    pi.root(&format!(
        "cat > /root/password <<'END'\n{PASSWORD}\nEND
        echo \"pi:$(cat /root/password)\" | chpasswd
        echo 'pi ALL=(ALL) ALL' > /etc/sudoers.d/010_pi-nopasswd"
    ))
    .unwrap();
    let file = homelab.home().join("sudo");
    let from_file = format!(
        "sudo_password = {{ file = \"{}\" }}\n{LITTLE}",
        file.display()
    );
    let give = |password: &str| {
        std::fs::write(&file, format!("{password}\n")).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    };

    let without = homelab.selfheal(&["apply", "--yes"]);
    assert_eq!(without.code, Some(5), "{without}");
    assert!(without.stderr.contains("sudo_password"), "{without}");
    give("Tee");
    homelab.set(&from_file);
    let wrong = homelab.selfheal(&["apply", "--yes"]);
    assert_eq!(wrong.code, Some(5), "{wrong}");
    pi.ok("test ! -e /etc/sysctl.d/90-selfheal.conf").unwrap();

    // Somebody on the node looks at all command lines, all the time.
    pi.root(
        "cat > /root/watch <<'END'
        while [ ! -e /run/seen ]; do
            if cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -qFf /root/password; then
                touch /run/seen
            fi
        done\nEND
        setsid sh /root/watch > /dev/null 2>&1 < /dev/null &",
    )
    .unwrap();
    give(PASSWORD);
    // Without the boot layer, whose reboot would end the watch.
    homelab.ok(&["apply", "--only", "hardening", "--yes"]);
    homelab.ok(&["plan", "--only", "hardening"]);
    pi.ok("test ! -e /run/seen").unwrap();
    assert_eq!(
        pi.root("journalctl | grep -cFf /root/password || true")
            .unwrap()
            .trim(),
        "0"
    );
    let logs = homelab.home().join(".local/state/selfheal/logs");
    for log in std::fs::read_dir(logs).unwrap() {
        let log = std::fs::read_to_string(log.unwrap().path()).unwrap();
        assert!(!log.contains(PASSWORD), "{log}");
    }
    // They would have seen it.
    pi.root("sh -c 'until [ -e /run/seen ]; do sleep 1; done' \"$(cat /root/password)\"")
        .unwrap();
}
