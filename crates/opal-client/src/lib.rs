//! Keeps a policy store in step with an OPAL server.

pub mod data;
