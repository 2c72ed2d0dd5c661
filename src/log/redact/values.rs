//! Is it a secret, or does it only stand where one would?

use super::text::{Mix, Text, alnum};
use std::ops::Range;

/// How much a name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strength {
    /// `password`, `secret`, `api_key`: what follows is secret.
    Strong,
    /// `token`: also a word of language models and parsers.
    Token,
    /// `pass`, `auth`: also other things.
    Weak,
    /// `…_key`, `credentials`: only what can be nothing else.
    Generic,
}

/// How name and value stand together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Context {
    /// `name=value`
    Tight,
    /// `name: value`, `name = value`
    Loose,
    /// `name: value` at the beginning of a line.
    Line,
    /// The name has quotes.
    Quoted,
    /// `--name value`
    Flag,
    /// `"name", "value"`; `name "value"`.
    List,
    /// `name = call("value")`
    Call,
    /// `name: DB_PASSWORD, value: …`
    Entry,
    /// `the password is …`
    Sentence,
    /// `the password of bob is …`: words stand between.
    Told,
    /// The part of a form.
    Part,
}

/// True when `value` is a secret. `alone`: nothing follows it on its line that makes it the beginning of a sentence.
pub(super) fn secret(value: &[u8], context: Context, strength: Strength, alone: bool) -> bool {
    let least = match (strength, context) {
        (_, Context::Part) => 1,
        (Strength::Strong, _) => 4,
        (Strength::Token, _) => 8,
        (Strength::Generic, _) => 16,
        (Strength::Weak, _) => 4,
    };
    if value.len() < least || placeholder(value) {
        return false;
    }
    let value = judged(value);
    let mix = Mix::of(value);
    let odd = mix.random() || mix.digits + mix.symbols > 0;
    let long = value.len() >= 8;
    match (context, strength) {
        (_, Strength::Generic) => generic(value, mix),
        (Context::Part, _) => true,
        (Context::Sentence, _) => {
            strength == Strength::Strong && long && mix.random() && !code(value, mix) && !source(value, mix)
        }
        (Context::Told, _) => long && mix.random() && !told_id(value, mix) && !code(value, mix) && !source(value, mix),
        (Context::Entry, _) => !code(value, mix) && !prose(value),
        (Context::Quoted, Strength::Strong) => !prose(value) && !path(value, mix) && !echo(value, mix),
        (Context::Quoted, Strength::Token) => long && (mix.random() || value.len() >= 20) && !prose(value),
        (Context::Quoted, Strength::Weak) => value.len() >= 4 && odd && !prose(value),
        (Context::Call, _) => long && mix.random() && mix.lower + mix.upper > 1 && !spaced(value),
        (Context::List, Strength::Strong) => value.len() >= 6 && odd && !spaced(value) && !code(value, mix),
        (Context::List, _) => long && mix.random() && !spaced(value) && !code(value, mix),
        (Context::Tight, Strength::Strong) => !code(value, mix),
        (Context::Tight | Context::Flag | Context::Loose | Context::Line, Strength::Token) => {
            long && (mix.random() || value.len() >= 20 || mix.digits >= 8)
                && !code(value, mix)
                && (matches!(context, Context::Tight | Context::Flag) || !source(value, mix))
        }
        (Context::Tight | Context::Flag, Strength::Weak) => value.len() >= 4 && odd && !code(value, mix),
        (Context::Flag, Strength::Strong) => !code(value, mix) && !value.starts_with(b"-"),
        (Context::Loose | Context::Line, Strength::Strong) => {
            !code(value, mix)
                && !source(value, mix)
                && (loose(mix, value) || (alone && value.len() >= 6 && context == Context::Line))
        }
        (Context::Loose | Context::Line, Strength::Weak) => {
            long && mix.random() && !code(value, mix) && !source(value, mix)
        }
    }
}

/// [`secret`], charged to the text that the value stands in.
pub(super) fn weighed(text: &Text<'_>, value: Range<usize>, context: Context, strength: Strength, alone: bool) -> bool {
    text.spend(VALUE_COST + 2 * value.len().min(JUDGED_BYTES_MAX));
    secret(&text[value], context, strength, alone)
}

/// What it costs to judge a value, beside its bytes.
pub(super) const VALUE_COST: usize = 28;

