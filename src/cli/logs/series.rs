//! A log file and its backups as one run of lines, whatever is rotated meanwhile.

use crate::log::rotate::BACKUPS_MAX;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A longer line is handed out in parts.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// One file's story, oldest line first.
pub(super) struct Series {
    path: PathBuf,
    current: Part,
    waiting: VecDeque<Part>,
    partial: Vec<u8>,
}

struct Part {
    reader: BufReader<File>,
    inode: u64,
}

impl Series {
    /// Opens the file and every backup at once: what is rotated later is still read, once.
    pub(super) fn open(path: &Path) -> io::Result<Series> {
        let mut waiting = parts_newer_than(path, None);
        let current = waiting.pop_front().map_or_else(|| Part::open(path), Ok)?;
        Ok(Series { path: path.to_owned(), current, waiting, partial: Vec::new() })
    }

    /// The next line without its newline; none when nothing more is there (yet). A line that is still being written
    /// waits for its newline when `more` may come.
    pub(super) fn next_line(&mut self, more: bool) -> io::Result<Option<Vec<u8>>> {
        loop {
            if self.read_line()? {
                return Ok(Some(std::mem::take(&mut self.partial)));
            }
            if self.waiting.is_empty() && more {
                self.look_for_rotation()?;
            }
            if self.waiting.is_empty() {
                let whole = !self.partial.is_empty() && !more;
                return Ok(whole.then(|| std::mem::take(&mut self.partial)));
            }
            // The writer leaves a file for good when it rotates it; what came before that is read first.
            if self.read_line()? {
                return Ok(Some(std::mem::take(&mut self.partial)));
            }
            if let Some(next) = self.waiting.pop_front() {
                self.current = next;
            }
            if !self.partial.is_empty() {
                return Ok(Some(std::mem::take(&mut self.partial)));
            }
        }
    }

    /// True when `partial` is a whole line.
    fn read_line(&mut self) -> io::Result<bool> {
        loop {
            let seen = self.current.reader.fill_buf()?;
            if seen.is_empty() {
                return Ok(false);
            }
            let end = memchr::memchr(b'\n', seen);
            self.partial.extend_from_slice(&seen[..end.unwrap_or(seen.len())]);
            let used = end.map_or(seen.len(), |end| end + 1);
            self.current.reader.consume(used);
            if end.is_some() || self.partial.len() >= LINE_BYTES_MAX {
                return Ok(true);
            }
        }
    }

    fn look_for_rotation(&mut self) -> io::Result<()> {
        let file = self.current.reader.get_ref();
        if file.metadata()?.len() < self.current.reader.stream_position()? {
            // Cut to nothing where it stood (copytruncate).
            self.current.reader.seek(SeekFrom::Start(0))?;
        }
        let there = std::fs::symlink_metadata(&self.path).is_ok_and(|stat| stat.ino() == self.current.inode);
        if !there {
            self.waiting = parts_newer_than(&self.path, Some(self.current.inode));
        }
        Ok(())
    }
}

impl Part {
    fn open(path: &Path) -> io::Result<Part> {
        let file = File::open(path)?;
        let inode = file.metadata()?.ino();
        Ok(Part { reader: BufReader::new(file), inode })
    }
}

/// The file and its backups, oldest first, as far back as the one that is known. Opened from the newest on: a rotation
/// meanwhile shows a file twice, never not at all.
fn parts_newer_than(path: &Path, known: Option<u64>) -> VecDeque<Part> {
    let mut parts: VecDeque<Part> = VecDeque::new();
    for number in 0..=BACKUPS_MAX {
        let name = if number == 0 { path.to_owned() } else { PathBuf::from(format!("{}.{number}", path.display())) };
        let Ok(part) = Part::open(&name) else { continue };
        if Some(part.inode) == known {
            break;
        }
        if parts.iter().all(|other| other.inode != part.inode) {
            parts.push_front(part);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_follower_reads_over_two_rotations_and_waits_for_the_end_of_a_line() {
        let dir = std::env::temp_dir().join(format!("chatcorn-series-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (path, first, second) = (dir.join("a.log"), dir.join("a.log.1"), dir.join("a.log.2"));
        std::fs::write(&path, "one\ntw").unwrap();
        let mut series = Series::open(&path).unwrap();
        let mut next = || series.next_line(true).unwrap().map(|line| String::from_utf8(line).unwrap());
        assert_eq!(next().as_deref(), Some("one"));
        assert_eq!(next(), None);
        File::options().append(true).open(&path).unwrap().write_all(b"o\nthree\n").unwrap();
        std::fs::rename(&path, &second).unwrap();
        std::fs::write(&first, "four\n").unwrap();
        std::fs::write(&path, "five\n").unwrap();
        let rest: Vec<String> = std::iter::from_fn(next).collect();
        assert_eq!(rest, ["two", "three", "four", "five"]);
        std::fs::write(&path, "x\n").unwrap();
        assert_eq!(series.next_line(true).unwrap().as_deref(), None);
        assert_eq!(series.next_line(true).unwrap().as_deref(), Some(&b"x"[..]));
        std::fs::remove_dir_all(dir).unwrap();
    }
}
