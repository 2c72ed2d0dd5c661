//! What a connection may not do, section by section.

use super::wire::{COMPRESSION, Expect, FLOW_CONTROL, FRAME_SIZE, GET, POST, PROTOCOL, STREAM_CLOSED, frame};
use super::{Case, case};

const PROTOCOL_ERROR: Expect = Expect::Connection(&[PROTOCOL]);
const SIZE_ERROR: Expect = Expect::Connection(&[FRAME_SIZE]);

/// Sections 4.1, 4.2, 5.5, 6.1 to 6.4, 6.6 to 6.8 and 6.10.
pub fn framing() -> Vec<Case> {
    let get = || frame(1, 5, 1, GET);
    let open = || frame(1, 4, 1, POST);
    let begun = || frame(1, 1, 1, &GET[..2]);
    let [opened, began] = [open(), begun()];
    let behind = |first: &[u8], then: Vec<u8>| [first, &then].concat();
    vec![
        case("4.2: DATA above 16,384", behind(&opened, frame(0, 1, 1, &[b' '; 16_385])), SIZE_ERROR),
        case("4.2: HEADERS above 16,384", frame(1, 5, 1, &[0; 16_385]), SIZE_ERROR),
        case("4.3: PRIORITY inside of a head", behind(&began, frame(2, 0, 1, &[0; 5])), PROTOCOL_ERROR),
        case("4.3: HEADERS of another stream inside of a head", behind(&began, frame(1, 5, 3, GET)), PROTOCOL_ERROR),
        case("4.3: PING inside of a head", behind(&began, frame(6, 0, 0, &[0; 8])), PROTOCOL_ERROR),
        case("4.3: CONTINUATION of another stream", behind(&began, frame(9, 4, 3, &GET[2..])), PROTOCOL_ERROR),
        case("5.5: an unknown frame inside of a head", behind(&began, frame(0x42, 0, 1, b"")), PROTOCOL_ERROR),
        case("6.1: DATA of stream 0", frame(0, 1, 0, b"x"), PROTOCOL_ERROR),
        case("6.1: PUSH_PROMISE with a whole head", frame(5, 4, 2, &[&[0, 0, 0, 4], GET].concat()), PROTOCOL_ERROR),
        case("6.1: padding longer than its DATA", behind(&opened, frame(0, 9, 1, b"\x06test!")), PROTOCOL_ERROR),
        case(
            "6.1: padded DATA without its length",
            behind(&opened, frame(0, 9, 1, b"")),
            Expect::Connection(&[PROTOCOL, FRAME_SIZE]),
        ),
        case("6.2: HEADERS of stream 0", frame(1, 5, 0, GET), PROTOCOL_ERROR),
        case("6.2: padding longer than its HEADERS", frame(1, 13, 1, &[b"\x7f", GET].concat()), PROTOCOL_ERROR),
        case("6.2: DATA inside of a head", behind(&began, frame(0, 1, 1, b"")), PROTOCOL_ERROR),
        case("6.3: PRIORITY of stream 0", frame(2, 0, 0, &[0; 5]), PROTOCOL_ERROR),
        case("6.3: PRIORITY of 4 bytes", behind(&opened, frame(2, 0, 1, &[0; 4])), Expect::Stream(&[FRAME_SIZE])),
        case("6.4: RST_STREAM of stream 0", frame(3, 0, 0, &[0; 4]), PROTOCOL_ERROR),
        case("6.4: RST_STREAM of an idle stream", frame(3, 0, 1, &[0; 4]), PROTOCOL_ERROR),
        case("6.4: RST_STREAM of 3 bytes", behind(&opened, frame(3, 0, 1, &[0; 3])), SIZE_ERROR),
        case(
            "6.6: PUSH_PROMISE from a client",
            behind(&opened, frame(5, 4, 1, &[&[0, 0, 0, 2], GET].concat())),
            PROTOCOL_ERROR,
        ),
        case("6.7: PING of a stream", frame(6, 0, 1, &[0; 8]), PROTOCOL_ERROR),
        case("6.7: PING of 7 bytes", frame(6, 0, 0, &[0; 7]), SIZE_ERROR),
        case("6.7: PING of 9 bytes", frame(6, 0, 0, &[0; 9]), SIZE_ERROR),
        case("6.8: GOAWAY of a stream", frame(7, 0, 1, &[0; 8]), PROTOCOL_ERROR),
        case("6.8: GOAWAY of 7 bytes", frame(7, 0, 0, &[0; 7]), SIZE_ERROR),
        case("6.10: CONTINUATION behind a whole head", behind(&get(), frame(9, 4, 1, GET)), PROTOCOL_ERROR),
        case("6.10: CONTINUATION of stream 0", behind(&began, frame(9, 4, 0, &GET[2..])), PROTOCOL_ERROR),
        case("6.10: CONTINUATION first", frame(9, 4, 1, GET), PROTOCOL_ERROR),
        case(
            "6.10: CONTINUATION behind the last one",
            [begun(), frame(9, 4, 1, &GET[2..]), frame(9, 4, 1, b"")].concat(),
            PROTOCOL_ERROR,
        ),
        case(
            "6.10: CONTINUATION behind DATA",
            [open(), frame(0, 0, 1, b"{"), frame(9, 4, 1, b"")].concat(),
            PROTOCOL_ERROR,
        ),
    ]
}

