//! The directory of a log on disk: made, and locked for one process.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use super::error::OpenError;

/// The database file in the directory.
const DATABASE: &str = "log.redb";
/// The lock file in the directory; holds the process id of who has it open.
const LOCK: &str = "lock";

/// A directory that belongs to this process for as long as this value lives.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Makes the directory if it does not exist, readable by its owner only, and locks it.
    pub(super) fn claim(path: &Path) -> Result<Self, OpenError> {
        let not_writable = |source| OpenError::NotWritable { dir: path.to_owned(), source };
        make(path).map_err(not_writable)?;
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
        let mut lock = options.open(path.join(LOCK)).map_err(not_writable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::InUse { dir: path.to_owned(), pid: holder(&mut lock) });
            }
            Err(TryLockError::Error(error)) => return Err(not_writable(error)),
        }
        sign(&mut lock).map_err(not_writable)?;
        // The names of the files must survive a crash as well as what is in them.
        #[cfg(unix)]
        File::open(path).and_then(|dir| dir.sync_all()).map_err(not_writable)?;
        Ok(Directory { path: path.to_owned(), _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the database file is.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }
}

fn make(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn sign(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}

fn holder(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_claim_is_told_who_holds_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("deep/down");
        let first = Directory::claim(&place).unwrap();
        let refused = Directory::claim(&place).unwrap_err();
        let own = std::process::id();
        assert!(matches!(&refused, OpenError::InUse { pid: Some(pid), .. } if *pid == own), "{refused:?}");
        let message = refused.to_string();
        for part in [&*place.display().to_string(), &format!("process {own}"), "--store"] {
            assert!(message.contains(part), "{part:?} is not in {message:?}");
        }
        drop(first);
        Directory::claim(&place).unwrap();
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named_with_the_option_to_change_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a-file");
        std::fs::write(&file, "").unwrap();
        let place = file.join("below");
        let refused = Directory::claim(&place).unwrap_err();
        assert!(matches!(refused, OpenError::NotWritable { .. }), "{refused:?}");
        let message = refused.to_string();
        assert!(message.contains(&place.display().to_string()) && message.contains("--store"), "{message}");
    }
}
