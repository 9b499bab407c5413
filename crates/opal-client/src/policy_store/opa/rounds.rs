//! The modules of a bundle, in rounds.
//!
//! OPA compiles all its modules at each step and refuses a step that leaves them inconsistent: a
//! module that needs a function of one not yet there, a second `default` for the rule of a module about
//! to go. Such steps are tried again after the others, round by round.

use std::collections::HashMap;

use opal_protocol::{PolicyBundle, PolicyModule, RepoPath};

use super::OpaStore;
use crate::policy_store::{PolicyProblem, StoreError};

enum Step<'a> {
    Put(&'a PolicyModule),
    Delete(&'a str),
}

/// A step that OPA refused, and why.
struct Refused<'a> {
    step: Step<'a>,
    problems: Vec<PolicyProblem>,
}

impl OpaStore {
    /// Carries out the bundle's policy steps and returns what OPA refuses to the end.
    ///
    /// A diff sets and deletes in the same rounds. A complete bundle deletes the `stale` policies once
    /// all others are in. As upstream they stay if a module is refused, unless it may be because of
    /// them: only a module that does not parse is refused whatever else is there.
    pub(super) async fn modules(
        &self,
        bundle: &PolicyBundle,
        stale: Vec<String>,
    ) -> Result<Vec<PolicyProblem>, StoreError> {
        let mut steps: Vec<Step<'_>> = self.in_order(bundle).map(Step::Put).collect();
        let deleted = bundle.deleted_files.iter();
        let deleted = deleted.flat_map(|files| files.policy_modules.iter());
        if bundle.is_diff() {
            let deleted = deleted.filter(|path| !self.ignored.contains(path));
            steps.extend(deleted.map(|path| Step::Delete(path.as_str())));
        }
        let mut refused = self.rounds(steps).await?;
        let hopeless = |refused: &Refused<'_>| {
            let mut problems = refused.problems.iter();
            problems.any(|problem| problem.code == "rego_parse_error")
        };
        if !stale.is_empty() && !refused.iter().any(hopeless) {
            let again = refused.into_iter().map(|refused| refused.step);
            let stale = stale.iter().map(|id| Step::Delete(id));
            refused = self.rounds(again.chain(stale).collect()).await?;
        }
        Ok(refused
            .into_iter()
            .flat_map(|refused| refused.problems)
            .collect())
    }

    /// The bundle's modules in the manifest's order, without those to be left alone.
    fn in_order<'a>(&self, bundle: &'a PolicyBundle) -> impl Iterator<Item = &'a PolicyModule> {
        let places = bundle.manifest.iter().enumerate();
        let places: HashMap<&RepoPath, usize> = places.map(|(at, path)| (path, at)).collect();
        let modules = bundle.policy_modules.iter();
        let mut modules: Vec<&PolicyModule> = modules
            .filter(|module| !self.ignored.contains(&module.path))
            .collect();
        modules.sort_by_key(|module| places.get(&module.path).copied().unwrap_or(usize::MAX));
        modules.into_iter()
    }

    /// Repeats the refused steps until none is left or a round brings no progress.
    async fn rounds<'a>(&self, mut steps: Vec<Step<'a>>) -> Result<Vec<Refused<'a>>, StoreError> {
        loop {
            let tried = steps.len();
            let mut refused = Vec::new();
            for step in steps {
                let verdict = match step {
                    Step::Put(module) => {
                        self.api
                            .put_policy(module.path.as_str(), &module.rego)
                            .await?
                    }
                    Step::Delete(id) => self.api.delete_policy(id).await?,
                };
                if let Err(problems) = verdict {
                    refused.push(Refused { step, problems });
                }
            }
            if refused.is_empty() || refused.len() == tried {
                return Ok(refused);
            }
            steps = refused.into_iter().map(|refused| refused.step).collect();
        }
    }
}
