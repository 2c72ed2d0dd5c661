//! What HTTP/2 lets a client send that asks for nothing: counted by its frames' heads, refused when it is a flood. Pure.
//!
//! ```text
//! bytes ──▶ 9-byte heads (RFC 9113, section 4.1) ──▶ idle frames spend, time and requests earn ──▶ nothing left: a flood
//! ```
//! Against rapid reset (CVE-2023-44487), endless CONTINUATION (CVE-2024-27316 and kin), empty DATA (CVE-2019-9518), and
//! floods of PING, SETTINGS and PRIORITY (CVE-2019-9512, -9515, -9513). hyper bounds some of them; here all are.

/// The preface before the first frame.
const PREFACE_BYTES: u64 = 24;
const HEAD_BYTES: usize = 9;
/// What a connection may spend at once, what each second and each finished request earn, and what a frame costs that
/// asks for nothing: 500 of these at once, and 50 a second.
const SPARE_MAX: u32 = 10_000;
const EARNED_PER_S: u32 = 1_000;
const EARNED_PER_REQUEST: u32 = 40;
const IDLE_PRICE: u32 = 20;
/// Smaller pieces of a body cost as much as none.
const DATA_BYTES_MIN: u32 = 16;
/// CONTINUATION frames of one head: more than a head within the limits needs.
const CONTINUATIONS_MAX: u32 = 8;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const WINDOW_UPDATE: u8 = 8;

/// Too many frames that ask for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flood;

/// The counts of one connection.
#[derive(Clone, Debug)]
pub struct Frames {
    /// Bytes until the next head.
    skip: u64,
    head: [u8; HEAD_BYTES],
    held: usize,
    spare: u32,
    continuations: u32,
    earned_s: u64,
}

impl Frames {
    /// At the beginning of a connection, before its preface, at `now_s` on any clock that does not go back.
    pub fn new(now_s: u64) -> Frames {
        let spare = SPARE_MAX;
        Frames { skip: PREFACE_BYTES, head: [0; HEAD_BYTES], held: 0, spare, continuations: 0, earned_s: now_s }
    }

    /// Looks at the next bytes of the connection.
    ///
    /// # Errors
    /// They are part of a flood.
    pub fn see(&mut self, mut bytes: &[u8], now_s: u64) -> Result<(), Flood> {
        let earned = now_s.saturating_sub(self.earned_s).min(u64::from(SPARE_MAX)) as u32 * EARNED_PER_S;
        self.spare = (self.spare + earned).min(SPARE_MAX);
        self.earned_s = now_s;
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len() as u64);
            self.skip -= skipped;
            bytes = &bytes[skipped as usize..];
            let taken = (HEAD_BYTES - self.held).min(bytes.len());
            self.head[self.held..self.held + taken].copy_from_slice(&bytes[..taken]);
            self.held += taken;
            bytes = &bytes[taken..];
            if self.held == HEAD_BYTES {
                self.held = 0;
                self.frame()?;
            }
        }
        Ok(())
    }

    /// A request came to its end.
    pub fn served(&mut self) {
        self.spare = (self.spare + EARNED_PER_REQUEST).min(SPARE_MAX);
    }

    fn frame(&mut self) -> Result<(), Flood> {
        let length = u32::from_be_bytes([0, self.head[0], self.head[1], self.head[2]]);
        let (kind, flags) = (self.head[3], self.head[4]);
        self.skip = u64::from(length);
        if kind == CONTINUATION {
            self.continuations += 1;
            return if self.continuations > CONTINUATIONS_MAX { Err(Flood) } else { Ok(()) };
        }
        self.continuations = 0;
        let price = match kind {
            // A body of a few bytes a frame is a flood, too.
            DATA if length < DATA_BYTES_MIN && flags & END_STREAM == 0 => IDLE_PRICE,
            DATA => 0,
            // Every request opens with HEADERS; whoever reads a stream closely sends a WINDOW_UPDATE for each piece.
            HEADERS | WINDOW_UPDATE => 1,
            _ => IDLE_PRICE,
        };
        self.spare = self.spare.checked_sub(price).ok_or(Flood)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let mut bytes = vec![0, (payload >> 8) as u8, payload as u8, kind, flags, 0, 0, 0, 1];
        bytes.resize(HEAD_BYTES + payload, 0);
        bytes
    }

    fn seen(frames: &[Vec<u8>]) -> Result<(), Flood> {
        let bytes = [&[0; PREFACE_BYTES as usize][..], &frames.concat()].concat();
        let whole = Frames::new(0).see(&bytes, 0);
        let mut parts = Frames::new(0);
        assert_eq!(bytes.iter().try_for_each(|byte| parts.see(&[*byte], 0)), whole);
        whole
    }

    #[test]
    fn each_flood_is_found_and_work_is_not_one() {
        for kind in [2, 3, 4, 6] {
            assert_eq!(seen(&vec![frame(kind, 0, 8); 600]), Err(Flood), "{kind}");
            assert_eq!(seen(&vec![frame(kind, 0, 8); 400]), Ok(()), "{kind}");
        }
        for kind in [HEADERS, WINDOW_UPDATE] {
            assert_eq!(seen(&vec![frame(kind, 0, 4); 10_001]), Err(Flood), "{kind}");
            assert_eq!(seen(&vec![frame(kind, 0, 4); 10_000]), Ok(()), "{kind}");
        }
        assert_eq!(seen(&vec![frame(DATA, 0, 0); 600]), Err(Flood));
        assert_eq!(seen(&vec![frame(DATA, 0, 1); 600]), Err(Flood));
        assert_eq!(seen(&vec![frame(DATA, 0, 1024); 600]), Ok(()));
        let mut endless = vec![frame(HEADERS, 0, 10)];
        endless.extend(vec![frame(CONTINUATION, 0, 10); 9]);
        assert_eq!(seen(&endless), Err(Flood));
    }

    #[test]
    fn time_and_requests_earn() {
        let mut frames = Frames::new(0);
        frames.see(&[0; PREFACE_BYTES as usize], 0).unwrap();
        let (pings, ping) = (frame(6, 0, 8).repeat(500), frame(6, 0, 8));
        frames.see(&pings, 0).unwrap();
        assert_eq!(frames.clone().see(&ping, 0), Err(Flood));
        assert_eq!(frames.clone().see(&ping.repeat(50), 1), Ok(()));
        frames.served();
        assert_eq!(frames.see(&ping, 0), Ok(()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_the_same_however_they_are_cut(bytes in prop::collection::vec(any::<u8>(), 0..400), cut in any::<prop::sample::Index>()) {
            let cut = cut.index(bytes.len() + 1);
            let (mut whole, mut parts) = (Frames::new(0), Frames::new(0));
            let all = whole.see(&bytes, 0);
            let both = parts.see(&bytes[..cut], 0).and_then(|()| parts.see(&bytes[cut..], 0));
            prop_assert_eq!(all, both);
        }
    }
}
