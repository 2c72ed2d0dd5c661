//! What a worker may touch beside its sockets: its sessions, its keys, and what names and certificates are looked up in.
//!
//! They are raised once, before the first thread: a worker that is taken over by what it was sent can neither read the
//! machine's other files nor start a program. Deliberately absent: a worker that does not start because of them.

use super::Plan;
use crate::chat::store;
use crate::chat::upstream::connector::Place;
use crate::http::{auth, keys};
use crate::sys::confine::{self, Held, Places, directory_of};
use std::path::PathBuf;

/// Where a C library and TLS look: names, services, certificates, and what they load for it.
const SYSTEM: [&str; 9] = [
    "/etc",
    "/usr",
    "/lib",
    "/lib64",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/run/nscd",
    "/var/lib/sss/mc",
];

/// What the kernel makes of them.
pub struct Walls {
    files: Result<Held, String>,
    calls: Result<(), String>,
}

/// Raises them around this process, which has one thread.
pub fn raise(plan: &Plan) -> Walls {
    if let Some(auth) = &plan.http.auth {
        // Made now, for later its parent is closed.
        let _ = auth::make_directory(&keys::used_directory(&auth.path));
    }
    let files = confine::to_places(&places(plan));
    Walls { files, calls: confine::to_calls_of_a_server() }
}

impl Walls {
    /// Says what does not hold; once there is a log.
    pub fn report(&self) {
        match &self.files {
            Ok(held) => tracing::debug!(?held, "files and signals are confined"),
            Err(reason) => tracing::warn!(%reason, "files are not confined"),
        }
        if let Err(reason) = &self.calls {
            tracing::warn!(%reason, "system calls are not confined");
        }
    }
}

fn places(plan: &Plan) -> Places {
    let mut places = Places { reads: vec!["/proc/self".into()], writes: Vec::new() };
    if let store::Place::File(path) = &plan.store.place {
        places.writes.push(directory_of(path));
    }
    if let Some(auth) = &plan.http.auth {
        // The directory, for keys are replaced by a new file.
        places.reads.push(directory_of(&auth.path));
        places.writes.push(keys::used_directory(&auth.path));
    }
    if looks_up(plan) {
        places.reads.extend(SYSTEM.map(PathBuf::from));
        let named = ["SSL_CERT_FILE", "SSL_CERT_DIR"].map(std::env::var_os);
        places.reads.extend(named.into_iter().flatten().map(PathBuf::from));
    }
    places
}

/// Whether a name or a certificate may have to be looked up.
fn looks_up(plan: &Plan) -> bool {
    let away = |place: &Place| match place {
        Place::Unix(_) => false,
        Place::Tcp(host, _) => host.parse::<std::net::IpAddr>().is_err(),
        Place::Tls(..) => true,
    };
    let redis = plan.limits.as_ref().is_some_and(|limits| limits.redis.is_some());
    let database = matches!(plan.store.place, store::Place::Server(_));
    redis || database || plan.chat.targets.iter().any(|target| away(&target.place))
}
