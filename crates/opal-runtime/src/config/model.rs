//! How Python prints the settings that are JSON: their members, defaults and classes.

use opal_protocol::RedactedUrl;
use serde_json::{Map, Value};

use super::setting::Enumeration;
use crate::python;

/// What replaces a value that must not be printed.
pub const REDACTED: &str = "<redacted>";

/// A settings model of Python OPAL, as far as printing it needs.
#[derive(Debug)]
pub struct Model {
    /// The members in order.
    pub fields: &'static [Field],
}

/// A member of a [`Model`].
#[derive(Debug)]
pub struct Field {
    name: &'static str,
    /// JSON text.
    default: &'static str,
    show: Show,
}

/// How a member is printed.
#[derive(Debug)]
enum Show {
    /// As Python prints that JSON value.
    Plain,
    /// As a float, even if it is whole.
    Float,
    /// As the member of an enumeration.
    Enum(&'static Enumeration),
    /// Never.
    Redacted,
    /// Never, unless it is unset.
    Secret,
    /// As a nested model.
    Model(&'static str, &'static Model),
    /// As an array of models.
    Models(&'static str, &'static Model),
    /// A URL, without its credentials.
    Url,
    /// An array of URLs, or of pairs of a URL and how to call it.
    Callbacks,
}

const fn field(name: &'static str, default: &'static str, show: Show) -> Field {
    Field {
        name,
        default,
        show,
    }
}

impl Model {
    /// What Python's `str()` gives for this model with the members of `object`.
    pub fn render(&self, object: &Map<String, Value>) -> String {
        self.members(object, " ")
    }

