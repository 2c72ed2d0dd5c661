//! The framing of a chunked body, byte by byte (RFC 9112, section 7.1), stricter than hyper reads it.

use super::Refusal;
use super::bytes::TOKEN;

/// 15 digits are 2^60 bytes: more than any body, and no overflow.
const SIZE_DIGITS_MAX: u8 = 15;
/// Bytes of extensions in one size line; nobody uses them, and CVE-2023-39326 is about long ones.
const EXTENSION_BYTES_MAX: u32 = 256;
/// Bytes of extensions in one body; hyper gives up at 16 KiB.
const EXTENSIONS_BYTES_MAX: u32 = 4096;

/// Where in a chunked body we are.
#[derive(Clone, Debug, Default)]
pub struct Chunks {
    place: Place,
    size: u64,
    digits: u8,
    extension_bytes: u32,
    extensions_bytes: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Size,
    Extension(Part),
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailers,
}

/// Where in `; name = value; name = "value"` we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// A name has to come.
    Semicolon,
    Name,
    /// Whitespace behind a name.
    Named,
    /// A value has to come.
    Equals,
    Token,
    Quoted,
    Escaped,
    /// Behind the closing quote.
    Closed,
    /// Whitespace behind a value.
    Valued,
}

impl Part {
    /// The part that `byte` belongs to; `None`: the grammar has no such byte here.
    fn next(self, byte: u8) -> Option<Part> {
        let text = matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
        match (self, byte) {
            (Part::Quoted, b'"') => Some(Part::Closed),
            (Part::Quoted, b'\\') => Some(Part::Escaped),
            (Part::Quoted | Part::Escaped, _) => text.then_some(Part::Quoted),
            (Part::Semicolon | Part::Equals | Part::Named | Part::Valued, b' ' | b'\t') => Some(self),
            (Part::Name, b' ' | b'\t') => Some(Part::Named),
            (Part::Token | Part::Closed, b' ' | b'\t') => Some(Part::Valued),
            (Part::Name | Part::Named | Part::Token | Part::Closed | Part::Valued, b';') => Some(Part::Semicolon),
            (Part::Name | Part::Named, b'=') => Some(Part::Equals),
            (Part::Equals, b'"') => Some(Part::Quoted),
            (Part::Semicolon | Part::Name, _) => TOKEN[usize::from(byte)].then_some(Part::Name),
            (Part::Equals | Part::Token, _) => TOKEN[usize::from(byte)].then_some(Part::Token),
            _ => None,
        }
    }

    /// Whether the size line may end here.
    fn may_end(self) -> bool {
        matches!(self, Part::Name | Part::Token | Part::Closed)
    }
}

/// What the next bytes of a chunked body are.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// So many bytes of size lines and line ends.
    Framing(usize),
    /// So many bytes of the body itself.
    Data(usize),
    /// The last chunk's size line is behind us.
    Trailers,
}

