//! Quotas as flask-limiter writes them: `200 per day;50 per hour;10 per minute`, `10/minute`, `5/30 seconds`.

use std::fmt;

/// Most requests a window may hold: a count has 20 bits, and an undo must not carry out of them.
pub const COUNT_MAX: u32 = 1_000_000;
/// Longest window, in seconds: half of what 28 bits of 100 ms ticks tell apart, with room for the sweep.
pub const WINDOW_S_MAX: u32 = 180 * DAY_S;

/// Most tokens a window may hold: their count has 32 bits.
pub const TOKENS_MAX: u32 = 4_000_000_000;

const DAY_S: u32 = 86_400;

/// What fits a kind of word.
struct Bounds {
    count_max: u32,
    window_s_min: u32,
    wrong_count: &'static str,
    wrong_window: &'static str,
}

const REQUESTS: Bounds = Bounds {
    count_max: COUNT_MAX,
    window_s_min: 1,
    wrong_count: "must allow 1 to 1,000,000 requests",
    wrong_window: "must have a window of 1 second to 180 days",
};
const TOKENS: Bounds = Bounds {
    count_max: TOKENS_MAX,
    window_s_min: 60,
    wrong_count: "must allow 1 to 4,000,000,000 tokens",
    wrong_window: "must have a window of 1 minute to 180 days",
};
/// A year is longer than any window, and is told so.
const UNITS: [(&str, u32); 7] = [
    ("year", 360 * DAY_S),
    ("month", 30 * DAY_S),
    ("week", 7 * DAY_S),
    ("day", DAY_S),
    ("hour", 3_600),
    ("minute", 60),
    ("second", 1),
];
/// Those that a header names multiples of.
const PLAIN_UNITS: usize = 4;

/// At most `count` admitted requests in a window of `window_s` seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// 1 to [`COUNT_MAX`].
    pub count: u32,
    /// 1 to [`WINDOW_S_MAX`] seconds.
    pub window_s: u32,
}

/// What is wrong with a quota; the text is quoted as it stood in the setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaError {
    text: String,
    why: &'static str,
}

impl fmt::Display for QuotaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the quota {:?} {}; write for example \"10 per minute\" or \"5/30 seconds\"", self.text, self.why)
    }
}

impl std::error::Error for QuotaError {}

/// Reads quotas separated by `;`, `,` or `|`, narrow windows first. Of two for one window the smaller holds.
/// An empty text is no quota at all.
///
/// # Errors
/// The first quota that cannot be read or that the words of the table cannot hold.
pub fn parse(text: &str) -> Result<Vec<Quota>, QuotaError> {
    read(text, &REQUESTS)
}

/// The same for budgets of tokens.
///
/// # Errors
/// As [`parse`].
pub fn parse_tokens(text: &str) -> Result<Vec<Quota>, QuotaError> {
    read(text, &TOKENS)
}

fn read(text: &str, bounds: &Bounds) -> Result<Vec<Quota>, QuotaError> {
    let mut quotas: Vec<Quota> = Vec::new();
    for part in text.split([';', ',', '|']).map(str::trim).filter(|part| !part.is_empty()) {
        let quota = parse_one(part, bounds)?;
        match quotas.iter_mut().find(|known| known.window_s == quota.window_s) {
            Some(known) => known.count = known.count.min(quota.count),
            None => quotas.push(quota),
        }
    }
    quotas.sort_by_key(|quota| quota.window_s);
    Ok(quotas)
}

fn parse_one(part: &str, bounds: &Bounds) -> Result<Quota, QuotaError> {
    let wrong = |why| QuotaError { text: part.chars().take(80).collect(), why };
    let lower = part.to_ascii_lowercase();
    let (count, window) = split_count(&lower).ok_or_else(|| wrong("is not \"COUNT per WINDOW\""))?;
    let count = number(count).ok_or_else(|| wrong("does not begin with a whole number"))?;
    let window_s = window_s(window).ok_or_else(|| wrong("has a window that is none"))?;
    if count == 0 || count > u64::from(bounds.count_max) {
        return Err(wrong(bounds.wrong_count));
    }
    if window_s < u64::from(bounds.window_s_min) || window_s > u64::from(WINDOW_S_MAX) {
        return Err(wrong(bounds.wrong_window));
    }
    Ok(Quota { count: count as u32, window_s: window_s as u32 })
}

/// `10 per 1 minute` and `10/minute` at their `per` or `/`.
fn split_count(text: &str) -> Option<(&str, &str)> {
    if let Some((count, window)) = text.split_once('/') {
        return Some((count.trim(), window.trim()));
    }
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (count, rest) = text.split_at(digits);
    rest.trim_start().strip_prefix("per").map(|window| (count, window.trim()))
}

