//! A group of processes or threads that the kernel limits: cgroups(7), version 1, or 2 for whole processes.

use super::until;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

static GROUPS: AtomicUsize = AtomicUsize::new(0);

/// It is removed when the test ends; whoever is in it must have ended before, so make it first.
pub struct Group {
    place: PathBuf,
    /// Version 2.
    pub unified: bool,
}

impl Group {
    /// A group of one controller of version 1 (`freezer`, `cpu`, `memory`), else of version 2 where that has it and
    /// holds processes. `None`, with the reason printed, where neither can be made.
    pub fn make(controller: &str) -> Option<Group> {
        let name = format!("chatcorn-test-{}-{}", std::process::id(), GROUPS.fetch_add(1, Ordering::Relaxed));
        let first = Path::new("/sys/fs/cgroup").join(controller);
        let second = Path::new("/sys/fs/cgroup");
        let has = |name: &str| std::fs::read_to_string(second.join(name)).unwrap_or_default();
        let unified = has("cgroup.subtree_control").split_whitespace().any(|one| one == controller);
        let place = match (first.join("tasks").exists(), unified) {
            (true, _) => first.join(name),
            (false, true) => second.join(name),
            (false, false) => {
                println!("not run: this machine has no group of the kind {controller}");
                return None;
            }
        };
        if let Err(error) = std::fs::create_dir(&place) {
            println!("not run: {}: {error}", place.display());
            return None;
        }
        Some(Group { unified: !first.exists(), place })
    }

    /// Writes one of its files.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.place.join(name);
        std::fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Reads a number.
    pub fn number(&self, name: &str) -> u64 {
        std::fs::read_to_string(self.place.join(name)).unwrap().trim().parse().unwrap()
    }

    /// A shell's words that put the shell into it and then become the program.
    pub fn entered(&self) -> String {
        format!("echo $$ > {}/cgroup.procs && exec \"$0\"", self.place.display())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            until("the group to be empty", || std::fs::remove_dir(&self.place).is_ok());
        } else {
            let _ = std::fs::remove_dir(&self.place);
        }
    }
}
