//! Settings of `opal-server`.

use super::common::KEY_FORMAT;
use super::model;
use super::setting::{Enumeration, Kind, Setting, bool, float, int, list, text};

const SOURCE_TYPE: Enumeration = Enumeration {
    class: "PolicySourceTypes",
    members: &[("Git", "GIT"), ("Api", "API")],
};

const BUNDLE_SERVER_TYPE: Enumeration = Enumeration {
    class: "PolicyBundleServerType",
    members: &[("HTTP", "HTTP"), ("AWS_S3", "AWS-S3")],
};

const WEBHOOK_PARAMS: &str = r#"{"secret_header_name": "x-hub-signature-256", "secret_type": "signature", "secret_parsing_regex": "sha256=(.*)", "event_header_name": "X-GitHub-Event", "event_request_key": null, "push_event_value": "push"}"#;
const DATA_SOURCES: &str =
    r#"{"config": {"entries": [{"url": "${ALL_DATA_URL}", "topics": ["${ALL_DATA_TOPIC}"]}]}}"#;

const WORKERS: &str = "one process serves with all cores";
const LEFTOVER: &str = "no part of the server connects to itself";
const FORK: &str = "there are no forked workers to prepare";
const CHECKOUT: &str = "bundles are read as a stream, without a file";

/// Settings of `opal-server`.
#[rustfmt::skip] // A table: one row a line.
pub const SETTINGS: &[Setting] = &[
    text("SERVER_HOST", "Address to listen on.").or("127.0.0.1").works(),
    int("SERVER_BIND_PORT", "Port to listen on.").or("7002").works(),
    text("SERVER_PORT", "Old name of the port; used if it is a number.").works(),
    int("SERVER_WORKER_COUNT", "Processes that serve.").never(WORKERS),
    text("WS_LOCAL_URL", "Where the server finds itself.").or("ws://localhost:7002/ws").shown_as("OPAL_WS_LOCAL_URL").never(LEFTOVER),
    text("WS_TOKEN", "How the server connects to itself.").or("THIS_IS_A_DEV_SECRET").shown_as("OPAL_WS_TOKEN").secret().never(LEFTOVER),
    text("CLIENT_LOAD_LIMIT_NOTATION", "How many clients may start at once, such as `10 per second`."),
    text("BROADCAST_URI", "Where the servers of a deployment exchange messages."),
    text("BROADCAST_CHANNEL_NAME", "The channel they use there.").or("EventNotifier"),
    bool("BROADCAST_RECONNECT_ENABLED", "Survive the loss of the backbone.").or("true"),
    int("BROADCAST_RECONNECT_MAX_RETRIES", "Attempts to reconnect; 0 has no end.").or("0"),
    float("BROADCAST_RECONNECT_BACKOFF_MIN_SECONDS", "Shortest pause before reconnecting.").or("0.5"),
    float("BROADCAST_RECONNECT_BACKOFF_MAX_SECONDS", "Longest pause before reconnecting.").or("30.0"),
    int("BROADCAST_REPLAY_BUFFER_SIZE", "Messages kept while the backbone is lost.").or("10000"),
    bool("BROADCAST_RESYNC_ON_RECONNECT", "Bring clients up to date after a gap.").or("true"),
    float("BROADCAST_RESYNC_SETTLE_SECONDS", "Seconds between reconnecting and replaying.").or("2.0"),
    bool("BROADCAST_HEALTHCHECK_ENABLED", "Let the health check show a lost backbone.").or("true"),
    bool("BROADCAST_FREEZE_ON_DISCONNECT", "Refuse what clients publish while the backbone is lost.").or("true"),
    int("BROADCAST_KEEPALIVE_INTERVAL", "Seconds between signs of life on the backbone.").or("3600"),
    text("BROADCAST_KEEPALIVE_TOPIC", "Topic of the signs of life.").or("__broadcast_session_keepalive__"),
    Setting::new("AUTH_PRIVATE_KEY", Kind::Key, "The key that signs tokens: a path or the text.").secret().works(),
    Setting::new("AUTH_PRIVATE_KEY_FORMAT", Kind::Enum(&KEY_FORMAT), "Format of the private key.").or("pem").works(),
    text("AUTH_PRIVATE_KEY_PASSPHRASE", "What the private key is encrypted with.").secret().works(),
    text("AUTH_JWKS_URL", "Route of the public key.").or("/.well-known/jwks.json").works(),
    text("AUTH_JWKS_STATIC_DIR", "Directory of the file with the public key.").or("${cwd}/jwks_dir").never("the public key is served from memory"),
    text("AUTH_MASTER_TOKEN", "Secret that `POST /token` asks for.").secret().works(),
    Setting::new("POLICY_SOURCE_TYPE", Kind::Enum(&SOURCE_TYPE), "Where policy is kept.").or("GIT").works(),
    text("POLICY_REPO_URL", "The git repository with the policy.").works(),
    text("POLICY_REPO_MAIN_BRANCH", "The branch to follow.").or("master").works(),
    text("POLICY_REPO_SSH_KEY", "Private key for git over SSH, `_` for newlines.").secret().works(),
    text("POLICY_REPO_MANIFEST_PATH", "Directory of the `.manifest` file, or the file.").or("").works(),
    text("POLICY_REPO_CLONE_PATH", "Directory of the clone's directory.").or("${cwd}/regoclone").works(),
    text("POLICY_REPO_CLONE_FOLDER_PREFIX", "Name of the clone's directory.").or("opal_repo_clone").works(),
    bool("POLICY_REPO_REUSE_CLONE_PATH", "Use the same clone again after a restart.").or("false").works(),
    int("POLICY_REPO_CLONE_TIMEOUT", "Seconds that a clone may take; 0 has no end.").or("0").works(),
    int("POLICY_REPO_POLLING_INTERVAL", "Seconds between looks at the repository; 0 turns them off.").or("0").works(),
    text("POLICY_REPO_WEBHOOK_SECRET", "Secret of the git service's webhook.").secret().works(),
    Setting::new("POLICY_REPO_WEBHOOK_PARAMS", Kind::Model(&model::WEBHOOK), "Where the webhook puts secret and event.").or(WEBHOOK_PARAMS).works(),
    bool("POLICY_REPO_WEBHOOK_ENFORCE_BRANCH", "Ignore pushes to other branches.").or("false").works(),
    text("POLICY_BUNDLE_URL", "The bundle server, if policy is not in git."),
    Setting::new("POLICY_BUNDLE_SERVER_TYPE", Kind::Enum(&BUNDLE_SERVER_TYPE), "What the bundle server is.").or("HTTP"),
    text("POLICY_BUNDLE_SERVER_TOKEN", "Token for the bundle server.").secret(),
    text("POLICY_BUNDLE_SERVER_TOKEN_ID", "Name of the token for the bundle server."),
    text("POLICY_BUNDLE_SERVER_AWS_REGION", "Region of the bucket.").or("us-east-1"),
    text("POLICY_BUNDLE_TMP_PATH", "File that bundles are downloaded to.").or("/tmp/bundle.tar.gz").never(CHECKOUT),
    text("POLICY_BUNDLE_GIT_ADD_PATTERN", "Which files of a bundle are used.").or("*"),
    bool("REPO_WATCHER_ENABLED", "Watch the policy source.").or("true").works(),
    bool("PUBLISHER_ENABLED", "Publish updates, and work in the background.").or("true"),
    text("LEADER_LOCK_FILE_PATH", "Lock that one server of a machine holds.").or("/tmp/opal_server_leader.lock"),
    list("FILTER_FILE_EXTENSIONS", "Suffixes of files in bundles.").or(".rego,.json").works(),
    list("BUNDLE_IGNORE", "Patterns of files left out of bundles.").or("").works(),
    int("MAX_CHANNELS_PER_CLIENT", "Statistics records kept for each client.").or("15"),
    text("STATISTICS_WAKEUP_CHANNEL", "Topic of servers that start.").or("__opal_stats_wakeup"),
    text("STATISTICS_STATE_SYNC_CHANNEL", "Topic of what they are told.").or("__opal_stats_state_sync"),
    text("STATISTICS_SERVER_KEEPALIVE_CHANNEL", "Topic of servers that live.").or("__opal_stats_server_keepalive"),
    text("STATISTICS_SERVER_KEEPALIVE_TIMEOUT", "Seconds until a silent server is forgotten.").or("20"),
    text("ALL_DATA_TOPIC", "Topic of the default data source.").or("policy_data").works(),
    text("ALL_DATA_ROUTE", "Route of the empty default data source.").or("/policy-data").works(),
    text("ALL_DATA_URL", "The default data source as clients reach it.").or("http://localhost:7002${ALL_DATA_ROUTE}").works(),
    text("DATA_CONFIG_ROUTE", "Route of the data source configuration and of data updates.").or("/data/config").works(),
    text("DATA_CALLBACK_DEFAULT_ROUTE", "Route that takes reports of data updates.").or("/data/callback_report").works(),
    Setting::new("DATA_CONFIG_SOURCES", Kind::Model(&model::DATA_SOURCES), "Where clients get their data at the start.").or(DATA_SOURCES).works(),
    bool("NO_RPC_LOGS", "Keep the pub/sub library quiet.").or("true").never("there is no such library"),
    bool("DEBUG_INTERNAL_STATS", "Serve figures of the git cache.").or("false"),
    bool("SCOPES", "Serve the scopes API.").or("false"),
    text("REDIS_URL", "Where scopes are kept.").or("redis://localhost"),
    text("BASE_DIR", "Where scopes are cloned.").or("${home}/.local/state/opal"),
    int("POLICY_REFRESH_INTERVAL", "Seconds between looks at the scopes that ask for it; 0 turns them off.").or("0"),
    int("SCOPES_REPO_CLONES_SHARDS", "Clones of one repository.").or("1"),
    text("SCOPES_PURGE_CHANNEL", "Topic of scopes that are gone.").or("__opal_scope_purge__"),
    float("SCOPES_STORE_READ_TIMEOUT", "Seconds to find out who shares a source.").or("10.0"),
    float("SCOPES_GIT_FETCH_TIMEOUT", "Seconds that a clone or fetch may take; 0 has no end.").or("120.0"),
    int("SCOPES_GIT_MAX_WORKERS", "Git operations at once.").or("10"),
    int("SCOPES_GIT_MAX_ZOMBIES", "Operations given up but still running before new ones are refused.").or("40").never("an operation is killed when it is given up"),
    float("SCOPES_GIT_PRELOAD_DRAIN_TIMEOUT", "Seconds to wait for git before workers fork.").or("10.0").never(FORK),
    float("SCOPES_GIT_BACKOFF_BASE_SECONDS", "First pause of a source that fails; doubles.").or("10.0"),
    float("SCOPES_GIT_BACKOFF_MAX_SECONDS", "Longest pause of a source that fails; 0 has no limit.").or("0.0"),
    float("SCOPES_POLICY_CLONE_WAIT_SECONDS", "Seconds that a request for policy waits for its clone, at most 55.").or("20.0"),
    int("SCOPES_POLICY_CLONE_WAIT_MAX_INFLIGHT", "Requests that may wait so.").or("64"),
    text("STATE_DIR", "Directory for what must survive a restart; unset, it is in memory.").ours().works(),
    int("FEED_HISTORY_CHANGES", "Changes kept for clients that were away.").or("10000").ours().works(),
    int("FEED_HISTORY_BYTES", "Bytes of changes kept for clients that were away.").or("33554432").ours().works(),
    float("FEED_HISTORY_SECONDS", "Seconds that changes are kept for clients that were away; 0 has no limit.").or("0").ours().works(),
];
