//! The feed as bytes that survive a crash. No I/O; see [`journal_file`](super::journal_file).
//!
//! A journal is a list of records: length and CRC-32 of what follows, both in four bytes, the lowest
//! first, then JSON. The first is the header. Then comes what the feeds consisted of when the journal
//! was begun: for each scope where its history starts and the base up to there, then the history. The
//! header says how many records that takes. What was appended later follows, one record for what
//! became durable at once, so that half of it is none of it.

use std::sync::Arc;

use opal_protocol::feed::BaseEntry;
use opal_protocol::{ChainDigest, CommitHash, Document, Epoch, Revision, ScopeId, UpdateId};
use serde::{Deserialize, Serialize};

use super::base::Base;
use super::scope_log::{LastPolicy, Place, ScopeImage};
use super::{Change, ChangeDraft, FeedImage, FeedLimits, FeedLog, Payload, PolicyChange, Topics};

/// The format that is written, and the only one that is read.
pub const FORMAT: u64 = 1;

/// So many changes of a history share a record.
const CHANGES_PER_RECORD: usize = 256;

/// Bytes before the JSON of a record.
const FRAME: usize = 8;

/// What a journal said.
#[derive(Debug)]
pub struct Recovered {
    /// The feeds.
    pub log: FeedLog,
    /// Where what the journal was begun with ends.
    pub initial_len: usize,
    /// Where the last whole record ends. What follows was being written when the writer died.
    pub valid_len: usize,
}

