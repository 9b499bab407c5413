//! What a client claims, held against the truth.

use std::borrow::Cow;
use std::collections::BTreeSet;

use opal_client::policy_store::MemoryStore;
use opal_client::replica::{Replica, Report};
use opal_protocol::{CommitHash, DataPath, Epoch, Position, Revision};
use serde_json::Value;

use crate::client::profile::Profile;
use crate::env::Env;
use crate::git::selected;
use crate::history::{History, Recorded};
use crate::model::{DataModel, at_commit, merged, paths};
use crate::sources::without_versions;
use crate::store;

/// What there is to know about the server.
#[derive(Debug, Clone, Copy)]
pub struct Oracle<'s> {
    /// Every change.
    pub history: &'s History,
}

/// What one life of a client has claimed so far.
#[derive(Debug, Default)]
pub struct Claims {
    model: Option<(Epoch, DataModel)>,
    looked_at: Option<(Position, u64)>,
}

impl Oracle<'_> {
    /// A client says which changes it has applied: its store must show them, wherever nothing that it
    /// does not claim could have been written.
    pub fn reported(
        &self,
        profile: &Profile,
        claims: &mut Claims,
        report: &Report,
        store: &MemoryStore,
        env: &mut Env,
    ) {
        let low = report.applied.low;
        let is_defined = report.epoch == self.history.epoch && low >= self.history.defined_from;
        if !is_defined || !profile.data {
            return;
        }
        if low > self.history.head() {
            return env.violated(format!(
                "{} claims {low}, which does not exist",
                profile.name
            ));
        }
        self.bring(claims, low, profile, env);
        let Some((_, model)) = &claims.model else {
            return;
        };
        let done = &report.applied.done;
        let (model, open) = self.with_done(model, low, done, profile, env);
        let (expected, found) = (published(model.data()), published(&store.data()));
        if let Some(difference) = difference(&expected, &found, &open) {
            env.violated(format!(
                "{} claims {low} and {done:?}, but {difference}",
                profile.name
            ));
        }
    }

    /// What a client holds that has applied everything up to `low` and the ranges `done` beyond it, and
    /// the paths at which that is not certain.
    fn with_done<'m>(
        &self,
        model: &'m DataModel,
        low: Revision,
        done: &[(Revision, Revision)],
        profile: &Profile,
        env: &Env,
    ) -> (Cow<'m, DataModel>, Vec<DataPath>) {
        let mut model = Cow::Borrowed(model);
        let mut open = Vec::new();
        for recorded in self.history.after(low) {
            let paths = paths(recorded, &profile.interests);
            if paths.is_empty() {
                continue;
            }
            if !is_done(recorded, done) {
                open.extend(paths);
                continue;
            }
            model
                .to_mut()
                .apply_change(recorded, &profile.interests, &env.sources);
            // What a patch does may hang on a part of an open change that was done already.
            let unsure = |path: &DataPath| open.iter().any(|open| open.overlaps(path));
            let unsure: Vec<DataPath> = paths.into_iter().filter(unsure).collect();
            open.extend(unsure);
        }
        (model, open)
    }

    /// A client that says it holds all it was told must hold exactly that.
    pub fn looked_at(
        &self,
        profile: &Profile,
        claims: &mut Claims,
        replica: &Replica,
        (store, writes): (&MemoryStore, u64),
        env: &mut Env,
    ) {
        let Some(position) = replica.clean_position() else {
            return;
        };
        let is_defined =
            position.epoch == self.history.epoch && position.revision >= self.history.defined_from;
        if !is_defined || claims.looked_at == Some((position, writes)) {
            return;
        }
        claims.looked_at = Some((position, writes));
        let wrong = self.wrong_with(profile, claims, replica.commit(), position, store, env);
        if let Some(wrong) = wrong {
            env.violated(format!(
                "{} is clean at {position}, but {wrong}",
                profile.name
            ));
        }
    }

    fn wrong_with(
        &self,
        profile: &Profile,
        claims: &mut Claims,
        commit: Option<&CommitHash>,
        position: Position,
        store: &MemoryStore,
        env: &Env,
    ) -> Option<String> {
        let mut expected = Value::Object(serde_json::Map::new());
        if profile.data {
            self.bring(claims, position.revision, profile, env);
            let model = claims.model.as_ref();
            expected = model.map_or(expected, |(_, model)| model.data().clone());
        }
        if profile.policy {
            let Some(commit) = commit else {
                return Some("it has no policy".to_owned());
            };
            if !self.may_hold(profile, commit, position.revision, env) {
                return Some(format!("its commit {} is an old one", commit.short()));
            }
            let reference = at_commit(&env.git, commit, profile.interests.directories());
            if store::policies(store) != store::policies(&reference) {
                return Some(format!("its policies are not those of {}", commit.short()));
            }
            expected = merged(expected, &reference.data());
        }
        difference(&expected, &store.data(), &[])
    }

    /// Whether the policies of `commit` may be those of a client that is at `revision`.
    fn may_hold(
        &self,
        profile: &Profile,
        commit: &CommitHash,
        revision: Revision,
        env: &Env,
    ) -> bool {
        let directories = profile.interests.directories();
        let of = |commit: &CommitHash| {
            let files = env.git.files(commit);
            files.map(|files| selected(files, directories))
        };
        let held = of(commit);
        let announced = self.history.commits_from(revision);
        let cloned = self.history.clones_from(revision);
        announced
            .iter()
            .chain(cloned)
            .any(|commit| of(commit) == held)
    }

    /// Makes the model in `claims` that of what the client has to hold at `revision`.
    fn bring(&self, claims: &mut Claims, revision: Revision, profile: &Profile, env: &Env) {
        let epoch = self.history.epoch;
        let kept = claims.model.take();
        let kept = kept.filter(|(of, model)| *of == epoch && model.upto() <= revision);
        let (_, mut model) =
            kept.unwrap_or_else(|| (epoch, DataModel::new(&profile.interests, &env.sources)));
        model.advance(revision, self.history, &profile.interests, &env.sources);
        claims.model = Some((epoch, model));
    }
}

