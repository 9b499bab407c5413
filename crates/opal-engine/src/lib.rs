//! The embedded policy engine, behind the part of OPA's REST API that applications use.
//!
//! [`Engine`] is a cheap handle. Two roads meet in it:
//!
//! - **A change.** [`Engine::apply`] takes transactions of [`Edit`]s. The `writer` checks them one
//!   transaction at a time: `document` edits the base data in place, `policy` parses the modules
//!   and refuses a set that the engine could not answer faithfully, each problem with its file, row,
//!   column and the name it is about. One new `snapshot` is published after the whole batch.
//! - **A question.** [`Engine::evaluate`] and the REST API take the current snapshot, an immutable
//!   value, and evaluate it on the `workers`: a query waits for no writer, sees one revision, has a
//!   deadline, and a panic in it is an error of that query alone.
//!
//! [`Engine::router`] is the REST API of OPA 1.x over the same handle, with the same paths, statuses
//! and error bodies, for the caller to serve; [`load_paths`] reads files as `opa run` does.
//!
//! Rego is evaluated by `regorus`. What it lacks is refused when a policy is put, never answered
//! with a quiet *undefined*: missing builtins (`http.send`, `opa.runtime`, `io.jwt.*`, `crypto.*` and
//! others), string interpolation, `not` with a body, `walk` without its output as second argument, a
//! builtin put in another builtin's place by `with`.
//!
//! # What costs what
//!
//! A query of one rule, or of base data alone, costs the same however many modules there are; any
//! other query costs a little for each module. A change of data copies the levels on its path, and
//! analyses all modules again (the crate cannot take new data without): about 0.1 ms for each. A
//! change of policy parses all modules again, unless it only adds some.
//!
//! # What differs from OPA
//!
//! - Expressions are not type-checked: `1 + "a"` is accepted, and undefined.
//! - `GET /v1/data/…/f` of a function is undefined, not an error.
//! - JSON deeper than 128 levels and numbers beyond a float's range (`1e400`) are refused; floats are
//!   of 64 bits.
//! - Sets sort before objects, and details of some builtins differ (`sprintf("%-5d")`,
//!   `json.is_valid` of what is no string, day units in `time.parse_duration_ns`).
//! - `strings.count(s, "")` is an error.

mod bundle_files;
mod document;
mod edit;
mod engine;
mod error;
mod extensions;
mod json;
mod path;
mod policy;
mod query;
mod rest;
mod retire;
mod snapshot;
mod workers;
mod writer;

pub use bundle_files::{LoadError, load_paths};
pub use edit::{Edit, PatchOperation};
pub use engine::{Engine, EngineOptions};
pub use error::{EngineError, PolicyProblem, ProblemCode};
