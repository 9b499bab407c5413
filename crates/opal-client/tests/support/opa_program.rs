//! Where the real `opa` is, and where it may listen.

use std::path::PathBuf;

/// Where the program is.
pub(crate) fn executable() -> PathBuf {
    if let Some(path) = std::env::var_os("OPAL_TEST_OPA") {
        return path.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join("opa"))
        .find(|candidate| candidate.is_file())
        .expect("no `opa` in OPAL_TEST_OPA or on PATH: run scripts/test, which installs it")
}

/// An address where nothing listens.
pub(crate) fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}
