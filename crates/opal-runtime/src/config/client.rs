//! Settings of `opal-client`.

use super::model;
use super::setting::{Enumeration, Kind, Setting, bool, int, text};

const fn retry(key: &'static str, help: &'static str) -> Setting {
    Setting::new(key, Kind::Model(&model::RETRY), help)
}

const STORE_TYPE: Enumeration = Enumeration {
    class: "PolicyStoreTypes",
    members: &[
        ("OPA", "OPA"),
        ("CEDAR", "CEDAR"),
        ("MOCK", "MOCK"),
        ("EMBEDDED", "EMBEDDED"),
    ],
};

const STORE_AUTH: Enumeration = Enumeration {
    class: "PolicyStoreAuth",
    members: &[
        ("NONE", "none"),
        ("TOKEN", "token"),
        ("OAUTH", "oauth"),
        ("TLS", "tls"),
    ],
};

const ENGINE_LOG: Enumeration = Enumeration {
    class: "EngineLogFormat",
    members: &[
        ("NONE", "none"),
        ("MINIMAL", "minimal"),
        ("HTTP", "http"),
        ("FULL", "full"),
    ],
};

const RANDOM_RETRY: &str =
    r#"{"wait_strategy": "random_exponential", "max_wait": 10, "attempts": 5, "wait_time": 1}"#;
const CALLBACK_CONFIG: &str =
    r#"{"method": "post", "headers": {"content-type": "application/json"}, "process_data": false}"#;
const CALLBACKS: &str = r#"{"callbacks": ["${SERVER_URL}/data/callback_report"]}"#;

