//! Why bytes were refused: one list, each with its status, its code and its sentence for the client.

/// A reason to refuse a request before hyper has seen it. The connection closes after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Refusal {
    /// The first line is not `method SP target SP version`.
    RequestLine = 1,
    /// The method is no token, or longer than any method is.
    Method,
    /// The target is in none of RFC 9112's forms, or holds a byte that RFC 3986 does not allow.
    Target,
    /// The version is well written, but neither 1.0 nor 1.1; the HTTP/2 preface is one of these.
    Version,
    /// The request line is over `request_line_bytes_max`.
    LineTooLong,
    /// LF without CR, or CR without LF.
    BareLineEnd,
    /// NUL, DEL or another control byte in a head.
    ControlByte,
    /// Whitespace before the first field.
    LeadingSpace,
    /// A field goes on in the next line (obs-fold).
    FoldedField,
    /// A field's name is empty or no token, or the colon is missing.
    FieldName,
    /// Whitespace between a field's name and its colon.
    SpaceBeforeColon,
    /// A field is over `field_bytes_max`.
    FieldTooLong,
    /// More fields than `fields_max`.
    FieldsTooMany,
    /// The head is over `head_bytes_max`.
    HeadTooLarge,
    /// HTTP/1.1 without Host.
    HostMissing,
    /// More than one Host.
    HostRepeated,
    /// Host is no `host[:port]`.
    HostInvalid,
    /// Host names another authority than the absolute target.
    HostDiffers,
    /// Content-Length beside Transfer-Encoding.
    LengthAndEncoding,
    /// More than one Content-Length, equal or not.
    LengthRepeated,
    /// Content-Length is not plain digits.
    LengthInvalid,
    /// Content-Length has more digits than any body.
    LengthTooLarge,
    /// Transfer-Encoding is anything but one `chunked`.
    Encoding,
    /// Transfer-Encoding in HTTP/1.0.
    EncodingInOldVersion,
    /// A chunk's size is no short hexadecimal number.
    ChunkSize,
    /// A chunk's extension is malformed, or extensions are too long.
    ChunkExtension,
    /// A chunk does not end where its size says.
    ChunkEnd,
    /// A trailer names a field that frames, routes or authorises.
    TrailerForbidden,
    /// Trailers are too many or too long.
    TrailersTooLarge,
    /// The head did not arrive in time.
    HeadTimeout,
    /// The body did not arrive in time.
    BodyTimeout,
    /// A field's value begins or ends with whitespace, in HTTP/2.
    SpaceAroundValue,
}

impl Refusal {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Refusal; 32] = [
        Self::RequestLine,
        Self::Method,
        Self::Target,
        Self::Version,
        Self::LineTooLong,
        Self::BareLineEnd,
        Self::ControlByte,
        Self::LeadingSpace,
        Self::FoldedField,
        Self::FieldName,
        Self::SpaceBeforeColon,
        Self::FieldTooLong,
        Self::FieldsTooMany,
        Self::HeadTooLarge,
        Self::HostMissing,
        Self::HostRepeated,
        Self::HostInvalid,
        Self::HostDiffers,
        Self::LengthAndEncoding,
        Self::LengthRepeated,
        Self::LengthInvalid,
        Self::LengthTooLarge,
        Self::Encoding,
        Self::EncodingInOldVersion,
        Self::ChunkSize,
        Self::ChunkExtension,
        Self::ChunkEnd,
        Self::TrailerForbidden,
        Self::TrailersTooLarge,
        Self::HeadTimeout,
        Self::BodyTimeout,
        Self::SpaceAroundValue,
    ];

    /// The reason behind `number`, as `refusal as u8` wrote it; 0 is none.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }

    /// The HTTP status (RFC 9110, RFC 9112 and RFC 6585).
    pub fn status(self) -> u16 {
        match self {
            Self::HeadTimeout | Self::BodyTimeout => 408,
            Self::LengthTooLarge => 413,
            Self::LineTooLong => 414,
            Self::FieldTooLong | Self::FieldsTooMany | Self::HeadTooLarge | Self::TrailersTooLarge => 431,
            Self::Version => 505,
            _ => 400,
        }
    }

    /// The error body's code.
    pub fn code(self) -> &'static str {
        match self.status() {
            408 => "request_timeout",
            413 => "payload_too_large",
            414 => "uri_too_long",
            431 => "headers_too_large",
            505 => "http_version_not_supported",
            _ => "invalid_request",
        }
    }

    /// What the client should do. Nothing of its bytes is repeated.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::RequestLine => "The first line must be a method, a target and a version, one space between them.",
            Self::Method => "The method must be a short token such as GET or POST.",
            Self::Target => "The target must be a path, percent-encoded where RFC 3986 asks for it.",
            Self::Version => "Speak HTTP/1.1 or HTTP/1.0 here.",
            Self::LineTooLong => "The request line is too long.",
            Self::BareLineEnd => "Every line must end with CR LF; neither may stand alone.",
            Self::ControlByte => "Control bytes are not allowed in a request head.",
            Self::LeadingSpace => "Whitespace is not allowed before the first header field.",
            Self::FoldedField => "A header field must stand on one line.",
            Self::FieldName => "Every header field needs a name of token characters and a colon.",
            Self::SpaceBeforeColon => "Whitespace is not allowed between a field name and its colon.",
            Self::FieldTooLong => "A header field is too long.",
            Self::FieldsTooMany => "There are too many header fields.",
            Self::HeadTooLarge => "The request head is too large.",
            Self::HostMissing => "HTTP/1.1 needs a Host field.",
            Self::HostRepeated => "Send exactly one Host field.",
            Self::HostInvalid => "Host must be a host name or address, with a port if need be.",
            Self::HostDiffers => "Host must be the same as the authority in the target.",
            Self::LengthAndEncoding => "Send Content-Length or Transfer-Encoding, not both.",
            Self::LengthRepeated => "Send exactly one Content-Length.",
            Self::LengthInvalid => "Content-Length must be decimal digits only.",
            Self::LengthTooLarge => "The announced body is too large.",
            Self::Encoding => "Transfer-Encoding must be exactly one chunked.",
            Self::EncodingInOldVersion => "HTTP/1.0 has no Transfer-Encoding; send Content-Length.",
            Self::ChunkSize => "A chunk size must be a hexadecimal number of at most 15 digits.",
            Self::ChunkExtension => "A chunk extension is malformed or too long.",
            Self::ChunkEnd => "A chunk must end with CR LF right after its bytes.",
            Self::TrailerForbidden => "A trailer may not name a field that frames, routes or authorises a request.",
            Self::TrailersTooLarge => "The trailers are too large.",
            Self::HeadTimeout => "The request head did not arrive in time.",
            Self::BodyTimeout => "The request body did not arrive in time.",
            Self::SpaceAroundValue => "A header field's value may neither begin nor end with whitespace.",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_found_again_by_its_number() {
        for (index, reason) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index + 1);
            assert_eq!(Refusal::from_number(reason as u8), Some(reason));
            assert!(!reason.sentence().is_empty() && !reason.code().is_empty());
        }
        assert_eq!(Refusal::from_number(0), None);
        assert_eq!(Refusal::from_number(Refusal::ALL.len() as u8 + 1), None);
    }
}
