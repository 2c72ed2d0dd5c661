//! Secrets that stand at a known place of a command, a call or an address, with no name before them.

use super::keys::Found;
use super::text::{Mix, Text, closing, find, find_word, quote, run, short_run, word_begins};
use std::ops::Range;

/// `-u user:password`, `--user user:password`.
pub(super) fn user_flag(text: &Text<'_>, end: usize) -> Option<Found> {
    let from = run(text, end, |byte| matches!(byte, b' ' | b'=' | b'\\') || quote(byte));
    let stop = run(text, from, |byte| !byte.is_ascii_whitespace() && !quote(byte) && byte != b'\\');
    if let Some(value) = split_pair(text, from, stop) {
        return Some(value.into());
    }
    // `-U user%password` is Samba's.
    let percent = || find(text, b'%', from, stop).filter(|at| good(&text[at + 1..stop], 6));
    let colon = find(text, b':', from, stop).or_else(percent)?;
    let secret = &text[colon + 1..stop];
    let enough = secret.len() >= 3 && !secret.iter().all(u8::is_ascii_digit) && !secret.starts_with(b"/");
    enough.then(|| (colon + 1..stop).into())
}

/// `user:'password'`, `"user":"password"`: the shell makes one word of them.
fn split_pair(text: &Text<'_>, from: usize, stop: usize) -> Option<Range<usize>> {
    let mark = *text.get(stop).filter(|byte| quote(**byte))?;
    let (at, mark) = match text.get(stop + 1..stop + 3) {
        Some([b':', next]) if quote(*next) => (stop + 3, *next),
        _ if stop > from && text[stop - 1] == b':' => (stop + 1, mark),
        _ => return None,
    };
    let close = closing(text, at, mark, 0)?;
    let value = &text[at..close];
    (good(value, 4) || value.len() >= 8 && !value.contains(&b'$') && !value.contains(&b' ')).then_some(at..close)
}

/// `mysql … -pSECRET`, `sshpass -p SECRET`: the word after a program's flag.
pub(super) fn command(text: &Text<'_>, start: usize, end: usize, flag: &str) -> Option<Found> {
    if !word_begins(text, start) && !text[start].is_ascii_lowercase() {
        return None;
    }
    let window = &text[end..text.len().min(end + COMMAND_BYTES_MAX)];
    text.spend(20 + window.len() / 8);
    // What ends in a blank may begin with it too.
    let from = memchr::memmem::find(&text[end.saturating_sub(1)..end + window.len()], flag.as_bytes())?;
    let mut from = end.saturating_sub(1) + from + flag.len();
    if flag.ends_with("user:") {
        from = short_run(text, from, 64, |byte| !byte.is_ascii_whitespace());
    }
    let from = short_run(text, from, 4, |byte| matches!(byte, b' ' | b'\\' | b'=') || quote(byte));
    word(text, from).filter(|value| good(&text[value.clone()], 4)).map(Found::from)
}

/// `cargo login SECRET`, `ConvertTo-SecureString -String "SECRET"`: the first of the next words that can be one.
pub(super) fn next(text: &Text<'_>, start: usize, end: usize) -> Option<Found> {
    let line_wide = !text[start].is_ascii_punctuation() && !text[start..end].contains(&b' ');
    if !line_wide && !text[start].is_ascii_punctuation() && !word_begins(text, start) {
        return None;
    }
    let mut from = end;
    for _ in 0..WORDS_MAX {
        from = short_run(text, from, 4, |byte| matches!(byte, b' ' | b'\\' | b'(' | b'=') || quote(byte));
        let value = word(text, from)?;
        if good(&text[value.clone()], 8) && text[value.start - 1] != b'=' {
            return Some(value.into());
        }
        from = value.end;
    }
    None
}

/// Words that are looked at after a command.
const WORDS_MAX: usize = 4;

/// A word of a command line.
fn word(text: &Text<'_>, from: usize) -> Option<Range<usize>> {
    let stop =
        short_run(text, from, COMMAND_BYTES_MAX, |byte| !byte.is_ascii_whitespace() && !quote(byte) && byte != b'\\');
    (stop > from).then_some(from..stop)
}

/// Letters and digits, and no flag, path or port.
fn good(value: &[u8], least: usize) -> bool {
    let mix = Mix::of(value);
    value.len() >= least && mix.digits > 0 && mix.lower + mix.upper > 0 && !value[0].is_ascii_punctuation()
}

/// `NetworkCredential("user", "password")`: the last argument in quotes, of two or more.
pub(super) fn arguments(text: &Text<'_>, end: usize) -> Option<Found> {
    let (mut at, mut last, mut count) = (end, None, 0);
    while count < ARGUMENTS_MAX {
        let mark = short_run(text, at, 16, |byte| matches!(byte, b' ' | b'\\' | b',' | b'@' | b'b'));
        let Some(quote) = text.get(mark).filter(|byte| quote(**byte)) else { break };
        let slashes = text[at..mark].iter().rev().take_while(|byte| **byte == b'\\').count();
        let close = closing(text, mark + 1, *quote, slashes)?;
        last = Some(mark + 1..close);
        count += 1;
        at = close + slashes + 1;
    }
    let value = last.filter(|_| count > 1)?;
    text.spend(16 + value.len().min(64));
    let mix = Mix::of(&text[value.clone()]);
    let enough = value.len() >= 4 && mix.digits + mix.symbols + mix.inner_upper > 0 && value.len() < 256;
    (enough && !text[value.clone()].contains(&b' ')).then(|| value.into())
}

/// A server, a user, a password and a few more.
const ARGUMENTS_MAX: usize = 5;