/// Settings of `opal-client`.
#[rustfmt::skip] // A table: one row a line.
pub const SETTINGS: &[Setting] = &[
    text("SERVER_URL", "The server, without a slash at the end.").or("http://localhost:7002").short('s').works(),
    text("SERVER_WS_URL", "The server, for websockets.").or("${SERVER_URL|ws}").works(),
    text("SERVER_PUBSUB_URL", "Where updates are subscribed to.").or("${SERVER_WS_URL}/ws").works(),
    text("CLIENT_TOKEN", "Token that the server asks for.").or("THIS_IS_A_DEV_SECRET").short('t').secret().works(),
    text("CLIENT_API_SERVER_HOST", "Address of the client's own API.").or("127.0.0.1").works(),
    int("CLIENT_API_SERVER_PORT", "Port of the client's own API.").or("7000").works(),
    int("CLIENT_API_SERVER_WORKER_COUNT", "Processes of the client's own API.").or("1").never("one process serves with all cores"),
    int("KEEP_ALIVE_INTERVAL", "Seconds between pings to the server; 0 turns them off.").or("0").works(),
    bool("WAIT_ON_SERVER_LOAD", "Ask the server's load limit before starting.").or("false"),
    text("SCOPE_ID", "The scope this client belongs to.").or("default").works(),
    text("OPAL_CLIENT_STAT_ID", "Name of this client in statistics; random if unset."),
    Setting::new("POLICY_STORE_TYPE", Kind::Enum(&STORE_TYPE), "The policy engine.").or("OPA").works(),
    text("POLICY_STORE_URL", "Where the policy engine listens.").or("http://localhost:8181").works(),
    Setting::new("POLICY_STORE_AUTH_TYPE", Kind::Enum(&STORE_AUTH), "How the policy engine knows us.").or("none").works(),
    text("POLICY_STORE_AUTH_TOKEN", "Token for the policy engine.").secret().works(),
    text("POLICY_STORE_AUTH_OAUTH_SERVER", "Where tokens for the policy engine come from.").works(),
    text("POLICY_STORE_AUTH_OAUTH_CLIENT_ID", "Our name there.").works(),
    text("POLICY_STORE_AUTH_OAUTH_CLIENT_SECRET", "Our secret there.").secret().works(),
    retry("POLICY_STORE_CONN_RETRY", "Attempts to reach the policy engine.").or("{}").works(),
    bool("POLICY_STORE_LIVENESS_PROBE_ENABLED", "Ask the policy engine whether it lives.").or("true").works(),
    int("POLICY_STORE_LIVENESS_PROBE_INTERVAL_SECONDS", "Seconds between such questions.").or("10").works(),
    int("POLICY_STORE_LIVENESS_PROBE_TIMEOUT_SECONDS", "Seconds that an answer may take.").or("2").works(),
    retry("POLICY_UPDATER_CONN_RETRY", "Attempts to fetch policy from the server.").or(RANDOM_RETRY).works(),
    retry("DATA_STORE_CONN_RETRY", "Old name of `DATA_UPDATER_CONN_RETRY`; wins if set.").works(),
    retry("DATA_UPDATER_CONN_RETRY", "Attempts to fetch data.").or(RANDOM_RETRY).works(),
    Setting::new("POLICY_STORE_POLICY_PATHS_TO_IGNORE", Kind::List(','), "Policies in the engine that are left alone.").or("").works(),
    bool("POLICY_UPDATER_ENABLED", "Follow policy.").or("true").works(),
    text("POLICY_STORE_TLS_CLIENT_CERT", "Certificate we show to the policy engine.").works(),
    text("POLICY_STORE_TLS_CLIENT_KEY", "Its key.").works(),
    text("POLICY_STORE_TLS_CA", "Authority that signed the policy engine's certificate.").works(),
    bool("EXCLUDE_POLICY_STORE_SECRETS", "Keep secrets out of `/policy-store/config`.").or("false"),
    bool("INLINE_OPA_ENABLED", "Run the policy engine.").or("true").works(),
    text("INLINE_OPA_EXEC_PATH", "The `opa` program, else the one on the path.").works(),
    Setting::new("INLINE_OPA_CONFIG", Kind::Model(&model::OPA), "How the policy engine is run.").or("{}").works(),
    bool("OPA_V0_COMPAT", "Take policy written for OPA before 1.0.").or("true").works(),
    Setting::new("INLINE_OPA_LOG_FORMAT", Kind::Enum(&ENGINE_LOG), "What of the engine's log is shown.").or("none").works(),
    bool("INLINE_CEDAR_ENABLED", "Run the Cedar agent.").or("true"),
    text("INLINE_CEDAR_EXEC_PATH", "The `cedar-agent` program, else the one on the path."),
    Setting::new("INLINE_CEDAR_CONFIG", Kind::Model(&model::CEDAR), "How the Cedar agent is run.").or("{}"),
    Setting::new("INLINE_CEDAR_LOG_FORMAT", Kind::Enum(&ENGINE_LOG), "What of the agent's log is shown.").or("none"),
    Setting::new("POLICY_SUBSCRIPTION_DIRS", Kind::List(':'), "Directories of policy to follow.").or(".").works(),
    bool("DATA_UPDATER_ENABLED", "Follow data.").or("true").works(),
    Setting::new("DATA_TOPICS", Kind::List(','), "Topics of data to follow.").or("policy_data").works(),
    text("DEFAULT_DATA_SOURCES_CONFIG_URL", "Where the data sources are listed.").or("${SERVER_URL}/data/config").works(),
    text("DEFAULT_DATA_URL", "A data source for updates without one.").or("http://localhost:8000/policy-config").never("such updates do not exist"),
    bool("SHOULD_REPORT_ON_DATA_UPDATES", "Report how data updates went.").or("false").works(),
    Setting::new("DEFAULT_UPDATE_CALLBACK_CONFIG", Kind::Model(&model::HTTP_FETCHER), "How reports are sent.").or(CALLBACK_CONFIG).works(),
    Setting::new("DEFAULT_UPDATE_CALLBACKS", Kind::Model(&model::CALLBACKS), "Where reports are sent.").or(CALLBACKS).works(),
    bool("OPA_HEALTH_CHECK_POLICY_ENABLED", "Keep a policy in OPA that says whether it is ready.").or("false"),
    text("OPA_HEALTH_CHECK_TRANSACTION_LOG_PATH", "Where OPA keeps its transactions.").or("system/opal/transactions").never("unused upstream too"),
    text("CLIENT_ID", "Who this client is in the server's view of its clients; made for each process if unset.").ours().works(),
    text("STORE_BACKUP_PATH", "File that data is saved to.").or("/opal/backup/opa.json").works(),
    int("STORE_BACKUP_INTERVAL", "Seconds between saves.").or("60").works(),
    bool("OFFLINE_MODE_ENABLED", "Start from saved data if the server is away.").or("false").works(),
    bool("DEFAULT_OPAL_SERVER_CONNECTIVITY_DISABLED", "Start without connecting to the server.").or("false"),
    bool("SPLIT_ROOT_DATA", "Write the members of a root document one by one.").or("false").works(),
];
