//! Edits of files that belong to the user: a marked block at the end, and lines taken out of force by a marked
//! comment. Both can be undone without losing what the user wrote since.

const BEGIN: &str = "# BEGIN selfheal: lines up to END are managed, others are yours";
/// The same, where the line before had no end.
const BEGIN_CUT: &str =
    "# BEGIN selfheal: lines up to END are managed, others are yours (no newline before this)";
const END: &str = "# END selfheal";
const DISABLED: &str = "#selfheal# ";

/// `current` with every line for which `disable` holds commented out, and `block` at its end. An earlier edit is
/// replaced, so that the second edit changes nothing. Bytes that are no UTF-8 stay as they are.
pub fn edit(current: &[u8], disable: impl Fn(&str) -> bool, block: &[String]) -> Vec<u8> {
    let mut edited = Vec::with_capacity(current.len() + 256);
    for line in undo(current).split_inclusive(|&byte| byte == b'\n') {
        if std::str::from_utf8(line).is_ok_and(|line| disable(line.trim_end())) {
            edited.extend_from_slice(DISABLED.as_bytes());
        }
        edited.extend_from_slice(line);
    }
    with_block(edited, block)
}

/// `current` without selfheal's edits.
pub fn undo(current: &[u8]) -> Vec<u8> {
    let plain = without_block(current);
    let enabled = plain
        .split_inclusive(|&byte| byte == b'\n')
        .map(|line| line.strip_prefix(DISABLED.as_bytes()).unwrap_or(line));
    enabled.collect::<Vec<_>>().concat()
}

/// `plain`, which has no block, with `block` at its end.
pub fn with_block(mut plain: Vec<u8>, block: &[String]) -> Vec<u8> {
    if block.is_empty() {
        return plain;
    }
    let cut = !plain.is_empty() && !plain.ends_with(b"\n");
    if cut {
        plain.push(b'\n');
    }
    for line in std::iter::once(if cut { BEGIN_CUT } else { BEGIN })
        .chain(block.iter().map(String::as_str))
        .chain([END])
    {
        plain.extend_from_slice(line.as_bytes());
        plain.push(b'\n');
    }
    plain
}

/// `current` without the block. One whose end somebody deleted is not taken for one that reaches to the end of the file:
/// only its first line goes.
pub fn without_block(current: &[u8]) -> Vec<u8> {
    let lines: Vec<&[u8]> = current.split_inclusive(|&byte| byte == b'\n').collect();
    let mut plain = Vec::with_capacity(current.len());
    let mut index = 0;
    while let Some(line) = lines.get(index) {
        let cut = line.trim_ascii_end() == BEGIN_CUT.as_bytes();
        if cut || line.trim_ascii_end() == BEGIN.as_bytes() {
            let end = lines[index..]
                .iter()
                .position(|line| line.trim_ascii_end() == END.as_bytes());
            index += end.unwrap_or(0);
            // What the user wrote behind the block needs the newline.
            if cut && end.is_some() && index + 1 == lines.len() && plain.ends_with(b"\n") {
                plain.pop();
            }
        } else {
            plain.extend_from_slice(line);
        }
        index += 1;
    }
    plain
}

/// The lines of the block in `current`.
pub fn block(current: &[u8]) -> impl Iterator<Item = &[u8]> {
    let begins = |line: &&[u8]| *line != BEGIN.as_bytes() && *line != BEGIN_CUT.as_bytes();
    current
        .split(|&byte| byte == b'\n')
        .map(<[u8]>::trim_ascii_end)
        .skip_while(begins)
        .skip(1)
        .take_while(|line| *line != END.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn disable(line: &str) -> bool {
        line.starts_with("127.0.1.1")
    }

    #[test]
    fn a_line_is_disabled_and_a_block_added() {
        let edited = edit(
            b"127.0.0.1 localhost\n127.0.1.1 raspberrypi\n",
            disable,
            &["127.0.1.1 jarvis".into()],
        );
        insta::assert_snapshot!(String::from_utf8(edited).unwrap(), @r"
        127.0.0.1 localhost
        #selfheal# 127.0.1.1 raspberrypi
        # BEGIN selfheal: lines up to END are managed, others are yours
        127.0.1.1 jarvis
        # END selfheal
        ");
    }

    proptest! {
        #[test]
        fn the_second_edit_changes_nothing_and_undo_goes_back(
            lines in proptest::collection::vec("(127\\.0\\.1\\.1 [a-z]{1,5}|[a-z# ]{0,8})", 0..8), block: bool,
        ) {
            let user: Vec<u8> = lines.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect();
            prop_assume!(undo(&user) == user);
            let block = if block { vec!["x".to_owned()] } else { Vec::new() };
            let once = edit(&user, disable, &block);
            prop_assert_eq!(&edit(&once, disable, &block), &once);
            prop_assert_eq!(undo(&once), user);
        }

        #[test]
        fn any_bytes_are_taken_without_a_panic(current: Vec<u8>) {
            let once = edit(&current, disable, &["x".into()]);
            prop_assert_eq!(edit(&once, disable, &["x".into()]), once);
        }
    }
}
