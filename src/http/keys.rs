//! API keys: what one looks like, the file that holds their SHA-256, and who a presented key is. No clock of its own.
//!
//! ```text
//! cck_<id: 12 hex>_<secret: 43 of base64url, 256 random bits>        shown once; the file holds sha256(whole key)
//! ```
//! The id finds the record, so one digest is compared, in constant time; it is no secret and names the key in lists and logs.

use crate::limit::quota::{self, Quota};
use nix::fcntl::OFlag;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Largest file that is read: about 10,000 keys.
const FILE_BYTES_MAX: u64 = 4 << 20;
const ID_BYTES: usize = 12;
const KEY_BYTES: usize = 4 + ID_BYTES + 1 + 43;

/// One key as the file holds it. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Names the key; no secret.
    pub id: String,
    /// For people.
    #[serde(default)]
    pub name: String,
    /// Of the whole key, in lower-case hexadecimal digits.
    pub sha256: String,
    /// When it was made.
    pub created: u64,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<u64>,
    /// Quotas in place of all others, in the words of `RATE_LIMIT_DEFAULT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<String>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    keys: Vec<Record>,
}

/// What a presented key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    /// It may ask, by these quotas where there are any.
    Good(&'a str, &'a [Quota]),
    /// It was good once: revoked, or at its end.
    Ended(&'a str),
    /// Nobody's.
    Unknown,
}

/// The keys of one file.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    by_id: HashMap<String, Key>,
    stamp: Stamp,
}

#[derive(Clone, Debug)]
struct Key {
    digest: [u8; 32],
    ends: Option<u64>,
    quota: Vec<Quota>,
}

/// Tells one state of a file from another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp(u64, u64, i64, i64);

impl Stamp {
    /// Of the file as it is now; the default when there is none.
    pub fn of(path: &Path) -> Stamp {
        let stamp = |found: std::fs::Metadata| Stamp(found.ino(), found.len(), found.mtime(), found.mtime_nsec());
        std::fs::metadata(path).map(stamp).unwrap_or_default()
    }
}

impl Keys {
    /// Reads a file; an empty one means nobody.
    ///
    /// # Errors
    /// A sentence: it cannot be read, others may write it, it is too large, or a record in it is wrong.
    pub fn read(path: &Path) -> Result<Keys, String> {
        let stamp = Stamp::of(path);
        Ok(Keys { stamp, ..Keys::parse(&contents(path)?, path)? })
    }

    /// Reads a file's text; `path` is for the sentence.
    ///
    /// # Errors
    /// A record in it is wrong.
    pub fn parse(text: &str, path: &Path) -> Result<Keys, String> {
        let mut keys = Keys::default();
        for record in document(text, path)? {
            let wrong = |what: &str| format!("{}: key {:?}: {what}", path.display(), record.id);
            if record.id.len() != ID_BYTES || !record.id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(wrong("the id is not 12 hexadecimal digits"));
            }
            let digest = unhex(&record.sha256).ok_or_else(|| wrong("sha256 is not 64 hexadecimal digits"))?;
            let quota =
                record.quota.as_deref().map(quota::parse).transpose().map_err(|error| wrong(&error.to_string()))?;
            let ends = [record.expires, record.revoked].into_iter().flatten().min();
            let key = Key { digest, ends, quota: quota.unwrap_or_default() };
            if keys.by_id.insert(record.id.clone(), key).is_some() {
                return Err(wrong("the id stands there twice"));
            }
        }
        Ok(keys)
    }

    /// The state of the file that these came from.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// The different quotas that keys have in place of all others.
    pub fn quotas(&self) -> Vec<Vec<Quota>> {
        let mut all: Vec<Vec<Quota>> = Vec::new();
        for key in self.by_id.values().filter(|key| !key.quota.is_empty()) {
            if !all.contains(&key.quota) {
                all.push(key.quota.clone());
            }
        }
        all.sort_by_key(|quotas| quotas.iter().map(|quota| (quota.window_s, quota.count)).collect::<Vec<_>>());
        all
    }

    /// A key's own quotas.
    pub fn quota(&self, id: &str) -> Option<&[Quota]> {
        self.by_id.get(id).map(|key| key.quota.as_slice())
    }

    /// Who `presented` is at `now_s`, seconds since 1970.
    pub fn look(&self, presented: &[u8], now_s: u64) -> Standing<'_> {
        let Some(id) = id_of(presented) else { return Standing::Unknown };
        let Some((id, key)) = self.by_id.get_key_value(id) else { return Standing::Unknown };
        match same(digest(&SHA256, presented).as_ref(), &key.digest) {
            false => Standing::Unknown,
            true if key.ends.is_some_and(|end| end <= now_s) => Standing::Ended(id),
            true => Standing::Good(id, &key.quota),
        }
    }
}

