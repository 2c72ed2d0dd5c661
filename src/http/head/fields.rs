//! The fields of a head and of trailers: their shape, and the few that decide framing and routing.

use super::Refusal;
use super::bytes::{TOKEN, span, trim};
use super::line::is_authority;
use std::ops::Range;

/// More digits than this overflow what hyper counts bodies with.
const LENGTH_DIGITS_MAX: usize = 19;

/// Fields that no trailer may name: they frame, route, authorise or change how a request is handled (RFC 9110, section 6.5.1).
const NOT_IN_TRAILERS: [&[u8]; 18] = [
    b"authorization",
    b"connection",
    b"content-encoding",
    b"content-length",
    b"content-range",
    b"content-type",
    b"cookie",
    b"expect",
    b"forwarded",
    b"host",
    b"keep-alive",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"x-api-key",
    b"x-forwarded-for",
];

/// What the fields seen so far say about framing and host.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    /// How many fields there were.
    pub count: usize,
    /// The one Content-Length, in bytes.
    pub length: Option<u64>,
    /// The one Transfer-Encoding, `chunked`.
    pub chunked: bool,
    /// Where the one Host's value stands, counted from the first byte of the head.
    pub host: Option<Range<usize>>,
}

impl Fields {
    /// Takes in the field at `range` of `head`.
    ///
    /// # Errors
    /// What is wrong with it.
    #[inline]
    pub fn add(&mut self, head: &[u8], range: Range<usize>, fields_max: usize) -> Result<(), Refusal> {
        let line = &head[range.clone()];
        let name_bytes = name(line, self.count == 0)?;
        self.count += 1;
        if self.count > fields_max {
            return Err(Refusal::FieldsTooMany);
        }
        let (name, value) = (&line[..name_bytes], &line[name_bytes + 1..]);
        match name_bytes {
            4 if name.eq_ignore_ascii_case(b"host") => self.add_host(trim(value), range.end, value),
            14 if name.eq_ignore_ascii_case(b"content-length") => self.add_length(trim(value)),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.add_encoding(trim(value)),
            _ => Ok(()),
        }
    }

    fn add_host(&mut self, host: &[u8], line_end: usize, untrimmed: &[u8]) -> Result<(), Refusal> {
        if self.host.is_some() {
            return Err(Refusal::HostRepeated);
        }
        if !is_authority(host) {
            return Err(Refusal::HostInvalid);
        }
        let leading = untrimmed.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let start = line_end - untrimmed.len() + leading;
        self.host = Some(start..start + host.len());
        Ok(())
    }

    fn add_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.length.is_some() {
            return Err(Refusal::LengthRepeated);
        }
        self.length = Some(length(value)?);
        Ok(())
    }

    fn add_encoding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Refusal::Encoding);
        }
        self.chunked = true;
        Ok(())
    }
}

/// Checks one trailer.
///
/// # Errors
/// Its shape is wrong, or it names a field that has no place in trailers.
pub fn check_trailer(line: &[u8]) -> Result<(), Refusal> {
    let name = &line[..name(line, false)?];
    match NOT_IN_TRAILERS.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden)) {
        true => Err(Refusal::TrailerForbidden),
        false => Ok(()),
    }
}

/// The bytes of the field's name; the colon follows.
#[inline]
fn name(line: &[u8], first: bool) -> Result<usize, Refusal> {
    let name_bytes = span(line, &TOKEN);
    match line.get(name_bytes) {
        Some(b':') if name_bytes > 0 => Ok(name_bytes),
        Some(b' ' | b'\t') if name_bytes > 0 => Err(Refusal::SpaceBeforeColon),
        Some(b' ' | b'\t') if first => Err(Refusal::LeadingSpace),
        Some(b' ' | b'\t') => Err(Refusal::FoldedField),
        _ => Err(Refusal::FieldName),
    }
}

