//! `reap`: ghosts go, and nothing but ghosts. `crictl` is played; its answers have the shape of the real one's.

use std::fmt::Write as _;
use std::fs;

use super::{Node, value};
use crate::crash::Run;

/// The node booted at [`BOOTED`], by its clock.
const NOW: u64 = 1_790_000_000;
const BOOTED: u64 = NOW - 1000;

/// What k3s does here. A sandbox is a file of its JSON; `stuck/ID` keeps it until its own network files are gone.
const K3S: &str = r#"
shift
echo "$*" >>"$SELFHEAL_ROOT/asked"
[ "$1" = --timeout ] || exit 1
shift 2
cd "$SELFHEAL_ROOT" || exit 1
[ ! -e down ] || { echo 'connect: connection refused' >&2; exit 1; }
case $1 in
info) cat info ;;
pods)
	if [ -e answer ]; then exec cat answer; fi
	printf '{\n  "items":  [\n'
	comma=
	for file in sandboxes/*; do
		[ -e "$file" ] || continue
		printf '%s' "$comma"
		cat "$file"
		comma=,
	done
	printf '  ]\n}\n'
	;;
stopp) echo "Stopped sandbox $2" ;;
rmp)
	[ "$2" != -f ] || exit 9
	[ -e "sandboxes/$2" ] || { echo "not found" >&2; exit 1; }
	if [ -e "refuses/$2" ]; then
		echo "removing the pod sandbox \"$2\": rpc error: code = DeadlineExceeded" >&2
		exit 1
	fi
	for file in var/lib/cni/results/cbr0-"$2"-*; do
		[ -e "$file" ] || continue
		[ -s "$file" ] || { echo "failed to get network \"cbr0\" cached result: unexpected end of JSON input" >&2; exit 1; }
	done
	rm "sandboxes/$2"
	echo "Removed sandbox $2"
	;;
ps) [ ! -e "containers/$6" ] || echo "$6" ;;
rm) rm "containers/$2" ;;
*) exit 8 ;;
esac
"#;

const READY: &str = r#"{
  "status": {
    "conditions": [
      {
        "message": "",
        "reason": "",
        "status": true,
        "type": "RuntimeReady"
      },
      {
        "message": "",
        "reason": "",
        "status": true,
        "type": "NetworkReady"
      }
    ]
  }
}
"#;

fn id(number: u64) -> String {
    format!("{number:064x}")
}

struct Sandbox {
    number: u64,
    uid: &'static str,
    ready: bool,
    created: u64,
}

impl Sandbox {
    /// As `protojson` writes it: what comes after a colon varies by intent.
    fn json(&self) -> String {
        let state = if self.ready { "READY" } else { "NOTREADY" };
        format!(
            r#"    {{
      "id": "{id}",
      "metadata":  {{
        "name": "web-{number}",
        "uid":  "{uid}",
        "namespace": "default",
        "attempt": 0
      }},
      "state":  "SANDBOX_{state}",
      "createdAt": "{created}123456789",
      "labels": {{
        "id": "{other}",
        "io.kubernetes.pod.uid": "none"
      }},
      "annotations":  {{
        "note": "a \"}}, {{\\\" ] \n \"id\": \"{other}\", \"state\": \"SANDBOX_READY\""
      }},
      "runtimeHandler": ""
    }}
"#,
            id = id(self.number),
            number = self.number,
            uid = self.uid,
            created = self.created,
            other = id(0xbad),
        )
    }
}

fn not_ready(number: u64, uid: &'static str, created: u64) -> Sandbox {
    Sandbox {
        number,
        uid,
        ready: false,
        created,
    }
}

fn ready(number: u64, uid: &'static str) -> Sandbox {
    Sandbox {
        number,
        uid,
        ready: true,
        created: NOW - 500,
    }
}

/// A node whose kubelet knows the pods `known`.
fn node(sandboxes: &[Sandbox], known: &[&str]) -> Node {
    let node = Node::new();
    for sandbox in sandboxes {
        node.write(
            &format!("/sandboxes/{}", id(sandbox.number)),
            &sandbox.json(),
        );
    }
    for uid in known {
        fs::create_dir_all(node.path("/var/lib/kubelet/pods").join(uid)).unwrap();
    }
    node.write("/info", READY);
    node.write("/journal", "");
    node.write("/run/selfheal/reap-due", "");
    fs::create_dir_all(node.path("/sandboxes")).unwrap();
    node.stage.command("k3s", K3S);
    node.stage
        .command("journalctl", "cat \"$SELFHEAL_ROOT/journal\"");
    node.stage.command(
        "date",
        &format!("read -r up _ <\"$SELFHEAL_ROOT/proc/uptime\"\necho $(({BOOTED} + ${{up%.*}}))"),
    );
    node.stage.command(
        "systemctl",
        "echo \"$*\" >>\"$SELFHEAL_ROOT/systemctl\"\n[ \"$*\" != 'is-active --quiet k3s-agent.service' ]",
    );
    node
}

fn left(node: &Node) -> Vec<u64> {
    node.names("/sandboxes")
        .iter()
        .map(|name| u64::from_str_radix(name, 16).unwrap())
        .collect()
}

/// What kubelet writes to the journal, quoted once more by klog.
fn reserved(at: u64, kind: &str, wanted: u64) -> String {
    format!(
        "{at}.123456 jarvis k3s[611]: E1122 pod_workers.go:1301] \"Error syncing pod, skipping\" err=\"failed to \
         \\\"CreatePodSandbox\\\" for \\\"web\\\" with CreatePodSandboxError: \\\"rpc error: code = Unknown desc = failed to \
         reserve {kind} name \\\\\\\"web_default_u_1\\\\\\\": name \\\\\\\"web_default_u_1\\\\\\\" is reserved for \\\\\\\"{}\\\\\\\"\\\"\" pod=\"default/web\"\n",
        id(wanted)
    )
}

fn now(node: &Node) -> Run {
    node.run("reap", &["now"])
}

#[test]
fn not_ready_alone_is_no_ghost() {
    let sandboxes = [
        ready(1, "lives"),
        not_ready(2, "finished-job", BOOTED - 5000),
        not_ready(3, "restarted", NOW - 100),
        not_ready(4, "gone-but-of-this-boot", NOW - 100),
    ];
    let node = node(&sandboxes, &["lives", "finished-job", "restarted"]);
    let run = now(&node);
    assert_eq!(run.code, Some(0), "{}", run.stdout);
    assert_eq!(
        run.stdout,
        "before sandboxes 4 ready 1 ghosts 0\nafter sandboxes 4 ready 1 ghosts 0\n"
    );
    assert_eq!(left(&node), [1, 2, 3, 4]);
    assert!(
        !node.read("/asked").contains("rmp"),
        "{}",
        node.read("/asked")
    );
}

/// The clock stood behind when the node booted, and was set while k3s waited for it: what the last boot made then looks
/// as if made in this one. The guard knows better.
#[test]
fn what_was_there_when_the_guard_let_k3s_start_is_of_an_earlier_boot() {
    let last_boot = BOOTED + 60;
    for (guard, ghost) in [("new", true), ("live", false), ("late", false)] {
        let sandboxes = [ready(1, "lives"), not_ready(2, "lives", last_boot)];
        let node = node(&sandboxes, &["lives"]);
        node.dated("/run/selfheal/guard", &format!("{guard}\n"), last_boot + 1);
        let run = now(&node);
        assert_eq!(run.stdout.contains("replaced"), ghost, "{}", run.stdout);
        assert_eq!(left(&node).len(), if ghost { 1 } else { 2 });
    }
}

#[test]
fn ghosts_go_and_it_is_told_before_and_after() {
    let sandboxes = [
        ready(1, "lives"),
        not_ready(2, "lives", BOOTED - 60),
        not_ready(3, "deleted", BOOTED - 60),
        not_ready(4, "deleted-too", NOW + 86_400),
        not_ready(5, "waits", BOOTED - 60),
    ];
    let node = node(&sandboxes, &["lives", "waits"]);
    let look = node.run("reap", &["look"]);
    assert_eq!(look.code, Some(1));
    assert_eq!(left(&node), [1, 2, 3, 4, 5]);
    let run = now(&node);
    assert_eq!(run.code, Some(0), "{}", run.stdout);
    let mut expected = format!(
        "before sandboxes 5 ready 1 ghosts 3\nghost {} default/web-2 replaced\nghost {} default/web-3 gone\nghost {} default/web-4 gone\n",
        id(2),
        id(3),
        id(4)
    );
    assert_eq!(look.stdout, expected);
    for (number, why) in [(2, "replaced"), (3, "gone"), (4, "gone")] {
        writeln!(
            expected,
            "removed {} default/web-{number} ({why})",
            id(number)
        )
        .unwrap();
    }
    expected += "after sandboxes 2 ready 1 ghosts 0\n";
    assert_eq!(run.stdout, expected);
    assert_eq!(left(&node), [1, 5]);
    assert!(node.read("/asked").lines().all(|line| !line.contains("-f")));
    let last = node.read("/var/lib/selfheal/last-reap");
    assert_eq!(
        (
            value(&last, "boot_id"),
            value(&last, "removed"),
            value(&last, "ghosts")
        ),
        ("one", "3", "0")
    );
}

#[test]
fn a_name_that_is_wanted_is_freed() {
    let sandboxes = [
        not_ready(7, "waits", BOOTED - 60),
        ready(8, "lives"),
        not_ready(9, "job", BOOTED - 60),
    ];
    let node = node(&sandboxes, &["waits", "lives", "job"]);
    // 8 was reserved while it was being made; it lives now.
    node.write(
        "/journal",
        &(reserved(NOW - 30, "sandbox", 7)
            + &reserved(NOW - 20, "sandbox", 8)
            + &reserved(NOW - 20, "sandbox", 7)),
    );
    let run = now(&node);
    assert_eq!(run.code, Some(0), "{}", run.stdout);
    assert_eq!(left(&node), [8, 9]);
    let asked = node.read("/asked");
    let acts: Vec<&str> = asked
        .lines()
        .filter_map(|line| line.strip_prefix("--timeout 40s "))
        .collect();
    assert_eq!(acts, [format!("stopp {}", id(7)), format!("rmp {}", id(7))]);
    assert_eq!(node.read("/systemctl"), "");
}

#[test]
fn a_container_that_holds_a_name_goes_too() {
    let node = node(&[ready(1, "lives")], &["lives"]);
    node.write(&format!("/containers/{}", id(0xc0)), "");
    node.write("/journal", &reserved(NOW - 20, "container", 0xc0));
    let run = now(&node);
    assert_eq!(run.code, Some(0), "{}", run.stdout);
    assert_eq!(node.names("/containers"), Vec::<String>::new());
}

#[test]
fn a_network_that_cannot_be_taken_down_loses_its_own_files_only() {
    let sandboxes = [not_ready(2, "deleted", BOOTED - 60), ready(3, "lives")];
    let node = node(&sandboxes, &["lives"]);
    let (ghost, other) = (id(2), id(3));
    for (path, content) in [
        (format!("flannel/{ghost}"), ""),
        (format!("flannel/{other}"), ""),
        (format!("results/cbr0-{ghost}-eth0"), ""),
        (format!("results/cbr0-{other}-eth0"), "{}"),
        (
            "networks/cbr0/10.42.0.2".to_owned(),
            &*format!("{ghost}\r\neth0"),
        ),
        (
            "networks/cbr0/10.42.0.3".to_owned(),
            &*format!("{other}\r\neth0"),
        ),
        ("networks/cbr0/10.42.0.4".to_owned(), ""),
        ("networks/cbr0/last_reserved_ip.0".to_owned(), "10.42.0.3"),
    ] {
        node.write(&format!("/var/lib/cni/{path}"), content);
    }
    let run = now(&node);
    assert_eq!(run.code, Some(0), "{}", run.stdout);
    assert_eq!(left(&node), [3]);
    assert_eq!(
        node.names("/var/lib/cni/flannel"),
        std::slice::from_ref(&other)
    );
    assert_eq!(
        node.names("/var/lib/cni/results"),
        [format!("cbr0-{other}-eth0")]
    );
    assert_eq!(
        node.names("/var/lib/cni/networks/cbr0"),
        ["10.42.0.3", "10.42.0.4", "last_reserved_ip.0"]
    );
}

#[test]
fn what_cannot_be_removed_is_said_and_the_rest_goes() {
    let sandboxes: Vec<Sandbox> = (1..=14)
        .map(|number| not_ready(number, "deleted", BOOTED - 60))
        .collect();
    let node = node(&sandboxes, &[]);
    for number in 1..=6 {
        node.write(&format!("/refuses/{}", id(number)), "");
    }
    let run = now(&node);
    assert_eq!(run.code, Some(1), "{}", run.stdout);
    assert_eq!(left(&node), [1, 2, 3, 4, 5, 6]);
    assert!(
        run.stdout.contains("code = DeadlineExceeded"),
        "{}",
        run.stdout
    );
    assert!(run.stdout.ends_with(" gone\n"), "{}", run.stdout);
    // Five at a time: between two looks at the list are no more removals.
    let asked = node.read("/asked");
    for looks in asked.split(" pods ") {
        assert!(looks.matches(" rmp ").count() <= 5, "{asked}");
    }
    assert_eq!(
        value(&node.read("/var/lib/selfheal/last-reap"), "failed"),
        "6"
    );
}

#[test]
fn a_name_in_memory_costs_one_restart_an_hour() {
    let node = node(&[ready(1, "lives")], &["lives"]);
    node.write(
        "/journal",
        &(reserved(NOW - 40, "sandbox", 0xdead) + &reserved(NOW - 20, "sandbox", 0xdead)),
    );
    let restarts = |node: &Node| {
        node.read("/systemctl")
            .matches("--no-block restart k3s.service\n")
            .count()
    };
    let run = now(&node);
    assert_eq!(run.code, Some(1), "{}", run.stdout);
    assert!(
        run.stdout.contains(&format!("stuck {}", id(0xdead))),
        "{}",
        run.stdout
    );
    assert!(
        run.stdout.contains("restarted k3s.service"),
        "{}",
        run.stdout
    );
    assert_eq!(restarts(&node), 1);
    now(&node);
    assert_eq!(restarts(&node), 1);
    node.uptime(1000 + 3700);
    node.write(
        "/journal",
        &(reserved(NOW + 3660, "sandbox", 0xdead) + &reserved(NOW + 3680, "sandbox", 0xdead)),
    );
    now(&node);
    assert_eq!(restarts(&node), 2);
}

#[test]
fn old_news_restarts_nothing() {
    // Said once; said long ago; said of what has been removed since.
    for journal in [
        reserved(NOW - 20, "sandbox", 0xdead),
        reserved(NOW - 500, "sandbox", 0xdead) + &reserved(NOW - 400, "sandbox", 0xdead),
        reserved(NOW - 40, "sandbox", 7) + &reserved(NOW - 20, "sandbox", 7),
        "1790000000.1 jarvis k3s[1]: name is reserved for \"../../etc\"\nrubbish\n".to_owned(),
    ] {
        let node = node(
            &[ready(1, "lives"), not_ready(7, "waits", BOOTED - 60)],
            &["lives", "waits"],
        );
        node.write("/journal", &journal);
        for _ in 0..2 {
            let run = now(&node);
            assert_eq!(run.code, Some(0), "{journal}: {}", run.stdout);
        }
        assert_eq!(node.read("/systemctl"), "", "{journal}");
    }
}

#[test]
fn no_answer_and_half_an_answer_remove_nothing() {
    let sandboxes = [not_ready(2, "deleted", BOOTED - 60)];
    let json = format!("{{\n  \"items\": [\n{}  ]\n}}\n", sandboxes[0].json());
    let half = &json[..json.len() - 4];
    let odd = json.replace("\"createdAt\": \"", "\"createdAt\": \"x");
    for answer in [
        "",
        "FATA[0000] unable to determine runtime API version",
        half,
        &odd,
    ] {
        let node = node(&sandboxes, &[]);
        node.write("/answer", answer);
        let run = now(&node);
        assert_eq!(run.code, Some(3), "{answer}: {}", run.stdout);
        assert_eq!(left(&node), [2], "{answer}");
    }
    for info in [
        "",
        "{}",
        &READY.replacen("true", "false", 1),
        &READY[..READY.len() - 5],
    ] {
        let node = node(&sandboxes, &[]);
        node.write("/info", info);
        assert_eq!(now(&node).code, Some(3), "{info}");
        assert_eq!(left(&node), [2], "{info}");
    }
    // The same in one line is an answer as well.
    let node = node(&sandboxes, &[]);
    let compact: String = json.lines().map(str::trim).collect();
    node.write("/answer", &compact);
    let run = node.run("reap", &["look"]);
    assert_eq!(
        run.stdout,
        format!(
            "before sandboxes 1 ready 0 ghosts 1\nghost {} default/web-2 gone\n",
            id(2)
        )
    );
}

#[test]
fn the_service_waits_for_containerd_and_ends_by_itself() {
    let node = node(
        &[ready(1, "lives"), not_ready(2, "lives", BOOTED - 60)],
        &["lives"],
    );
    node.write("/down", "");
    // k3s needs a while; a ghost of a name shows only later.
    let later = reserved(NOW + 300, "sandbox", 9);
    node.write("/later", &later);
    node.write(
        &format!("/spare/{}", id(9)),
        &not_ready(9, "job", BOOTED - 60).json(),
    );
    fs::create_dir_all(node.path("/var/lib/kubelet/pods/job")).unwrap();
    node.executable(
        "/while-waiting",
        "#!/bin/sh\ncd \"$SELFHEAL_ROOT\"\nread -r up _ <proc/uptime\nup=${up%.*}\n[ $up -lt 1100 ] || rm -f down\n\
         [ $up -lt 1300 ] || [ ! -e spare ] || { mv spare/* sandboxes/; rm -r spare; cp later journal; }\n",
    );
    node.write(
        "/var/lib/selfheal/last-guard",
        "boot_id one\ncni set aside as /var/lib/cni.stale-22222222\n",
    );
    for stale in ["11111111", "11111111.2", "22222222"] {
        node.write(
            &format!("/var/lib/cni.stale-{stale}/networks/cbr0/10.42.0.2"),
            "",
        );
    }
    let run = node.run("reap", &["boot"]);
    assert_eq!(
        (run.code, run.stdout.as_str()),
        (Some(0), ""),
        "{}",
        run.stderr
    );
    assert_eq!(left(&node), [1]);
    let uptime = node.seconds_up();
    assert!((1780..1830).contains(&uptime), "{uptime}");
    assert!(!node.exists("/run/selfheal/reap-due"));
    // The newest copy of what the guard set aside stays to be looked at.
    assert_eq!(
        node.names("/var/lib").join(" "),
        "cni.stale-22222222 kubelet selfheal"
    );
    let last = node.read("/var/lib/selfheal/last-reap");
    assert_eq!(
        (value(&last, "mode"), value(&last, "removed")),
        ("boot", "2")
    );
}

#[test]
fn safe_mode_ends_the_service_at_once() {
    let node = node(&[not_ready(2, "deleted", BOOTED - 60)], &[]);
    node.write("/run/selfheal/safe-mode", "");
    assert_eq!(node.run("reap", &["boot"]).code, Some(0));
    assert_eq!(left(&node), [2]);
}

#[test]
fn two_do_not_reap_at_once() {
    let node = node(&[not_ready(2, "deleted", BOOTED - 60)], &[]);
    node.stage.command("flock", "exit 1");
    let run = now(&node);
    assert_eq!(run.code, Some(4), "{}", run.stdout);
    assert_eq!(left(&node), [2]);
}
