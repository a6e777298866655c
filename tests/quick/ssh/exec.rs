//! Running scripts.

use selfheal::ssh::{ExecError, Status, Sudo};
use selfheal_lab::fake_node::{Config, FakeNode, Reply, Shell};

use super::{LIMIT, connect, target};

#[tokio::test]
async fn a_script_runs_over_one_connection_and_one_exec() {
    let node = FakeNode::running_sh().await.unwrap();
    let session = connect(&target(&node)).await.unwrap();
    let output = session
        .run("echo out; echo err >&2; exit 3", LIMIT)
        .await
        .unwrap();
    assert_eq!(output.status, Status::Exited(3));
    assert_eq!(output.stdout, b"out\n");
    assert_eq!(output.stderr, b"err\n");
    session.close().await;
    assert_eq!(node.connections(), 1);
    let execs = node.execs();
    let [exec] = execs.as_slice() else {
        panic!("{execs:?}")
    };
    assert!(exec.command.contains("sudo -n"), "{}", exec.command);
    // One offer, one signature: no key that does not work, no query for methods.
    assert_eq!(node.logins().len(), 2, "{:?}", node.logins());
}

#[tokio::test]
async fn a_closure_sees_the_script_and_answers_it() {
    let node = FakeNode::answering(|exec| Reply::ok(exec.script().to_uppercase()))
        .await
        .unwrap();
    let session = connect(&target(&node)).await.unwrap();
    let output = session.run("echo hi\n", LIMIT).await.unwrap();
    assert_eq!(output.stdout, b"ECHO HI\n");
    assert!(output.success());
}

#[tokio::test]
async fn root_needs_no_sudo_and_a_user_script_gets_none() {
    let node = FakeNode::running_sh().await.unwrap();
    let mut target = target(&node);
    let session = connect(&target).await.unwrap();
    assert!(
        session
            .run_as_user("exit 0", LIMIT)
            .await
            .unwrap()
            .success()
    );
    target.sudo = Sudo::AlreadyRoot;
    let session = connect(&target).await.unwrap();
    assert!(session.run("exit 0", LIMIT).await.unwrap().success());
    assert!(
        node.execs()
            .iter()
            .all(|exec| !exec.command.contains("sudo"))
    );
}

#[tokio::test]
async fn big_streams_flow_both_ways_at_once() {
    let node = FakeNode::running_sh().await.unwrap();
    let session = connect(&target(&node)).await.unwrap();
    // More than any window or pipe holds, so that each side must read while it writes.
    let line = "x".repeat(99);
    let script = format!("cat <<'END'\n{}END\n", format!("{line}\n").repeat(80_000));
    let output = session.run(&script, LIMIT).await.unwrap();
    assert_eq!(output.stdout.len(), 8_000_000);
    assert!(
        output
            .stdout
            .chunks(100)
            .all(|chunk| chunk == format!("{line}\n").as_bytes())
    );
}

#[tokio::test]
async fn bytes_stay_as_they_are() {
    let node = FakeNode::running_sh().await.unwrap();
    let session = connect(&target(&node)).await.unwrap();
    let output = session
        .run("printf '\\377\\000\\r\\nno end'", LIMIT)
        .await
        .unwrap();
    assert_eq!(output.stdout, b"\xff\0\r\nno end");
}

#[tokio::test]
async fn lines_arrive_while_the_script_runs() {
    let node = FakeNode::running_sh().await.unwrap();
    let session = connect(&target(&node)).await.unwrap();
    let (sender, mut lines) = tokio::sync::mpsc::unbounded_channel();
    let gate = tempfile::tempdir().unwrap();
    let opened = gate.path().join("opened");
    let script = format!(
        "echo one; until [ -e '{}' ]; do sleep 0.01; done; echo two; printf three",
        opened.display()
    );
    let mut on_line = move |line: &[u8]| sender.send(line.to_vec()).unwrap();
    let run = session.run_streaming(&script, LIMIT, &mut on_line);
    let watch = async {
        assert_eq!(lines.recv().await.unwrap(), b"one");
        // Only now may the script go on.
        std::fs::write(&opened, "").unwrap();
        assert_eq!(lines.recv().await.unwrap(), b"two");
        assert_eq!(lines.recv().await.unwrap(), b"three");
    };
    let (output, ()) = tokio::join!(run, watch);
    assert_eq!(output.unwrap().stdout, b"one\ntwo\nthree");
}

#[tokio::test]
async fn chatter_of_the_login_shell_is_cut_off() {
    for shell in ["bash", "zsh", "fish", "dash"] {
        let Some((_folder, shell)) = chatty(shell) else {
            continue;
        };
        let config = Config {
            shell: Shell::Sh(shell.clone()),
            ..Config::default()
        };
        let node = FakeNode::start(config).await.unwrap();
        let session = connect(&target(&node)).await.unwrap();
        let output = session.run("echo out", LIMIT).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "out\n", "{shell}");
    }
}

/// A login shell that talks before it runs the command, as a chatty .bashrc makes it. `None` if it is not installed.
fn chatty(shell: &str) -> Option<(tempfile::TempDir, String)> {
    use std::os::unix::fs::PermissionsExt;
    let found = std::process::Command::new(shell)
        .args(["-c", "exit 0"])
        .status();
    found.ok()?;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shell");
    std::fs::write(
        &path,
        format!("#!/bin/sh\necho Welcome to jarvis\nprintf 'no line end> '\nexec {shell} \"$@\"\n"),
    )
    .unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = path.to_str().unwrap().to_owned();
    Some((folder, path))
}

#[tokio::test]
async fn a_login_shell_that_runs_nothing_is_told() {
    for (shell, said) in [("false", "exit status 1"), ("true", "exit status 0")] {
        let config = Config {
            shell: Shell::Sh(shell.to_owned()),
            ..Config::default()
        };
        let node = FakeNode::start(config).await.unwrap();
        let mut target = target(&node);
        for sudo in [
            Sudo::AlreadyRoot,
            Sudo::Passwordless,
            Sudo::Password("s3cret".into()),
        ] {
            target.sudo = sudo;
            let session = connect(&target).await.unwrap();
            let error = session.run("echo out", LIMIT).await.unwrap_err();
            assert!(matches!(error, ExecError::NoShell { .. }), "{error:?}");
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}

#[tokio::test]
async fn scripts_share_a_connection() {
    let node = FakeNode::running_sh().await.unwrap();
    let session = connect(&target(&node)).await.unwrap();
    let scripts: Vec<String> = (0..5).map(|n| format!("echo {n}")).collect();
    let (a, b, c) = tokio::join!(
        session.run(&scripts[0], LIMIT),
        session.run(&scripts[1], LIMIT),
        session.run(&scripts[2], LIMIT)
    );
    assert_eq!(a.unwrap().stdout, b"0\n");
    assert_eq!(b.unwrap().stdout, b"1\n");
    assert_eq!(c.unwrap().stdout, b"2\n");
    assert_eq!(node.connections(), 1);
}

#[tokio::test]
async fn death_by_a_signal_is_told_from_an_exit() {
    // Unlike dash, bash makes way for a single command, so that sshd sees the signal.
    let shell = Shell::Sh("bash".to_owned());
    let node = FakeNode::start(Config {
        shell,
        ..Config::default()
    })
    .await
    .unwrap();
    let session = connect(&target(&node)).await.unwrap();
    let output = session.run("kill -KILL $$", LIMIT).await.unwrap();
    assert_eq!(output.status, Status::Signaled("KILL".to_owned()));
    assert!(!output.success());
}