impl Chunks {
    /// The next piece of `bytes`, which are not empty.
    ///
    /// # Errors
    /// The first byte does not belong where it stands.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Piece, Refusal> {
        match self.place {
            Place::Trailers => Ok(Piece::Trailers),
            Place::Data => {
                let taken = usize::try_from(self.size).unwrap_or(usize::MAX).min(bytes.len());
                self.size -= taken as u64;
                if self.size == 0 {
                    self.place = Place::DataCr;
                }
                Ok(Piece::Data(taken))
            }
            _ => self.framing(bytes),
        }
    }

    fn framing(&mut self, bytes: &[u8]) -> Result<Piece, Refusal> {
        for (index, byte) in bytes.iter().enumerate() {
            if matches!(self.place, Place::Data | Place::Trailers) {
                return Ok(Piece::Framing(index));
            }
            match self.on(*byte) {
                Ok(()) => {}
                Err(refusal) if index == 0 => return Err(refusal),
                Err(_) => return Ok(Piece::Framing(index)),
            }
        }
        Ok(Piece::Framing(bytes.len()))
    }

    /// Changes nothing when it refuses, so that the same byte is refused again.
    fn on(&mut self, byte: u8) -> Result<(), Refusal> {
        self.place = match (self.place, byte) {
            (Place::Size, b'\r') if self.digits > 0 => Place::SizeLf,
            (Place::Size, b';') if self.digits > 0 => Place::Extension(Part::Semicolon),
            // Only before an extension: nothing else may follow it.
            (Place::Size, b' ' | b'\t') if self.digits > 0 => {
                self.extension()?;
                Place::Extension(Part::Valued)
            }
            (Place::Size, _) => return self.digit(byte),
            (Place::Extension(part), b'\r') if part.may_end() => Place::SizeLf,
            (Place::Extension(part), _) => {
                let part = part.next(byte).ok_or(Refusal::ChunkExtension)?;
                self.extension()?;
                Place::Extension(part)
            }
            (Place::SizeLf, b'\n') => return self.size_line_ended(),
            (Place::DataCr, b'\r') => Place::DataLf,
            (Place::DataLf, b'\n') => Place::Size,
            (Place::SizeLf, _) => return Err(Refusal::BareLineEnd),
            _ => return Err(Refusal::ChunkEnd),
        };
        Ok(())
    }

    fn digit(&mut self, byte: u8) -> Result<(), Refusal> {
        let digit = char::from(byte).to_digit(16).ok_or(Refusal::ChunkSize)?;
        if self.digits == SIZE_DIGITS_MAX {
            return Err(Refusal::ChunkSize);
        }
        self.digits += 1;
        self.size = self.size << 4 | u64::from(digit);
        Ok(())
    }

    fn extension(&mut self) -> Result<(), Refusal> {
        if self.extension_bytes == EXTENSION_BYTES_MAX || self.extensions_bytes == EXTENSIONS_BYTES_MAX {
            return Err(Refusal::ChunkExtension);
        }
        self.extension_bytes += 1;
        self.extensions_bytes += 1;
        Ok(())
    }

    fn size_line_ended(&mut self) -> Result<(), Refusal> {
        self.place = if self.size == 0 { Place::Trailers } else { Place::Data };
        self.digits = 0;
        self.extension_bytes = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut bytes: &[u8]) -> Result<(u64, usize), Refusal> {
        let (mut chunks, mut data) = (Chunks::default(), 0);
        while !bytes.is_empty() {
            match chunks.next(bytes)? {
                Piece::Framing(taken) => bytes = &bytes[taken..],
                Piece::Data(taken) => (bytes, data) = (&bytes[taken..], data + taken as u64),
                Piece::Trailers => break,
            }
        }
        Ok((data, bytes.len()))
    }

    #[test]
    fn bodies_that_are_taken() {
        assert_eq!(read(b"3\r\nabc\r\nA;x=\"y\"\r\n0123456789\r\n000\r\n\r\n"), Ok((13, 2)));
        assert_eq!(read(b"00000000000000f\r\nab"), Ok((2, 0)));
        for extension in
            ["a", "a;b", "a=b;c", " a\t= b ; c =\"d\"", "a=\"\"", "a=\"; \\\" \\\\ \u{e9}\t\"; b", "!#$=%&'", "a;b ;c"]
        {
            for semicolon in [";", " ;", "\t \t;"] {
                let line = format!("{semicolon}{extension}\r\n");
                assert_eq!(read(format!("2{line}ab\r\n0{line}\r\n").as_bytes()), Ok((2, 2)), "{line:?}");
            }
        }
    }

    #[test]
    fn framing_that_is_refused() {
        use Refusal::*;
        for (bytes, reason) in [
            (&b"\r\n"[..], ChunkSize),
            (b"g\r\n", ChunkSize),
            (b" 3\r\n", ChunkSize),
            (b"3 \r\n", ChunkExtension),
            (b"3\t\r\n", ChunkExtension),
            (b"3 a\r\n", ChunkExtension),
            (b"3 3\r\n", ChunkExtension),
            (b"3 ;\r\n", ChunkExtension),
            (b"0x3\r\n", ChunkSize),
            (b"+3\r\n", ChunkSize),
            (b"-3\r\n", ChunkSize),
            (b"3_0\r\n", ChunkSize),
            (b"3\n", ChunkSize),
            (b";a\r\n", ChunkSize),
            (b"0000000000000003\r\n", ChunkSize),
            (b"10000000000000003\r\n", ChunkSize),
            (b"3\r3", BareLineEnd),
            (b"3;a\n", ChunkExtension),
            (b"3;a\0\r\n", ChunkExtension),
            (b"3;a\x7f\r\n", ChunkExtension),
            (b"3;\r\n", ChunkExtension),
            (b"3; \r\n", ChunkExtension),
            (b"3;;a\r\n", ChunkExtension),
            (b"3;=a\r\n", ChunkExtension),
            (b"3;a=\r\n", ChunkExtension),
            (b"3;a b\r\n", ChunkExtension),
            (b"3;a \r\n", ChunkExtension),
            (b"3;a=b c\r\n", ChunkExtension),
            (b"3;a=b=c\r\n", ChunkExtension),
            (b"3;\"a\"\r\n", ChunkExtension),
            (b"3;a=\"b\r\n", ChunkExtension),
            (b"3;a=\"b\\\"\r\n", ChunkExtension),
            (b"3;a=\"b\"c\r\n", ChunkExtension),
            (b"3;a=\"\0\"\r\n", ChunkExtension),
            (b"3;\xe9\r\n", ChunkExtension),
            (b"3;a:b\r\n", ChunkExtension),
            (b"3\r\nabcd\r\n", ChunkEnd),
            (b"3\r\nabc\n", ChunkEnd),
            (b"3\r\nabc\r\r", ChunkEnd),
            (b"3\r\nabc3\r\n", ChunkEnd),
        ] {
            assert_eq!(read(bytes), Err(reason), "{:?}", String::from_utf8_lossy(bytes));
        }
        let long = [b"3;".as_slice(), &[b'a'; EXTENSION_BYTES_MAX as usize + 1]].concat();
        assert_eq!(read(&long), Err(ChunkExtension));
        let many = [b"1;".as_slice(), &[b'a'; 250], b"\r\nx\r\n"].concat().repeat(20);
        assert_eq!(read(&many), Err(ChunkExtension));
    }
}
