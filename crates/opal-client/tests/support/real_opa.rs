//! The real `opa`, one process for each test that asks for it.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::opa_program::{executable, free_address};

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
