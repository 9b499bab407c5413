//! The requests to OPA, one method for each, repeated as the retry settings say.

use std::time::Duration;

use opal_protocol::{DataPath, PlainOperation, RedactedUrl};
use opal_runtime::ConnRetryOptions;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tracing::debug;

use super::OpaOptions;
use super::answer::{self, DataAnswer, PolicyList, StoredPolicy};
use super::auth::Authorizer;
use crate::policy_store::document::Write;
use crate::policy_store::{PolicyProblem, StoreError};

const POLICY: &str = "text/plain";
const DATA: &str = "text/plain; charset=utf-8";
const PATCH: &str = "application/json-patch+json";

#[derive(Debug)]
pub(super) struct OpaApi {
    client: Client,
    /// Without a slash at the end.
    base: String,
    auth: Authorizer,
    retry: ConnRetryOptions,
    timeout: Duration,
    probe_timeout: Duration,
}

/// A request that can be made again.
struct Call {
    method: Method,
    /// Below the base.
    path: String,
    body: Option<(&'static str, String)>,
}

struct Answer {
    status: StatusCode,
    body: String,
}

impl Answer {
    /// The failure that OPA itself tells of; none if anything else may have answered in its place.
    fn verdict(&self) -> Option<StatusCode> {
        let is_failure = self.status.is_client_error() || self.status.is_server_error();
        (is_failure && answer::is_opa_s(&self.body)).then_some(self.status)
    }

    /// Whether OPA did what it was asked to. A page that somebody else shows instead is no success.
    fn is_done(&self) -> bool {
        let is_success = self.status.is_success() && answer::is_json_or_empty(&self.body);
        is_success || self.status == StatusCode::NOT_MODIFIED
    }
}

impl OpaApi {
    pub(super) fn new(client: Client, options: OpaOptions) -> Self {
        Self {
            auth: Authorizer::new(client.clone(), options.auth),
            client,
            base: options.url.as_str().trim_end_matches('/').to_owned(),
            retry: options.retry,
            timeout: options.timeout,
            probe_timeout: options.probe_timeout,
        }
    }

    /// Sets a module; the inner error is OPA's verdict on it.
    pub(super) async fn put_policy(
        &self,
        id: &str,
        text: &str,
    ) -> Result<Result<(), Vec<PolicyProblem>>, StoreError> {
        let call = Call {
            method: Method::PUT,
            path: policy_path(id),
            body: Some((POLICY, text.to_owned())),
        };
        self.policy_step(id, &call).await
    }

    /// Deletes a module; nothing there is fine. The inner error is OPA's verdict on what would be left.
    pub(super) async fn delete_policy(
        &self,
        id: &str,
    ) -> Result<Result<(), Vec<PolicyProblem>>, StoreError> {
        let call = Call {
            method: Method::DELETE,
            path: policy_path(id),
            body: None,
        };
        self.policy_step(id, &call).await
    }

    async fn policy_step(
        &self,
        id: &str,
        call: &Call,
    ) -> Result<Result<(), Vec<PolicyProblem>>, StoreError> {
        let answer = self.call(call).await?;
        match answer.verdict() {
            Some(StatusCode::BAD_REQUEST) => Ok(Err(answer::problems(id, &answer.body))),
            Some(StatusCode::NOT_FOUND) if call.method == Method::DELETE => Ok(Ok(())),
            None if answer.is_done() => Ok(Ok(())),
            _ => Err(self.rejected(call, &answer)),
        }
    }

    /// Whether there is a policy `id`.
    pub(super) async fn has_policy(&self, id: &str) -> Result<bool, StoreError> {
        let call = Call::get(policy_path(id));
        let answer = self.call(&call).await?;
        match answer.verdict() {
            Some(StatusCode::NOT_FOUND) => Ok(false),
            None if answer.is_done() => Ok(true),
            _ => Err(self.rejected(&call, &answer)),
        }
    }

    pub(super) async fn policies(&self) -> Result<Vec<StoredPolicy>, StoreError> {
        let call = Call::get("/v1/policies".to_owned());
        let list: PolicyList = self.read(&call).await?;
        Ok(list.result)
    }

    pub(super) async fn get_data(&self, path: &DataPath) -> Result<Option<Value>, StoreError> {
        let call = Call::get(data_path(path));
        let answer: DataAnswer = self.read(&call).await?;
        Ok(answer.result)
    }

