//! `publish-data-update`.

use std::io::Write;

use opal_protocol::{DataSourceEntry, DataUpdate, RedactedUrl};
use reqwest::StatusCode;
use reqwest::header::AUTHORIZATION;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};

use super::AdminError;
use super::arguments::{Arguments, Flag};
use super::text::{Colour, DEFAULT_SERVER_URL, REQUEST_TIMEOUT};
use crate::config::{Environment, REDACTED, printable_url};
use crate::http::{self, HttpOptions};
use crate::python;

const NOTHING: &str = "You must provide either multiple entries (-e / --entries) or a single \
                       entry update (--src_url)";

macro_rules! flags {
    ($($($name:literal)+),+ $(,)?) => {
        &[$(Flag { names: &[$($name),+], values: 1 }),+]
    };
}

const FLAGS: &[Flag] = flags![
    "--server-url",
    "--server-route",
    "--reason",
    "--entries" "-e",
    "--src-url",
    "--topic" "-t",
    "--data",
    "--src-config",
    "--dst-path",
    "--save-method",
];

/// Publishes a data update through a server.
#[derive(Debug)]
pub struct PublishDataUpdate {
    /// What the server asks for, if it does.
    pub token: Option<SecretString>,
    /// The server and the route.
    pub url: String,
    /// What to publish.
    pub update: DataUpdate,
    /// Whether entries were given that are no list, which upstream ignores.
    ignored_entries: bool,
    /// Whether neither entries nor a URL were given, so that there is nothing to publish.
    nothing: bool,
}

impl PublishDataUpdate {
    pub(super) fn parse(given: &[String], environment: &Environment) -> (Arguments, Self) {
        let mut arguments = Arguments::parse(FLAGS, 1, given);
        let token = arguments
            .word()
            .or_else(|| environment.variable("OPAL_CLIENT_TOKEN"));
        let token = token.map(SecretString::from);
        let given = arguments.parsed("--entries", json!([]), "JSON", |text| {
            serde_json::from_str(text).ok()
        });
        let ignored_entries = !given.is_array();
        let no_url = arguments.text("--src-url", "").is_empty();
        let nothing = no_url && python::is_falsy(&given);
        let entries = match single_entry(&mut arguments) {
            _ if nothing => json!([]),
            Some(entry) => json!([entry]),
            None if ignored_entries => json!([]),
            None => given,
        };
        let reason = arguments.text("--reason", "");
        let update = checked(
            &mut arguments,
            &json!({"entries": entries, "reason": reason}),
        );
        let command = Self {
            token,
            url: format!(
                "{}{}",
                arguments.text("--server-url", DEFAULT_SERVER_URL),
                arguments.text("--server-route", "/data/config")
            ),
            update,
            ignored_entries,
            nothing,
        };
        (arguments, command)
    }

    /// Publishes, and prints what is published and how it went.
    ///
    /// # Errors
    ///
    /// If there is nothing to publish, or the server cannot be reached or refuses.
    pub async fn send(&self, out: &mut (dyn Write + Send), colour: bool) -> Result<(), AdminError> {
        let colour = Colour(colour);
        if self.nothing {
            writeln!(out, "{}", colour.red(NOTHING))?;
            return Err(AdminError::NothingToPublish);
        }
        if self.ignored_entries {
            let line = "Bad input for --entires was ignored";
            writeln!(out, "{}", colour.red(line))?;
        }
        writeln!(
            out,
            "Publishing event:\n{}",
            colour.cyan(&described(&self.update))
        )?;
        let (status, body) = self.post().await?;
        if status == StatusCode::OK {
            writeln!(out, "{}", colour.green("Event Published Successfully"))?;
            return Ok(());
        }
        // As upstream, to the letter.
        let line = "Event publishing failed with status-code - {res.status}";
        writeln!(out, "{}\n{body}", colour.red(line))?;
        Err(AdminError::Refused {
            url: RedactedUrl::from(self.url.as_str()),
            status,
            reason: "the update is not published".to_owned(),
        })
    }

    /// The status and the body, without the token that released servers repeat in it.
    async fn post(&self) -> Result<(StatusCode, String), AdminError> {
        let unreachable = |error| AdminError::unreachable(&self.url, error);
        let client = http::client(&HttpOptions {
            timeout: Some(REQUEST_TIMEOUT),
            ..HttpOptions::default()
        })?;
        let mut request = client.post(&self.url).json(&self.update);
        if let Some(token) = &self.token {
            let header = format!("bearer {}", token.expose_secret());
            request = request.header(AUTHORIZATION, header);
        }
        let answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        let mut body = answer.text().await.map_err(unreachable)?;
        if let Some(token) = self
            .token
            .as_ref()
            .filter(|t| !t.expose_secret().is_empty())
        {
            body = body.replace(token.expose_secret(), REDACTED);
        }
        Ok((status, body))
    }
}

/// `update` as a type; what is wrong with it becomes problems of the options.
fn checked(arguments: &mut Arguments, update: &Value) -> DataUpdate {
    DataUpdate::parse(update.to_string().as_bytes()).unwrap_or_else(|violations| {
        for violation in violations {
            let place: Vec<String> = violation.loc.iter().skip(1).map(plain).collect();
            arguments.problem(format!("{}: {}", place.join("."), violation.msg));
        }
        DataUpdate {
            id: None,
            entries: Vec::new(),
            reason: None,
            callback: opal_protocol::UpdateCallback::default(),
        }
    })
}

/// The entry that the options beside `--entries` describe.
fn single_entry(arguments: &mut Arguments) -> Option<Value> {
    let url = arguments.optional("--src-url")?;
    let topics = arguments.all("--topic");
    if topics.is_empty() {
        arguments.problem("--topic: needed with --src-url".to_owned());
    }
    let config = arguments.parsed("--src-config", Map::new(), "a JSON object", |text| {
        serde_json::from_str(text).ok()
    });
    let data = arguments.parsed("--data", Value::Null, "JSON", |text| {
        serde_json::from_str(text).ok()
    });
    Some(json!({
        "url": url,
        "data": data,
        "topics": topics,
        "dst_path": arguments.text("--dst-path", ""),
        "save_method": arguments.text("--save-method", "PUT"),
        "config": config,
    }))
}

/// The update as Python prints it, fetching details and data left out.
fn described(update: &DataUpdate) -> String {
    let entries: Vec<String> = update.entries.iter().map(entry).collect();
    let reason = update
        .reason
        .as_deref()
        .map_or("None".to_owned(), python::text);
    format!(
        "id=None entries=[{}] reason={reason} callback=UpdateCallback(callbacks=[])",
        entries.join(", ")
    )
}

fn entry(entry: &DataSourceEntry) -> String {
    let topics: Vec<Value> = entry
        .topics
        .iter()
        .map(|topic| topic.as_str().into())
        .collect();
    format!(
        "DataSourceEntry(url={}, config={redacted}, topics={}, dst_path={}, save_method={}, \
         data={redacted})",
        python::text(&printable_url(&entry.url)),
        python::value(&Value::Array(topics)),
        python::text(&entry.dst_path),
        python::text(&entry.save_method),
        redacted = python::text(REDACTED),
    )
}

fn plain(step: &Value) -> String {
    match step {
        Value::String(name) => name.clone(),
        other => other.to_string(),
    }
}