/// An id, a hash, an address or a version: what a sentence may well tell.
fn told_id(value: &[u8], mix: Mix) -> bool {
    let hexadecimal = value.iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b'-');
    let unit = mix.upper == 0 && value[0].is_ascii_digit();
    hexadecimal
        || unit
        || value.contains(&b'/')
        || value.contains(&b':')
        || value.contains(&b'@') && value.contains(&b'.')
}

/// 32 hexadecimal digits or more, perhaps in groups.
pub(super) fn long_id(value: &[u8]) -> bool {
    let hexadecimal = value.iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b'-');
    hexadecimal && value.len() >= 32 && Mix::of(value).digits > 2
}

/// So much of a value shows what it is.
pub(super) const JUDGED_BYTES_MAX: usize = 160;

fn judged(value: &[u8]) -> &[u8] {
    &value[..value.len().min(JUDGED_BYTES_MAX)]
}

/// True for a piece of a program where a header's value is expected.
pub(super) fn looks_code(value: &[u8]) -> bool {
    let value = judged(value);
    let mix = Mix::of(value);
    code(value, mix) || source(value, mix)
}

/// What stands after `name: ` or `name = ` in a program: a type, a call, a constant, a number.
fn source(value: &[u8], mix: Mix) -> bool {
    let name = value.iter().take_while(|byte| alnum(**byte) || matches!(byte, b'_' | b'.' | b':')).count();
    let pointer = matches!(value[0], b'*' | b'&' | b'(' | b'[')
        || (value[0] == b'_' && (mix.digits == 0 || value.starts_with(b"__")))
        || memchr::memchr_iter(b':', value).any(|at| value.get(at + 1) == Some(&b':'));
    let call = name > 0
        && name < 64
        && !value[0].is_ascii_digit()
        && (matches!(value.get(name), Some(b'(' | b'[' | b'<')) || value[name..].starts_with(b"!("));
    let constant = mix.lower == 0 && mix.digits <= 3 && value.contains(&b'_') && name == value.len();
    let number = mix.lower + mix.upper + mix.symbols == 0 && (mix.digits < 6 || value.contains(&b'.'));
    let kind = matches!(value, [b'u' | b'i' | b'f', b'1'..=b'9', b'0'..=b'9', ..]) && value.len() <= 4;
    pointer || call || constant || number || kind
}

/// A long random word of the letters that keys have.
fn generic(value: &[u8], mix: Mix) -> bool {
    let random = mix.random() && (mix.digits > 1 || mix.inner_upper > 3);
    // `self.lib.NAME`, `libc.KEY_2`.
    let first = value.iter().position(|byte| *byte == b'.').unwrap_or(0);
    let member = first > 0
        && value[..first].iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'_');
    random
        && !member
        && !source(value, mix)
        && value.iter().take(256).all(|byte| of_keys(*byte))
        && !path(value, mix)
        && !code(value, mix)
}

/// What keys are made of.
pub(super) fn of_keys(byte: u8) -> bool {
    alnum(byte) || matches!(byte, b'_' | b'-' | b'+' | b'/' | b'=' | b'.' | b'~' | b'%')
}

/// Four words or more, small letters alone, and no sentence.
pub(super) fn passphrase(value: &[u8]) -> bool {
    let small = |word: &[u8]| word.len() >= 3 && word.iter().all(u8::is_ascii_lowercase);
    let mut words = value.split(|byte| *byte == b' ');
    value.len() < 128 && words.clone().count() >= 4 && words.all(small) && !prose(value)
}

/// A word after `name: ` that is more than a word.
fn loose(mix: Mix, value: &[u8]) -> bool {
    mix.digits > 0 || mix.symbols > 0 || (mix.inner_upper > 0 && mix.lower > 0 && value.len() >= 16)
}

/// What stands in a document, a template or a log in a secret's place.
fn placeholder(value: &[u8]) -> bool {
    let first = value[0];
    let template = match first {
        b'[' => value.len() == 1 || value[1..].starts_with(b"REDACTED"),
        b'*' => value.starts_with(b"***"),
        b'<' => true,
        b'%' => value.starts_with(b"%s"),
        b'$' => {
            matches!(value.get(1), Some(b'{' | b'(')) || value[1..].iter().all(|byte| alnum(*byte) || *byte == b'_')
        }
        b'{' if value.starts_with(b"{{") => value.iter().all(|byte| of_templates(*byte)),
        b'{' => {
            let name = value[1..].iter().take_while(|byte| alnum(**byte) || matches!(byte, b'_' | b'.')).count();
            matches!(value.get(name + 1), None | Some(b'{' | b'}' | b'!' | b':'))
        }
        _ => false,
    };
    let filler = value.iter().all(|byte| *byte == first || matches!(byte, b'-' | b'.' | b' '));
    let yours = value.len() > 5 && value[..4].eq_ignore_ascii_case(b"your") && !alnum(value[4]);
    template || yours || (filler && (value.len() > 2 || !alnum(first))) || empty_word(value)
}

