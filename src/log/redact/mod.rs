//! The redactor: a line in, the same line without its secrets out.
//!
//! ```text
//! line ── one scan for ~170 literals (aho-corasick) ── nothing? the line as it is
//!             └─ each hit: its family looks around it ── ranges ─┐
//! line with %41, \u0041, &quot; ── its shadow, decoded ── same ──┴─ merged, each becomes [REDACTED]
//! ```
//!
//! Families: [`tokens`] (prefixes of [`makers`]; of others [`unlisted`] knows the look), [`keys`] (one of [`names`] and its value; [`values`] says whether it is one),
//! [`schemes`] (Bearer, Basic, headers, URLs), [`pem`]. Everything is linear in the line, and nothing is remembered
//! but a [`Trail`] of a few numbers: a key's lines, a form's part, a block of YAML.
//! Deliberately absent: entropy guesses without a name or a prefix; they take hashes, ids and pictures for secrets.

mod automaton;
mod commands;
mod csv;
mod decode;
mod dress;
mod keys;
mod leads;
mod literals;
mod makers;
mod names;
mod pem;
mod schemes;
mod text;
mod tokens;
mod trail;
mod unlisted;
mod values;
mod wary;

pub use trail::{Trail, filter};

use automaton::{Automaton, State};
use decode::{First, Shadow};
use keys::Found;
use literals::Family;
use memchr::memmem::Finder;
use regex::bytes::Regex;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use text::Text;

/// What stands in a secret's place.
pub const MARK: &[u8] = b"[REDACTED]";

/// Every literal that makes the redactor look closer, for those who try to wear it out.
pub fn literals() -> Vec<String> {
    literals::all().0
}

/// Compiled patterns; made once a process.
pub struct Redactor {
    literals: Automaton,
    families: Vec<Family>,
    /// Announces the private half of a key in PuTTY's format, whose lines follow.
    private_lines: Finder<'static>,
    extra: Vec<Regex>,
}

/// The redactor with these patterns of the operator's, compiled once: a forked process inherits its master's.
///
/// # Errors
/// As [`Redactor::new`].
pub fn shared(extra: &[String]) -> Result<&'static Redactor, String> {
    static SHARED: Mutex<Option<(Vec<String>, &'static Redactor)>> = Mutex::new(None);
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    match &*shared {
        Some((patterns, redactor)) if patterns == extra => Ok(redactor),
        _ => {
            // Once a process, and once more for a reload that changes the patterns.
            let redactor: &'static Redactor = Box::leak(Box::new(Redactor::new(extra)?));
            *shared = Some((extra.to_vec(), redactor));
            Ok(redactor)
        }
    }
}

/// What a look at one text found.
#[derive(Default)]
struct Finds {
    ranges: Vec<Found>,
    /// What a wary look covers, in order: begins and ends.
    stretches: Vec<(u32, u32)>,
    /// A private key begins and does not end.
    key_open: bool,
    /// What the looks were charged, in nanoseconds.
    spent: usize,
}

impl Redactor {
    /// Compiles the built-in patterns and the operator's own.
    ///
    /// # Errors
    /// A sentence that names the pattern that does not compile, or that would match everything.
    pub fn new(extra: &[String]) -> Result<Redactor, String> {
        let (names, families) = literals::all();
        let literals = Automaton::of(&names).map_err(|error| format!("redaction: {error}"))?;
        let extra = extra.iter().map(|pattern| compile(pattern)).collect::<Result<_, String>>()?;
        Ok(Redactor { literals, families, private_lines: Finder::new(b"Private-Lines:"), extra })
    }

