//! Fixtures and stand-ins for the processes around OPAL, for its tests.

pub mod git_repo;
