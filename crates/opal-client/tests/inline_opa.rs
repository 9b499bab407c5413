//! Our own `opa`: the real program, killed in the middle.

#[cfg(test)]
#[path = "support/opa_program.rs"]
mod opa_program;

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::time::Duration;

    use opal_client::engine::{EngineEvent, InlineOpa, InlineOpaConfig};
    use opal_client::policy_store::{OpaOptions, OpaStore, PolicyStore, StoreChange};
    use opal_protocol::{DataPath, Document};
    use opal_runtime::http::{HttpOptions, client};
    use tokio::sync::mpsc;
    use tokio::task::JoinSet;
    use tokio_util::sync::CancellationToken;

    use super::opa_program::{executable, free_address};

    const LIMIT: Duration = Duration::from_secs(30);

    struct Running {
        store: Arc<OpaStore>,
        events: mpsc::Receiver<EngineEvent>,
        shutdown: CancellationToken,
        tasks: JoinSet<()>,
        addr: String,
    }

    impl Running {
        fn start(program: PathBuf, addr: String) -> Self {
            let client = client(&HttpOptions::default()).unwrap();
            let mut options = OpaOptions::new(format!("http://{addr}").parse().unwrap());
            options.retry.attempts = 1;
            let store = Arc::new(OpaStore::new(client, options));
            let config = InlineOpaConfig {
                addr: addr.clone(),
                v0_compatible: true,
                ..InlineOpaConfig::default()
            };
            let (sender, events) = mpsc::channel(8);
            let shutdown = CancellationToken::new();
            let engine = InlineOpa::new(program, config, Arc::clone(&store) as _, sender);
            let mut tasks = JoinSet::new();
            tasks.spawn(engine.run(shutdown.clone()));
            Self {
                store,
                events,
                shutdown,
                tasks,
                addr,
            }
        }

        async fn event(&mut self) -> EngineEvent {
            let event = tokio::time::timeout(LIMIT, self.events.recv()).await;
            event.unwrap().unwrap()
        }

        async fn stop(mut self) {
            self.shutdown.cancel();
            let ended = tokio::time::timeout(LIMIT, self.tasks.join_next()).await;
            ended.unwrap().unwrap().unwrap();
        }

        /// The processes that were started with our address.
        fn processes(&self) -> Vec<rustix::process::Pid> {
            let argument = format!("--addr={}", self.addr);
            let entries = std::fs::read_dir("/proc").unwrap().flatten();
            entries
                .filter(|entry| {
                    let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                    String::from_utf8_lossy(&line)
                        .split('\0')
                        .any(|each| each == argument)
                })
                .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
                .filter_map(rustix::process::Pid::from_raw)
                .collect()
        }
    }

    #[tokio::test]
    async fn an_engine_that_is_killed_comes_back_empty_and_is_gone_after_shutdown() {
        let mut running = Running::start(executable(), free_address());
        assert_eq!(running.event().await, EngineEvent::Up { restart: false });
        let change = StoreChange::Put {
            path: DataPath::root(),
            document: Document::parse(r#"{"a":1}"#).unwrap(),
        };
        running.store.apply(vec![change]).await.remove(0).unwrap();

        let before = running.processes();
        assert_eq!(before.len(), 1);
        rustix::process::kill_process(before[0], rustix::process::Signal::KILL).unwrap();
        let EngineEvent::Down { reason } = running.event().await else {
            panic!("the engine was killed");
        };
        assert!(reason.starts_with("it ended with signal: 9"), "{reason}");
        assert_eq!(running.event().await, EngineEvent::Up { restart: true });
        assert_ne!(running.processes(), before);

        let store = Arc::clone(&running.store);
        let addr = running.addr.clone();
        running.shutdown.cancel();
        running.tasks.join_next().await.unwrap().unwrap();
        assert!(running.processes().is_empty());
        assert!(store.is_reachable().await.is_err(), "{addr}");
    }

    #[tokio::test]
    async fn an_engine_whose_task_is_dropped_is_killed() {
        let mut running = Running::start(executable(), free_address());
        running.event().await;
        running.tasks.abort_all();
        running.tasks.join_next().await.unwrap().unwrap_err();
        let gone = async {
            while running.store.is_reachable().await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, gone).await.unwrap();
    }

    #[tokio::test]
    async fn a_program_that_fails_is_named_with_its_last_words() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("opa");
        let script = "#!/bin/sh\necho '{\"level\":\"error\",\"msg\":\"no way\",\"err\":\"today\"}' >&2\necho bye\nexit 3\n";
        std::fs::write(&program, script).unwrap();
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&program, executable).unwrap();
        let mut running = Running::start(program, free_address());
        let reason = "it ended with exit status: 3, saying: no way today".to_owned();
        assert_eq!(running.event().await, EngineEvent::Down { reason });
        running.stop().await;
    }

    #[tokio::test]
    async fn a_program_that_cannot_be_started_is_tried_again() {
        let mut running = Running::start("/no/such/opa".into(), free_address());
        for _ in 0..2 {
            let event = running.event().await;
            let EngineEvent::Down { reason } = event else {
                panic!("there is no such program");
            };
            assert!(
                reason.starts_with("could not start `/no/such/opa`"),
                "{reason}"
            );
        }
        running.stop().await;
    }

    #[tokio::test]
    async fn an_address_where_something_answers_is_not_taken_for_our_engine() {
        let addr = free_address();
        let mut first = Running::start(executable(), addr.clone());
        first.event().await;
        let mut second = Running::start(executable(), addr.clone());
        let reason = format!("something else already answers at `{addr}`");
        assert_eq!(second.event().await, EngineEvent::Down { reason });
        second.stop().await;
        first.stop().await;
    }
}
