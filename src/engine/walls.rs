//! What the engine may touch beside its sockets: the model's directory and what a C library looks at. It writes nothing,
//! and starts no program: a model file is a stranger's.

use super::Settings;
use crate::sys::confine::{self, Places};
use std::path::{Path, PathBuf};

/// Where a C library, OpenMP and llama.cpp look for processors and memory, and what they load.
const SYSTEM: [&str; 6] = ["/proc", "/sys", "/etc", "/usr", "/lib", "/lib64"];

/// Raises them around this process, which has one thread; what does not hold is told, and no failure.
pub fn raise(settings: &Settings) -> Vec<String> {
    let files = confine::to_places(&places(&settings.model)).map(|_| ());
    [files, confine::to_calls_of_a_server()].into_iter().filter_map(Result::err).collect()
}

/// The directory, for a model may have parts beside it; and where it really is, for it may be a link.
fn places(model: &Path) -> Places {
    let really = model.canonicalize().ok();
    let models = [Some(model.to_owned()), really].into_iter().flatten();
    Places {
        reads: models.map(|path| confine::directory_of(&path)).chain(SYSTEM.map(PathBuf::from)).collect(),
        writes: Vec::new(),
    }
}