/// `user:password@tcp(host)/database`, whose `@` stands at `at`.
pub(super) fn dsn(text: &Text<'_>, at: usize) -> Option<Found> {
    let floor = at.saturating_sub(COMMAND_BYTES_MAX);
    let ends = |byte: &u8| byte.is_ascii_whitespace() || quote(*byte) || *byte == b'/';
    let begin = text[floor..at].iter().rposition(ends).map_or(floor, |last| floor + last + 1);
    text.spend(at - begin);
    let colon = memchr::memchr(b':', &text[begin..at])? + begin;
    (at - colon > 3).then(|| (colon + 1..at).into())
}

/// A line of a password file: host, port, database, user, password.
pub(super) fn pgpass(text: &Text<'_>, start: usize, end: usize) -> Option<Found> {
    let field = |from| {
        let to = short_run(text, from, 64, |byte| byte.is_ascii_graphic() && byte != b':' && !quote(byte));
        (to > from && text.get(to) == Some(&b':')).then_some(to + 1)
    };
    let host = start.checked_sub(1).is_some_and(|last| text[last].is_ascii_graphic() && text[last] != b'/');
    let from = field(field(end)?)?;
    let value = word(text, from)?;
    (host && value.len() >= 4).then(|| value.into())
}

/// `user/password@host` after `sqlplus` or in an address of Oracle's thin driver.
pub(super) fn slash(text: &Text<'_>, start: usize, end: usize) -> Option<Found> {
    let value = word(text, end).filter(|_| word_begins(text, start))?;
    let inside = &text[value.clone()];
    let slash = memchr::memchr(b'/', inside)?;
    let at = memchr::memchr(b'@', inside).filter(|at| *at > slash + 3)?;
    Some((value.start + slash + 1..value.start + at).into())
}

/// `echo user:password | chpasswd`, `echo password | sudo -S …`: the last word before the pipe.
pub(super) fn piped(text: &Text<'_>, start: usize, end: usize) -> Option<Found> {
    let floor = start.saturating_sub(COMMAND_BYTES_MAX);
    let before = &text[floor..start];
    text.spend(before.len() / 4);
    let (words, _) = before.split_at(memchr::memrchr(b'|', before).filter(|bar| before.len() - bar < 16)?);
    let words = words.trim_ascii_end();
    let undressed = words.iter().rposition(|byte| !quote(*byte) && *byte != b'\\').map_or(0, |last| last + 1);
    let begin = words[..undressed].iter().rposition(|byte| byte.is_ascii_whitespace() || quote(*byte))? + 1;
    let command =
        words[..begin].strip_suffix(b"'").or_else(|| words[..begin].strip_suffix(b"\"")).unwrap_or(&words[..begin]);
    let command = command.strip_suffix(b"\\").unwrap_or(command).trim_ascii_end();
    if ![&b"echo"[..], b"printf", b"-n", b"-e"].iter().any(|word| command.ends_with(word)) {
        return None;
    }
    let word = &words[begin..undressed];
    let skip = if text[end - 1] == b'd' { memchr::memchr(b':', word)? + 1 } else { 0 };
    let secret = &word[skip..];
    let enough = secret.len() >= 4 && !matches!(secret[0], b'$' | b'%' | b'<' | b'{') && text[end - 1] != b's';
    enough.then(|| (floor + begin + skip..floor + undressed).into())
}

/// `AUTH password`, `AUTH user password`, `IDENTIFY password` as a server's monitor or a client's trace shows them.
pub(super) fn protocol(text: &Text<'_>, start: usize, end: usize) -> Option<Found> {
    if !text[start..end - 1].iter().all(u8::is_ascii_uppercase) || !word_begins(text, start) {
        return None;
    }
    let mut value = word(text, end)?;
    for _ in 0..2 {
        match word(text, value.end + 1).filter(|_| text.get(value.end) == Some(&b' ')) {
            Some(next) => value = next,
            None => break,
        }
    }
    let last = text.get(value.end).is_none_or(|byte| *byte != b' ');
    let mix = Mix::of(&text[value.clone()]);
    let kinds = usize::from(mix.lower > 0) + usize::from(mix.upper > 0) + usize::from(mix.symbols > 0);
    let odd = mix.digits > 0 && kinds > 1 || mix.digits > 1 && value.len() >= 16;
    let plain = !matches!(text[value.start], b'/' | b'$' | b'<' | b'{' | b'[') && !text[value.clone()].contains(&b'=');
    (last && value.len() >= 8 && odd && plain).then(|| value.into())
}

/// `curl -b name=value`
pub(super) fn cookie_flag(text: &Text<'_>, start: usize, end: usize) -> Option<Found> {
    let floor = start.saturating_sub(COMMAND_BYTES_MAX);
    text.spend(start - floor);
    memchr::memmem::rfind(&text[floor..start], b"curl")?;
    let mark = short_run(text, end, 8, |byte| byte == b'\\');
    let value = match text.get(mark).filter(|byte| quote(**byte)) {
        Some(quote) => mark + 1..closing(text, mark + 1, *quote, mark - end)?,
        None => word(text, end)?,
    };
    let equals = find(text, b'=', value.start, value.end)?;
    (value.end - equals > 4 && text[equals + 1] != b'$').then(|| (equals + 1..value.end).into())
}

/// `WIFI:T:WPA;S:net;P:password;;`
pub(super) fn wifi(text: &Text<'_>, end: usize) -> Option<Found> {
    let near = text.len().min(end + COMMAND_BYTES_MAX);
    let from = find_word(text, b"P:", end, near).filter(|at| matches!(text[at - 1], b';' | b':'))? + 2;
    let to = find(text, b';', from, near)?;
    (to - from >= 4).then(|| (from..to).into())
}

/// How far after a program its flag is looked for.
const COMMAND_BYTES_MAX: usize = 128;
