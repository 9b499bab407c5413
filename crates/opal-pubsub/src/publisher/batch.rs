//! Publishes that are accepted or refused together.
//!
//! While one batch is written, the publishes that come in are gathered for the next, so that a slow
//! disk is asked once for many of them.

use std::sync::Arc;
use std::time::Instant;

use opal_protocol::ScopeId;
use tokio::sync::oneshot;

use super::{PublishError, PublishRequest, WaitRequest};
use crate::feed::journal_file::JournalError;
use crate::feed::{AppendError, Appended, Change};
use crate::hub::{Delivery, Hub, Published};

/// A batch between staging and its outcome, of which nobody has heard.
#[derive(Debug, Default)]
pub(super) struct Batch(Vec<Staged>);

#[derive(Debug)]
struct Staged {
    scope: ScopeId,
    outcome: Result<Appended, AppendError>,
    delivery: Delivery,
    wait: Option<WaitRequest>,
    /// None once it was answered.
    answer: Option<oneshot::Sender<Result<Published, PublishError>>>,
}

/// A publish of a batch that was accepted or refused on its own, and who wants to hear of it.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) scope: ScopeId,
    pub(super) published: Result<Published, PublishError>,
    pub(super) wait: Option<WaitRequest>,
    pub(super) answer: Option<oneshot::Sender<Result<Published, PublishError>>>,
}

impl Batch {
    /// Stages these in the order in which they came. `unix_millis` is the time.
    pub(super) fn stage(
        hub: &mut Hub,
        requests: impl Iterator<Item = PublishRequest>,
        unix_millis: u64,
    ) -> Self {
        let staged = requests.map(|request| {
            let feed = hub.feed_mut();
            let outcome = feed.stage(&request.scope, None, request.draft, unix_millis);
            Staged {
                scope: request.scope,
                outcome,
                delivery: Delivery {
                    except: request.except,
                    confirm: request.wait.is_some(),
                },
                wait: request.wait,
                answer: Some(request.answer),
            }
        });
        Self(staged.collect())
    }

    /// What has to be stored.
    pub(super) fn changes(&self) -> Vec<Arc<Change>> {
        let appended = self
            .0
            .iter()
            .filter_map(|staged| staged.outcome.as_ref().ok());
        let new = appended.filter_map(|appended| match appended {
            Appended::New(change) => Some(Arc::clone(change)),
            Appended::Repeated(_) => None,
        });
        new.collect()
    }

    /// Makes the batch part of the feed and hands it to the subscribers, in order.
    pub(super) fn commit(self, hub: &mut Hub, now: Instant) -> Vec<Outcome> {
        hub.feed_mut().commit_staged();
        let outcomes = self.0.into_iter().map(|staged| Outcome {
            published: match staged.outcome {
                Ok(appended) => Ok(publish(hub, appended, staged.delivery, now)),
                Err(refused) => Err(refused.into()),
            },
            scope: staged.scope,
            wait: staged.wait,
            answer: staged.answer,
        });
        outcomes.collect()
    }

    /// Takes the batch back and says so to everyone in it: also a refusal may have been for the sake
    /// of a change that is no more.
    pub(super) fn discard(self, hub: &mut Hub, error: JournalError) {
        hub.feed_mut().discard_staged();
        let source = Arc::new(error);
        for staged in self.0 {
            let source = Arc::clone(&source);
            if let Some(answer) = staged.answer {
                // Whoever asked may have gone meanwhile; then nobody misses the answer.
                let _ = answer.send(Err(PublishError::NotStored { source }));
            }
        }
    }

    /// Says to everyone in it that nobody knows yet what becomes of it. It goes on.
    pub(super) fn leave_in_doubt(&mut self) {
        for staged in &mut self.0 {
            // Nobody is there to wait for clients.
            staged.wait = None;
            if let Some(answer) = staged.answer.take() {
                let _ = answer.send(Err(PublishError::InDoubt));
            }
        }
    }
}

fn publish(hub: &mut Hub, appended: Appended, delivery: Delivery, now: Instant) -> Published {
    let told = match &appended {
        Appended::New(change) => {
            let change = Arc::clone(change);
            hub.deliver(&change, delivery, now)
        }
        Appended::Repeated(_) => 0,
    };
    Published { appended, told }
}