/// Section 5.1.
pub fn streams() -> Vec<Case> {
    let closed = Expect::Stream(&[STREAM_CLOSED]);
    let reset = || frame(3, 0, 1, &[0, 0, 0, 8]);
    let many: Vec<u8> = (0..200).flat_map(|number| frame(1, 4, 2 * number + 1, POST)).collect();
    vec![
        case("5.1: DATA of an idle stream", frame(0, 1, 1, b"x"), PROTOCOL_ERROR),
        case("5.1: WINDOW_UPDATE of an idle stream", frame(8, 0, 1, &[0, 0, 0, 1]), PROTOCOL_ERROR),
        case("5.1: DATA behind the end of its stream", [frame(1, 5, 1, GET), frame(0, 1, 1, b"x")].concat(), closed),
        case(
            "5.1: HEADERS behind the end of its stream",
            [frame(1, 5, 1, GET), frame(1, 5, 1, GET)].concat(),
            Expect::Stream(&[STREAM_CLOSED, PROTOCOL]),
        ),
        case(
            "5.1: DATA behind RST_STREAM",
            [frame(1, 4, 1, POST), reset(), frame(0, 1, 1, b"x"), frame(6, 0, 0, &[0; 8])].concat(),
            Expect::Pong,
        ),
        case("5.1.1: a stream of the server's", frame(1, 5, 2, GET), PROTOCOL_ERROR),
        case(
            "5.1.1: a stream before the last one",
            [frame(1, 5, 5, GET), frame(1, 5, 3, GET)].concat(),
            Expect::Connection(&[PROTOCOL, STREAM_CLOSED]),
        ),
        case("5.1.2: more streams than are allowed", many, Expect::Stream(&[7, PROTOCOL, 11])),
    ]
}

/// Section 6.5.
pub fn settings() -> Vec<Case> {
    let set = |number: u8, value: u32| frame(4, 0, 0, &[&[0, number][..], &value.to_be_bytes()].concat());
    vec![
        case("6.5: SETTINGS of a stream", frame(4, 0, 1, b""), PROTOCOL_ERROR),
        case("6.5: SETTINGS of 5 bytes", frame(4, 0, 0, &[0; 5]), SIZE_ERROR),
        case("6.5: SETTINGS of 7 bytes", frame(4, 0, 0, &[0; 7]), SIZE_ERROR),
        case("6.5: an acknowledgement that says more", frame(4, 1, 0, &[0; 6]), SIZE_ERROR),
        case("6.5.2: ENABLE_PUSH of 2", set(2, 2), PROTOCOL_ERROR),
        case("6.5.2: a window of 2^31", set(4, 1 << 31), Expect::Connection(&[FLOW_CONTROL])),
        case("6.5.2: frames of 16,383", set(5, 16_383), PROTOCOL_ERROR),
        case("6.5.2: frames of 2^24", set(5, 1 << 24), PROTOCOL_ERROR),
    ]
}

/// Section 6.9.
pub fn windows() -> Vec<Case> {
    let open = frame(1, 4, 1, POST);
    let grow = |stream: u32, bytes: u32| frame(8, 0, stream, &bytes.to_be_bytes());
    let widest = i32::MAX as u32;
    vec![
        case("6.9: WINDOW_UPDATE of 0", grow(0, 0), PROTOCOL_ERROR),
        case("6.9: WINDOW_UPDATE of 0 for a stream", [&open[..], &grow(1, 0)].concat(), Expect::Stream(&[PROTOCOL])),
        case("6.9: WINDOW_UPDATE of 3 bytes", frame(8, 0, 0, &[0, 0, 1]), SIZE_ERROR),
        case(
            "6.9.1: a window above 2^31",
            [grow(0, widest), grow(0, widest)].concat(),
            Expect::Connection(&[FLOW_CONTROL]),
        ),
        case(
            "6.9.1: a stream's window above 2^31",
            [&open[..], &grow(1, widest), &grow(1, widest)].concat(),
            Expect::Stream(&[FLOW_CONTROL]),
        ),
        case(
            "6.9.2: more DATA than the window of a stream",
            [open, frame(0, 0, 1, &[b' '; 16_384]).repeat(70)].concat(),
            Expect::Stream(&[FLOW_CONTROL]),
        ),
    ]
}

/// RFC 7541.
pub fn compression() -> Vec<Case> {
    let error = Expect::Connection(&[COMPRESSION]);
    let get = |field: &[u8]| frame(1, 5, 1, &[GET, field].concat());
    vec![
        case("2.3.3: an index beyond the tables", get(b"\xc6"), error),
        case("4.2: a table larger than was allowed", frame(1, 5, 1, &[b"\x3f\xe1\xff\x03", GET].concat()), error),
        case("4.2: a table's size behind fields", get(b"\x20"), error),
        case("5.1: an integer without an end", get(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), error),
        case("5.2: a string longer than its block", get(b"\x00\x01x\x7f\x10a"), error),
        case("5.2: more than 7 bits of padding", get(b"\x00\x01x\x83\x1f\xff\xff"), error),
        case("5.2: padding of zeros", get(b"\x00\x01x\x81\x18"), error),
        case("5.2: the end of strings in a string", get(b"\x00\x01x\x84\xff\xff\xff\xff"), error),
        case("6.1: index 0", get(b"\x80"), error),
    ]
}
