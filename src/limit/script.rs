//! The decision inside Redis: one Lua script an endpoint, written for its limits, so that Redis runs no loop over them.
//!
//! ```text
//! value   one record a limit: id u32 (scope, window in seconds) | start_ms u48 | count u32, big-endian
//!         client-wide limits first; records of limits that this script does not know stay, until their window is over
//! ARGV    of a budget's script first the cost; then nothing, or mending: force u8, then for each limit: extra u32 | floor u32 | age_ms u48
//! reply   admitted u8, then for each limit: count u32 | reset_ms u48
//! ```
//!
//! A refusal writes nothing, unless it mends, or sets a start right. The clock is Redis's own.

use super::plan::client_wide;
use super::tally::{Standing, Standings};
use super::word::Limit;

const RECORD_BYTES: usize = 14;
const REPLY_BYTES: usize = 10;
const MEND_BYTES: usize = 14;

/// A script and its SHA-1 for `EVALSHA`.
pub struct Script {
    inner: redis::Script,
    text: String,
    limits: usize,
}

/// How a script knows what a request costs, and where its mending stands.
struct Cost {
    units: &'static str,
    mending: &'static str,
}

const ONE: Cost = Cost { units: "1", mending: "ARGV[1]" };
const TOLD: Cost = Cost { units: "tonumber(ARGV[1])", mending: "ARGV[2]" };

/// Puts other counts in the place of what was reserved: KEYS[1] the client; ARGV[1] for each limit: id u32 |
/// milliseconds since its window began u48, give or take u32 | units to add u32 | units to take u32. Windows that are over are let be.
pub const SETTLE: &str = "local v=redis.call('GET',KEYS[1])
if not v then return 0 end
local t=redis.call('TIME')
local now=t[1]*1000+math.floor(t[2]/1000)
local out={}
for p=1,#v-13,14 do
local i,s,c=struct.unpack('>I4I6I4',v,p)
local w=(i%16777216)*1000
for q=1,#ARGV[1]-21,22 do
local id,age,d,plus,minus=struct.unpack('>I4I6I4I4I4',ARGV[1],q)
if id==i and now<s+w and math.abs(s-(now-age))<=d then c=math.min(math.max(c-minus,0)+plus,4294967295) end
end
out[#out+1]=struct.pack('>I4I6I4',i,s,c)
end
redis.call('SET',KEYS[1],table.concat(out),'KEEPTTL')
return 1";

/// What [`SETTLE`] is told of one limit.
pub fn settling(limit: &Limit, age_ms: u64, plus: u32, minus: u32) -> Vec<u8> {
    let age = &age_ms.to_be_bytes()[2..];
    let slack_ms = limit.slack_ms() as u32;
    [&limit.id.to_be_bytes()[..], age, &slack_ms.to_be_bytes(), &plus.to_be_bytes(), &minus.to_be_bytes()].concat()
}

/// What this machine knows better about one limit than Redis may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mend {
    /// Admitted here while Redis was away.
    pub extra: u32,
    /// The last count that Redis told, without `extra`.
    pub floor: u32,
    /// Milliseconds since that window began.
    pub age_ms: u64,
}

impl Script {
    /// The script that decides about `limits` and answers in their order.
    pub fn new(limits: &[Limit]) -> Script {
        Script::of(limits, &ONE)
    }

    /// The script that reserves a number of units, told with the call, in all of `limits`.
    pub fn reserving(limits: &[Limit]) -> Script {
        Script::of(limits, &TOLD)
    }

    fn of(limits: &[Limit], cost: &Cost) -> Script {
        let text = source(limits, cost);
        Script { inner: redis::Script::new(&text), text, limits: limits.len() }
    }

    /// For `EVALSHA`.
    pub fn sha(&self) -> &str {
        self.inner.get_hash()
    }