    /// A line without its secrets; borrowed when it has none.
    pub fn line<'a>(&self, line: &'a [u8]) -> Cow<'a, [u8]> {
        self.line_after(line, &mut Trail::default())
    }

    /// The next line of a text, whose lines before left `trail`.
    pub fn line_after<'a>(&self, line: &'a [u8], trail: &mut Trail) -> Cow<'a, [u8]> {
        let mut finds = self.find(line, trail.price());
        trail.follow(self, line, &mut finds);
        if finds.ranges.is_empty() && finds.stretches.is_empty() {
            return Cow::Borrowed(line);
        }
        Cow::Owned(cut_out(line, finds))
    }

    /// What the closer looks at `line` are charged, in nanoseconds: for those who compare it with what they take.
    pub fn charge(&self, line: &[u8]) -> usize {
        self.find(line, 0).spent
    }

    /// True without patterns of the operator's, which could look at anything.
    pub fn is_plain(&self) -> bool {
        self.extra.is_empty()
    }

    /// True for a line that stays as it is and leaves nothing open for the next one.
    pub fn leaves(&self, line: &[u8]) -> bool {
        let mut trail = Trail::default();
        matches!(self.line_after(line, &mut trail), Cow::Borrowed(_)) && trail.is_closed()
    }

    /// Looks at the line and at its shadow, when so much was spent before: what was spent, or from where on it was worth no
    /// more.
    fn looks(&self, line: &[u8], spent: usize, finds: &mut Finds) -> Result<usize, usize> {
        let worth = SPENT_MIN + line.len() * SPENT_EIGHT_BYTES / 8;
        match self.scan(line, spent, worth, finds) {
            Ok(spent) => self.shadow(line, spent, finds),
            Err(at) => Err(if decode::is_plain(&line[..at]) { at } else { 0 }),
        }
    }

    fn find(&self, line: &[u8], spent: usize) -> Finds {
        let mut finds = Finds::default();
        let spent = self.looks(line, spent, &mut finds);
        if let Err(at) = spent {
            wary::rest(line, at, &mut finds);
            finds.spent += (line.len() - at.min(line.len())) * wary::EIGHT_BYTES_COST / 8;
        }
        for pattern in &self.extra {
            let matches = pattern.find_iter(line).filter(|found| !found.is_empty());
            finds.ranges.extend(matches.map(|found| Found::from(found.range())));
        }
        finds
    }

    /// Looks at the line with its escapes undone, and leads what it finds back to the line.
    fn shadow(&self, line: &[u8], spent: usize, finds: &mut Finds) -> Result<usize, usize> {
        if decode::is_plain(line) {
            return Ok(spent);
        }
        let spent = spent + decode::plain_cost(line);
        let worth = SPENT_MIN + line.len() * BOTH_EIGHT_BYTES / 8;
        // Who gives up looks at the line in another way, and that has its price.
        let looked = worth.saturating_sub(line.len() * wary::EIGHT_BYTES_COST / 8);
        let first = First::of(line, looked.saturating_sub(spent));
        let spent = spent + first.cost;
        finds.spent = spent;
        let Some(lead) = first.lead() else { return if spent > looked { Err(0) } else { Ok(spent) } };
        let Some(shadow) = Shadow::of(line, &first, worth.saturating_sub(spent)) else {
            finds.spent = worth;
            return Err(lead);
        };
        let spent = spent + shadow.whole_cost();
        let mut found = Finds::default();
        let end = self.scan(&shadow.text, spent, worth, &mut found);
        finds.key_open |= found.key_open;
        finds.spent = found.spent;
        finds.ranges.extend(found.ranges.into_iter().map(|Found { range, .. }| {
            Found::from(shadow.original(range.start)..decode::tail(line, shadow.original(range.end)))
        }));
        end.map_err(|at| shadow.original(at))
    }

    /// One scan. Returns what was spent; or where it stopped, because looking closer cost more than `worth`.
    fn scan(&self, text: &[u8], spent: usize, worth: usize, finds: &mut Finds) -> Result<usize, usize> {
        let text = Text::new(text, spent);
        let mut memo = tokens::Memo::default();
        let (mut state, mut covered) = (self.literals.start(), 0..0);
        let dot = self.literals.after(b'.');
        for (block, begin) in text.chunks(BLOCK_BYTES).zip((0..).step_by(BLOCK_BYTES)) {
            let mut deep = 0;
            for (at, byte) in (begin..).zip(block) {
                state = self.literals.next(state, *byte);
                deep += usize::from(self.literals.is_deep(state));
                if self.literals.is_match(state) {
                    if state == dot && !tokens::may_be_dotted(&text, at) {
                        deep += DOT_COST / DEEP_COST;
                        continue;
                    }
                    self.hits(&text, state, at + 1, &mut memo, &mut covered, finds);
                    if text.spent() > worth {
                        finds.spent = text.spent();
                        return Err(if covered.contains(&at) { covered.end } else { at });
                    }
                }
            }
            text.spend(deep * DEEP_COST);
            if text.spent() > worth {
                finds.spent = text.spent();
                let at = begin + block.len();
                return Err(if covered.contains(&at) { covered.end } else { at });
            }
        }
        let unlisted = unlisted::tokens(&text, worth, |range| finds.ranges.push(Found::from(range)));
        finds.spent = text.spent();
        unlisted.map(|()| text.spent())
    }

    /// Every literal that ends at `end`. Out of line: the loop above keeps its registers.
    #[inline(never)]
    fn hits(
        &self,
        text: &Text<'_>,
        state: State,
        end: usize,
        memo: &mut tokens::Memo,
        covered: &mut Range<usize>,
        finds: &mut Finds,
    ) {
        for hit in self.literals.hits(state) {
            let start = end - usize::from(hit.length);
            let family = &self.families[usize::from(hit.literal)];
            text.spend(family.cost());
            // What stands between a name and a value further on is not covered by it.
            if covered.contains(&start) && (finds.key_open || !matches!(family, Family::PrivateKey)) {
                continue;
            }
            if let Some(found) = family.look(text, start, end, memo, finds) {
                text.spend(FOUND_COST);
                *covered = found.range.clone();
                finds.ranges.push(found);
            }
        }
    }
}

