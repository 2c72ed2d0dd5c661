//! Who the client is: the walk over `X-Forwarded-For`, address ranges, and the form in which an address is counted.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// Proxies that one request may have come through; what stands further left is not looked at.
pub const HOPS_MAX: usize = 32;

/// The other end of a connection, or the client behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// An address; IPv4-mapped ones are already IPv4 when they come out of [`resolve`].
    Address(IpAddr),
    /// A Unix socket: on this machine, hence trusted as a proxy.
    Unix,
}

/// Who pays: a verified API key, else the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity<'a> {
    /// The id of an API key that was verified (never the key itself).
    Key(&'a [u8]),
    /// What [`resolve`] found.
    Peer(Peer),
}

/// A range of addresses, `10.0.0.0/8`. Bits below the prefix are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// The range as IPv6 bits; IPv4 stands where mapped addresses do.
    bits: u128,
    mask: u128,
}

/// A text that is no address and no range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CidrError(String);

impl fmt::Display for CidrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is neither an address nor a range like 10.0.0.0/8 or 2001:db8::/32", self.0)
    }
}

impl std::error::Error for CidrError {}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Cidr, CidrError> {
        let wrong = || CidrError(text.chars().take(80).collect());
        let (address, prefix) = match text.trim().split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse::<u32>().map_err(|_| wrong())?)),
            None => (text.trim(), None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let (width, offset) = if address.is_ipv4() { (32, 96) } else { (128, 0) };
        let prefix = prefix.unwrap_or(width);
        if prefix > width {
            return Err(wrong());
        }
        let mask = mask(prefix + offset);
        Ok(Cidr { bits: as_bits(address) & mask, mask })
    }
}

impl Cidr {
    /// IPv4 and its mapped form are the same address.
    pub fn contains(&self, address: IpAddr) -> bool {
        as_bits(address) & self.mask == self.bits
    }
}

/// The proxies whose `X-Forwarded-For` is believed. A Unix socket's peer always is.
#[derive(Clone, Debug, Default)]
pub struct Trusted {
    ranges: Vec<Cidr>,
}

impl FromStr for Trusted {
    type Err = CidrError;

    /// Ranges separated by commas; `*` trusts everyone.
    fn from_str(text: &str) -> Result<Trusted, CidrError> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let ranges: Result<Vec<Vec<Cidr>>, _> = entries
            .map(|entry| match entry {
                "*" => Ok(vec![Cidr { bits: 0, mask: 0 }]),
                range => range.parse().map(|range| vec![range]),
            })
            .collect();
        Ok(Trusted { ranges: ranges?.concat() })
    }
}

impl Trusted {
    /// True for a peer that may speak for others.
    pub fn contains(&self, peer: Peer) -> bool {
        match peer {
            Peer::Unix => true,
            Peer::Address(address) => self.ranges.iter().any(|range| range.contains(address)),
        }
    }
}

/// The client behind `peer`. `forwarded` are the values of all `X-Forwarded-For` lines in the order of the request;
/// they are read from the right, only past trusted proxies. An entry that is no address ends the walk at the proxy
/// that wrote it down, so nobody can choose who he is, and nobody shares an "unknown".
pub fn resolve<'a, I>(peer: Peer, forwarded: I, trusted: &Trusted) -> Peer
where
    I: DoubleEndedIterator<Item = &'a [u8]>,
{
    let mut client = unmapped(peer);
    let entries = forwarded.rev().flat_map(|line| line.rsplit(|byte| *byte == b','));
    for entry in entries.take(HOPS_MAX) {
        if !trusted.contains(client) {
            return client;
        }
        match entry_address(entry) {
            Some(address) => client = unmapped(Peer::Address(address)),
            None => return client,
        }
    }
    client
}

/// The address as it is counted: IPv4 whole, IPv6 by its prefix of `v6_prefix` bits (48 to 128).
/// Mapped addresses are unmapped before the mask, else all of IPv4 would share one count.
pub fn counted(address: IpAddr, v6_prefix: u8) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask(u32::from(v6_prefix.clamp(48, 128)))))
        }
        v4 => v4,
    }
}

fn unmapped(peer: Peer) -> Peer {
    match peer {
        Peer::Address(address) => Peer::Address(address.to_canonical()),
        Peer::Unix => Peer::Unix,
    }
}

/// `1.2.3.4`, `1.2.3.4:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn entry_address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim_matches([' ', '\t']);
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let port_is_one = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return port_is_one.then(|| address.parse::<Ipv6Addr>().ok().map(IpAddr::V6))?;
    }
    match text.split_once(':') {
        Some((address, port)) if !port.contains(':') && is_port(port) => {
            address.parse().ok().filter(|address: &IpAddr| address.is_ipv4())
        }
        _ => text.parse().ok(),
    }
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