/// The id inside a key of the right shape.
pub fn id_of(presented: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(presented).ok().filter(|text| text.len() == KEY_BYTES)?;
    let (id, secret) = text.strip_prefix("cck_")?.split_once('_')?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (id.len() == ID_BYTES && secret.bytes().all(plain)).then_some(id)
}

/// A new key and its record.
///
/// # Errors
/// The kernel has no random bytes.
pub fn issue(name: &str, now_s: u64) -> io::Result<(String, Record)> {
    let mut random = [0; ID_BYTES / 2 + 32];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let (id, secret) = random.split_at(ID_BYTES / 2);
    let id = hex(id);
    let key = format!("cck_{id}_{}", base64url(secret));
    let sha256 = hex(digest(&SHA256, key.as_bytes()).as_ref());
    let record =
        Record { id, name: name.to_owned(), sha256, created: now_s, expires: None, revoked: None, quota: None };
    Ok((key, record))
}

/// The records of a file, as they stand there.
///
/// # Errors
/// A sentence that names the file.
pub fn records(path: &Path) -> Result<Vec<Record>, String> {
    document(&contents(path)?, path)
}

fn contents(path: &Path) -> Result<String, String> {
    let told = |error: &dyn std::fmt::Display| format!("{} cannot be read: {error}", path.display());
    // A pipe would keep whoever opens it waiting for a writer.
    let file = std::fs::OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
    let file = file.map_err(|error| told(&error))?;
    let found = file.metadata().map_err(|error| told(&error))?;
    if !found.is_file() {
        return Err(told(&"it is no regular file"));
    }
    if found.permissions().mode() & 0o022 != 0 {
        return Err(format!("{} can be written by others: chmod go-w it", path.display()));
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| told(&error))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(told(&"it is too large"));
    }
    Ok(text)
}

fn document(text: &str, path: &Path) -> Result<Vec<Record>, String> {
    let told = |error| format!("{} cannot be read: {error}", path.display());
    if text.is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str::<Document>(text).map(|document| document.keys).map_err(told)
}

/// Replaces the file as a whole, 0600 from its first byte on; nobody reads half of it. Through a link it is the file
/// that the link names, and owner, group and mode stay, so that whoever could read it still can: a server that no longer
/// can goes on with the old keys. A file that is new belongs to `owner`, a user and a group, where one is named.
///
/// # Errors
/// It cannot be written, or not for its owner.
pub fn write(path: &Path, records: Vec<Record>, owner: Option<(u32, u32)>) -> io::Result<()> {
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let before = std::fs::metadata(path).ok();
    let temporary = beside(path, ".new");
    let _ = std::fs::remove_file(&temporary);
    let text = serde_json::to_string_pretty(&Document { keys: records }).map_err(io::Error::other)?;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    if let Some((user, group)) = before.as_ref().map(|before| (before.uid(), before.gid())).or(owner) {
        std::os::unix::fs::fchown(&file, Some(user), Some(group))?;
    }
    if let Some(before) = before {
        file.set_permissions(before.permissions())?;
    }
    file.sync_all()?;
    std::fs::rename(temporary, path)
}

