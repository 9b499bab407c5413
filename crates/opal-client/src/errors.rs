//! Errors for people.

pub(crate) use opal_runtime::chain;
