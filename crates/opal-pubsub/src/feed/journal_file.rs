//! The journal of a feed on disk.
//!
//! A directory holds one journal, `feed-<generation>.log`, in the format of [`journal`](super::journal).
//! When it has grown enough, a new generation is begun with what the feeds consist of: written beside
//! the old one, made durable, renamed, and only then is the old one removed. One process at a time
//! has the directory.
//!
//! All calls block.

mod disk;

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use opal_protocol::Epoch;
use tracing::warn;

use super::journal::{RecoverError, Recovered, encode_changes, encode_image, recover};
use super::{Change, FeedImage, FeedLimits, FeedLog};
use disk::{Disk, Files, LogFile};

/// A generation that grew by less than this is not worth another.
const WORTH_A_GENERATION: u64 = 16 * 1024 * 1024;

/// Why a journal could not be opened or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The directory cannot be made or used.
    #[error("could not use `{path}` as the directory of the feed's journal")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has the directory.
    #[error("the feed's journal in `{path}` is in use by another process")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The journal could not be read.
    #[error("could not read the feed's journal `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The journal could be read, and not be understood.
    #[error("could not use the feed's journal `{path}`")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why, and what to do.
        source: RecoverError,
    },
    /// Something was not written, or may not have been.
    #[error("could not write the feed's journal `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// After an earlier error it is not known what the file holds: a new generation has to be begun.
    #[error("the feed's journal `{path}` is not written to after an earlier error")]
    Untrusted {
        /// The file.
        path: PathBuf,
    },
}

impl JournalError {
    /// The error and its cause in one line.
    pub fn with_cause(&self) -> String {
        match std::error::Error::source(self) {
            Some(cause) => format!("{self}: {cause}"),
            None => self.to_string(),
        }
    }
}

/// A journal that is open for writing.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    files: Box<dyn Files>,
    generation: u64,
    path: PathBuf,
    file: Box<dyn LogFile>,
    /// Where the last record ends that is known to be durable.
    len: u64,
    /// What the generation was begun with.
    initial_len: u64,
    /// Another generation is due at this length.
    rotate_at: u64,
    /// Whether the file holds what was written, and nothing else.
    trusted: bool,
    /// Held as long as the journal is.
    _lock: File,
}

impl Journal {
    /// Opens the journal in `directory`, or begins one of life `epoch` if there is none.
    ///
    /// A record at the end that is not whole was never said to be stored, and is cut off. Anything
    /// else that is wrong is an error, after which the directory is as it was.
    pub fn open(
        directory: &Path,
        limits: FeedLimits,
        epoch: Epoch,
    ) -> Result<(Self, FeedLog), JournalError> {
        Self::open_on(Box::new(Disk), directory, limits, epoch)
    }

    fn open_on(
        files: Box<dyn Files>,
        directory: &Path,
        limits: FeedLimits,
        epoch: Epoch,
    ) -> Result<(Self, FeedLog), JournalError> {
        let failed = |source| JournalError::Directory {
            path: directory.to_owned(),
            source,
        };
        disk::make_directory(files.as_ref(), directory).map_err(failed)?;
        let lock = lock(directory)?;
        let generations = generations(directory).map_err(failed)?;
        let Some(newest) = generations.last() else {
            let log = FeedLog::new(epoch, limits);
            let journal = Self::begin(files, directory, &log.image(), lock)?;
            return Ok((journal, log));
        };
        let path = file_of(directory, *newest);
        let Read {
            log,
            initial_len,
            len,
        } = read(&path, limits)?;
        let mut file = files
            .open(&path)
            .map_err(|source| write_error(&path, source))?;
        cut(&path, file.as_mut(), len)?;
        let journal = Self {
            directory: directory.to_owned(),
            files,
            generation: *newest,
            path,
            file,
            len,
            initial_len,
            // As it was before the restart: a server that is restarted often rotates too.
            rotate_at: growth_of(initial_len),
            trusted: true,
            _lock: lock,
        };
        journal.remove_others();
        Ok((journal, log))
    }

    fn begin(
        files: Box<dyn Files>,
        directory: &Path,
        image: &FeedImage,
        lock: File,
    ) -> Result<Self, JournalError> {
        let generation = 1;
        let path = file_of(directory, generation);
        let (file, len) = write_generation(files.as_ref(), &path, image)
            .map_err(|source| write_error(&path, source))?;
        files
            .sync_directory(directory)
            .map_err(|source| write_error(directory, source))?;
        Ok(Self {
            directory: directory.to_owned(),
            files,
            generation,
            path,
            file,
            len,
            initial_len: len,
            rotate_at: growth_of(len),
            trusted: true,
            _lock: lock,
        })
    }

    /// Whether the next [`Journal::store`] is to be given an image.
    pub fn needs_rotation(&self) -> bool {
        !self.trusted || self.len >= self.rotate_at
    }

    /// Makes `changes` durable: all of them, or none if it fails.
    ///
    /// `image` is what the feeds consist of without them, if [`Journal::needs_rotation`]; a new
    /// generation is begun with it first. If that fails, the old one is kept as long as it can be
    /// trusted.
    pub fn store(
        &mut self,
        image: Option<&FeedImage>,
        changes: &[Arc<Change>],
    ) -> Result<(), JournalError> {
        if let Some(image) = image
            && let Err(error) = self.rotate(image)
        {
            if !self.trusted {
                return Err(error);
            }
            let path = self.path.display();
            let error = error.with_cause();
            warn!("`{path}` is kept, since no new journal could be begun: {error}");
        }
        self.append(changes)
    }