/// Only what nobody but publishers writes.
fn published(data: &Value) -> Value {
    let members = data.as_object().into_iter().flatten();
    let published = members.filter(|(name, _)| name.starts_with(['d', 'u']));
    published
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn is_done(recorded: &Recorded, done: &[(Revision, Revision)]) -> bool {
    let revision = recorded.change.position.revision;
    done.iter()
        .any(|(first, last)| *first <= revision && revision <= *last)
}

/// The first place below the second level at which two stores differ, but for places that overlap
/// `open` ones. With open places, what sources bring is left out too: it may still be on its way.
fn difference(expected: &Value, found: &Value, open: &[DataPath]) -> Option<String> {
    if expected == found {
        return None;
    }
    let (expected, found) = (without_versions(expected), without_versions(found));
    let (expected, found) = (without_leftovers(expected), without_leftovers(found));
    if expected == found {
        return None;
    }
    let tops = keys(&expected).into_iter().chain(keys(&found));
    let tops: BTreeSet<String> = tops.collect();
    for top in tops {
        let (expected, found) = (expected.get(&top), found.get(&top));
        let below = expected.into_iter().chain(found).flat_map(keys);
        let below: BTreeSet<String> = below.collect();
        for name in &below {
            let path = DataPath::from_segments([top.as_str(), name.as_str()]);
            let expected = expected.and_then(|value| value.get(name));
            let found = found.and_then(|value| value.get(name));
            if expected != found && !open.iter().any(|open| open.overlaps(&path)) {
                return Some(described(&path, expected, found));
            }
        }
        let path = DataPath::from_segments([top.as_str()]);
        let same_below = below.is_empty() && expected != found;
        let one_is_missing = expected.is_none() != found.is_none();
        if (same_below || one_is_missing) && !open.iter().any(|open| open.overlaps(&path)) {
            return Some(described(&path, expected, found));
        }
    }
    None
}

/// `data` without empty objects in the static data: a module that is removed leaves its directory.
pub fn without_leftovers(data: Value) -> Value {
    let Value::Object(mut members) = data else {
        return data;
    };
    for (name, value) in &mut members {
        if !name.starts_with(['d', 'u', 's', 'q']) {
            *value = without_empty(std::mem::take(value));
        }
    }
    members.retain(|name, value| {
        let is_empty = value.as_object().is_some_and(serde_json::Map::is_empty);
        name.starts_with(['d', 'u', 's', 'q']) || !is_empty
    });
    Value::Object(members)
}

fn without_empty(value: Value) -> Value {
    let Value::Object(members) = value else {
        return value;
    };
    let members = members
        .into_iter()
        .map(|(name, value)| (name, without_empty(value)));
    let is_empty = |value: &Value| value.as_object().is_some_and(serde_json::Map::is_empty);
    Value::Object(members.filter(|(_, value)| !is_empty(value)).collect())
}

fn described(path: &DataPath, expected: Option<&Value>, found: Option<&Value>) -> String {
    let text = |value: Option<&Value>| value.map_or("nothing".to_owned(), Value::to_string);
    format!("{path} is {}, not {}", text(found), text(expected))
}

fn keys(value: &Value) -> Vec<String> {
    let members = value.as_object();
    members.map_or(Vec::new(), |members| members.keys().cloned().collect())
}
