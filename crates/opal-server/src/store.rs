//! Opens the feed: in memory, or where an earlier server kept it.

use std::io;

use opal_protocol::ScopeId;
use opal_pubsub::Publisher;
use opal_pubsub::feed::journal_file::{Journal, JournalError};
use opal_pubsub::feed::{FeedLog, new_epoch};
use opal_pubsub::hub::Hub;
use opal_pubsub::publisher::HubTask;
use tokio::task::spawn_blocking;
use tracing::info;

use crate::config::FeedConfig;
use crate::server::StartError;

/// Why a kept feed could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be used as it is.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Opening it broke off.
    #[error("opening it broke off")]
    BrokeOff(#[source] io::Error),
}

/// The handle on the feed and the task behind it. Says where the feed is.
pub(crate) async fn open(config: &FeedConfig) -> Result<(Publisher, HubTask), StartError> {
    let epoch = new_epoch(&mut rand::rng());
    let limits = config.limits;
    let Some(directory) = config.directory.clone() else {
        info!("The feed is in memory: a restart begins a new one (OPAL_STATE_DIR keeps it)");
        return Ok(Publisher::new(Hub::new(FeedLog::new(epoch, limits)), None));
    };
    let place = directory.clone();
    let opened = spawn_blocking(move || Journal::open(&place, limits, epoch)).await;
    let opened = match opened {
        Ok(opened) => opened.map_err(StoreError::from),
        Err(error) => Err(StoreError::BrokeOff(io::Error::other(error))),
    };
    let (journal, feed) = opened.map_err(|source| StartError::State {
        directory: directory.clone(),
        source,
    })?;
    let head = feed.head(&ScopeId::default()).revision;
    let place = directory.display();
    info!("The feed is kept in `{place}`, at revision {head}");
    Ok(Publisher::new(Hub::new(feed), Some(journal)))
}
