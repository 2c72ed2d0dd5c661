//! Makes planted secrets: every family of `families.txt` in every carrier of `carriers.txt`.

/// A small generator of numbers: the corpus is the same every time.
pub struct Dice(pub u64);

impl Dice {
    /// Below `sides`.
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }

    fn word(&mut self, alphabet: &str, length: usize) -> String {
        (0..length).map(|_| alphabet.as_bytes()[self.roll(alphabet.len())] as char).collect()
    }
}

/// A secret in its surroundings.
pub struct Planted {
    pub family: &'static str,
    pub carrier: &'static str,
    pub secret: String,
    pub text: String,
}

struct Family {
    name: &'static str,
    names: Vec<&'static str>,
    shape: &'static str,
}

const LOWER: &str = "abcdefghijklmnopqrstuvwxyz";
const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const DIGITS: &str = "0123456789";

fn rows(text: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.splitn(3, " | ").map(|part| if part == "|" { "" } else { part }).collect())
}

fn families() -> Vec<Family> {
    let text = include_str!("families.txt").lines().filter(|line| !line.starts_with('#'));
    let family = |line: &'static str| {
        let (name, rest) = line.split_once(" |").unwrap();
        let (names, shape) = rest.split_once("| ").unwrap();
        let names = names.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        Family { name, names, shape }
    };
    text.map(family).collect()
}

/// Fills a shape in.
fn secret(shape: &str, dice: &mut Dice) -> String {
    let (mut out, mut rest) = (String::new(), shape);
    while let Some((before, after)) = rest.split_once('{') {
        let (code, after) = after.split_once('}').unwrap();
        out.push_str(before);
        out.push_str(&piece(&code[..1], code[1..].parse().unwrap(), dice));
        rest = after;
    }
    out + rest
}

fn piece(kind: &str, length: usize, dice: &mut Dice) -> String {
    let alnum = [UPPER, LOWER, DIGITS].concat();
    match kind {
        "a" => dice.word(LOWER, length),
        "X" => dice.word(UPPER, length),
        "A" => dice.word(&alnum, length),
        "C" => dice.word(&[UPPER, DIGITS].concat(), length),
        "h" => dice.word("0123456789abcdef", length),
        "H" => dice.word("0123456789ABCDEF", length),
        "n" => dice.word("123456789", length),
        "l" => dice.word(&[LOWER, DIGITS].concat(), length),
        "u" => dice.word(&[&alnum, "-_"].concat(), length - 1) + &dice.word(&alnum, 1),
        "b" => dice.word(&[&alnum, "+/"].concat(), length),
        // As people and their programs make them.
        _ => {
            let wild = [&alnum, "!*-._~%@^#+="].concat();
            dice.word(LOWER, 2) + &dice.word(DIGITS, 1) + &dice.word(&wild, length - 4) + &dice.word(&alnum, 1)
        }
    }
}

/// All of them, `rounds` secrets of each family, each name of a family in turn.
pub fn planted(rounds: usize, seed: u64) -> Vec<Planted> {
    let mut dice = Dice(seed);
    let carriers: Vec<_> = rows(include_str!("carriers.txt")).collect();
    let mut all = Vec::new();
    for family in families() {
        for round in 0..rounds.max(family.names.len()) {
            // What stands before the bar is no secret.
            let made = secret(family.shape, &mut dice);
            let made = made.replace('‹', "{").replace('›', "}");
            let whole = made.replace('¦', "");
            let secret = made.rsplit('¦').next().unwrap().trim_end_matches(['"', '}']).to_owned();
            let name = family.names.get(round % family.names.len().max(1)).copied();
            let wanted = if name.is_some() { "name" } else { "own" };
            let fits = |carrier: &str| {
                !whole.contains([' ', '$', '"']) || !matches!(carrier, "bearer" | "bearer json" | "userinfo")
            };
            for row in carriers.iter().filter(|row| row[0] == wanted && fits(row[1])) {
                let text = fill(&row[2].replace("\\|", "|"), name.unwrap_or_default(), &whole);
                all.push(Planted { family: family.name, carrier: row[1], secret: secret.clone(), text });
            }
        }
    }
    all
}

