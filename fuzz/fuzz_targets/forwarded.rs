//! The walk over `X-Forwarded-For`: whoever is no trusted proxy is who he is; what a trusted proxy saw is believed, and
//! nothing to the left of it changes that; no bytes make the walk end anywhere but at an address that was written down.
//! `cargo +nightly fuzz run forwarded`
#![no_main]

use chatcorn::limit::client::{Peer, Trusted, counted, resolve};
use libfuzzer_sys::fuzz_target;
use std::net::{IpAddr, Ipv4Addr};

fuzz_target!(|input: &[u8]| {
    let [kind, a, b, c, rest @ ..] = input else { return };
    let lines: Vec<&[u8]> = rest.split(|byte| *byte == b'\n').collect();
    let trusted: Trusted = "127.0.0.1,::1,10.0.0.0/8".parse().expect("ranges");
    let proxy = Peer::Address(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let stranger = Peer::Address(IpAddr::from([198, *a, *b, *c]));

    assert_eq!(resolve(stranger, lines.iter().copied(), &trusted), stranger);
    let Peer::Address(real) = stranger else { return };
    let own = if kind & 1 == 0 { real.to_string() } else { format!("{real}:{}", u16::from(*kind)) };
    let seen = lines.iter().copied().chain([own.as_bytes()]);
    assert_eq!(resolve(proxy, seen.collect::<Vec<_>>().into_iter(), &trusted), stranger);
    // The same at the end of a list.
    let joined = [rest, b",", own.as_bytes()].concat();
    assert_eq!(resolve(proxy, joined.split(|byte| *byte == b'\n'), &trusted), stranger);

    if let Peer::Address(found) = resolve(proxy, lines.iter().copied(), &trusted) {
        for prefix in [0, 48, 64, 128, 255] {
            let whole = counted(found, prefix);
            assert_eq!(counted(whole, prefix), whole);
            assert_eq!(whole.is_ipv4(), found.to_canonical().is_ipv4());
        }
    }
});