/// Why a journal cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// It does not begin as a journal does.
    #[error(
        "it is no journal of a feed, or its beginning is damaged; restore it from a copy, or move it \
         away to start a feed without history, for which every client takes a snapshot"
    )]
    NoHeader,
    /// Another version wrote it.
    #[error(
        "it has format {found}, and this version reads format {FORMAT}; start the version that \
         wrote it, or move it away to start a feed without history"
    )]
    OtherFormat {
        /// Its format.
        found: u64,
    },
    /// A record is damaged that was whole once: something that was accepted would be lost.
    #[error(
        "it is damaged at byte {offset}, and what was accepted there is lost; restore it from a copy, \
         or move it away to start a feed without history, for which every client takes a snapshot"
    )]
    Damaged {
        /// Where the record begins.
        offset: usize,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Record {
    Header(Header),
    Scope(ScopeRecord),
    Changes(Vec<ChangeRecord>),
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: u64,
    epoch: Epoch,
    /// How many records the feeds took when the journal was begun.
    records: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct ScopeRecord {
    scope: ScopeId,
    revision: Revision,
    digest: ChainDigest,
    policy: Option<LastPolicy>,
    base: Vec<BaseEntry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ChangeRecord {
    scope: ScopeId,
    revision: Revision,
    digest: ChainDigest,
    at: u64,
    id: UpdateId,
    topics: Topics,
    kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    old: Option<CommitHash>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    new: Option<CommitHash>,
    payload: Document,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Policy,
    Data,
    Message,
}

impl ChangeRecord {
    fn of(change: &Change) -> Self {
        let (kind, old, new) = match &change.draft.payload {
            Payload::Policy(policy) => {
                let new = Some(policy.new.clone());
                (Kind::Policy, policy.old.clone(), new)
            }
            Payload::Data(_) => (Kind::Data, None, None),
            Payload::Message(_) => (Kind::Message, None, None),
        };
        Self {
            scope: change.scope.clone(),
            revision: change.position.revision,
            digest: change.position.digest,
            at: change.at,
            id: change.draft.id.clone(),
            topics: change.draft.topics.clone(),
            kind,
            old,
            new,
            payload: change.draft.payload.data().clone(),
        }
    }

    /// Puts the change back; `None` if it does not follow what is there.
    fn restore(self, log: &mut FeedLog) -> Option<()> {
        let payload = match self.kind {
            Kind::Policy => PolicyChange::recorded(self.old, self.new?, self.payload).into(),
            Kind::Data => Payload::Data(self.payload),
            Kind::Message => Payload::Message(self.payload),
        };
        let draft = ChangeDraft {
            id: self.id,
            topics: self.topics,
            payload,
        };
        let position = (self.revision, self.digest);
        log.restore(&self.scope, position, self.at, draft)
            .then_some(())
    }
}

/// The records of a new journal that begins with `image`.
pub fn encode_image(image: &FeedImage) -> impl Iterator<Item = Vec<u8>> {
    let scopes = image.scopes.iter();
    let of_histories: usize = scopes
        .map(|scope| scope.history.len().div_ceil(CHANGES_PER_RECORD))
        .sum();
    let header = Header {
        format: FORMAT,
        epoch: image.epoch,
        records: image.scopes.len() + of_histories,
    };
    let scopes = image.scopes.iter().flat_map(|scope| {
        let history = scope.history.chunks(CHANGES_PER_RECORD).map(encode_changes);
        std::iter::once(encode_scope(scope)).chain(history)
    });
    std::iter::once(encode(&Record::Header(header))).chain(scopes)
}

/// The record of changes that become durable at once.
pub fn encode_changes(changes: &[Arc<Change>]) -> Vec<u8> {
    let records = changes.iter().map(|change| ChangeRecord::of(change));
    encode(&Record::Changes(records.collect()))
}

fn encode_scope(image: &ScopeImage) -> Vec<u8> {
    encode(&Record::Scope(ScopeRecord {
        scope: image.scope.clone(),
        revision: image.tail.revision,
        digest: image.tail.digest,
        policy: image.tail.policy.clone(),
        base: image.base.entries().collect(),
    }))
}

fn encode(record: &Record) -> Vec<u8> {
    let mut bytes = vec![0; FRAME];
    serde_json::to_writer(&mut bytes, record).expect("a record prints as JSON");
    let (frame, json) = bytes.split_at_mut(FRAME);
    let length = u32::try_from(json.len()).expect("a record has less than four gigabytes");
    let (to_length, to_sum) = frame.split_at_mut(FRAME / 2);
    to_length.copy_from_slice(&length.to_le_bytes());
    to_sum.copy_from_slice(&crc32fast::hash(json).to_le_bytes());
    bytes
}

/// Reads a journal. A last record that is not whole is left out: nobody was told that it was stored.
pub fn recover(bytes: &[u8], limits: FeedLimits) -> Result<Recovered, RecoverError> {
    let (header, mut offset) = header(bytes)?;
    let mut log = FeedLog::new(header.epoch, limits);
    let (mut records, mut initial_len) = (0, offset);
    while offset < bytes.len() {
        let damaged = RecoverError::Damaged { offset };
        let Some((json, end)) = frame(bytes, offset) else {
            if records < header.records || has_record_after(bytes, offset) {
                return Err(damaged);
            }
            break;
        };
        let record = serde_json::from_slice(json).map_err(|_| damaged.clone())?;
        restore(record, &mut log).ok_or(damaged)?;
        records += 1;
        offset = end;
        if records <= header.records {
            initial_len = offset;
        }
    }
    if records < header.records {
        return Err(RecoverError::Damaged { offset });
    }
    Ok(Recovered {
        log,
        initial_len,
        valid_len: offset,
    })
}

fn header(bytes: &[u8]) -> Result<(Header, usize), RecoverError> {
    /// What every format says.
    #[derive(Deserialize)]
    struct AnyRecord {
        header: AnyHeader,
    }
    #[derive(Deserialize)]
    struct AnyHeader {
        format: u64,
    }
    let (json, end) = frame(bytes, 0).ok_or(RecoverError::NoHeader)?;
    let any: AnyRecord = serde_json::from_slice(json).map_err(|_| RecoverError::NoHeader)?;
    let found = any.header.format;
    if found != FORMAT {
        return Err(RecoverError::OtherFormat { found });
    }
    match serde_json::from_slice(json) {
        Ok(Record::Header(header)) => Ok((header, end)),
        _ => Err(RecoverError::NoHeader),
    }
}

fn restore(record: Record, log: &mut FeedLog) -> Option<()> {
    match record {
        Record::Header(_) => None,
        Record::Scope(record) => {
            let mut base = Base::default();
            for BaseEntry { revision, entry } in &record.base {
                base.fold_entry(*revision, entry);
            }
            let tail = Place {
                revision: record.revision,
                digest: record.digest,
                policy: record.policy,
            };
            log.begin(record.scope, tail, base);
            Some(())
        }
        Record::Changes(changes) => changes
            .into_iter()
            .try_for_each(|change| change.restore(log)),
    }
}

/// The JSON of the record at `offset`, and where it ends; `None` if it is not whole.
fn frame(bytes: &[u8], offset: usize) -> Option<(&[u8], usize)> {
    let rest = bytes.get(offset..)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let json = rest.get(..length)?;
    // Space that was never written is zeros, which is no record.
    let whole = length > 0 && crc32fast::hash(json) == u32::from_le_bytes(*sum);
    whole.then_some((json, offset + FRAME + length))
}

/// Whether there is a whole record of changes somewhere after `offset`. JSON has no zero bytes and
/// lengths do, so none is found inside another.
fn has_record_after(bytes: &[u8], offset: usize) -> bool {
    const BEGINNING: &[u8] = b"{\"changes\":";
    let first = offset + FRAME + 1;
    let rest = bytes.get(first..).unwrap_or_default();
    let mut starts = rest.windows(BEGINNING.len()).enumerate();
    starts.any(|(at, window)| window == BEGINNING && frame(bytes, first + at - FRAME).is_some())
}

#[cfg(test)]
mod tests;
