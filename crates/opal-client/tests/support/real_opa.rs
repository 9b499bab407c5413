//! The real `opa`, one process for each test that asks for it.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

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

/// A running OPA; it ends with this value.
pub(crate) struct RealOpa {
    pub(crate) url: String,
    _process: Child,
}

impl RealOpa {
    pub(crate) async fn start() -> Self {
        let address = free_address();
        let process = Command::new(executable())
            .args(["run", "--server", "--v0-compatible", "--log-level=error"])
            .arg(format!("--addr={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let health = format!("http://{address}/health");
        let client = opal_runtime::http::client(&Default::default()).unwrap();
        let healthy = async {
            while client.get(&health).send().await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let limit = Duration::from_secs(30);
        tokio::time::timeout(limit, healthy).await.unwrap();
        Self {
            url: format!("http://{address}"),
            _process: process,
        }
    }
}
