//! Who asks, where API keys are on: `Authorization: Bearer` or `X-API-Key` on every request below `/api` and `/v1`.
//!
//! ```text
//! file ──(reload, or a look once a second)──▶ Keys ──▶ Caller: the limiter's client, the session's principal
//!                                              └─ nobody's: 401, ended: 403; the address pays from its own quota
//! ```
//! A file that cannot be read any more changes nothing: the old keys go on.

use super::keys::{Keys, Stamp, Standing, used_directory};
use crate::limit::quota::Quota;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};
use std::collections::HashMap;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

/// The other place for a key.
pub const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// A key's last use is written so often at most, in seconds.
const USED_EVERY_S: u64 = 60;

/// `API_KEYS_FILE` and what it held when the configuration was read.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The file.
    pub path: PathBuf,
    /// Its keys.
    pub keys: Arc<Keys>,
}

/// A verified key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Names the key.
    pub id: String,
    /// In place of all other quotas, when not empty.
    pub quota: Vec<Quota>,
}

/// Why nobody was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// There was no key.
    Missing,
    /// There was one, and it is nobody's.
    Wrong,
    /// It was revoked or has expired; its id.
    Ended(String),
}

/// The keys of one runtime thread.
pub struct Door {
    path: PathBuf,
    keys: RwLock<Arc<Keys>>,
    used: Mutex<HashMap<String, u64>>,
}

impl Door {
    /// With the keys that the configuration found.
    pub fn new(plan: &Plan) -> Door {
        Door { path: plan.path.clone(), keys: RwLock::new(plan.keys.clone()), used: Mutex::default() }
    }

    /// Who asks with these headers.
    ///
    /// # Errors
    /// Nobody: see [`Denied`].
    pub fn caller(&self, headers: &HeaderMap) -> Result<Caller, Denied> {
        let presented = presented(headers).ok_or(Denied::Missing)?;
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner).clone();
        match keys.look(presented, now_s()) {
            Standing::Good(id, quota) => {
                self.note_use(id);
                Ok(Caller { id: id.to_owned(), quota: quota.to_vec() })
            }
            Standing::Ended(id) => Err(Denied::Ended(id.to_owned())),
            Standing::Unknown => Err(Denied::Wrong),
        }
    }

    /// A key's own quotas, by its id; `None` when there is no such key.
    pub fn quota(&self, id: &str) -> Option<Vec<Quota>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).quota(id).map(<[Quota]>::to_vec)
    }

    /// Looks whether the file has changed, and reads it then; to be called on a thread that may block.
    ///
    /// # Errors
    /// It has changed and cannot be read; the old keys stay.
    pub fn refresh(&self, seen: &mut Stamp) -> Result<bool, String> {
        let stamp = Stamp::of(&self.path);
        if stamp == *seen {
            return Ok(false);
        }
        *seen = stamp;
        let keys = Keys::read(&self.path)?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        Ok(true)
    }

    /// The state of the file that the keys are of.
    pub fn stamp(&self) -> Stamp {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).stamp()
    }

    /// Once a minute a key; its file's time is the last use that `chatcorn key list` shows.
    fn note_use(&self, id: &str) {
        let now_s = now_s();
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.get(id).is_some_and(|last| now_s.saturating_sub(*last) < USED_EVERY_S) {
            return;
        }
        used.insert(id.to_owned(), now_s);
        let (directory, id) = (used_directory(&self.path), id.to_owned());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = touch(&directory, &id) {
                tracing::debug!(%error, "the last use of a key is not noted");
            }
        });
    }
}

/// The id comes from our own file's keys, never from a request.
fn touch(directory: &Path, id: &str) -> io::Result<()> {
    make_directory(directory)?;
    let path = directory.join(id);
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.set_modified(SystemTime::now())
}

/// Makes the directory of last uses, unless it is there.
///
/// # Errors
/// The kernel's.
pub fn make_directory(directory: &Path) -> io::Result<()> {
    match std::fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// `Authorization: Bearer` first; another scheme is somebody else's.
fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(AUTHORIZATION).map(|value| value.as_bytes()).and_then(|value| {
        let (scheme, key) = value.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
    });
    bearer.or_else(|| headers.get(X_API_KEY).map(|value| value.as_bytes()))
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn keys_come_in_two_headers() {
        let with = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            presented(&headers).map(<[u8]>::to_vec)
        };
        assert_eq!(with(&[("authorization", "Bearer k")]).as_deref(), Some(&b"k"[..]));
        assert_eq!(with(&[("authorization", "bEARER  k ")]).as_deref(), Some(&b"k"[..]));
        assert_eq!(with(&[("authorization", "Basic x"), ("x-api-key", "k")]).as_deref(), Some(&b"k"[..]));
        assert_eq!(with(&[("authorization", "Bearer a"), ("x-api-key", "b")]).as_deref(), Some(&b"a"[..]));
        assert_eq!(with(&[("authorization", "Basic x")]), None);
        assert_eq!(with(&[]), None);
    }
}
