//! What a query sees: policy and data of one revision, never changed after it is made.

use std::num::NonZeroU32;
use std::time::Duration;

use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{LimitError, Value};

use crate::policy::{Place, PolicySet, dotted, location};
use crate::{EngineError, PolicyProblem, ProblemCode, document, path};

/// Steps of evaluation between two looks at the clock.
const STEPS_PER_TIME_CHECK: NonZeroU32 = NonZeroU32::MIN.saturating_add(255);

/// One revision of everything.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Prepared; cloned for each query, which costs microseconds.
    engine: regorus::Engine,
    pub(crate) policies: PolicySet,
    pub(crate) data: Value,
}

/// Makes an engine ready for queries: `policies` over `data`, analysed.
///
/// This is where unsafe variables are found.
pub(crate) fn prepare(
    policies: &PolicySet,
    data: &Value,
    limit: Duration,
) -> Result<regorus::Engine, Vec<PolicyProblem>> {
    let mut engine = policies.template().clone();
    engine.set_execution_timer_config(ExecutionTimerConfig {
        limit,
        check_interval: STEPS_PER_TIME_CHECK,
    });
    let prepared = engine
        .add_data(data.clone())
        .and_then(|()| engine.eval_query("true".to_owned(), false));
    match prepared {
        Ok(_) => Ok(engine),
        Err(error) => Err(vec![location::problem(
            "",
            ProblemCode::Compile,
            &error.to_string(),
        )]),
    }
}

impl Snapshot {
    pub(crate) fn new(engine: regorus::Engine, policies: PolicySet, data: Value) -> Self {
        Self {
            engine,
            policies,
            data,
        }
    }

    /// The value of the document at `path`, rules included; `None` if undefined.
    pub(crate) fn evaluate(
        &self,
        path: &[String],
        input: Option<Value>,
    ) -> Result<Option<Value>, EngineError> {
        // Nothing is that deep, and the engine recurses over a reference.
        if path.len() > path::MAX_DEPTH {
            return Ok(None);
        }
        let value = match self.policies.rules().place(path) {
            Place::Data => document::read(&self.data, path).cloned(),
            Place::Rule => Some(self.run_rule(dotted(path), input)?),
            Place::Mixed => {
                let results = self.run(path::reference(path), input)?;
                let first = results.result.into_iter().next();
                first.and_then(|result| Some(result.expressions.into_iter().next()?.value))
            }
        };
        Ok(value.filter(|value| *value != Value::Undefined))
    }

    /// Evaluates one rule: unlike a query, this costs the same however many modules there are.
    fn run_rule(&self, rule: String, input: Option<Value>) -> Result<Value, EngineError> {
        let mut engine = self.engine_for(input);
        engine.eval_rule(rule).map_err(|error| failure(&error))
    }

    /// Evaluates Rego text.
    pub(crate) fn run(
        &self,
        query: String,
        input: Option<Value>,
    ) -> Result<regorus::QueryResults, EngineError> {
        let mut engine = self.engine_for(input);
        engine
            .eval_query(query, false)
            .map_err(|error| failure(&error))
    }

    /// An engine of its own for one question.
    fn engine_for(&self, input: Option<Value>) -> regorus::Engine {
        let mut engine = self.engine.clone();
        if let Some(input) = input {
            engine.set_input(input);
        }
        engine
    }
}

fn failure(error: &anyhow::Error) -> EngineError {
    if let Some(LimitError::TimeLimitExceeded { .. }) = error.downcast_ref() {
        return EngineError::DeadlineExceeded;
    }
    let problem = location::problem("", ProblemCode::Internal, &error.to_string());
    EngineError::Evaluation(vec![problem])
}
