//! A fake disk with one file: what was synced survives a crash, of the rest any part may.

use rand::Rng;

/// See the module.
#[derive(Debug, Default)]
pub struct Disk {
    bytes: Vec<u8>,
    synced: usize,
}

impl Disk {
    /// Adds to the file. Nothing of it is safe before [`Disk::sync`].
    pub fn write(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// What was written is safe.
    pub fn sync(&mut self) {
        self.synced = self.bytes.len();
    }

    /// Power goes: a random part of what was not synced is lost, the last byte that is left may be
    /// another.
    pub fn crash(&mut self, rng: &mut impl Rng) {
        let kept = rng.random_range(self.synced..=self.bytes.len());
        self.bytes.truncate(kept);
        if kept > self.synced
            && rng.random_bool(0.3)
            && let Some(last) = self.bytes.last_mut()
        {
            *last ^= 0xff;
        }
        self.synced = kept;
    }

    /// What is in the file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The file ends here from now on.
    pub fn truncate(&mut self, len: usize) {
        self.bytes.truncate(len);
        self.synced = self.synced.min(len);
    }

    /// Another file takes its place in one step.
    pub fn replace(&mut self, bytes: Vec<u8>) {
        self.synced = bytes.len();
        self.bytes = bytes;
    }
}