fn window_s(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (factor, unit) = text.split_at(digits);
    let factor = if factor.is_empty() { 1 } else { number(factor)? };
    let unit = unit.trim_start();
    let singular = unit.strip_suffix('s').unwrap_or(unit);
    let (_, seconds) = UNITS.iter().find(|(name, _)| *name == singular)?;
    factor.checked_mul(u64::from(*seconds))
}

fn number(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

impl Quota {
    /// The window in words, for a policy's name: `minute`, `30-seconds`.
    pub fn window_name(self) -> String {
        // Weeks and months are days to a reader of a header; only the plain unit keeps its own name.
        let whole = |(_, seconds): &&(&str, u32)| self.window_s.is_multiple_of(*seconds);
        match UNITS.iter().find(|unit| unit.1 == self.window_s) {
            Some((name, _)) => (*name).to_owned(),
            None => {
                let (name, seconds) =
                    UNITS[UNITS.len() - PLAIN_UNITS..].iter().find(whole).copied().unwrap_or(("second", 1));
                format!("{}-{name}s", self.window_s / seconds)
            }
        }
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} per {}", self.count, self.window_name().replace('-', " "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(text: &str) -> (u32, u32) {
        let quotas = parse(text).unwrap();
        assert_eq!(quotas.len(), 1, "{text}");
        (quotas[0].count, quotas[0].window_s)
    }

    #[test]
    fn the_words_of_flask_limiter_are_understood() {
        assert_eq!(one("10/minute"), (10, 60));
        assert_eq!(one("10 per minute"), (10, 60));
        assert_eq!(one("10 per 1 minute"), (10, 60));
        assert_eq!(one("10 PER 2 Minutes"), (10, 120));
        assert_eq!(one("5/30 seconds"), (5, 30));
        assert_eq!(one("5 / 30second"), (5, 30));
        assert_eq!(one("200 per day"), (200, 86_400));
        assert_eq!(one("1/month"), (1, 2_592_000));
        assert_eq!((one("10perminute"), one("5 per30 seconds")), ((10, 60), (5, 30)));
        assert!(parse("1 per year").unwrap_err().to_string().contains("180 days"));
    }

    #[test]
    fn several_come_narrow_first_and_the_smaller_of_two_holds() {
        let windows: Vec<_> = parse("200 per day;50 per hour, 10 per minute|20/minute").unwrap();
        let seen: Vec<_> = windows.iter().map(|q| (q.count, q.window_s)).collect();
        assert_eq!(seen, [(10, 60), (50, 3_600), (200, 86_400)]);
        assert_eq!(parse(" ; ").unwrap(), []);
    }

    #[test]
    fn a_bad_one_is_quoted() {
        for bad in [
            "ten per minute",
            "10",
            "10 per",
            "10 per fortnight",
            "0/minute",
            "1000001/day",
            "1/year",
            "1/181 days",
            "1/0 seconds",
            "-1/minute",
            "+1/minute",
            "1.5/minute",
            "10/minute/hour",
            "99999999999999999999/day",
            "1/99999999999999999999 days",
            "10 minute",
            "1/18446744073709551615 days",
        ] {
            let error = parse(&format!("5/hour;{bad}")).unwrap_err().to_string();
            assert!(error.contains(&format!("{bad:?}")), "{error}");
        }
    }

    #[test]
    fn windows_have_names() {
        let name = |window_s| Quota { count: 1, window_s }.window_name();
        assert_eq!([1, 60, 3_600, 86_400].map(name), ["second", "minute", "hour", "day"]);
        assert_eq!(
            [30, 90, 120, 7_200, 2 * 86_400].map(name),
            ["30-seconds", "90-seconds", "2-minutes", "2-hours", "2-days"]
        );
        assert_eq!([604_800, 2_592_000, 14 * 86_400].map(name), ["week", "month", "14-days"]);
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "[0-9 a-z/;,.|+-]{0,40}|\\PC{0,20}") {
            for quota in parse(&text).unwrap_or_default() {
                prop_assert!((1..=COUNT_MAX).contains(&quota.count) && (1..=WINDOW_S_MAX).contains(&quota.window_s));
            }
        }

        #[test]
        fn what_is_shown_can_be_read_again(count in 1..=COUNT_MAX, window_s in 1..=WINDOW_S_MAX) {
            let quota = Quota { count, window_s };
            prop_assert_eq!(parse(&quota.to_string()).unwrap(), vec![quota]);
        }
    }
}