    /// For `EVAL`.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Reads a reply; `None` when it is not one of this script.
    pub fn reply(&self, bytes: &[u8]) -> Option<(bool, Standings)> {
        let (admitted, rest) = bytes.split_first()?;
        if rest.len() != self.limits * REPLY_BYTES {
            return None;
        }
        let mut standings = Standings::default();
        for (told, standing) in rest.chunks_exact(REPLY_BYTES).zip(&mut standings) {
            let count = u32::try_from(number(&told[..4])).ok()?;
            *standing = Standing { count, reset_ms: number(&told[4..]) };
        }
        Some((*admitted == 1, standings))
    }
}

/// What Redis holds of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The limit's id.
    pub id: u32,
    /// Redis's clock when the window began, milliseconds since 1970.
    pub start_ms: u64,
    /// Admitted in it.
    pub count: u32,
}

impl Record {
    /// Milliseconds until its window ends; `None` when that is over.
    pub fn reset_ms(&self, now_ms: u64) -> Option<u64> {
        let window_ms = u64::from(self.id & 0x00ff_ffff) * 1000;
        (self.start_ms.min(now_ms) + window_ms).checked_sub(now_ms).filter(|left_ms| *left_ms > 0)
    }
}

/// Reads a client's value.
pub fn records(value: &[u8]) -> impl Iterator<Item = Record> {
    value.chunks_exact(RECORD_BYTES).map(|record| Record {
        id: number(&record[..4]) as u32,
        start_ms: number(&record[4..10]),
        count: number(&record[10..]) as u32,
    })
}

