//! What a journal asks of a disk, so that tests can have one that fails.

use std::fmt::Debug;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Where journals are.
pub(super) trait Files: Debug + Send {
    /// A new, empty file; an old one of that name is emptied.
    fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>>;
    /// A file that is there, to be written at its end.
    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>>;
    /// Makes the names in a directory durable.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
}

/// One journal.
pub(super) trait LogFile: Debug + Send {
    /// Writes all of `bytes` at the end; after an error any part of them may be there.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes everything that was written durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file to this length.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
}

/// The real one.
#[derive(Debug)]
pub(super) struct Disk;

impl Files for Disk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        let file = private_file(path)?;
        file.set_len(0)?;
        Ok(Box::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        let file = OpenOptions::new().append(true).open(path)?;
        Ok(Box::new(file))
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

impl LogFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }
}

/// Makes a directory for us alone, also if it was there: updates may hold what is secret. Those that
/// had to be made are there after a crash too.
pub(super) fn make_directory(files: &dyn Files, path: &Path) -> io::Result<()> {
    let named = path
        .ancestors()
        .filter(|above| !above.as_os_str().is_empty());
    let missing: Vec<&Path> = named.take_while(|above| !above.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o700))?;
    for made in missing.into_iter().rev() {
        match made.parent() {
            // Of a relative path.
            Some(parent) if parent.as_os_str().is_empty() => {
                files.sync_directory(Path::new("."))?
            }
            Some(parent) => files.sync_directory(parent)?,
            None => {}
        }
    }
    Ok(())
}

/// Opens a file for us alone, to be written at its end; makes it if it is not there.
pub(super) fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}
