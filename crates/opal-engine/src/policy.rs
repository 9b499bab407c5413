//! The set of modules: parsed, checked as a whole, ready to become an engine.
//!
//! `regorus` only parses when a module is added; an unknown function or a missing builtin would show
//! as an error, or as *undefined*, in a later query. So a set is checked here, before anything is
//! published: [`guard`] bounds the shape of the text, [`syntax`] finds what the parser would read as
//! something else, [`rules`] finds rules that contradict,
//! [`functions`] finds calls of what does not exist, [`safety`] finds variables that nothing binds,
//! [`recursion`] finds rules that need themselves.

mod functions;
mod guard;
pub(crate) mod location;
mod names;
mod recursion;
mod rules;
mod safety;
mod syntax;
mod walk;

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;

use regorus::PolicyLengthConfig;
use regorus::unstable::{Module, Query, Ref};

use crate::extensions;
use crate::{PolicyProblem, ProblemCode};

pub(crate) use guard::check_text;
pub(crate) use rules::{Place, RuleIndex, dotted};

/// What `regorus` may read: OPA has no limit on lines or their length.
pub(crate) fn length_limits() -> PolicyLengthConfig {
    PolicyLengthConfig {
        max_col: NonZeroU32::MAX,
        max_file_bytes: NonZeroUsize::MIN.saturating_add(64 << 20),
        max_lines: NonZeroUsize::MAX,
    }
}

/// Modules that compile together.
#[derive(Debug, Clone)]
pub(crate) struct PolicySet {
    sources: BTreeMap<String, Arc<str>>,
    /// Holds the parsed modules, no data.
    template: regorus::Engine,
    modules: Vec<Ref<Module>>,
    rules: Arc<RuleIndex>,
    v0_compatible: bool,
}

impl PolicySet {
    pub(crate) fn new(v0_compatible: bool) -> Self {
        Self {
            sources: BTreeMap::new(),
            template: new_engine(v0_compatible),
            modules: Vec::new(),
            rules: Arc::default(),
            v0_compatible,
        }
    }

    /// The sources by id.
    pub(crate) fn sources(&self) -> &BTreeMap<String, Arc<str>> {
        &self.sources
    }

    /// An engine with these modules and no data, to be cloned.
    pub(crate) fn template(&self) -> &regorus::Engine {
        &self.template
    }

    /// Where the rules are.
    pub(crate) fn rules(&self) -> &Arc<RuleIndex> {
        &self.rules
    }

    /// This set with `changes` (`None` removes), if the result compiles.
    ///
    /// Only new modules are parsed when nothing is replaced or removed.
    pub(crate) fn with(
        &self,
        changes: &BTreeMap<String, Option<Arc<str>>>,
    ) -> Result<Self, Vec<PolicyProblem>> {
        let mut next = self.without_changed(changes);
        let to_parse: Vec<_> = match changes.keys().any(|id| self.sources.contains_key(id)) {
            true => {
                next.template = new_engine(self.v0_compatible);
                let kept = next
                    .sources
                    .iter()
                    .map(|(id, text)| (id.clone(), text.clone()));
                kept.chain(added(changes)).collect()
            }
            false => added(changes).collect(),
        };
        let mut problems = Vec::new();
        for (id, source) in to_parse {
            match parse_into(&mut next.template, &id, &source) {
                Ok(()) => drop(next.sources.insert(id, source)),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() {
            next.modules = next.template.get_modules().clone();
            next.rules = Arc::new(RuleIndex::new(&next.modules));
            problems = next.check();
        }
        if problems.is_empty() {
            Ok(next)
        } else {
            Err(problems)
        }
    }

    fn without_changed(&self, changes: &BTreeMap<String, Option<Arc<str>>>) -> Self {
        let mut next = self.clone();
        next.sources.retain(|id, _| !changes.contains_key(id));
        next
    }

    /// What is wrong with the modules taken together.
    fn check(&self) -> Vec<PolicyProblem> {
        let mut problems = syntax::check(&self.modules);
        problems.extend(self.rules.conflicts());
        problems.extend(functions::check(&self.modules, &self.rules));
        if problems.is_empty() {
            problems.extend(safety::check(&self.modules, &self.rules));
        }
        if problems.is_empty() {
            problems.extend(recursion::check(&self.modules, &self.rules));
        }
        problems
    }
}

/// The variables that a query binds.
pub(crate) fn bound_by_query(query: &Query, policies: &PolicySet) -> Vec<String> {
    safety::bound_by_query(query, policies.rules())
}

/// What is wrong with a query over the rules of `policies`.
pub(crate) fn check_query(query: &Query, policies: &PolicySet) -> Vec<PolicyProblem> {
    let mut problems = functions::check_query(query, policies.rules());
    if problems.is_empty() {
        problems.extend(safety::check_query(query, policies.rules()));
    }
    problems
}

fn new_engine(v0_compatible: bool) -> regorus::Engine {
    let mut engine = regorus::Engine::new();
    engine.set_rego_v0(v0_compatible);
    engine.set_strict_builtin_errors(false);
    engine.set_policy_length_config(length_limits());
    engine.set_gather_prints(true);
    extensions::register(&mut engine);
    engine
}

fn added(changes: &BTreeMap<String, Option<Arc<str>>>) -> impl Iterator<Item = (String, Arc<str>)> {
    changes
        .iter()
        .filter_map(|(id, source)| Some((id.clone(), source.clone()?)))
}

fn parse_into(engine: &mut regorus::Engine, id: &str, source: &str) -> Result<(), PolicyProblem> {
    if source.trim().is_empty() {
        return Err(location::whole_file(id, ProblemCode::Parse, "empty module"));
    }
    guard::check_text(id, source)?;
    engine
        .add_policy(id.to_owned(), source.to_owned())
        .map(drop)
        .map_err(|error| location::problem(id, ProblemCode::Parse, &error.to_string()))
}
