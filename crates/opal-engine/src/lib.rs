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
//! [`Engine::router`] and [`serve`] are the REST API of OPA 1.x over the same handle, with the same
//! paths, statuses and error bodies; [`load_paths`] reads files as `opa run` does.
//!
//! Rego is evaluated by `regorus`. What it lacks is refused when a policy is put, never answered
//! with a quiet *undefined*.

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
pub use rest::serve;
