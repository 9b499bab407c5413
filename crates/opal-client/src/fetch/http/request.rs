//! An `HttpFetcherConfig` as a request.

use opal_protocol::{Document, HttpFetcherConfig, HttpMethod};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, RequestBuilder, Url};
use serde_json::{Map, Value};

use crate::fetch::FetchError;

/// The name by which entries ask for this provider.
pub(crate) const NAME: &str = "HttpFetchProvider";

/// A request that is known to be well-formed.
#[derive(Debug)]
pub(crate) struct HttpRequest {
    method: Method,
    headers: HeaderMap,
    body: Body,
    pub(crate) is_json: bool,
    pub(crate) process_data: bool,
}

#[derive(Debug)]
enum Body {
    None,
    Form(Vec<(String, String)>),
    Text(String),
}

impl HttpRequest {
    /// Reads an entry's `config`; none at all is a plain GET. Unknown members are ignored and the
    /// method may be written in any case.
    pub(crate) fn parse(config: Option<&Document>) -> Result<Self, FetchError> {
        let Some(config) = config.filter(|config| !config.is_null()) else {
            return Self::from_config(&HttpFetcherConfig::default());
        };
        // The errors' own texts would quote what may be a credential.
        let no_object = |_| invalid("it is no object".to_owned());
        let mut members: Map<String, Value> =
            serde_json::from_str(config.text()).map_err(no_object)?;
        if let Some(Value::String(method)) = members.get_mut("method") {
            method.make_ascii_lowercase();
        }
        let config = serde_json::from_value(Value::Object(members));
        let no_config = |_| invalid("one of its members is of the wrong type".to_owned());
        Self::from_config(&config.map_err(no_config)?)
    }

    /// Checks `config` and turns it into a request.
    pub(crate) fn from_config(config: &HttpFetcherConfig) -> Result<Self, FetchError> {
        Ok(Self {
            method: method(config.method),
            headers: headers(config.headers.as_ref())?,
            body: body(config.data.as_ref())?,
            is_json: config.is_json,
            process_data: config.process_data,
        })
    }

    /// The same request with another body.
    pub(crate) fn with_text(mut self, text: String) -> Self {
        self.body = Body::Text(text);
        self
    }

    /// The same request with a header that the configuration does not set itself.
    pub(crate) fn with_default_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.entry(name).or_insert(value);
        self
    }

    pub(crate) fn build(&self, client: &Client, url: Url) -> RequestBuilder {
        let mut headers = self.headers.clone();
        if !headers.contains_key(ACCEPT) {
            headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        }
        if matches!(self.body, Body::Text(_)) && !headers.contains_key(CONTENT_TYPE) {
            let plain = HeaderValue::from_static("text/plain; charset=utf-8");
            headers.insert(CONTENT_TYPE, plain);
        }
        let request = client.request(self.method.clone(), url);
        match &self.body {
            Body::None => request,
            // Replaces the form's content type only if the configuration names one.
            Body::Form(fields) => request.form(fields),
            Body::Text(text) => request.body(text.clone()),
        }
        .headers(headers)
    }
}

fn invalid(problem: String) -> FetchError {
    FetchError::InvalidConfig {
        provider: NAME,
        problem,
    }
}

fn method(method: HttpMethod) -> Method {
    match method {
        HttpMethod::Get => Method::GET,
        HttpMethod::Post => Method::POST,
        HttpMethod::Put => Method::PUT,
        HttpMethod::Patch => Method::PATCH,
        HttpMethod::Head => Method::HEAD,
        HttpMethod::Delete => Method::DELETE,
    }
}

/// Values are never shown: they hold credentials.
fn headers(headers: Option<&Map<String, Value>>) -> Result<HeaderMap, FetchError> {
    let mut map = HeaderMap::new();
    for (name, value) in headers.into_iter().flatten() {
        let refused = || invalid(format!("`headers.{name}` cannot be sent as a header"));
        let key: HeaderName = name.parse().map_err(|_| refused())?;
        let text = scalar_text(value).ok_or_else(refused)?;
        let mut value = HeaderValue::from_str(&text).map_err(|_| refused())?;
        value.set_sensitive(true);
        map.append(key, value);
    }
    Ok(map)
}

fn body(data: Option<&Value>) -> Result<Body, FetchError> {
    match data {
        None | Some(Value::Null) => Ok(Body::None),
        Some(Value::String(text)) => Ok(Body::Text(text.clone())),
        Some(Value::Object(fields)) => fields
            .iter()
            .map(|(name, value)| Some((name.clone(), scalar_text(value)?)))
            .collect::<Option<_>>()
            .map(Body::Form)
            .ok_or_else(|| invalid("members of `data` must be plain values".to_owned())),
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_)) => {
            Err(invalid("`data` must be an object or a string".to_owned()))
        }
    }
}

/// A value where only text can go, as Python prints it.
fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(true) => Some("True".to_owned()),
        Value::Bool(false) => Some("False".to_owned()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
