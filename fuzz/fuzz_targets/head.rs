//! The scanner says the same of a stream however it is cut, and never more than it was given.
#![no_main]

use chatcorn::http::head::{Limits, Refusal, Scanner};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [cut, stream @ ..] = input else { return };
    let whole = read(stream, &[]);
    let cut = usize::from(*cut) % (stream.len() + 1);
    assert_eq!(read(stream, &[cut]), whole);
    let singly: Vec<_> = (0..stream.len()).collect();
    assert_eq!(read(stream, &singly), whole);
});

fn read(stream: &[u8], cuts: &[usize]) -> (usize, u64, Option<Refusal>) {
    let (mut scanner, mut passed) = (Scanner::new(Limits::default()), 0);
    for end in cuts.iter().copied().chain([stream.len()]) {
        let scan = scanner.scan(&stream[passed..end]);
        assert!(scan.pass <= end - passed);
        passed += scan.pass;
        if scan.refusal.is_some() {
            return (passed, scanner.requests(), scan.refusal);
        }
    }
    (passed, scanner.requests(), None)
}