fn length(value: &[u8]) -> Result<u64, Refusal> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::LengthInvalid);
    }
    if value.len() > LENGTH_DIGITS_MAX {
        return Err(if value[0] == b'0' { Refusal::LengthInvalid } else { Refusal::LengthTooLarge });
    }
    Ok(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(lines: &[&str]) -> Result<Fields, Refusal> {
        let mut fields = Fields::default();
        for line in lines {
            fields.add(line.as_bytes(), 0..line.len(), 100)?;
        }
        Ok(fields)
    }

    #[test]
    fn fields_that_frame() {
        assert_eq!(add(&["content-LENGTH:\t12 "]).unwrap().length, Some(12));
        assert_eq!(add(&["Content-Length: 9999999999999999999"]).unwrap().length, Some(9_999_999_999_999_999_999));
        assert!(add(&["Transfer-Encoding: Chunked"]).unwrap().chunked);
        let host = "Host: \t a:80 \t";
        assert_eq!(&host[add(&[host]).unwrap().host.unwrap()], "a:80");
    }

    #[test]
    fn fields_that_are_refused() {
        use Refusal::*;
        for (lines, reason) in [
            (&[" A: b"][..], LeadingSpace),
            (&["\tA: b"], LeadingSpace),
            (&["A: b", " c"], FoldedField),
            (&["A: b", "\tc"], FoldedField),
            (&["A : b"], SpaceBeforeColon),
            (&["A\t: b"], SpaceBeforeColon),
            (&["A b: c"], SpaceBeforeColon),
            (&[": b"], FieldName),
            (&["A"], FieldName),
            (&["A(: b"], FieldName),
            (&["\u{e9}: b"], FieldName),
            (&["Host: a", "host: a"], HostRepeated),
            (&["Host:"], HostInvalid),
            (&["Host: a, b"], HostInvalid),
            (&["Content-Length: 1", "Content-Length: 1"], LengthRepeated),
            (&["Content-Length: 1", "Content-Length: 2"], LengthRepeated),
            (&["Content-Length: 1, 1"], LengthInvalid),
            (&["Content-Length:"], LengthInvalid),
            (&["Content-Length: +3"], LengthInvalid),
            (&["Content-Length: -3"], LengthInvalid),
            (&["Content-Length: 0x3"], LengthInvalid),
            (&["Content-Length: 3 3"], LengthInvalid),
            (&["Content-Length: 3;"], LengthInvalid),
            (&["Content-Length: \"3\""], LengthInvalid),
            (&["Content-Length: 00000000000000000003"], LengthInvalid),
            (&["Content-Length: 18446744073709551619"], LengthTooLarge),
            (&["Transfer-Encoding: identity"], Encoding),
            (&["Transfer-Encoding: identity, chunked"], Encoding),
            (&["Transfer-Encoding: chunked, identity"], Encoding),
            (&["Transfer-Encoding: chunked, chunked"], Encoding),
            (&["Transfer-Encoding: chunked,"], Encoding),
            (&["Transfer-Encoding: xchunked"], Encoding),
            (&["Transfer-Encoding: \"chunked\""], Encoding),
            (&["Transfer-Encoding: chunked;q=1"], Encoding),
            (&["Transfer-Encoding: gzip"], Encoding),
            (&["Transfer-Encoding:"], Encoding),
            (&["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], Encoding),
            (&["Transfer-Encoding: chunked", "Transfer-Encoding: identity"], Encoding),
        ] {
            assert_eq!(add(lines).map(|_| ()), Err(reason), "{lines:?}");
        }
    }

    #[test]
    fn trailers() {
        assert_eq!(check_trailer(b"X-Sum: 1"), Ok(()));
        assert_eq!(check_trailer(b"Content-length: 1"), Err(Refusal::TrailerForbidden));
        assert_eq!(check_trailer(b"TRANSFER-ENCODING: chunked"), Err(Refusal::TrailerForbidden));
        assert_eq!(check_trailer(b" X: 1"), Err(Refusal::FoldedField));
        assert_eq!(check_trailer(b"X : 1"), Err(Refusal::SpaceBeforeColon));
    }
}
