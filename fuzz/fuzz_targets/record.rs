//! Packets of records, as a worker that went wrong could send them, are read without a panic and never past their end;
//! what was framed properly comes out as it went in.
//! `cargo +nightly fuzz run record`
#![no_main]

use chatcorn::log::record::{Kind, Packet, begin, end, fitting, packet_head};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    for bytes in [input, &[&packet_head(7)[..], input].concat()] {
        let total: usize = Packet::parse(bytes).iter().flat_map(Packet::records).map(|record| record.line.len()).sum();
        assert!(total <= bytes.len());
    }
    let (length, count) = fitting(input, 64);
    assert!(length <= input.len() && (count == 0) == (length == 0));
    // A record that is longer than the rest may be goes alone, and does not wait for ever.
    let whole = [&packet_head(0)[..], input].concat();
    assert_eq!(Packet::parse(&whole).is_some_and(|packet| packet.records().next().is_some()), count > 0);
    assert!(length <= 64 || count == 1);
    let lines = [input, b"", input];
    let mut framed = packet_head(u64::MAX).to_vec();
    for line in lines {
        let at = begin(Kind::App, 3, &mut framed);
        framed.extend_from_slice(line);
        end(at, &mut framed);
    }
    let read = |bytes| {
        let packet = Packet::parse(bytes).expect("its own head");
        packet.records().map(|record| record.line.to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(read(&framed), lines);
    // A cut takes the records that it meets, and no other.
    assert_eq!(read(&framed[..framed.len() - 1 - usize::from(input.is_empty())]), lines[..2]);
});