/// Where the times of last use are: an empty file for each key, touched by whoever served it.
pub fn used_directory(path: &Path) -> PathBuf {
    beside(path, ".used")
}

/// A file's name with more behind it.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Compares without telling by its time where the difference is.
fn same(a: &[u8], b: &[u8; 32]) -> bool {
    let difference = a.iter().zip(b).fold(0, |sum, (a, b)| std::hint::black_box(sum | (a ^ b)));
    a.len() == b.len() && std::hint::black_box(difference) == 0
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(bytes)
}

/// RFC 4648, section 5, without padding.
fn base64url(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digits = |part: &[u8]| {
        let word = part.iter().enumerate().fold(0u32, |word, (at, byte)| word | u32::from(*byte) << (16 - 8 * at));
        (0..=part.len()).map(move |at| char::from(LETTERS[(word >> (18 - 6 * at)) as usize & 63])).collect::<Vec<_>>()
    };
    bytes.chunks(3).flat_map(digits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("chatcorn-keys-{}-{name}", std::process::id()))
    }

    #[test]
    fn a_key_is_found_by_its_digest_alone() {
        let path = file("found");
        let (key, record) = issue("alice", 100).unwrap();
        let (other, mut ended) = issue("bob", 100).unwrap();
        ended.revoked = Some(150);
        assert_eq!((key.len(), id_of(key.as_bytes())), (KEY_BYTES, Some(record.id.as_str())));
        write(&path, vec![record.clone(), ended.clone()], None).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!std::fs::read_to_string(&path).unwrap().contains(&key));
        let keys = Keys::read(&path).unwrap();
        assert_eq!(keys.look(key.as_bytes(), 200), Standing::Good(&record.id, &[]));
        assert_eq!(keys.look(other.as_bytes(), 149), Standing::Good(&ended.id, &[]));
        assert_eq!(keys.look(other.as_bytes(), 150), Standing::Ended(&ended.id));
        let forged = format!("{}{}", &key[..key.len() - 1], if key.ends_with('A') { 'B' } else { 'A' });
        for wrong in [forged.as_str(), "", "cck_", &key[1..], &record.sha256] {
            assert_eq!(keys.look(wrong.as_bytes(), 200), Standing::Unknown, "{wrong}");
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn bad_files_are_told_and_an_empty_one_means_nobody() {
        let path = file("bad");
        for text in ["{", "[]", r#"{"keys":[{"id":"x"}]}"#, r#"{"keys":[],"kyes":[]}"#] {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            assert!(Keys::read(&path).unwrap_err().contains(path.to_str().unwrap()), "{text}");
        }
        std::fs::write(&path, "").unwrap();
        assert!(Keys::read(&path).unwrap().by_id.is_empty());
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o622)).unwrap();
        assert!(Keys::read(&path).unwrap_err().contains("chmod"));
        std::fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(Keys::read(&path).unwrap_err().contains("no regular file"));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_rewritten_file_stays_readable_for_whoever_could_read_it() {
        let (path, link) = (file("kept"), file("kept-link"));
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let owner =
            |path: &Path| std::fs::metadata(path).map(|found| (found.uid(), found.gid(), found.mode())).unwrap();
        // Only root can give it away.
        let _ = std::os::unix::fs::chown(&path, Some(65_534), Some(65_534));
        let before = owner(&path);
        write(&link, vec![issue("alice", 100).unwrap().1], None).unwrap();
        assert_eq!((owner(&path), records(&path).unwrap().len()), (before, 1));
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        std::fs::remove_file(link).unwrap();
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn letters_are_the_rfcs() {
        for (bytes, text) in [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64url(bytes.as_bytes()), text);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_nobodys(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let keys = Keys::default();
            prop_assert_eq!(keys.look(&bytes, 0), Standing::Unknown);
        }
    }
}
