//! The script itself, run by this machine's shells; and the command, one connection and one exec a node.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use selfheal::doctor::check::Check;
use selfheal::doctor::measure::{Measure, Measured, Order};
use selfheal_lab::fake_node::FakeNode;

use super::{NONCE, inventory};
use crate::binary::Home;

fn order(deadline: u64) -> Order {
    let inventory = inventory("");
    Order {
        deadline: Duration::from_secs(deadline),
        ..Order::new(&inventory, &inventory.nodes[2], &[])
    }
}

fn run(shell: &str, script: &str) -> Measured {
    let mut child = Command::new(shell)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    Measured::parse(&output.stdout, NONCE, 0.0, None).unwrap()
}

#[test]
fn every_measurement_comes_to_its_end_in_any_shell() {
    for shell in ["sh", "bash"] {
        let measured = run(shell, &order(60).script(NONCE));
        for measure in Measure::ALL {
            assert!(measured.has(measure), "{shell}: {measure:?}");
        }
        let facts = &measured.snapshot.facts;
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        assert_eq!(facts.kernel, kernel.trim(), "{shell}");
        assert!(facts.mount("/").is_some(), "{shell}");
        assert!(
            measured.text("doctor clock").parse::<f64>().is_ok(),
            "{shell}"
        );
        assert!(measured.text("doctor space").contains(' '), "{shell}");
    }
}

#[test]
fn what_is_long_comes_back_whole() {
    let lines: String = (0..3000).map(|number| format!("line {number}\n")).collect();
    let script = order(60).script(NONCE).replace(
        "sshd_settings() { sshd_effective; }",
        "sshd_settings() { frame 'doctor long'; n=0; while [ $n -lt 3000 ]; do echo \"line $n\"; n=$((n + 1)); done; }",
    );
    for shell in ["sh", "bash"] {
        assert_eq!(
            run(shell, &script).text("doctor long"),
            lines.trim_end(),
            "{shell}"
        );
    }
}

#[test]
fn what_hangs_is_not_waited_for() {
    let script = order(8).script(NONCE).replace(
        "sshd_settings() { sshd_effective; }",
        "sshd_settings() { exec sleep 61; }",
    );
    assert!(script.contains("sleep 61"));
    let began = Instant::now();
    let measured = run("sh", &script);
    // Neither the shell nor its output waits for what hangs on.
    assert!(
        began.elapsed() < Duration::from_secs(50),
        "{:?}",
        began.elapsed()
    );
    assert!(!measured.has(Measure::SshdSettings));
    assert!(measured.has(Measure::Facts) && measured.has(Measure::Records));
}

#[test]
fn a_part_of_the_script_runs_nothing() {
    let script = order(60).script(NONCE);
    let part = &script[..script.len() - 3];
    let output = Command::new("sh").arg("-c").arg(part).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_and_one_exec_a_node_and_one_that_is_down_holds_nobody_back() {
    let fake = FakeNode::running_sh().await.unwrap();
    let mut down = FakeNode::running_sh().await.unwrap();
    let home = Home::new();
    home.write(
        "homelab.toml",
        &format!(
            "[cluster]\nname = \"lab\"\n[k3s]\ninstall = false\n[ssh]\nagent = false\nidentity = [\"{}\"]\n\
             [nodes.jarvis]\nhost = \"127.0.0.1\"\nport = {}\nrole = \"control-plane\"\nmodel = \"virtual\"\nhost_key = \"{}\"\n\
             [nodes.ultron]\nhost = \"127.0.0.1\"\nport = {}\nrole = \"worker\"\nhost_key = \"{}\"\n",
            fake.identity().unwrap(),
            fake.port(),
            fake.host_key(),
            down.port(),
            down.host_key(),
        ),
    );
    down.stop_listening().await;
    let run = home.selfheal(&["doctor", "--json"]).await;
    assert_eq!(run.code, Some(4), "{run:?}");
    assert_eq!((fake.connections(), fake.execs().len()), (1, 1), "{run:?}");
    let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(report["version"], 1);
    assert_eq!(report["failed"][0]["node"], "ultron");
    assert_eq!(report["nodes"][0]["node"], "jarvis");
    let findings = report["nodes"][0]["findings"].as_array().unwrap();
    assert_eq!(findings.len(), Check::ALL.len());
    let clock = findings
        .iter()
        .find(|finding| finding["id"] == "clock")
        .unwrap();
    let evidence = clock["evidence"].as_str().unwrap();
    assert!(evidence.contains("against this computer"), "{evidence}");

    let table = home.selfheal(&["doctor", "--on", "jarvis"]).await;
    assert!(matches!(table.code, Some(1 | 2)), "{table:?}");
    assert!(
        table.stdout.contains("jarvis (control-plane, 127.0.0.1): "),
        "{table:?}"
    );
    assert!(table.stdout.ends_with(".\n"), "{table:?}");
}
