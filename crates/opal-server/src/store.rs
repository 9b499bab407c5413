//! Opens the feed: in memory, or where an earlier server kept it.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use opal_protocol::{ScopeId, ServerDataSourceConfig};
use opal_pubsub::Publisher;
use opal_pubsub::feed::journal_file::{Journal, JournalError};
use opal_pubsub::feed::{FeedLog, new_epoch};
use opal_pubsub::hub::Hub;
use opal_pubsub::publisher::HubTask;
use sha2::{Digest as _, Sha256};
use tokio::task::spawn_blocking;
use tracing::info;

use crate::config::{FeedConfig, ServerConfig};
use crate::server::StartError;

/// Why a kept feed could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be used as it is.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// What is served beside it cannot be noted.
    #[error("could not use `{}`", path.display())]
    Served {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Opening it broke off.
    #[error("opening it broke off")]
    BrokeOff(#[source] io::Error),
}

/// The handle on the feed and the task behind it. Says where the feed is.
pub(crate) async fn open(config: &ServerConfig) -> Result<(Publisher, HubTask), StartError> {
    let FeedConfig { directory, limits } = config.feed.clone();
    let Some(directory) = directory else {
        info!("The feed is in memory: a restart begins a new one (OPAL_STATE_DIR keeps it)");
        let epoch = new_epoch(&mut rand::rng());
        return Ok(Publisher::new(Hub::new(FeedLog::new(epoch, limits)), None));
    };
    let served = served(config);
    let place = directory.clone();
    let opened = spawn_blocking(move || open_kept(&place, limits, &served)).await;
    let opened = opened.map_err(|error| StoreError::BrokeOff(io::Error::other(error)));
    let (journal, feed) = opened.flatten().map_err(|source| StartError::State {
        directory: directory.clone(),
        source,
    })?;
    let head = feed.head(&ScopeId::default()).revision;
    let place = directory.display();
    info!("The feed is kept in `{place}`, at revision {head}");
    Ok(Publisher::new(Hub::new(feed), Some(journal)))
}

/// What clients take from us that no change of the feed tells of: where their data comes from, and
/// which files of a commit are policy. As a digest, since sources hold secrets.
fn served(config: &ServerConfig) -> String {
    let mut hash = Sha256::new();
    match &config.data.sources {
        ServerDataSourceConfig::Static(sources) => {
            hash.update(serde_json::to_string(sources).unwrap_or_default());
        }
        ServerDataSourceConfig::External(url) => hash.update(url.as_str()),
    }
    if let Some(policy) = &config.policy {
        hash.update(format!("{:?}", policy.selection));
    }
    hex::encode(hash.finalize())
}

/// Opens the feed in `directory`. If what is `served` beside it is not what it was, a client that
/// resumed would never hear of it: the feed begins another life, and everyone takes everything anew.
fn open_kept(
    directory: &Path,
    limits: opal_pubsub::FeedLimits,
    served: &str,
) -> Result<(Journal, FeedLog), StoreError> {
    let epoch = new_epoch(&mut rand::rng());
    let (mut journal, mut feed) = Journal::open(directory, limits, epoch)?;
    let path = directory.join("served");
    let before = match std::fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(source) => return Err(StoreError::Served { path, source }),
    };
    if before.as_deref() == Some(served) {
        return Ok((journal, feed));
    }
    if before.is_some() {
        info!("Data sources or the selection of policy changed: clients take everything anew");
        feed.renew(new_epoch(&mut rand::rng()));
        journal.rotate(&feed.image())?;
    }
    // After the new life is on disk: if we end in between, the next start begins one more.
    note(directory, &path, served).map_err(|source| StoreError::Served { path, source })?;
    Ok((journal, feed))
}

/// Writes the file whole or not at all.
fn note(directory: &Path, path: &Path, text: &str) -> io::Result<()> {
    let draft = directory.join("served.tmp");
    let mut file = std::fs::File::create(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    std::fs::File::open(directory)?.sync_all()
}