    pub(super) async fn put_data(&self, write: &Write) -> Result<(), StoreError> {
        let call = Call {
            method: Method::PUT,
            path: data_path(&write.path),
            body: Some((DATA, write.json.clone())),
        };
        self.data_step(&write.path, &call).await
    }

    /// Removes what is at `path`, which may be nothing. The root becomes an empty object.
    pub(super) async fn delete_data(&self, path: &DataPath) -> Result<(), StoreError> {
        if path.is_root() {
            let path = path.clone();
            let json = "{}".to_owned();
            return self.put_data(&Write { path, json }).await;
        }
        let call = Call {
            method: Method::DELETE,
            path: data_path(path),
            body: None,
        };
        self.data_step(path, &call).await
    }

    async fn data_step(&self, path: &DataPath, call: &Call) -> Result<(), StoreError> {
        let answer = self.call(call).await?;
        match answer.verdict() {
            Some(StatusCode::NOT_FOUND) if call.method == Method::DELETE => Ok(()),
            Some(StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND) => {
                Err(StoreError::InvalidDocument {
                    path: path.clone(),
                    problem: answer::message(&answer.body),
                })
            }
            None if answer.is_done() => Ok(()),
            _ => Err(self.rejected(call, &answer)),
        }
    }

    pub(super) async fn patch_data(
        &self,
        path: &DataPath,
        operations: &[PlainOperation],
    ) -> Result<(), StoreError> {
        let call = Call {
            method: Method::PATCH,
            path: data_path(path),
            body: Some((PATCH, patch_body(path, operations)?)),
        };
        let answer = self.call(&call).await.map_err(|error| match error {
            StoreError::OutcomeUnknown { source, .. } => StoreError::OutcomeUnknown {
                path: path.clone(),
                source,
            },
            other => other,
        })?;
        match answer.verdict() {
            Some(StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND) => Err(StoreError::PatchFailed {
                path: path.clone(),
                problem: answer::message(&answer.body),
            }),
            None if answer.is_done() => Ok(()),
            _ => Err(self.rejected(&call, &answer)),
        }
    }

    /// One question to `/health`, without credentials.
    pub(super) async fn probe(&self) -> Result<(), StoreError> {
        let call = Call::get("/health".to_owned());
        let request = call.request(self).timeout(self.probe_timeout);
        let answer = self.exchange(&call, request, self.probe_timeout).await?;
        if answer.status.is_success() {
            return Ok(());
        }
        Err(self.rejected(&call, &answer))
    }

    async fn read<T: serde::de::DeserializeOwned>(&self, call: &Call) -> Result<T, StoreError> {
        let answer = self.call(call).await?;
        if !answer.status.is_success() {
            return Err(self.rejected(call, &answer));
        }
        serde_json::from_str(&answer.body).map_err(|source| StoreError::InvalidAnswer {
            url: self.url(call),
            source,
        })
    }

    /// Makes a call until OPA gives a lasting answer or the attempts are used up.
    async fn call(&self, call: &Call) -> Result<Answer, StoreError> {
        let mut may_renew = true;
        for attempt in 1.. {
            let error = match self.attempt(call).await {
                Ok(answer) if answer.status == StatusCode::UNAUTHORIZED && may_renew => {
                    may_renew = false;
                    if !self.auth.renew().await {
                        return Ok(answer);
                    }
                    continue;
                }
                Ok(answer) if leaves_unknown(call, &answer) => {
                    let source = Box::new(self.rejected(call, &answer));
                    let path = DataPath::root();
                    return Err(StoreError::OutcomeUnknown { path, source });
                }
                Ok(answer) if !is_passing(answer.status) => return Ok(answer),
                Ok(answer) => self.rejected(call, &answer),
                Err(error @ StoreError::OutcomeUnknown { .. }) => return Err(error),
                Err(error) => error,
            };
            let Some(pause) = self.retry.delay(attempt, &mut rand::rng()) else {
                return Err(error);
            };
            debug!(attempt, %error, "Asking the policy store again in {pause:?}");
            tokio::time::sleep(pause).await;
        }
        unreachable!("attempts are counted without end")
    }

    async fn attempt(&self, call: &Call) -> Result<Answer, StoreError> {
        let request = self.auth.authorize(call.request(self)).await?;
        self.exchange(call, request.timeout(self.timeout), self.timeout)
            .await
    }