fn fill(template: &str, name: &str, secret: &str) -> String {
    let all = |escape: fn(u8) -> String| secret.bytes().map(escape).collect::<String>();
    let json = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let words = words(name);
    let camel: String =
        words.iter().enumerate().map(|(at, word)| if at == 0 { word.clone() } else { capital(word) }).collect();
    template
        .replace('⏎', "\n")
        .replace("{s}", secret)
        .replace("{s.json}", &json(secret))
        .replace("{s.json2}", &json(&json(secret)))
        .replace("{s.pct}", &all(|byte| format!("%{byte:02x}")))
        .replace("{s.pct2}", &all(|byte| format!("%25{byte:02X}")))
        .replace("{s.uri}", &all(component))
        .replace("{s.uni}", &all(|byte| format!("\\u{byte:04x}")))
        .replace("{s.html}", &secret.replace('&', "&amp;").replace('<', "&lt;"))
        .replace("{name}", name)
        .replace("{NAME}", &words.join("_").to_uppercase())
        .replace("{camel}", &camel)
        .replace("{kebab}", &words.join("-"))
}

fn component(byte: u8) -> String {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'!' | b'*' => (byte as char).to_string(),
        _ => format!("%{byte:02X}"),
    }
}

fn capital(word: &str) -> String {
    word[..1].to_uppercase() + &word[1..]
}

/// `dbPassword`, `DB_PASSWORD`, `db-password`: db, password.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = 'A';
    for letter in name.chars() {
        if !letter.is_alphanumeric() || (letter.is_uppercase() && before.is_lowercase()) {
            words.push(String::new());
        }
        if letter.is_alphanumeric() {
            words.last_mut().unwrap().extend(letter.to_lowercase());
        }
        before = letter;
    }
    words.retain(|word| !word.is_empty());
    words
}

/// True when eight bytes of the secret in a row stand in the text, as they are or behind escapes.
pub fn leaks(text: &str, secret: &str) -> bool {
    let mut clear = text.to_owned();
    for _ in 0..4 {
        if secret.as_bytes().windows(8).any(|window| contains(clear.as_bytes(), window)) {
            return true;
        }
        let next = undone(&clear);
        if next == clear {
            return false;
        }
        clear = next;
    }
    false
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(text, part).is_some()
}

/// One level of percent-encoding, `\u` and backslashes undone.
fn undone(text: &str) -> String {
    let (mut out, bytes, mut at) = (Vec::new(), text.as_bytes(), 0);
    let hex = |range: std::ops::Range<usize>| {
        bytes.get(range).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok())
    };
    while at < bytes.len() {
        let found = match bytes[at] {
            b'%' => hex(at + 1..at + 3).map(|byte| (byte, 3)),
            b'\\' if bytes[at + 1..].starts_with(b"u00") => hex(at + 4..at + 6).map(|byte| (byte, 6)),
            b'\\' if matches!(bytes.get(at + 1), Some(b'"' | b'\\' | b'/')) => Some((bytes[at + 1], 2)),
            _ => None,
        };
        let (byte, length) = found.unwrap_or((bytes[at], 1));
        out.push(byte);
        at += length;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Lines that hold no secret and look as if: ids, hashes, pictures, numbers, sentences about passwords.
pub fn clean(lines: usize, seed: u64) -> String {
    let mut dice = Dice(seed);
    let kinds: Vec<&str> = include_str!("clean.txt").lines().filter(|line| !line.starts_with('#')).collect();
    let filled =
        |dice: &mut Dice, at: usize| secret(kinds[at % kinds.len()], dice).replace('‹', "{").replace('›', "}") + "\n";
    (0..lines).map(|at| filled(&mut dice, at)).collect()
}
