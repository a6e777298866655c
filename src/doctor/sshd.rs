//! Who may log in, as sshd really obeys (domain.md §3.1).

use super::finding::Outcome;
use super::patient::Patient;
use crate::inventory::RootLogin;

pub(super) fn login(patient: &Patient<'_>) -> Outcome {
    let sshd = &patient.measured.snapshot.sshd;
    let value = |keyword: &str| {
        let values = sshd.get(keyword)?;
        values.first().map(String::as_str)
    };
    let (Some(password), Some(root)) = (value("passwordauthentication"), value("permitrootlogin"))
    else {
        return Outcome::unknown("`sshd -T` says nothing", "run it on the node, as root");
    };
    let keyboard = value("kbdinteractiveauthentication").unwrap_or("no");
    let evidence = format!(
        "passwordauthentication {password}, kbdinteractiveauthentication {keyboard}, permitrootlogin {root}"
    );
    let settings = &patient.node.hardening.sshd;
    if password == "yes" || keyboard == "yes" {
        return Outcome::fail(
            evidence,
            "`selfheal apply` switches passwords off; a drop-in of /etc/ssh/sshd_config.d that sorts first wins",
        )
        .asked_for(settings.password_authentication);
    }
    let wanted = match settings.permit_root_login {
        RootLogin::Yes => &[
            "yes",
            "prohibit-password",
            "without-password",
            "forced-commands-only",
            "no",
        ][..],
        RootLogin::ProhibitPassword => &[
            "prohibit-password",
            "without-password",
            "forced-commands-only",
            "no",
        ],
        RootLogin::ForcedCommandsOnly => &["forced-commands-only", "no"],
        RootLogin::No => &["no"],
    };
    if wanted.contains(&root) {
        Outcome::ok(evidence)
    } else {
        Outcome::warn(
            evidence,
            "root may do more than the inventory says: `selfheal apply` corrects it",
        )
    }
}
