//! Settings of both programs.

use super::setting::{Enumeration, Kind, Setting, bool, int, list, text};

const LOGURU: &str = "log lines have one readable and one JSON form, without templates";
const TRACEBACK: &str = "there are no Python tracebacks; an error is logged with its causes";
const UVICORN: &str = "there is no uvicorn; everything logs alike";
const APM: &str = "the tracer is a Python library";

pub(super) const KEY_FORMAT: Enumeration = Enumeration {
    class: "EncryptionKeyFormat",
    members: &[("pem", "pem"), ("ssh", "ssh"), ("der", "der")],
};

/// Every name upstream knows; which of them can be used is said when the keys are read.
const ALGORITHM: Enumeration = Enumeration {
    class: "JWTAlgorithm",
    members: &[
        ("none", "none"),
        ("HS256", "HS256"),
        ("HS384", "HS384"),
        ("HS512", "HS512"),
        ("RS256", "RS256"),
        ("RS384", "RS384"),
        ("RS512", "RS512"),
        ("ES256", "ES256"),
        ("ES256K", "ES256K"),
        ("ES384", "ES384"),
        ("ES521", "ES521"),
        ("ES512", "ES512"),
        ("PS256", "PS256"),
        ("PS384", "PS384"),
        ("PS512", "PS512"),
        ("EdDSA", "EdDSA"),
    ],
};

/// The format of log lines, as upstream prints it.
const LOG_FORMAT: &str = "<green>{time}</green> | <blue>{name: <40}</blue>|\
                          <level>{level:^6} | {message}</level>\n{exception}";

/// Settings of both programs.
#[rustfmt::skip] // A table: one row a line.
pub const SETTINGS: &[Setting] = &[
    list("ALLOWED_ORIGINS", "Origins that browsers may call from (CORS).").or("*").works(),
    bool("LOG_FORMAT_INCLUDE_PID", "Put the process id into log lines.").or("false"),
    text("LOG_FORMAT", "Template of log lines.").or(LOG_FORMAT).never(LOGURU),
    bool("LOG_TRACEBACK", "Tracebacks in logs.").or("true").never(TRACEBACK),
    bool("LOG_DIAGNOSE", "Variable values in tracebacks; traces of git over SSH.").or("false").never(TRACEBACK),
    bool("LOG_COLORIZE", "Colours, where logs go to a terminal.").or("true").works(),
    bool("LOG_SERIALIZE", "Log one flat JSON object a line.").or("false").works(),
    bool("LOG_PIPE_TO_STDERR", "Log to standard error, else to standard output.").or("true").works(),
    bool("LOG_SHOW_CODE_LINE", "The line of code in log lines.").or("true").never(LOGURU),
    text("LOG_LEVEL", "The lowest level logged: TRACE, DEBUG, INFO, WARNING, ERROR.").or("INFO").works(),
    list("LOG_MODULE_EXCLUDE_LIST", "Modules whose lines are hidden, by the start of their name.").or("uvicorn").works(),
    list("LOG_MODULE_INCLUDE_LIST", "Exceptions to the modules hidden.").or("uvicorn.protocols.http").works(),
    bool("LOG_PATCH_UVICORN_LOGS", "Send the web server's lines through the same log.").or("true").never(UVICORN),
    bool("LOG_TO_FILE", "Log to a file too.").or("false"),
    text("LOG_FILE_PATH", "The log file; `{time}` is the time of its start.").or("opal_{time}.log"),
    text("LOG_FILE_ROTATION", "When a new log file is started.").or("250 MB"),
    text("LOG_FILE_RETENTION", "How long old log files are kept.").or("10 days"),
    text("LOG_FILE_COMPRESSION", "How old log files are compressed."),
    text("LOG_FILE_SERIALIZE", "JSON lines in the log file.").or("True"),
    text("LOG_FILE_LEVEL", "The lowest level in the log file.").or("INFO"),
    bool("STATISTICS_ENABLED", "Keep count of connected clients; set it on servers and clients.").or("false"),
    text("STATISTICS_ADD_CLIENT_CHANNEL", "Topic of clients that come.").or("__opal_stats_add"),
    text("STATISTICS_REMOVE_CLIENT_CHANNEL", "Topic of clients that leave.").or("__opal_stats_rm"),
    list("FETCH_PROVIDER_MODULES", "Modules with providers that fetch data.").or("opal_common.fetcher.providers"),
    int("FETCHING_WORKER_COUNT", "Fetches at the same time.").or("6").works(),
    int("FETCHING_CALLBACK_TIMEOUT", "Seconds that one fetch may take.").or("10").works(),
    int("FETCHING_ENQUEUE_TIMEOUT", "Seconds that a fetch waits for its turn.").or("10"),
    text("GIT_SSH_KEY_FILE", "Where the SSH key for git is written.").or("${home}/.ssh/opal_repo_ssh_key").works(),
    bool("CLIENT_SELF_SIGNED_CERTIFICATES_ALLOWED", "Let the client trust the authority below.").or("false").works(),
    text("CLIENT_SSL_CONTEXT_TRUSTED_CA_FILE", "Certificate of the authority that the client trusts.").works(),
    Setting::new("AUTH_PUBLIC_KEY_FORMAT", Kind::Enum(&KEY_FORMAT), "Format of the public key.").or("ssh").works(),
    Setting::new("AUTH_PUBLIC_KEY", Kind::Key, "The key that tokens are verified with: a path or the text.").works(),
    Setting::new("AUTH_JWT_ALGORITHM", Kind::Enum(&ALGORITHM), "How tokens are signed.").or("RS256").works(),
    text("AUTH_JWT_AUDIENCE", "Audience that tokens must name.").or("https://api.opal.ac/v1/").works(),
    text("AUTH_JWT_ISSUER", "Issuer that tokens must name.").or("https://opal.ac/").works(),
    list("POLICY_REPO_POLICY_EXTENSIONS", "Suffixes of policy modules.").or(".rego").works(),
    bool("ENABLE_METRICS", "Send metrics to a DogStatsD agent.").or("false"),
    bool("ENABLE_DATADOG_APM", "Send traces to Datadog.").or("false").never(APM),
    text("HTTP_FETCHER_PROVIDER_CLIENT", "The library that fetches over HTTP.").or("aiohttp").never("there is one"),
    Setting::new("HTTP_FETCHER_TIMEOUT", Kind::Float, "Seconds that one fetch over HTTP may take.").or("5").works(),
    Setting::new("SHUTDOWN_GRACE_SECONDS", Kind::Float, "Seconds that running work has to finish at shutdown.").or("10").ours().works(),
];
