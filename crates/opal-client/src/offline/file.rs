//! The file on disk. Everything here blocks.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::contents::{FORMAT, Unusable};
use super::{Copy, Identity, Saved};

/// The offline file of one client.
#[derive(Debug)]
pub(crate) struct OfflineFile {
    path: PathBuf,
    identity: Identity,
    /// Whether what is there could not be used: kept beside the first file that we write.
    is_foreign: AtomicBool,
}

/// Why a file that is there cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The system does not let us read it.
    #[error("could not read `{}`", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Half of a file, or none of ours.
    #[error("`{}` is damaged at line {line}, column {column}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        line: usize,
        /// Where.
        column: usize,
    },
    /// Written by another version.
    #[error("`{}` has format {format}, and this version reads format {FORMAT}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u64,
    },
    /// The data of another tenant.
    #[error("`{}` belongs to scope `{scope}`", path.display())]
    OtherScope {
        /// The file.
        path: PathBuf,
        /// Its scope.
        scope: String,
    },
}

/// Why the file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("could not write `{}`", path.display())]
pub(crate) struct SaveError {
    path: PathBuf,
    source: io::Error,
}

impl OfflineFile {
    /// The file at `path` of a client that follows `identity`.
    pub(crate) fn new(path: PathBuf, identity: Identity) -> Self {
        Self {
            path,
            identity,
            is_foreign: AtomicBool::new(false),
        }
    }

    /// What the file holds; `None` if there is none.
    pub(crate) fn load(&self) -> Result<Option<Saved>, LoadError> {
        let loaded = self.read();
        let is_unusable = loaded.is_err();
        self.is_foreign.store(is_unusable, Ordering::Relaxed);
        loaded
    }

    fn read(&self) -> Result<Option<Saved>, LoadError> {
        let path = self.path.clone();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(LoadError::Unreadable { path, source }),
        };
        let saved = Saved::read(&text, &self.identity);
        saved.map(Some).map_err(|unusable| match unusable {
            Unusable::Damaged(line, column) => LoadError::Damaged { path, line, column },
            Unusable::Foreign(format) => LoadError::Foreign { path, format },
            Unusable::OtherScope(scope) => LoadError::OtherScope { path, scope },
        })
    }

    /// What is there could be read, and is of no use to the engine that runs now: the first file that
    /// takes its place leaves it beside.
    pub(crate) fn keep_when_replaced(&self) {
        self.is_foreign.store(true, Ordering::Relaxed);
    }

    /// Whether a file could be written here.
    pub(crate) fn check(&self) -> Result<(), SaveError> {
        let checked = || {
            fs::create_dir_all(self.directory())?;
            self.temporary()?;
            fs::remove_file(self.temporary_path())
        };
        checked().map_err(|source| self.failed(source))
    }

    /// Replaces the file by one that holds `copy`. After an error, and after a crash at any moment,
    /// the file that was there is still whole.
    pub(crate) fn save(&self, copy: Copy) -> Result<(), SaveError> {
        self.replace(copy).map_err(|source| self.failed(source))
    }

    fn replace(&self, copy: Copy) -> io::Result<()> {
        fs::create_dir_all(self.directory())?;
        let mut writer = BufWriter::new(self.temporary()?);
        copy.write(&self.identity, &mut writer)?;
        writer.flush()?;
        writer.get_ref().sync_all()?;
        if self.is_foreign.load(Ordering::Relaxed) {
            self.keep_aside()?;
            self.is_foreign.store(false, Ordering::Relaxed);
        }
        fs::rename(self.temporary_path(), &self.path)?;
        File::open(self.directory())?.sync_all()
    }

    /// Moves what could not be used out of the way: somebody may want to look at it.
    fn keep_aside(&self) -> io::Result<()> {
        match fs::rename(&self.path, beside(&self.path, ".unusable")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// An empty file beside ours that only we may read.
    fn temporary(&self) -> io::Result<File> {
        let path = self.temporary_path();
        // One that is there was left by a process that did not finish it.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600).open(path)
    }

    fn temporary_path(&self) -> PathBuf {
        beside(&self.path, ".tmp")
    }

    fn directory(&self) -> &Path {
        let parent = self.path.parent();
        let is_named = |parent: &&Path| !parent.as_os_str().is_empty();
        parent.filter(is_named).unwrap_or(Path::new("."))
    }

    fn failed(&self, source: io::Error) -> SaveError {
        SaveError {
            path: self.path.clone(),
            source,
        }
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests;