/// What `{{ .Values.password | quote }}` is made of.
fn of_templates(byte: u8) -> bool {
    alnum(byte) || matches!(byte, b'{' | b'}' | b'_' | b'.' | b' ' | b'|' | b'$' | b'-' | b'"' | b'\'' | b',' | b':')
}

/// A word that says there is none, or of what kind it is, or that goes on as a sentence.
fn empty_word(value: &[u8]) -> bool {
    let mut lower = [0u8; WORD_BYTES_MAX];
    let tail = value.iter().rev().take_while(|byte| matches!(byte, b'.' | b'!' | b'?' | b',' | b';' | b':' | b')'));
    let length = value.len() - tail.count();
    if length == 0 || length > WORD_BYTES_MAX {
        return length == 0;
    }
    let lower = &mut lower[..length];
    lower.copy_from_slice(&value[..length]);
    lower.make_ascii_lowercase();
    #[rustfmt::skip]
    let word = matches!(
        &*lower,
        b"null" | b"none" | b"nil" | b"true" | b"false" | b"undefined" | b"nan" | b"empty" | b"unset" | b"redacted"
        | b"hidden" | b"masked" | b"omitted" | b"required" | b"optional" | b"missing" | b"invalid" | b"incorrect"
        | b"wrong" | b"expired" | b"revoked" | b"unknown" | b"yes" | b"no" | b"ok" | b"failed" | b"rejected"
        | b"accepted" | b"denied" | b"string" | b"str" | b"&str" | b"bytes" | b"bool" | b"boolean" | b"int"
        | b"integer" | b"number" | b"any" | b"object" | b"char" | b"text" | b"varchar" | b"password" | b"passwords"
        | b"passwd" | b"passphrase" | b"secret" | b"secrets" | b"token" | b"tokens" | b"bearer" | b"basic"
        | b"digest" | b"key" | b"value" | b"the" | b"a" | b"an" | b"is" | b"was" | b"must" | b"should" | b"please"
        | b"your" | b"my" | b"not" | b"self" | b"this" | b"new" | b"default" | b"function" | b"async" | b"await"
        | b"return" | b"input" | b"prompt" | b"config" | b"env" | b"file" | b"include" | b"same-origin"
        | b"disabled" | b"enabled" | b"(" | b"amd64" | b"arm64" | b"i386" | b"armhf" | b"x86_64" | b"option" | b"options"
        | b"flag" | b"flags" | b"argument" | b"parameter" | b"or" | b"and" | b"if" | b"to" | b"anything" | b"continue"
    );
    word
}

/// The longest word that [`empty_word`] knows.
const WORD_BYTES_MAX: usize = 12;

fn spaced(value: &[u8]) -> bool {
    value.contains(&b' ')
}

/// What it costs to ask a byte of several words whether they are a sentence.
pub(super) const PROSE_COST: usize = 3;

/// A sentence: several words, among them some that passphrases do not have, or a sentence's end.
pub(super) fn prose(value: &[u8]) -> bool {
    let spaces = value.iter().take(256).filter(|byte| **byte == b' ').count();
    if spaces < 1 {
        return false;
    }
    let ends = spaces > 1 && matches!(value.last(), Some(b'.' | b'!' | b'?' | b':'));
    let words = value[..value.len().min(256)].split(|byte| !alnum(*byte));
    ends || words.into_iter().any(sentence)
}