    fn members(&self, object: &Map<String, Value>, separator: &str) -> String {
        let members = self.fields.iter().map(|field| {
            // Upstream's engine options also go by the engine's own flag names.
            let alias = format!("--{}", field.name.replace('_', "-"));
            let value = object.get(field.name).or_else(|| object.get(&alias));
            format!("{}={}", field.name, field.render(value))
        });
        members.collect::<Vec<_>>().join(separator)
    }
}

impl Field {
    fn render(&self, value: Option<&Value>) -> String {
        let default = || serde_json::from_str(self.default).unwrap_or(Value::Null);
        let value = value.cloned().unwrap_or_else(default);
        match (&self.show, &value) {
            (Show::Redacted, _) => python::text(REDACTED),
            (Show::Secret, Value::Null) | (Show::Plain, _) => python::value(&value),
            (Show::Secret, _) => python::text(REDACTED),
            (Show::Float, Value::Number(number)) => {
                python::float(number.as_f64().unwrap_or_default())
            }
            (Show::Enum(enumeration), Value::String(text)) => {
                let name = enumeration.name_of(text).unwrap_or(text);
                format!("<{}.{name}: {}>", enumeration.class, python::text(text))
            }
            (Show::Model(class, model), Value::Object(object)) => {
                format!("{class}({})", model.members(object, ", "))
            }
            (Show::Models(class, model), Value::Array(items)) => {
                let items = items.iter().filter_map(Value::as_object);
                let items = items.map(|item| format!("{class}({})", model.members(item, ", ")));
                format!("[{}]", items.collect::<Vec<_>>().join(", "))
            }
            (Show::Url, Value::String(url)) => python::text(&printable_url(url)),
            (Show::Callbacks, Value::Array(items)) => {
                let items = items.iter().map(callback);
                format!("[{}]", items.collect::<Vec<_>>().join(", "))
            }
            _ => python::value(&value),
        }
    }
}

fn callback(item: &Value) -> String {
    match item {
        Value::String(url) => python::text(&printable_url(url)),
        Value::Array(pair) => {
            let url = pair.first().and_then(Value::as_str).unwrap_or_default();
            let config = pair.get(1).and_then(Value::as_object);
            let config = HTTP_FETCHER.members(config.unwrap_or(&Map::new()), ", ");
            format!(
                "({}, HttpFetcherConfig({config}))",
                python::text(&printable_url(url))
            )
        }
        _ => python::text(REDACTED),
    }
}

/// `text` as it is, unless it is a URL with user, password or query: then without these.
pub(crate) fn printable_url(text: &str) -> String {
    let parsed = url::Url::parse(text);
    let carries_secret = |url: &url::Url| {
        !url.username().is_empty() || url.password().is_some() || url.query().is_some()
    };
    match parsed {
        Ok(url) if carries_secret(&url) => RedactedUrl::new(text).to_string(),
        _ => text.to_owned(),
    }
}

const WAIT_STRATEGY: Enumeration = Enumeration {
    class: "WaitStrategy",
    members: &[
        ("fixed", "fixed"),
        ("exponential", "exponential"),
        ("random_exponential", "random_exponential"),
    ],
};

const SECRET_TYPE: Enumeration = Enumeration {
    class: "SecretTypeEnum",
    members: &[("token", "token"), ("signature", "signature")],
};

const HTTP_METHODS: Enumeration = Enumeration {
    class: "HttpMethods",
    members: &[
        ("GET", "get"),
        ("POST", "post"),
        ("PUT", "put"),
        ("PATCH", "patch"),
        ("HEAD", "head"),
        ("DELETE", "delete"),
    ],
};

/// `ConnRetryOptions`.
pub(super) static RETRY: Model = Model {
    fields: &[
        field("wait_strategy", "\"fixed\"", Show::Enum(&WAIT_STRATEGY)),
        field("wait_time", "2", Show::Float),
        field("attempts", "2", Show::Plain),
        field("max_wait", "4.611686018427388e18", Show::Float),
    ],
};

/// `OpaServerOptions`.
pub(super) static OPA: Model = Model {
    fields: &[
        field("addr", "\"0.0.0.0:8181\"", Show::Plain),
        field("authentication", "\"off\"", Show::Plain),
        field("authorization", "\"off\"", Show::Plain),
        field("config_file", "null", Show::Plain),
        field("tls_ca_cert_file", "null", Show::Plain),
        field("tls_cert_file", "null", Show::Plain),
        field("tls_private_key_file", "null", Show::Plain),
        field("tls_cert_refresh_period", "null", Show::Plain),
        field("log_level", "\"info\"", Show::Plain),
        field("files", "null", Show::Plain),
        field("v0_compatible", "false", Show::Plain),
    ],
};

/// `CedarServerOptions`.
pub(super) static CEDAR: Model = Model {
    fields: &[
        field("addr", "\"0.0.0.0:8180\"", Show::Plain),
        field("authentication", "\"off\"", Show::Plain),
        field("authentication_token", "null", Show::Secret),
        field("files", "null", Show::Plain),
    ],
};

/// `GitWebhookRequestParams`.
pub(super) static WEBHOOK: Model = Model {
    fields: &[
        field("secret_header_name", "null", Show::Plain),
        field("secret_type", "null", Show::Enum(&SECRET_TYPE)),
        field("secret_parsing_regex", "null", Show::Plain),
        field("event_header_name", "null", Show::Plain),
        field("event_request_key", "null", Show::Plain),
        field("push_event_value", "null", Show::Plain),
        field("match_sender_url", "true", Show::Plain),
    ],
};

/// `HttpFetcherConfig`.
pub(super) static HTTP_FETCHER: Model = Model {
    fields: &[
        field("fetcher", "null", Show::Plain),
        field("headers", "null", Show::Redacted),
        field("is_json", "true", Show::Plain),
        field("process_data", "true", Show::Plain),
        field("method", "\"get\"", Show::Enum(&HTTP_METHODS)),
        field("data", "null", Show::Redacted),
    ],
};

/// `UpdateCallback`.
pub(super) static CALLBACKS: Model = Model {
    fields: &[field("callbacks", "[]", Show::Callbacks)],
};

static ENTRY: Model = Model {
    fields: &[
        field("url", "null", Show::Url),
        field("config", "null", Show::Redacted),
        field("topics", "[\"policy_data\"]", Show::Plain),
        field("dst_path", "\"\"", Show::Plain),
        field("save_method", "\"PUT\"", Show::Plain),
        field("data", "null", Show::Redacted),
        field("periodic_update_interval", "null", Show::Float),
    ],
};

static ENTRIES: Model = Model {
    fields: &[field(
        "entries",
        "[]",
        Show::Models("DataSourceEntryWithPollingInterval", &ENTRY),
    )],
};

/// `ServerDataSourceConfig`.
pub(super) static DATA_SOURCES: Model = Model {
    fields: &[
        field("config", "null", Show::Model("DataSourceConfig", &ENTRIES)),
        field("external_source_url", "null", Show::Url),
    ],
};