    /// Makes `changes` durable: all of them, or none if it fails. After an error that leaves in doubt
    /// what the file holds, it is refused until [`Journal::rotate`] succeeds.
    pub fn append(&mut self, changes: &[Arc<Change>]) -> Result<(), JournalError> {
        if !self.trusted {
            let path = self.path.clone();
            return Err(JournalError::Untrusted { path });
        }
        if changes.is_empty() {
            return Ok(());
        }
        let record = encode_changes(changes);
        if let Err(source) = self.file.append(&record) {
            // Part of the record may be there. Behind it, nothing else would be found.
            let cut = self.file.truncate(self.len).and_then(|()| self.file.sync());
            self.trusted = cut.is_ok();
            return Err(write_error(&self.path, source));
        }
        if let Err(source) = self.file.sync() {
            // What the disk holds is unknown, and asking again would not tell.
            self.trusted = false;
            return Err(write_error(&self.path, source));
        }
        self.len += record.len() as u64;
        Ok(())
    }

    /// Begins a new generation with `image`, and removes the old one. After an error the old one is
    /// in use as before.
    pub fn rotate(&mut self, image: &FeedImage) -> Result<(), JournalError> {
        // Not to be tried again for every change, if it fails.
        self.rotate_at = self.len + WORTH_A_GENERATION;
        let generation = self.generation + 1;
        let path = file_of(&self.directory, generation);
        let (file, len) = write_generation(self.files.as_ref(), &path, image)
            .map_err(|source| write_error(&path, source))?;
        // From here on, whoever opens the directory finds the new one.
        self.generation = generation;
        self.path = path;
        self.file = file;
        self.len = len;
        self.initial_len = len;
        self.rotate_at = growth_of(len);
        let synced = self.files.sync_directory(&self.directory);
        self.trusted = synced.is_ok();
        synced.map_err(|source| write_error(&self.directory, source))?;
        self.remove_others();
        Ok(())
    }

    /// Bytes that were appended to this generation.
    pub fn appended(&self) -> u64 {
        self.len - self.initial_len
    }

    /// Removes what earlier runs left behind. What cannot be removed does no harm.
    fn remove_others(&self) {
        let Ok(entries) = fs::read_dir(&self.directory) else {
            return;
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            let is_ours = path
                .extension()
                .is_some_and(|end| end == "tmp" || end == "log");
            if is_ours && path != self.path {
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// The length at which a generation that begins with `initial` bytes has grown enough.
fn growth_of(initial: u64) -> u64 {
    initial + WORTH_A_GENERATION.max(2 * initial)
}

fn file_of(directory: &Path, generation: u64) -> PathBuf {
    directory.join(format!("feed-{generation:08}.log"))
}

fn write_error(path: &Path, source: io::Error) -> JournalError {
    JournalError::Write {
        path: path.to_owned(),
        source,
    }
}

fn lock(directory: &Path) -> Result<File, JournalError> {
    let failed = |source| JournalError::Directory {
        path: directory.to_owned(),
        source,
    };
    let file = disk::private_file(&directory.join("lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(JournalError::InUse {
            path: directory.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// The generations in `directory`, ascending. Each of them is whole: it got its name afterwards.
fn generations(directory: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix("feed-")?.strip_suffix(".log"));
        found.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

/// What a generation holds.
struct Read {
    log: FeedLog,
    initial_len: u64,
    len: u64,
}

fn read(path: &Path, limits: FeedLimits) -> Result<Read, JournalError> {
    let bytes = fs::read(path).map_err(|source| JournalError::Read {
        path: path.to_owned(),
        source,
    })?;
    let Recovered {
        log,
        initial_len,
        valid_len,
    } = recover(&bytes, limits).map_err(|source| JournalError::Unusable {
        path: path.to_owned(),
        source,
    })?;
    if valid_len < bytes.len() {
        let lost = bytes.len() - valid_len;
        let path = path.display();
        warn!(
            "The last {lost} bytes of `{path}` were being written when the server ended; they are left out"
        );
    }
    Ok(Read {
        log,
        initial_len: initial_len as u64,
        len: valid_len as u64,
    })
}

/// Cuts off what is behind `len`, so that nothing is appended to half a record.
fn cut(path: &Path, file: &mut dyn LogFile, len: u64) -> Result<(), JournalError> {
    let cut = file.truncate(len).and_then(|()| file.sync());
    cut.map_err(|source| write_error(path, source))
}

/// Writes a whole generation, makes it durable and gives it its name. Returns it with its length.
fn write_generation(
    files: &dyn Files,
    path: &Path,
    image: &FeedImage,
) -> io::Result<(Box<dyn LogFile>, u64)> {
    let unfinished = path.with_extension("tmp");
    let written = write_image(files, &unfinished, image)
        .and_then(|written| fs::rename(&unfinished, path).map(|()| written));
    if written.is_err() {
        // It is overwritten or removed later if this fails.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

fn write_image(
    files: &dyn Files,
    path: &Path,
    image: &FeedImage,
) -> io::Result<(Box<dyn LogFile>, u64)> {
    let mut file = files.create(path)?;
    let mut len = 0;
    for record in encode_image(image) {
        file.append(&record)?;
        len += record.len() as u64;
    }
    file.sync()?;
    Ok((file, len))
}

#[cfg(test)]
pub(crate) mod faulty;
#[cfg(test)]
mod tests;