/// A word that passphrases do not have.
fn sentence(word: &[u8]) -> bool {
    let mut lower = [0u8; 10];
    let Some(lower) = lower.get_mut(..word.len()).filter(|_| word.len() > 1) else { return false };
    lower.iter_mut().zip(word).for_each(|(lower, byte)| *lower = byte.to_ascii_lowercase());
    #[rustfmt::skip]
    let known = matches!(
        &*lower,
        b"must" | b"required" | b"incorrect" | b"invalid" | b"is" | b"are" | b"was" | b"should" | b"please" | b"your"
        | b"the" | b"cannot" | b"not" | b"field" | b"wrong" | b"missing" | b"expired" | b"at" | b"least" | b"may"
        | b"be" | b"for" | b"to" | b"of" | b"and" | b"or" | b"has" | b"have" | b"been" | b"characters" | b"with"
        | b"this" | b"that" | b"in" | b"on" | b"enter" | b"does" | b"too" | b"only"
    );
    known
}

/// A piece of a program: a call, an index, a path of names, a constant that is itself named for what it holds.
fn code(value: &[u8], mix: Mix) -> bool {
    if path(value, mix) {
        return true;
    }
    let name = value
        .iter()
        .take_while(|byte| alnum(**byte) || matches!(byte, b'_' | b'.' | b':' | b'$' | b'&' | b'*' | b'-' | b'>'))
        .count();
    let (head, rest) = value.split_at(name);
    let head: &[u8] = match head.iter().position(|byte| !matches!(byte, b'&' | b'*' | b'$')) {
        Some(at) => &head[at..],
        None => return false,
    };
    let names = head.split(|byte| !alnum(*byte) && *byte != b'_').filter(|part| !part.is_empty()).all(is_name);
    if names && matches!(rest.first(), Some(b'(' | b'[' | b'{')) {
        return true;
    }
    if !rest.is_empty() && !rest.iter().all(|byte| matches!(byte, b')' | b';' | b',' | b'}' | b'?' | b'!' | b':')) {
        return false;
    }
    echo(head, mix)
        || (names
            && mix.digits == 0
            && head.contains(&b'.')
            && head.iter().any(u8::is_ascii_lowercase)
            && head.len() < 64)
}

/// A name that says what it holds, in place of what it holds.
fn echo(head: &[u8], mix: Mix) -> bool {
    let last = head.rsplit(|byte| matches!(byte, b'.' | b':' | b'/')).next().unwrap_or(head);
    let last = &last[..last.iter().rposition(|byte| !byte.is_ascii_digit()).map_or(0, |at| at + 1)];
    let mix = if last.len() < head.len() && mix.digits <= 2 { Mix::of(last) } else { mix };
    let ends = |word: &&[u8]| last.len() >= word.len() && last[last.len() - word.len()..].eq_ignore_ascii_case(word);
    let chosen = || CHOSEN.iter().any(|word| last.eq_ignore_ascii_case(word));
    mix.digits == 0 && mix.symbols == 0 && ECHOES.iter().any(ends) && !chosen()
}

/// `/etc/ssl/private/key.pem`
fn path(value: &[u8], mix: Mix) -> bool {
    let rooted = [&b"/"[..], b"./", b"../", b"~/"].iter().any(|root| value.starts_with(root));
    rooted && mix.digits == 0 && mix.inner_upper == 0 && !value.iter().any(|byte| matches!(byte, b'+' | b'=' | b'!'))
}

/// Passwords that people choose, though they end like a name.
const CHOSEN: &[&[u8]] = &[
    b"mypassword",
    b"testpassword",
    b"thisismypassword",
    b"plaintextpassword",
    b"randompassword",
    b"superpassword",
    b"securepassword",
    b"strongpassword",
];

/// Names of variables that hold what their name says.
const ECHOES: &[&[u8]] = &[
    b"password",
    b"passwd",
    b"pwd",
    b"secret",
    b"token",
    b"_key",
    b"apikey",
    b"passphrase",
    b"_pass",
    b"value",
    b"cookie",
    b"privatekey",
    b"privatekey",
];

/// A name as people give them: letters, a few digits at the end.
fn is_name(part: &[u8]) -> bool {
    let letters = part.iter().take_while(|byte| byte.is_ascii_alphabetic() || **byte == b'_').count();
    letters > 0 && part.len() - letters <= 3 && part[letters..].iter().all(u8::is_ascii_digit)
}

/// `PWD=/home/x` is a directory.
pub(super) fn path_of_pwd(name: &[u8], value: &[u8]) -> bool {
    name.len() >= 3
        && name[name.len() - 3..].eq_ignore_ascii_case(b"pwd")
        && matches!(value.first(), Some(b'/' | b'~' | b'.'))
}