/// Mending as the script reads it. `force` puts windows back that Redis has lost altogether.
pub fn mending(force: bool, mends: &[Mend]) -> Vec<u8> {
    let mut bytes = vec![u8::from(force)];
    for mend in mends {
        bytes.extend_from_slice(&mend.extra.to_be_bytes());
        bytes.extend_from_slice(&mend.floor.to_be_bytes());
        bytes.extend_from_slice(&mend.age_ms.to_be_bytes()[2..]);
    }
    bytes
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// The text. `s1` and `c1` are start and count of the first limit in the order of the reply, and so on.
fn source(limits: &[Limit], cost: &Cost) -> String {
    let told: Vec<(usize, &Limit)> = limits.iter().enumerate().map(|(number, limit)| (number + 1, limit)).collect();
    let mut stored = told.clone();
    stored.sort_by_key(|(_, limit)| !client_wide(limit));
    [read(&told, &stored), roll(&told), mend(&told, cost), decide(&told, &stored, cost), reply(&told)].join("\n")
}

fn each(limits: &[(usize, &Limit)], between: &str, part: impl Fn(usize, &Limit) -> String) -> String {
    limits.iter().map(|(number, limit)| part(*number, limit)).collect::<Vec<_>>().join(between)
}

/// Where records stand as this script writes them, one `unpack` reads all; else they are looked for.
fn read(told: &[(usize, &Limit)], stored: &[(usize, &Limit)]) -> String {
    let bytes = told.len() * RECORD_BYTES;
    format!(
        "local v=redis.call('GET',KEYS[1]) or ''
local t=redis.call('TIME')
local now=t[1]*1000+math.floor(t[2]/1000)
local tail=''
local {declared}
if #v>={bytes} then {slots}=struct.unpack('>{format}',v) end
if {in_place} then tail=string.sub(v,{after})
else
{zero}
local rest={{}}
for p=1,#v-13,14 do
local i,s,c=struct.unpack('>I4I6I4',v,p)
if {sorted} else rest[#rest+1]=string.sub(v,p,p+13) end
end
tail=table.concat(rest)
end",
        declared = each(told, ",", |n, _| format!("i{n},s{n},c{n}")),
        slots = each(stored, ",", |n, _| format!("i{n},s{n},c{n}")),
        format = "I4I6I4".repeat(told.len()),
        in_place = each(stored, " and ", |n, limit| format!("i{n}=={}", limit.id)),
        after = bytes + 1,
        zero = each(told, " ", |n, _| format!("s{n},c{n}=0,0")),
        sorted = each(told, " elseif ", |n, limit| format!("i=={} then s{n},c{n}=s,c", limit.id)),
    )
}

/// A start in the future is another master's clock, or one that was set back: it begins now, which is written whatever
/// comes of the request, else it would begin anew with each. A window that is over begins with the next unit.
fn roll(told: &[(usize, &Limit)]) -> String {
    let rolls = each(told, "\n", |n, limit| {
        let window_ms = limit.window_ms;
        format!("if s{n}>now then s{n},early=now,1 end if c{n}==0 or now>=s{n}+{window_ms} then s{n},c{n}=now,0 end")
    });
    format!("local early\n{rolls}")
}

/// `p` is where the limit's part of ARGV begins, `n` its count, `w` its window.
fn mend(told: &[(usize, &Limit)], cost: &Cost) -> String {
    let argument = cost.mending;
    let calls = each(told, "\n", |n, limit| {
        let at = 2 + (n - 1) * MEND_BYTES;
        format!("s{n},c{n}=mend({at},s{n},c{n},{},{},{})", limit.count, limit.window_ms, limit.slack_ms())
    });
    format!(
        "if {argument} then
local force=string.byte({argument})==1
local function mend(p,s,c,n,w,d)
local e,f,g=struct.unpack('>I4I4I6',{argument},p)
if (e==0 and f==0) or g>=w then return s,c end
local from=now-g
if c==0 then
if force then e=e+f end
if e==0 then return s,c end
return from,math.min(e,n)
end
if math.abs(s-from)<=d or force then c=math.max(c,f) end
return s,math.max(c,math.min(c+e,n))
end
{calls}
end"
    )
}

/// Counts if every limit has room, and writes the records with the expiry of the one that lasts longest.
fn decide(told: &[(usize, &Limit)], stored: &[(usize, &Limit)], cost: &Cost) -> String {
    format!(
        "local ok,k=0,{units}
if {room} then ok=1 {bump} end
if ok==1 or early or {argument} then
local till=math.max({ends})
if #tail>0 then
local keep={{}}
for p=1,#tail-13,14 do
local i,s,c=struct.unpack('>I4I6I4',tail,p)
local e=s+(i%16777216)*1000
if e>now then keep[#keep+1]=string.sub(tail,p,p+13) if e>till then till=e end end
end
tail=table.concat(keep)
end
if till>now then redis.call('SET',KEYS[1],struct.pack('>{format}',{packed})..tail,'PXAT',string.format('%.0f',till)) end
end",
        units = cost.units,
        argument = cost.mending,
        room = each(told, " and ", |n, limit| format!("c{n}+k<={}", limit.count)),
        bump = each(told, " ", |n, _| format!("c{n}=c{n}+k")),
        ends = each(told, ",", |n, limit| format!("c{n}>0 and s{n}+{} or 0", limit.window_ms)),
        format = "I4I6I4".repeat(told.len()),
        packed = each(stored, ",", |n, limit| format!("{},s{n},c{n}", limit.id)),
    )
}

fn reply(told: &[(usize, &Limit)]) -> String {
    let values = each(told, ",", |n, limit| format!("c{n},c{n}>0 and s{n}+{}-now or 0", limit.window_ms));
    format!("return struct.pack('>I1{}',ok,{values})", "I4I6".repeat(told.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_read_and_a_strange_one_is_not() {
        let plan = super::super::plan::Plan::default();
        let rules = super::super::plan::Rules::compile(&plan, &mut [0; 7]).unwrap();
        let script = Script::new(&rules.route(super::super::plan::Endpoint::Api).limits);
        let mut bytes = vec![1];
        (1..=3u8).for_each(|n| bytes.extend([0, 0, 0, n, 0, 0, 0, 0, 1, n]));
        let (admitted, standings) = script.reply(&bytes).unwrap();
        assert!(admitted);
        assert_eq!(standings[2], Standing { count: 3, reset_ms: 259 });
        assert_eq!((script.reply(&bytes[..30]), script.reply(&[])), (None, None));
        assert_eq!(mending(true, &[Mend { extra: 1, floor: 2, age_ms: 3 }]).len(), 1 + MEND_BYTES);
    }
}
