//! Everything that crosses a process boundary in OPAL: messages, bundles, topics, paths, claims.
//!
//! Pure data and pure functions: no I/O, no clock, no runtime. The two roads, as types:
//!
//! - **A commit**: [`CommitHash`] → [`PolicyUpdateMessage`] on each [`Topic::policy`] →
//!   [`PolicyBundle`], complete or a diff, whose files are [`RepoPath`]s.
//! - **A data update**: [`DataUpdate`] with its [`DataSourceEntry`]s on each of
//!   [`Topic::lineage`] → a document fetched or inline → a [`DataPath`] in the policy store →
//!   [`DataUpdateReport`].
//!
//! Both travel in the frames of [`rpc`]. What may be printed of a URL is a [`RedactedUrl`].

pub mod data;
pub mod feed;
pub mod glob;
pub mod id;
pub mod json_text;
pub mod patch;
pub mod path;
pub mod policy;
pub mod redact;
pub mod report;
pub mod rpc;
pub mod token;
pub mod topic;
pub mod validate;

pub use data::{
    Callback, DataSourceConfig, DataSourceEntry, DataUpdate, Document, HttpFetcherConfig,
    HttpMethod, PatchOperation, SaveMethod, ServerDataSourceConfig, UpdateCallback,
};
pub use feed::{AtLeast, ChainDigest, Epoch, Position, Revision};
pub use glob::PathPattern;
pub use id::{CommitHash, ScopeId, UpdateId};
pub use patch::{Patch, PatchError, PlainOperation};
pub use path::{DataPath, RepoPath};
pub use policy::{DataModule, DeletedFiles, PolicyBundle, PolicyModule, PolicyUpdateMessage};
pub use redact::RedactedUrl;
pub use report::{DataEntryReport, DataUpdateReport};
pub use token::{AccessTokenRequest, Claims, PeerType};
pub use topic::Topic;
