//! The same requests to the real `opa` and to this engine: statuses and JSON must be equal.
//!
//! The binary is the one `OPAL_TEST_OPA` names, else the `opa` on `PATH`.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Request;
use opal_engine::{Engine, EngineOptions};
use serde_json::Value;
use tower::ServiceExt;

#[path = "against_opa/requests.rs"]
mod requests;
use requests::{Call, Compare};

/// A running `opa`, stopped when dropped.
struct Opa {
    child: Child,
    address: String,
}

impl Drop for Opa {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Opa {
    fn start() -> Self {
        let program = binary();
        let address = format!("127.0.0.1:{}", free_port());
        let child = Command::new(&program)
            .args(["run", "--server", "--v0-compatible", "--log-level", "error"])
            .args(["--disable-telemetry", "--addr", &address])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let child = child.unwrap_or_else(|error| {
            panic!(
                "cannot start `{program}`: {error}. This test compares with the real OPA: install it \
                 with `go install github.com/open-policy-agent/opa@v1.22.2` and put it on PATH, or \
                 name it in OPAL_TEST_OPA"
            )
        });
        let mut opa = Self { child, address };
        opa.wait_until_it_listens();
        opa
    }

    fn wait_until_it_listens(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(&self.address).is_err() {
            if let Some(status) = self.child.try_wait().unwrap() {
                let mut complaint = String::new();
                let stderr = self.child.stderr.as_mut().unwrap();
                stderr.read_to_string(&mut complaint).unwrap();
                panic!("opa ended with {status}: {complaint}");
            }
            assert!(Instant::now() < deadline, "opa does not listen");
            std::thread::yield_now();
        }
    }

    /// Sends `call` in HTTP/1.0, where a body ends with the connection.
    fn send(&self, call: &Call) -> (u16, String) {
        let mut request = format!("{} {} HTTP/1.0\r\n", call.method, call.path);
        for (name, value) in &call.headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += &format!("Content-Length: {}\r\n\r\n{}", call.body.len(), call.body);
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap();
        (status.parse().unwrap(), body.to_owned())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test is configured by its environment"
)]
fn binary() -> String {
    std::env::var("OPAL_TEST_OPA").unwrap_or_else(|_| "opa".to_owned())
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

async fn send_to_engine(engine: &Engine, call: &Call) -> (u16, String) {
    let mut request = Request::builder().method(call.method).uri(&call.path);
    for (name, value) in &call.headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::from(call.body.clone())).unwrap();
    let response = engine.router().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await;
    (status, String::from_utf8(body.unwrap().to_vec()).unwrap())
}

/// What must be equal of an answer.
fn comparable(call: &Call, status: u16, body: &str) -> Value {
    let mut json: Value = serde_json::from_str(body).unwrap_or_else(|_| Value::from(body));
    plain_numbers(&mut json);
    if let Some(members) = json.as_object_mut() {
        members.remove("decision_id");
        strip(members.get_mut("result"));
        match call.compare {
            Compare::Everything => {}
            Compare::Unordered => sort(members.get_mut("result")),
            Compare::Places => places(members),
            Compare::Code => members.retain(|name, _| name == "code"),
        }
    }
    serde_json::json!({ "status": status, "body": json })
}

/// `1e2` and `100` are the same number.
fn plain_numbers(json: &mut Value) {
    match json {
        Value::Number(number) => *json = Value::from(number.as_f64()),
        Value::Array(all) => all.iter_mut().for_each(plain_numbers),
        Value::Object(members) => members.values_mut().for_each(plain_numbers),
        _ => {}
    }
}

/// Syntax trees are not answered.
fn strip(result: Option<&mut Value>) {
    match result {
        Some(Value::Array(all)) => all.iter_mut().for_each(|one| strip(Some(one))),
        Some(Value::Object(one)) if one.contains_key("raw") => {
            one.remove("ast");
        }
        _ => {}
    }
}

fn sort(result: Option<&mut Value>) {
    if let Some(Value::Array(all)) = result {
        all.sort_by_key(ToString::to_string);
    }
}

/// Keeps of each error its code, its file and its row.
fn places(members: &mut serde_json::Map<String, Value>) {
    let errors = members.get_mut("errors").and_then(Value::as_array_mut);
    for error in errors.into_iter().flatten() {
        let location = &error["location"];
        *error = serde_json::json!([error["code"], location["file"], location["row"]]);
    }
    if let Some(Value::Array(errors)) = members.get_mut("errors") {
        errors.dedup();
    }
}

#[tokio::test]
async fn answers_equal_those_of_the_real_opa() {
    let opa = Opa::start();
    let engine = Engine::new(EngineOptions::default());
    let mut differences = Vec::new();
    for call in requests::all() {
        let (status, body) = opa.send(&call);
        let theirs = comparable(&call, status, &body);
        let (status, body) = send_to_engine(&engine, &call).await;
        let ours = comparable(&call, status, &body);
        if ours != theirs {
            let call = format!("{} {} {}", call.method, call.path, call.body);
            differences.push(format!("{call}\n   opa: {theirs}\n  ours: {ours}\n"));
        }
    }
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
}
