//! Keeps a policy store in step with an OPAL server.

pub mod data;
pub mod policy;
pub mod server_api;
