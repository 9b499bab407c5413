//! A disk that fails, for tests.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};

use opal_protocol::Epoch;

use super::disk::{Disk, Files, LogFile};
use super::{Journal, JournalError};
use crate::feed::{FeedLimits, FeedLog};

/// A disk that fails where it is told to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faulty(Arc<Mutex<Faults>>);

#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// Bytes that can still be written.
    pub(crate) space: Option<usize>,
    /// What was written is not made durable.
    pub(crate) sync: bool,
    /// Files are not cut.
    pub(crate) truncate: bool,
    /// Names are not made durable.
    pub(crate) directory: bool,
    /// Where names were made durable.
    pub(crate) synced: Vec<PathBuf>,
    /// The next sync waits for a word from here.
    pub(crate) hold: Option<Receiver<()>>,
}

#[derive(Debug)]
struct FaultyFile(Box<dyn LogFile>, Faulty);

impl Faulty {
    /// Opens the journal in `directory` on this disk.
    pub(crate) fn open(
        &self,
        directory: &Path,
        epoch: Epoch,
    ) -> Result<(Journal, FeedLog), JournalError> {
        let files = Box::new(self.clone());
        Journal::open_on(files, directory, FeedLimits::default(), epoch)
    }

    /// Changes what fails from now on.
    pub(crate) fn set(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.0.lock().unwrap());
    }

    fn check(&self, fails: impl FnOnce(&Faults) -> bool) -> io::Result<()> {
        match fails(&self.0.lock().unwrap()) {
            true => Err(io::Error::other("the disk fails")),
            false => Ok(()),
        }
    }
}

impl Files for Faulty {
    fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        Ok(Box::new(FaultyFile(Disk.create(path)?, self.clone())))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        Ok(Box::new(FaultyFile(Disk.open(path)?, self.clone())))
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.check(|faults| faults.directory)?;
        self.set(|faults| faults.synced.push(path.to_owned()));
        Disk.sync_directory(path)
    }
}

impl LogFile for FaultyFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut faults = self.1.0.lock().unwrap();
        let fits = faults
            .space
            .map_or(bytes.len(), |space| space.min(bytes.len()));
        faults.space = faults.space.map(|space| space - fits);
        self.0.append(&bytes[..fits])?;
        match fits < bytes.len() {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        let hold = self.1.0.lock().unwrap().hold.take();
        if let Some(hold) = hold {
            hold.recv().unwrap();
        }
        self.1.check(|faults| faults.sync)?;
        self.0.sync()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.1.check(|faults| faults.truncate)?;
        self.0.truncate(len)
    }
}
