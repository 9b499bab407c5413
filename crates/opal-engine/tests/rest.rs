//! The REST API by itself: what no comparison with the real OPA covers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use axum::body::Body;
use axum::http::{Request, StatusCode};
use opal_engine::{Engine, EngineOptions};
use tower::ServiceExt;

struct Api(Engine);

impl Api {
    fn new() -> Self {
        Self(Engine::new(EngineOptions::default()))
    }

    async fn send(&self, method: &str, path: &str, body: &str) -> (StatusCode, String) {
        let request = Request::builder().method(method).uri(path);
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let response = self.0.router().oneshot(request).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX)
            .await
            .unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn put_policy(&self, id: &str, text: &str) {
        let (status, body) = self.send("PUT", &format!("/v1/policies/{id}"), text).await;
        assert_eq!(status, 200, "{body}");
    }

    /// The answer's body, of a request that succeeds.
    async fn ok(&self, method: &str, path: &str, body: &str) -> String {
        let (status, body) = self.send(method, path, body).await;
        assert!(status.is_success(), "{status} {body}");
        body.trim_end().to_owned()
    }
}

#[tokio::test]
async fn the_page_needs_nothing_from_elsewhere() {
    let page = Api::new().ok("GET", "/", "").await;
    assert!(page.contains("<textarea id=\"query\""));
    for elsewhere in ["http://", "https://", "src=\"//", "@import"] {
        assert!(!page.contains(elsewhere), "{elsewhere}");
    }
}

#[tokio::test]
async fn extra_slashes_are_ignored() {
    let api = Api::new();
    api.ok("PUT", "/v1/data//a///b/", "1").await;
    assert_eq!(
        api.ok("GET", "/v1/data/", "").await,
        r#"{"result":{"a":{"b":1}}}"#
    );
    assert_eq!(api.ok("GET", "/v1/data/a/b/", "").await, r#"{"result":1}"#);
}

#[tokio::test]
async fn digits_of_long_integers_are_kept() {
    let api = Api::new();
    let digits = "123456789012345678901234567890";
    api.ok("PUT", "/v1/data/n", digits).await;
    api.put_policy("n", "package p\nn := data.n + 0\ni := input")
        .await;
    let expected = format!(r#"{{"result":{digits}}}"#);
    assert_eq!(api.ok("GET", "/v1/data/n", "").await, expected);
    assert_eq!(api.ok("GET", "/v1/data/p/n", "").await, expected);
    let asked = format!(r#"{{"input":{digits}}}"#);
    assert_eq!(api.ok("POST", "/v1/data/p/i", &asked).await, expected);
}

#[tokio::test]
async fn nesting_beyond_all_measure_is_an_error_not_an_end() {
    let api = Api::new();
    api.put_policy("p", "package p\ni := input").await;
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let object = r#"{"a":"#.repeat(100_000) + "1" + &"}".repeat(100_000);
    let segments = "/a".repeat(5_000);
    for (method, path, body) in [
        ("PUT", "/v1/data/x", deep.clone()),
        ("PUT", "/v1/data/x", object.clone()),
        ("PUT", "/v1/data/x", "[".repeat(100_000)),
        ("PUT", &format!("/v1/data{segments}"), "1".to_owned()),
        ("POST", "/v1/data/p/i", format!(r#"{{"input":{deep}}}"#)),
        ("POST", "/v1/data/p/i", deep.clone()),
        ("POST", "/", object.clone()),
        (
            "PATCH",
            "/v1/data",
            format!(r#"[{{"op":"add","path":"/x","value":{deep}}}]"#),
        ),
        (
            "PATCH",
            "/v1/data",
            format!(r#"[{{"op":"add","path":"{segments}","value":1}}]"#),
        ),
        (
            "PUT",
            "/v1/policies/deep",
            format!("package d\np := {deep}"),
        ),
        (
            "PUT",
            "/v1/policies/deep",
            format!("package d\np := {}1", "-".repeat(100_000)),
        ),
        (
            "PUT",
            "/v1/policies/deep",
            format!("package d\np := 1{}", "\n+1".repeat(100_000)),
        ),
        ("POST", "/v1/query", format!(r#"{{"query":"x = {deep}"}}"#)),
        (
            "POST",
            "/v1/query",
            format!(r#"{{"query":"x = 1{}"}}"#, " + 1".repeat(100_000)),
        ),
    ] {
        let (status, answer) = api.send(method, path, &body).await;
        assert!(status.is_client_error(), "{method} {status} {answer:.200}");
    }
    assert_eq!(
        api.ok("GET", &format!("/v1/data{segments}"), "").await,
        "{}"
    );
    assert_eq!(
        api.ok("GET", "/v1/data", "").await,
        r#"{"result":{"p":{}}}"#
    );
}

#[tokio::test]
async fn garbage_is_a_clear_error() {
    let api = Api::new();
    for (method, path, body) in [
        ("PUT", "/v1/data/x", "{\"a\":"),
        ("PUT", "/v1/data/x", "\u{0}"),
        ("PUT", "/v1/data/%ff", "1"),
        ("PUT", "/v1/data/%", "1"),
        ("GET", "/v1/data/a%zz", ""),
        ("GET", "/v1/data?input=%7B", ""),
        (
            "PATCH",
            "/v1/data",
            r#"[{"op":"add","path":"/%ff","value":1}]"#,
        ),
        ("PATCH", "/v1/data", "[1]"),
        ("POST", "/v1/query", "[]"),
        ("PUT", "/v1/policies/%ff", "package p"),
    ] {
        let (status, answer) = api.send(method, path, body).await;
        assert_eq!(status, 400, "{method} {path}: {answer}");
        assert!(
            answer.contains("\"code\": \"invalid_parameter\""),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_panic_is_the_error_of_its_query_alone() {
    let api = Api::new();
    api.put_policy(
        "p",
        "package p\nbad := strings.count(input.s, \"\")\ngood := 1",
    )
    .await;
    let (status, body) = api
        .send("POST", "/v1/data/p/bad", r#"{"input":{"s":"x"}}"#)
        .await;
    assert_eq!(status, 500);
    assert!(body.contains("panicked"), "{body}");
    for _ in 0..32 {
        assert_eq!(
            api.ok("GET", "/v1/data/p/good", "").await,
            r#"{"result":1}"#
        );
    }
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let api = Api::new();
    let long = format!(r#"{{"input":"{}"}}"#, "x".repeat(33 << 20));
    let (status, _) = api.send("POST", "/v1/data/p", &long).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}