/// A text is walked so far, and then it is asked whether that was too dear.
const BLOCK_BYTES: usize = 64;
/// What a byte costs deep inside of literals, more than another.
const DEEP_COST: usize = 2;
/// What a point costs.
const DOT_COST: usize = 4;

/// What may be spent on looking closer, in nanoseconds: so much for a line, so much for eight of its bytes. A line of
/// this program or of a server needs a tenth of it; whoever writes lines that need more gets them back with more missing.
const SPENT_MIN: usize = 1200;
const SPENT_EIGHT_BYTES: usize = 6;
/// The same for a line with escapes: for undoing them, scanning the line again without them, and looking closer in both.
const BOTH_EIGHT_BYTES: usize = 15;
/// What a find costs.
const FOUND_COST: usize = 40;

fn compile(pattern: &str) -> Result<Regex, String> {
    let regex = regex::bytes::RegexBuilder::new(pattern).size_limit(1 << 20).build();
    let regex = regex.map_err(|error| format!("redaction pattern {pattern:?}: {error}"))?;
    if regex.is_match(b"") {
        return Err(format!("redaction pattern {pattern:?} matches the empty text: it would match everywhere"));
    }
    Ok(regex)
}

fn cut_out(line: &[u8], mut finds: Finds) -> Vec<u8> {
    finds.ranges.sort_by_key(Found::place);
    let mut stretches = finds.stretches.iter().map(|(from, to)| Found::from(*from as usize..*to as usize)).peekable();
    let mut out = Vec::with_capacity(line.len() + 2 * MARK.len());
    let mut at = 0;
    for found in finds.ranges {
        while let Some(stretch) = stretches.next_if(|stretch| stretch.place() < found.place()) {
            at = mark(line, at, stretch, &mut out);
        }
        at = mark(line, at, found, &mut out);
    }
    at = stretches.fold(at, |at, stretch| mark(line, at, stretch, &mut out));
    out.extend_from_slice(&line[at..]);
    out
}

/// Takes over what stands before a find, and puts the mark in its place. What is done is done up to where it returns.
#[inline]
fn mark(line: &[u8], at: usize, Found { range, wrap }: Found, out: &mut Vec<u8>) -> usize {
    if range.start < at {
        // Inside or overlapping what is cut out already.
        return at.max(range.end);
    }
    out.extend_from_slice(&line[at..range.start]);
    let quote = |out: &mut Vec<u8>| {
        if let Some((quote, slashes)) = wrap {
            out.resize(out.len() + slashes, b'\\');
            out.push(quote);
        }
    };
    quote(out);
    out.extend_from_slice(MARK);
    quote(out);
    range.end
}

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod samples;