fn as_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn mask(prefix: u32) -> u128 {
    u128::MAX.checked_shl(128 - prefix.min(128)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn peer(text: &str) -> Peer {
        Peer::Address(text.parse().unwrap())
    }

    fn walk(from: Peer, lines: &[&str]) -> Peer {
        let trusted = "127.0.0.1,::1,10.0.0.0/8".parse().unwrap();
        resolve(from, lines.iter().map(|line| line.as_bytes()), &trusted)
    }

    #[test]
    fn a_stranger_does_not_speak_for_others() {
        assert_eq!(walk(peer("8.8.8.8"), &["1.1.1.1"]), peer("8.8.8.8"));
        assert_eq!(walk(peer("8.8.8.8"), &[]), peer("8.8.8.8"));
    }

    #[test]
    fn the_walk_goes_from_the_right_over_all_lines() {
        assert_eq!(walk(peer("127.0.0.1"), &["6.6.6.6, 5.5.5.5"]), peer("5.5.5.5"));
        assert_eq!(walk(peer("127.0.0.1"), &["6.6.6.6", "5.5.5.5, 10.1.1.1"]), peer("5.5.5.5"));
        assert_eq!(walk(peer("127.0.0.1"), &["6.6.6.6", "10.1.1.1"]), peer("6.6.6.6"));
        assert_eq!(walk(Peer::Unix, &["6.6.6.6"]), peer("6.6.6.6"));
        assert_eq!(walk(peer("127.0.0.1"), &["10.1.1.1, 10.2.2.2"]), peer("10.1.1.1"));
    }

    #[test]
    fn what_is_no_address_ends_the_walk_at_the_last_proxy() {
        assert_eq!(walk(peer("127.0.0.1"), &["1.1.1.1, unknown, 10.1.1.1"]), peer("10.1.1.1"));
        assert_eq!(walk(peer("127.0.0.1"), &["1.1.1.1,"]), peer("127.0.0.1"));
        assert_eq!(walk(peer("127.0.0.1"), &[""]), peer("127.0.0.1"));
        assert_eq!(walk(peer("127.0.0.1"), &["1.1.1.1, fe80::1%eth0"]), peer("127.0.0.1"));
        assert_eq!(walk(Peer::Unix, &["_hidden"]), Peer::Unix);
        let bytes: [&[u8]; 1] = [b"1.1.1.1, \xff\xfe"];
        assert_eq!(resolve(Peer::Unix, bytes.into_iter(), &Trusted::default()), Peer::Unix);
    }

    #[test]
    fn ports_and_brackets_are_peeled_off() {
        for text in ["2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:443"] {
            assert_eq!(walk(Peer::Unix, &[text]), peer("2001:db8::1"), "{text}");
        }
        assert_eq!(walk(Peer::Unix, &["9.9.9.9:1234"]), peer("9.9.9.9"));
        for text in ["[9.9.9.9]", "[::1", "9.9.9.9:99999", "9.9.9.9:", "[::1]x", "09.9.9.9", "::1]:1"] {
            assert_eq!(walk(Peer::Unix, &[text]), Peer::Unix, "{text}");
        }
    }

    #[test]
    fn a_mapped_address_is_the_address() {
        assert_eq!(walk(peer("::ffff:127.0.0.1"), &["::ffff:9.9.9.9"]), peer("9.9.9.9"));
        assert_eq!(counted("::ffff:9.9.9.9".parse().unwrap(), 64), "9.9.9.9".parse::<IpAddr>().unwrap());
        let range: Cidr = "10.0.0.0/8".parse().unwrap();
        assert!(range.contains("::ffff:10.2.3.4".parse().unwrap()));
        assert!(!range.contains("::10.2.3.4".parse().unwrap()));
    }

    #[test]
    fn ipv6_is_counted_by_its_prefix() {
        let of = |text: &str, prefix| counted(text.parse().unwrap(), prefix).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6", 64), "2001:db8:1:2::");
        assert_eq!(of("2001:db8:1:2:3:4:5:6", 48), "2001:db8:1::");
        assert_eq!(of("2001:db8:1:2:3:4:5:6", 128), "2001:db8:1:2:3:4:5:6");
        assert_eq!(of("2001:db8:1:2:3:4:5:6", 0), "2001:db8:1::");
    }

    #[test]
    fn ranges_are_read_and_bad_ones_quoted() {
        assert!("*".parse::<Trusted>().unwrap().contains(peer("8.8.8.8")));
        assert!("0.0.0.0/0".parse::<Trusted>().unwrap().contains(peer("8.8.8.8")));
        assert!(!"0.0.0.0/0".parse::<Trusted>().unwrap().contains(peer("2001:db8::1")));
        assert!("::/0".parse::<Trusted>().unwrap().contains(peer("8.8.8.8")));
        assert!(!"".parse::<Trusted>().unwrap().contains(peer("127.0.0.1")));
        for bad in ["10.0.0.0/33", "10.0.0/8", "localhost", "::/129", "1.1.1.1/-1", "1.1.1.1/"] {
            assert!(bad.parse::<Trusted>().unwrap_err().to_string().contains(bad), "{bad}");
        }
    }

    proptest! {
        /// Whatever a client writes to the left of what the proxy added changes nothing.
        #[test]
        fn nobody_chooses_who_he_is(lines in prop::collection::vec("[0-9a-f.:, \\[\\]]{0,30}", 0..4), real in any::<[u8; 4]>()) {
            let real = IpAddr::from(real);
            let trusted: Trusted = "127.0.0.1".parse().unwrap();
            prop_assume!(!trusted.contains(Peer::Address(real)));
            let own = real.to_string();
            let all = lines.iter().map(String::as_bytes).chain([own.as_bytes()]);
            let all: Vec<&[u8]> = all.collect();
            prop_assert_eq!(resolve(peer("127.0.0.1"), all.into_iter(), &trusted), Peer::Address(real));
        }

        #[test]
        fn any_bytes_are_answered(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..5)) {
            let trusted: Trusted = "*".parse().unwrap();
            resolve(Peer::Unix, lines.iter().map(Vec::as_slice), &trusted);
        }
    }
}
