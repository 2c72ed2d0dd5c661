//! The name that a client is counted by, 24 bytes at most, and its keyed hash. It is held and hashed in words: a
//! processor that reads together what was just written apart waits for longer than all of the hash takes.

use std::net::{Ipv4Addr, Ipv6Addr};

const BYTES: usize = 24;
const WORD: usize = size_of::<u64>();

/// A kind, and what names one of it: an address, or an API key's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    words: [u64; BYTES / WORD],
    length: u8,
}

impl Name {
    /// Of any bytes; the first 23 count. Ids of keys have 12.
    pub fn new(kind: u8, bytes: &[u8]) -> Name {
        let mut all = [0; BYTES];
        let bytes = &bytes[..bytes.len().min(BYTES - 1)];
        all[0] = kind;
        all[1..=bytes.len()].copy_from_slice(bytes);
        let mut words = [0; BYTES / WORD];
        for (word, bytes) in words.iter_mut().zip(all.as_chunks::<WORD>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Name { words, length: 1 + bytes.len() as u8 }
    }

    /// The same of an address's bytes.
    #[inline]
    pub fn v4(kind: u8, address: Ipv4Addr) -> Name {
        let octets = u64::from(address.to_bits().swap_bytes());
        Name { words: [u64::from(kind) | octets << 8, 0, 0], length: 5 }
    }

    /// The same of an address's bytes.
    #[inline]
    pub fn v6(kind: u8, address: Ipv6Addr) -> Name {
        let octets = address.to_bits().swap_bytes();
        let low = octets << 8 | u128::from(kind);
        Name { words: [low as u64, (low >> 64) as u64, (octets >> 120) as u64], length: 17 }
    }

    /// Its bytes, and how many of them count.
    pub fn bytes(&self) -> ([u8; BYTES], usize) {
        let mut bytes = [0; BYTES];
        for (bytes, word) in bytes.as_chunks_mut::<WORD>().0.iter_mut().zip(self.words) {
            *bytes = word.to_le_bytes();
        }
        (bytes, usize::from(self.length))
    }

    /// SipHash-1-3 of 128 bits (Aumasson and Bernstein), keyed so that nobody can choose whose counter is his.
    #[inline]
    pub fn hash(&self, key: [u64; 2]) -> u128 {
        let mut state = State([
            key[0] ^ 0x736f_6d65_7073_6575,
            key[1] ^ 0x646f_7261_6e64_6f6d ^ 0xee,
            key[0] ^ 0x6c79_6765_6e65_7261,
            key[1] ^ 0x7465_6462_7974_6573,
        ]);
        let (length, whole) = (u64::from(self.length), usize::from(self.length) / WORD);
        self.words.iter().take(whole).for_each(|word| state.take(*word));
        state.take(self.words.get(whole).unwrap_or(&0) | length << 56);
        let (low, high) = (state.finish(2, 0xee), state.finish(1, 0xdd));
        u128::from(low) | u128::from(high) << 64
    }
}

struct State([u64; 4]);

impl State {
    #[inline(always)]
    fn take(&mut self, word: u64) {
        self.0[3] ^= word;
        self.round();
        self.0[0] ^= word;
    }

    #[inline(always)]
    fn finish(&mut self, at: usize, mark: u64) -> u64 {
        self.0[at] ^= mark;
        (0..3).for_each(|_| self.round());
        self.0.iter().fold(0, |sum, word| sum ^ word)
    }

    #[inline(always)]
    fn round(&mut self) {
        let [mut a, mut b, mut c, mut d] = self.0;
        a = a.wrapping_add(b);
        c = c.wrapping_add(d);
        b = b.rotate_left(13) ^ a;
        d = d.rotate_left(16) ^ c;
        a = a.rotate_left(32).wrapping_add(d);
        c = c.wrapping_add(b);
        d = d.rotate_left(21) ^ a;
        b = b.rotate_left(17) ^ c;
        self.0 = [a, b, c.rotate_left(32), d];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use siphasher::sip128::SipHasher13;

    proptest! {
        #[test]
        fn names_are_hashed_as_siphash_says(kind: u8, bytes in proptest::collection::vec(any::<u8>(), 0..30), key: [u64; 2]) {
            let name = Name::new(kind, &bytes);
            let (all, length) = name.bytes();
            prop_assert_eq!(length, 1 + bytes.len().min(23));
            prop_assert_eq!((all[0], &all[1..length]), (kind, &bytes[..length - 1]));
            let expected = SipHasher13::new_with_keys(key[0], key[1]).hash(&all[..length]).as_u128();
            prop_assert_eq!(name.hash(key), expected);
        }

        #[test]
        fn addresses_are_their_bytes(v4: u32, v6: u128) {
            let (v4, v6) = (Ipv4Addr::from_bits(v4), Ipv6Addr::from_bits(v6));
            prop_assert_eq!(Name::v4(b'4', v4), Name::new(b'4', &v4.octets()));
            prop_assert_eq!(Name::v6(b'6', v6), Name::new(b'6', &v6.octets()));
        }
    }
}
