//! Boot files: any bytes in, never a panic, `root=` never lost (domain.md §1).

mod command_line;
mod config_txt;
mod layout;

use selfheal::node::boot::{Edit, Token};

/// Tokens from one text, as in a cmdline.txt.
fn tokens(text: &str) -> Vec<Token> {
    text.split_whitespace()
        .map(|token| token.parse().unwrap())
        .collect()
}

/// The edit of the first boot layer.
fn hardening() -> Edit {
    Edit {
        set: tokens("cgroup_memory=1 cgroup_enable=memory psi=1 panic=10"),
        remove: vec![],
    }
}

fn set(text: &str) -> Edit {
    Edit {
        set: tokens(text),
        remove: vec![],
    }
}

fn remove(text: &str) -> Edit {
    Edit {
        set: vec![],
        remove: tokens(text),
    }
}