    async fn exchange(
        &self,
        call: &Call,
        request: RequestBuilder,
        limit: Duration,
    ) -> Result<Answer, StoreError> {
        let lost = |error: reqwest::Error| {
            let url = self.url(call);
            let was_sent = !error.is_connect();
            let error = if error.is_timeout() && was_sent {
                StoreError::TimedOut { url, limit }
            } else {
                let source = error.without_url().into();
                StoreError::Unreachable { url, source }
            };
            if was_sent && call.method == Method::PATCH {
                return StoreError::OutcomeUnknown {
                    path: DataPath::root(),
                    source: Box::new(error),
                };
            }
            error
        };
        let response = request.send().await.map_err(lost)?;
        let status = response.status();
        let body = response.text().await.map_err(lost)?;
        Ok(Answer { status, body })
    }

    fn url(&self, call: &Call) -> RedactedUrl {
        RedactedUrl::new(format!("{}{}", self.base, call.path))
    }

    fn rejected(&self, call: &Call, answer: &Answer) -> StoreError {
        StoreError::Rejected {
            method: call.name(),
            url: self.url(call),
            status: answer.status,
            message: answer::message(&answer.body),
        }
    }
}

impl Call {
    fn get(path: String) -> Self {
        Self {
            method: Method::GET,
            path,
            body: None,
        }
    }

    fn name(&self) -> &'static str {
        match self.method {
            Method::PUT => "PUT",
            Method::PATCH => "PATCH",
            Method::DELETE => "DELETE",
            _ => "GET",
        }
    }

    fn request(&self, api: &OpaApi) -> RequestBuilder {
        let url = format!("{}{}", api.base, self.path);
        let request = api.client.request(self.method.clone(), url);
        match &self.body {
            Some((content_type, body)) => request
                .header(CONTENT_TYPE, *content_type)
                .body(body.clone()),
            None => request,
        }
    }
}

/// Slashes stay, everything unsafe between them is escaped.
fn policy_path(id: &str) -> String {
    let id = DataPath::from_segments(id.split('/'));
    format!("/v1/policies{}", id.to_url_path())
}

fn data_path(path: &DataPath) -> String {
    format!("/v1/data{}", path.to_url_path())
}

/// Whether the same request may be answered otherwise later.
fn is_passing(status: StatusCode) -> bool {
    status.is_server_error()
        || status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT
}

/// Whether a patch may have been applied although the answer does not say so: something between us
/// and OPA failed or answered, perhaps after it had passed it on. That OPA itself failed, or that something
/// turned the patch away, proves that it was not.
fn leaves_unknown(call: &Call, answer: &Answer) -> bool {
    let may_have_passed = answer.status.is_server_error() || answer.status.is_success();
    call.method == Method::PATCH
        && may_have_passed
        && !answer.is_done()
        && answer.verdict().is_none()
}

/// The operations as OPA reads them: paths are escaped as JSON pointers, then for URLs.
fn patch_body(path: &DataPath, operations: &[PlainOperation]) -> Result<String, StoreError> {
    #[derive(Serialize)]
    struct Operation {
        op: &'static str,
        path: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        value: Option<Box<RawValue>>,
    }
    let value = |json: &String| RawValue::from_string(json.clone()).map(Some);
    let operations = operations.iter().map(|operation| {
        let (op, path, value) = match operation {
            PlainOperation::Add { path, json } => ("add", path, value(json)?),
            PlainOperation::Replace { path, json } => ("replace", path, value(json)?),
            PlainOperation::Remove { path } => ("remove", path, None),
        };
        let path = pointer_for_opa(path);
        Ok(Operation { op, path, value })
    });
    let body = operations
        .collect::<Result<Vec<Operation>, serde_json::Error>>()
        .and_then(|operations| serde_json::to_string(&operations));
    body.map_err(|error| StoreError::PatchFailed {
        path: path.clone(),
        problem: error.to_string(),
    })
}

fn pointer_for_opa(path: &DataPath) -> String {
    if path.is_root() {
        return "/".to_owned();
    }
    let escaped = path.segments().iter();
    let escaped = escaped.map(|segment| segment.replace('~', "~0").replace('/', "~1"));
    DataPath::from_segments(escaped).to_url_path()
}
