//! Tables of commas: a header that names a secret, and its column in the lines that follow.

use super::text::ident;
use std::ops::Range;

/// A header is no longer, and has no more cells.
const HEADER_BYTES_MAX: usize = 256;
const CELLS_MAX: usize = 32;
/// A name in a header is no longer.
const CELL_BYTES_MAX: usize = 32;
/// So many cells of a header are asked for what they name.
const ASKED_MAX: usize = 2;
/// What a cell must hold before it is asked.
const HINTS: [&[u8]; 4] = [b"pass", b"secret", b"token", b"key"];

/// A line of three names or more between commas, one of which names a secret: how many commas it has, and how many
/// stand before that cell.
pub(super) fn header(line: &[u8], names_secret: impl Fn(&[u8]) -> bool) -> Option<(u8, u8)> {
    let named = |byte: &u8| ident(*byte) || matches!(byte, b',' | b'"' | b' ' | b'\r');
    let short = line.len() <= HEADER_BYTES_MAX && line.first().is_some_and(|byte| ident(*byte) || *byte == b'"');
    if !short || !line.iter().all(named) {
        return None;
    }
    let cells = line.split(|byte| *byte == b',').count();
    if !(3..=CELLS_MAX).contains(&cells) || line.windows(2).any(|pair| pair == b", " || pair == b",,") {
        return None;
    }
    let parts = line.split(|byte| *byte == b',').enumerate();
    let hinted = parts.filter(|(_, part)| hints(part)).map(|(before, _)| (before, cell(line, before)));
    let (before, _) = hinted.take(ASKED_MAX).find(|(_, cell)| names_secret(&line[cell.clone()]))?;
    Some((cells as u8 - 1, before as u8))
}

fn hints(cell: &[u8]) -> bool {
    cell.len() <= CELL_BYTES_MAX && (0..cell.len()).any(|at| HINTS.iter().any(|hint| begins_with(&cell[at..], hint)))
}

fn begins_with(rest: &[u8], word: &[u8]) -> bool {
    rest.first().is_some_and(|byte| byte | 0x20 == word[0])
        && rest.get(..word.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(word))
}

/// The inside of the cell behind so many commas.
pub(super) fn cell(line: &[u8], before: usize) -> Range<usize> {
    let mut commas = memchr::memchr_iter(b',', line);
    let from = if before == 0 { 0 } else { commas.nth(before - 1).map_or(line.len(), |at| at + 1) };
    let to = commas.next().unwrap_or(line.len());
    let dress = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'"';
    let skip = line[from..to].iter().take_while(|byte| dress(byte)).count();
    let tail = line[from + skip..to].iter().rev().take_while(|byte| dress(byte)).count();
    from + skip..to - tail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_names_its_column_and_prose_is_none() {
        let named = |name: &[u8]| name == b"password";
        assert_eq!(header(b"user,password,role", named), Some((2, 1)));
        assert_eq!(header(b"\"user\",\"password\",\"role\"\r", named), Some((2, 1)));
        assert_eq!(header(b"the user, the password, the role", named), None);
        assert_eq!(header(b"password,role", named), None);
        assert_eq!(cell(b"a,\"b\",c", 1), 3..4);
    }
}
