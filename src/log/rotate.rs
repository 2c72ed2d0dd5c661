//! The directory and the files: who may own them, how they are opened, how they are rotated.
//!
//! `/tmp` is shared. So: the directory is held open and never resolved again without the same checks; a file is
//! opened below it, never through a link, and is used only when it is regular, ours, and has no second name.

use super::{Destination, Plan};
use crate::sys::process::Identity;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat};
use nix::unistd::{AccessFlags, Gid, Uid, faccessat, fchown};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A file rotates when the next line would make it longer.
pub const FILE_BYTES_MAX: u64 = 10_000_000;
/// `app.log.1` … `app.log.5`.
pub const BACKUPS_MAX: u32 = 5;
/// The file of application and security events.
pub const APP_LOG: &str = "app.log";
/// The longest torn line that a new writer looks for.
const TORN_BYTES_MAX: u64 = 64 * 1024;

/// What a plan's paths are good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// The directory of `app.log`; none when the default one cannot be used.
    pub dir: Option<PathBuf>,
    /// What the operator should know.
    pub warning: Option<String>,
}

/// Looks at every path of the plan, and makes `LOG_DIR`.
///
/// # Errors
/// A sentence that says how to mend it: `LOG_DIR` was set and cannot be used, or a log file cannot.
pub fn prepare(plan: &Plan) -> Result<Prepared, String> {
    prepare_for(plan, None)
}

/// [`prepare`] by root for the user that will write.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_for(plan: &Plan, writer: Option<Identity>) -> Result<Prepared, String> {
    let prepared = match open_dir(&plan.dir, writer) {
        Ok(_) => Prepared { dir: Some(plan.dir.clone()), warning: None },
        Err(problem) if plan.dir_set => return Err(format!("LOG_DIR: {problem}")),
        Err(problem) => Prepared { dir: None, warning: Some(format!("{problem}; logging to stderr alone")) },
    };
    for destination in [&plan.access, &plan.error] {
        if let Destination::File(path) = destination {
            look_at_file(path, writer)?;
        }
    }
    Ok(prepared)
}

fn look_at_file(path: &Path, writer: Option<Identity>) -> Result<(), String> {
    let (dir, name) = split(path)?;
    let dir = open_any_dir(&dir)?;
    match fstatat(&dir, name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => acceptable(&stat, writer_uid(writer)).map_err(|problem| format!("{}: {problem}", path.display())),
        Err(_) => Ok(()),
    }
}

/// A path as its directory and its name in it.
pub(super) fn split(path: &Path) -> Result<(PathBuf, String), String> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| format!("{}: not the path of a file", path.display()))?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((dir.to_owned(), name.to_owned()))
}

/// Opens the directory of a log file that the operator named, whoever owns it.
pub(super) fn open_any_dir(path: &Path) -> Result<OwnedFd, String> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_RDONLY;
    openat(AT_FDCWD, path, flags, Mode::empty()).map_err(|error| format!("{}: {}", path.display(), error.desc()))
}

/// Opens `LOG_DIR`, made 0700 if it is not there.
pub(super) fn open_dir(path: &Path, writer: Option<Identity>) -> Result<OwnedFd, String> {
    let shown = path.display();
    let made = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.map_err(|error| format!("{shown} cannot be made ({error}); make it: mkdir -m 700 {shown}"))?;
            true
        }
        _ => false,
    };
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_RDONLY;
    let dir = openat(AT_FDCWD, path, flags, Mode::empty()).map_err(|error| match error {
        Errno::ELOOP | Errno::ENOTDIR => {
            format!("{shown} is a symbolic link or no directory; someone may have put it there: name a real directory")
        }
        Errno::EACCES => format!("{shown} cannot be opened; make it ours: chown {} {shown}", writer_uid(writer)),
        other => format!("{shown}: {}", other.desc()),
    })?;
    if made {
        give(&dir, writer).map_err(|error| format!("{shown} cannot be given to its writer ({error})"))?;
    }
    check_dir(&dir, path, writer)?;
    Ok(dir)
}

fn give(dir: &OwnedFd, writer: Option<Identity>) -> io::Result<()> {
    fchmod(dir, Mode::S_IRWXU)?;
    if let Some(identity) = writer.filter(|_| crate::sys::process::is_root()) {
        fchown(dir, Some(Uid::from_raw(identity.uid)), Some(Gid::from_raw(identity.gid)))?;
    }
    Ok(())
}

fn check_dir(dir: &OwnedFd, path: &Path, writer: Option<Identity>) -> Result<(), String> {
    let shown = path.display();
    let stat = fstat(dir).map_err(|error| format!("{shown}: {}", error.desc()))?;
    let uid = writer_uid(writer);
    if stat.st_uid != uid {
        return Err(format!("{shown} belongs to user {}; make it ours: chown {uid} {shown}", stat.st_uid));
    }
    if stat.st_mode & 0o077 != 0 {
        return Err(format!(
            "{shown} is open to others (mode {:o}); close it: chmod 700 {shown}",
            stat.st_mode & 0o777
        ));
    }
    let writable = AccessFlags::W_OK | AccessFlags::X_OK;
    faccessat(dir, ".", writable, AtFlags::AT_EACCESS)
        .map_err(|error| format!("{shown} cannot be written ({}); make it writable: chmod 700 {shown}", error.desc()))
}

