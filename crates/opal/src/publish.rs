//! `opal publish`: a data update, and who applied it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{ArgGroup, Args};
use opal_protocol::feed::REVISION_HEADER;
use reqwest::Method;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use serde_json::{Value, json};
use url::form_urlencoded;

use crate::console::{complain, plain, say};
use crate::remote::{Remote, RemoteOptions};

/// The server refused: nothing was published.
const REFUSED: u8 = 2;

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("document").args(["url", "data", "file"])))]
pub(crate) struct Options {
    #[command(flatten)]
    remote: RemoteOptions,
    /// Where clients fetch the document.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The document itself.
    #[arg(long, value_name = "JSON", value_parser = parse_json)]
    data: Option<Value>,
    /// A file with the document.
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// Where it goes in the store.
    #[arg(long, value_name = "PATH", default_value = "")]
    dst_path: String,
    /// Whom it concerns; may be given several times.
    #[arg(
        short,
        long = "topic",
        value_name = "TOPIC",
        default_value = "policy_data"
    )]
    topics: Vec<String>,
    /// How it is written.
    #[arg(long, default_value = "PUT", value_parser = ["PUT", "PATCH", "DELETE"])]
    method: String,
    /// Wait until it is applied by `all`, by a share of the clients (`50%`), or by one (`client=ID`).
    #[arg(long, value_name = "WHO")]
    wait: Option<String>,
    /// How long to wait at most.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=300))]
    timeout: u64,
    /// Publishing again with the same key publishes nothing new.
    #[arg(long, value_name = "KEY", value_parser = parse_key)]
    idempotency_key: Option<HeaderValue>,
}

fn parse_json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))
}

fn parse_key(text: &str) -> Result<HeaderValue, String> {
    let printable = text
        .bytes()
        .all(|byte| byte.is_ascii_graphic() || byte == b' ');
    let value = HeaderValue::from_str(text).ok().filter(|_| printable);
    value.ok_or_else(|| "expected printable ASCII characters".to_owned())
}

/// What became of an update.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Outcome {
    met: bool,
    applied: Vec<String>,
    missing: Vec<Missing>,
    disconnected: Vec<String>,
    unconfirmed: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Missing {
    client: String,
    reason: String,
}

/// Exit codes: 0 published, and applied as asked for; 1 not applied in time, or not known to be
/// published; 2 refused.
pub(crate) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let Some(entry) = entry(&options)? else {
        complain!("opal publish: one of --url, --data and --file is needed");
        return Ok(ExitCode::from(REFUSED));
    };
    let waiting = Duration::from_secs(options.timeout);
    let target = target(&options);
    let remote = options.remote.connect(waiting)?;
    let mut request = remote.request(Method::POST, &target);
    if let Some(key) = &options.idempotency_key {
        request = request.header("idempotency-key", key);
    }
    let answer = remote
        .send(request.json(&json!({ "entries": [entry] })))
        .await?;
    if !answer.status.is_success() {
        let (url, status, reason) = (remote.name(), answer.status, answer.reason());
        complain!("opal publish: `{url}` answered {status}: {reason}");
        // Of what did not come to an answer nobody knows whether it is stored.
        return Ok(match status.is_client_error() {
            true => ExitCode::from(REFUSED),
            false => ExitCode::FAILURE,
        });
    }
    let revision = answer.headers.get(REVISION_HEADER);
    match revision.and_then(|value| value.to_str().ok()) {
        Some(revision) => say!("Published as {}", plain(revision))?,
        None => say!("Published; this server does not say as which revision")?,
    }
    match options.wait {
        None => Ok(ExitCode::SUCCESS),
        Some(_) => report(&remote, &answer.body),
    }
}

/// The entry to publish; `None` if nothing says what to write.
fn entry(options: &Options) -> anyhow::Result<Option<Value>> {
    let data = match &options.file {
        Some(file) => {
            let text = std::fs::read_to_string(file);
            let text = text.with_context(|| format!("could not read `{}`", file.display()))?;
            let data = parse_json(&text).map_err(anyhow::Error::msg);
            Some(data.with_context(|| format!("could not use `{}`", file.display()))?)
        }
        None => options.data.clone(),
    };
    let deletes = options.method == "DELETE";
    if data.is_none() && options.url.is_none() && !deletes {
        return Ok(None);
    }
    Ok(Some(json!({
        "url": options.url.as_deref().unwrap_or_default(),
        "data": data,
        "topics": options.topics,
        "dst_path": options.dst_path,
        "save_method": options.method,
    })))
}

fn target(options: &Options) -> String {
    let Some(wait) = &options.wait else {
        return "/data/config".to_owned();
    };
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("wait", wait)
        .append_pair("timeout", &options.timeout.to_string())
        .finish();
    format!("/data/config?{query}")
}

/// Says who applied the update, who did not and why.
fn report(remote: &Remote, body: &Value) -> anyhow::Result<ExitCode> {
    if body.get("applied").is_none() {
        say!("`{}` does not say who applied it", remote.name())?;
        return Ok(ExitCode::FAILURE);
    }
    let outcome = Outcome::deserialize(body).context("the server's answer cannot be read")?;
    list("Applied by", &outcome.applied)?;
    for missing in &outcome.missing {
        say!(
            "Not applied by {}: {}",
            plain(&missing.client),
            plain(&missing.reason)
        )?;
    }
    list("Gone meanwhile", &outcome.disconnected)?;
    list("Told, and unable to confirm", &outcome.unconfirmed)?;
    Ok(match outcome.met {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn list(title: &str, clients: &[String]) -> anyhow::Result<()> {
    if clients.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = clients.iter().map(|client| plain(client)).collect();
    say!("{title} ({}): {}", names.len(), names.join(", "))
}
