//! Shared memory as words: an anonymous file, sealed against shrinking, mapped for the life of the process.
//!
//! Only atomics live in it, so there is no torn value and no lock that a killed process could hold.

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap};
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::AtomicU64;

/// A mapping that every forked child shares.
pub struct Words {
    words: &'static [AtomicU64],
    file: OwnedFd,
}

impl Words {
    /// `count` words, all zero. `name` stands in `/proc/PID/maps`.
    ///
    /// # Errors
    /// Out of memory or descriptors.
    pub fn create(name: &str, count: usize) -> io::Result<Words> {
        let file = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        nix::unistd::ftruncate(&file, (count * size_of::<AtomicU64>()) as i64)?;
        // A file that shrinks kills whoever reads the mapping: root must not trust a worker with that.
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        Words::map(file)
    }

    /// Maps words that another process created and whose descriptor came by an exec.
    ///
    /// # Errors
    /// Not a sealed memory file, or empty.
    pub fn map(file: OwnedFd) -> io::Result<Words> {
        let seals = fcntl(&file, FcntlArg::F_GET_SEALS)?;
        if seals & SealFlag::F_SEAL_SHRINK.bits() == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "shared memory is not sealed against shrinking"));
        }
        let bytes = nix::sys::stat::fstat(&file)?.st_size as usize;
        let length = NonZeroUsize::new(bytes)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "shared memory is empty"))?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new shared mapping of a file that cannot shrink, at an address of the kernel's choice; it is
        // never unmapped, and all access goes through atomics, so 'static and shared both hold.
        let words = unsafe {
            let address = mmap(None, length, access, MapFlags::MAP_SHARED, &file, 0)?;
            std::slice::from_raw_parts(address.as_ptr().cast::<AtomicU64>(), bytes / size_of::<AtomicU64>())
        };
        Ok(Words { words, file })
    }

    /// The words. They live as long as the process.
    pub fn words(&self) -> &'static [AtomicU64] {
        self.words
    }
}

/// Bytes in an anonymous file that nobody can change any more.
///
/// # Errors
/// Out of memory or descriptors.
pub fn sealed(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let file = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut file = std::fs::File::from(file);
    std::io::Write::write_all(&mut file, bytes)?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(SEALED))?;
    Ok(file.into())
}

/// Reads what [`sealed`] wrote, wherever others stand in the file.
///
/// # Errors
/// Not an open descriptor, not sealed, longer than `bytes_max`.
pub fn read_sealed(raw: RawFd, bytes_max: u64) -> io::Result<Vec<u8>> {
    let invalid = |text| io::Error::new(io::ErrorKind::InvalidData, text);
    let file = std::fs::File::from(super::fd::duplicate(raw)?);
    let seals = fcntl(&file, FcntlArg::F_GET_SEALS).map_err(|_| invalid("not a sealed memory file"))?;
    let length = file.metadata()?.len();
    if seals & SEALED.bits() != SEALED.bits() || length > bytes_max {
        return Err(invalid("not sealed, or too long"));
    }
    let mut bytes = vec![0; length as usize];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0)?;
    Ok(bytes)
}

const SEALED: SealFlag =
    SealFlag::F_SEAL_SHRINK.union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_WRITE).union(SealFlag::F_SEAL_SEAL);

impl AsFd for Words {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn two_mappings_of_one_file_share_words() {
        let first = Words::create("test", 16).unwrap();
        let second = Words::map(first.as_fd().try_clone_to_owned().unwrap()).unwrap();
        first.words()[3].store(7, Ordering::Relaxed);
        assert_eq!(second.words()[3].load(Ordering::Relaxed), 7);
    }

    #[test]
    fn a_mapping_cannot_be_shrunk() {
        let words = Words::create("test", 16).unwrap();
        assert!(nix::unistd::ftruncate(words.as_fd(), 8).is_err());
    }
}