fn writer_uid(writer: Option<Identity>) -> u32 {
    match writer {
        Some(identity) if crate::sys::process::is_root() => identity.uid,
        _ => Uid::effective().as_raw(),
    }
}

/// A log file, open for appending.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) file: File,
    pub(super) bytes: u64,
    pub(super) inode: u64,
}

/// Opens or makes `name` in `dir`, 0600, never through a link.
pub(super) fn open_file(dir: BorrowedFd<'_>, name: &str) -> Result<Opened, String> {
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let flags = OFlag::O_RDWR | OFlag::O_APPEND | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let opened = match openat(dir, name, flags, mode) {
        // Only one writer makes files here: who was first to make this one is not us, so it must be looked at.
        Err(Errno::ENOENT) => openat(dir, name, flags | OFlag::O_CREAT | OFlag::O_EXCL, mode),
        other => other,
    };
    let file = File::from(opened.map_err(|error| match error {
        Errno::ELOOP => "it is a symbolic link".to_owned(),
        other => other.desc().to_owned(),
    })?);
    let stat = fstat(&file).map_err(|error| error.desc().to_owned())?;
    acceptable(&stat, Uid::effective().as_raw())?;
    if stat.st_mode & 0o777 != 0o600 {
        fchmod(&file, mode).map_err(|error| error.desc().to_owned())?;
    }
    Ok(Opened { bytes: stat.st_size as u64, inode: stat.st_ino, file })
}

fn acceptable(stat: &FileStat, uid: u32) -> Result<(), String> {
    match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFLNK => return Err("it is a symbolic link".to_owned()),
        SFlag::S_IFREG => {}
        _ => return Err("it is not a regular file".to_owned()),
    }
    if stat.st_uid != uid {
        return Err(format!("it belongs to user {}, not to user {uid}", stat.st_uid));
    }
    if stat.st_nlink > 1 {
        return Err("it has a second name (hard link) somewhere".to_owned());
    }
    Ok(())
}

/// What stands at a file's name now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Our file.
    Same,
    /// Nothing, or another regular file: someone rotated.
    Moved,
    /// A link, a stranger's file, not even a file.
    Tampered,
}

/// Compares the name with the file that is open.
pub(super) fn standing(dir: BorrowedFd<'_>, name: &str, inode: u64) -> Standing {
    match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) if stat.st_ino == inode && stat.st_nlink == 1 => Standing::Same,
        Ok(stat) if acceptable(&stat, Uid::effective().as_raw()).is_ok() => Standing::Moved,
        Ok(_) => Standing::Tampered,
        Err(_) => Standing::Moved,
    }
}

/// True while the path still leads to the directory that is held open.
pub(super) fn same_dir(path: &Path, dir: BorrowedFd<'_>) -> bool {
    let (Ok(held), Ok(now)) = (fstat(dir), fstatat(AT_FDCWD, path, AtFlags::AT_SYMLINK_NOFOLLOW)) else {
        return false;
    };
    (held.st_dev, held.st_ino) == (now.st_dev, now.st_ino)
}

/// `name.4` becomes `name.5`, … `name` becomes `name.1`.
///
/// # Errors
/// A rename that fails; names without a file are passed over.
pub(super) fn shift(dir: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    for number in (1..BACKUPS_MAX).rev() {
        rename(dir, &format!("{name}.{number}"), &format!("{name}.{}", number + 1))?;
    }
    rename(dir, name, &format!("{name}.1"))
}

fn rename(dir: BorrowedFd<'_>, from: &str, to: &str) -> io::Result<()> {
    match renameat(dir, from, dir, to) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Cuts off what stands after the last newline: a line that a killed writer did not finish. Returns the length.
///
/// # Errors
/// The file cannot be read or cut.
pub(super) fn mend(opened: &mut Opened) -> io::Result<u64> {
    let from = opened.bytes.saturating_sub(TORN_BYTES_MAX);
    let mut tail = Vec::new();
    opened.file.seek(SeekFrom::Start(from))?;
    opened.file.as_fd().try_clone_to_owned().map(File::from)?.take(TORN_BYTES_MAX).read_to_end(&mut tail)?;
    let whole = match memchr::memrchr(b'\n', &tail) {
        Some(newline) => from + newline as u64 + 1,
        None if from == 0 => 0,
        None => opened.bytes,
    };
    if whole < opened.bytes {
        opened.file.set_len(whole)?;
        opened.bytes = whole;
    }
    Ok(whole)
}

/// Lines between `from` and the end of the file.
///
/// # Errors
/// The file cannot be read.
pub(super) fn lines_from(opened: &mut Opened, from: u64) -> io::Result<u64> {
    let mut tail = Vec::new();
    opened.file.seek(SeekFrom::Start(from))?;
    opened.file.try_clone()?.take(FILE_BYTES_MAX).read_to_end(&mut tail)?;
    Ok(memchr::memchr_iter(b'\n', &tail).count() as u64)
}
