//! Any bytes as cmdline.txt: an edit is refused, or keeps what the Pi boots by and comes to rest.
#![no_main]

use libfuzzer_sys::fuzz_target;
use selfheal::node::boot::{CommandLine, Edit, Token};

/// The input is a file and, after a newline and `+`, tokens to set and, after `-`, tokens to remove.
fn parts(input: &[u8]) -> (&[u8], Edit) {
    let mut lines = input.split(|byte| *byte == b'\n');
    let mut edit = Edit::default();
    let mut length = input.len();
    for line in lines.by_ref().collect::<Vec<_>>().into_iter().rev() {
        let list = match line.first() {
            Some(b'+') => &mut edit.set,
            Some(b'-') => &mut edit.remove,
            _ => break,
        };
        let words = line[1..]
            .split(|byte| *byte == b' ')
            .filter_map(|word| std::str::from_utf8(word).ok());
        list.extend(words.filter_map(|word| word.parse::<Token>().ok()));
        length = length.saturating_sub(line.len() + 1);
    }
    for token in [
        "cgroup_memory=1",
        "cgroup_enable=memory",
        "psi=1",
        "panic=10",
    ] {
        edit.set.extend(token.parse::<Token>());
    }
    (&input[..length], edit)
}

fuzz_target!(|input: &[u8]| {
    let (content, edit) = parts(input);
    let Ok(before) = CommandLine::parse(content) else {
        return;
    };
    before.not_booted(&String::from_utf8_lossy(input));
    let Ok(after) = before.edit(&edit) else {
        return;
    };
    let guarded = |line: &CommandLine| -> Vec<Token> {
        let kernel = line
            .tokens()
            .iter()
            .take_while(|token| token.as_str() != "--");
        kernel
            .filter(|token| token.is_untouchable())
            .cloned()
            .collect()
    };
    let roots = |line: &CommandLine| -> Vec<String> {
        let roots = guarded(line).into_iter().filter(|token| token.key() == "root");
        roots.map(|token| token.to_string()).collect()
    };
    assert_eq!(guarded(&before), guarded(&after));
    assert_eq!(roots(&before), roots(&after));
    assert!(!roots(&after).is_empty());
    assert_eq!(after.edit(&edit).as_ref(), Ok(&after));
    assert_eq!(
        CommandLine::parse(after.to_string().as_bytes()).as_ref(),
        Ok(&after)
    );
    assert!(edit.set.iter().all(|token| after.holds(token)));
    // What nobody asked for stays, in its order.
    let asked: Vec<_> = edit.set.iter().chain(&edit.remove).map(Token::key).collect();
    let others = |line: &CommandLine| -> Vec<Token> {
        let others = line.tokens().iter().filter(|token| !asked.contains(&token.key()));
        others.cloned().collect()
    };
    assert_eq!(others(&before), others(&after));
});
