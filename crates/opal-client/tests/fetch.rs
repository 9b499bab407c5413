//! The HTTP provider against a stand-in: what it asks, what it takes, what it refuses.

use std::sync::Arc;
use std::time::Duration;

use opal_client::fetch::{FetchError, FetchLimits, FetchRequest, Fetcher, HttpFetchProvider};
use opal_protocol::{DataSourceEntry, Document};
use opal_runtime::ConnRetryOptions;
use opal_runtime::http::{HttpOptions, client};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;

#[cfg(test)]
#[path = "support/stand_in.rs"]
mod stand_in;

#[cfg(test)]
mod tests {
    use super::stand_in::{Answer, Seen, StandIn};
    use super::*;

    const LIMIT: usize = 1_000_000;

    fn fetcher(timeout: Duration, attempts: u32) -> Fetcher {
        let client = client(&HttpOptions::default()).unwrap();
        let retry = ConnRetryOptions {
            wait_time: 0.0,
            attempts,
            ..ConnRetryOptions::default()
        };
        Fetcher::new(
            vec![Arc::new(HttpFetchProvider::new(client, timeout, LIMIT))],
            FetchLimits {
                retry,
                deadline: Duration::from_secs(10),
                workers: 6,
            },
        )
    }

    async fn fetch(url: &str, config: &str) -> Result<Document, FetchError> {
        let mut entry = DataSourceEntry::from_url(url);
        entry.config = Some(Document::parse(config).unwrap());
        let fetcher = fetcher(Duration::from_secs(5), 1);
        let mut rng = StdRng::seed_from_u64(1);
        fetcher
            .fetch_round(&FetchRequest::from(&entry), &mut rng)
            .await
    }

    fn service(request: &Seen, _: &[Seen]) -> Answer {
        match request.target.split('?').next().unwrap() {
            "/json" => Answer::json(r#"{"ok": 1}"#),
            "/textjson" => Answer::text("text/plain", r#"{"ok": 1}"#),
            "/text" => Answer::text("text/plain", "hello"),
            "/empty" => Answer::status(204),
            "/null" => Answer::json("null"),
            "/scalar" => Answer::json("5"),
            "/redir" => Answer::status(302).header("location", "/json"),
            "/err" => Answer::status(500),
            "/busy" => Answer::status(503).header("retry-after", "7"),
            "/html" => Answer::text("text/html", "<html>"),
            "/broken" => Answer::json("{\"a\":\n 1"),
            "/deep" => Answer::json("[".repeat(100_000) + &"]".repeat(100_000)),
            "/huge" => Answer::json(" ".repeat(LIMIT) + "5"),
            "/gzip" => gzipped(include_bytes!("fixtures/fetchers/small.json.gz")),
            "/bomb" => gzipped(include_bytes!(
                "fixtures/fetchers/ten-megabytes-of-blanks.json.gz"
            )),
            "/hang" => Answer::Hang,
            _ => Answer::status(404),
        }
    }

    fn gzipped(bytes: &[u8]) -> Answer {
        Answer::json("")
            .header("content-encoding", "gzip")
            .body(bytes)
    }

    /// What released OPAL does, and where we differ on purpose.
    fn expected(case: &Value) -> Option<Value> {
        match case["case"].as_str().unwrap() {
            "method_upper" => Some(serde_json::json!({"ok": 1})),
            "null" | "process_data_false" => None,
            _ => case.get("result").cloned(),
        }
    }

    #[tokio::test]
    async fn requests_and_results_are_those_of_released_opal() {
        for line in include_str!("fixtures/fetchers/http.jsonl").lines() {
            let case: Value = serde_json::from_str(line).unwrap();
            let name = case["case"].as_str().unwrap();
            let server = StandIn::start(service).await;
            let target = case["requests"][0]["target"].as_str().unwrap_or("/json");
            let url = format!("{}{target}", server.url);
            let fetched = fetch(&url, &case["config"].to_string()).await;
            let value = |document: Document| serde_json::from_str(document.text()).unwrap();
            assert_eq!(fetched.ok().map(value), expected(&case), "{name}");

            let seen = server.seen();
            if matches!(name, "method_upper" | "process_data_false") {
                continue;
            }
            let asked = case["requests"].as_array().unwrap();
            let once = if name == "http_500" {
                &asked[..1]
            } else {
                asked
            };
            assert_eq!(seen.len(), once.len(), "{name}");
            for (seen, asked) in seen.iter().zip(once) {
                assert_eq!(seen.method, asked["method"], "{name}");
                assert_eq!(seen.target, asked["target"], "{name}");
                assert_eq!(seen.body, asked["body"], "{name}");
                for (header, value) in asked["headers"].as_object().unwrap() {
                    assert_eq!(seen.header(header), value.as_str(), "{name}: {header}");
                }
                assert_eq!(seen.header("authorization"), None, "{name}");
            }
        }
    }

    #[tokio::test]
    async fn bad_answers_are_refused_with_the_reason_and_without_secrets() {
        let server = StandIn::start(service).await;
        let port = server.url.rsplit(':').next().unwrap();
        for (path, expected) in [
            ("/nope", "`U/nope` answered 404 Not Found"),
            ("/err", "`U/err` answered 500 Internal Server Error"),
            ("/html", "`U/html` answered with `text/html`, expected JSON"),
            (
                "/textjson",
                "`U/textjson` answered with `text/plain`, expected JSON",
            ),
            ("/broken", "the answer from `U/broken` is not JSON"),
            ("/empty", "the answer from `U/empty` is empty"),
            ("/null", "the answer from `U/null` is empty"),
            (
                "/huge",
                "the answer from `U/huge` is longer than 1000000 bytes",
            ),
            (
                "/bomb",
                "the answer from `U/bomb` is longer than 1000000 bytes",
            ),
        ] {
            let url = format!("http://bob:pw@127.0.0.1:{port}{path}?token=secret");
            let error = fetch(&url, "{}").await.unwrap_err();
            assert_eq!(error.to_string(), expected.replace('U', &server.url));
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
    }

    #[tokio::test]
    async fn a_deep_document_is_taken_as_it_is() {
        let server = StandIn::start(service).await;
        let document = fetch(&format!("{}/deep", server.url), "{}").await.unwrap();
        assert_eq!(document.text().len(), 200_000);
    }

    #[tokio::test]
    async fn a_compressed_answer_is_decompressed() {
        let server = StandIn::start(service).await;
        let document = fetch(&format!("{}/gzip", server.url), "{}").await.unwrap();
        assert_eq!(document.text(), r#"{"ok": 1}"#);
    }

    #[tokio::test]
    async fn a_source_that_never_answers_costs_the_time_limit() {
        let server = StandIn::start(service).await;
        let request =
            FetchRequest::from(&DataSourceEntry::from_url(format!("{}/hang", server.url)));
        let limit = Duration::from_millis(500);
        let mut rng = StdRng::seed_from_u64(1);
        let error = fetcher(limit, 2)
            .fetch_round(&request, &mut rng)
            .await
            .unwrap_err();
        assert!(matches!(error, FetchError::TimedOut { .. }), "{error}");
        assert_eq!(server.seen().len(), 2);
    }

    #[tokio::test]
    async fn a_failing_source_is_asked_again_and_a_missing_one_is_not() {
        let server = StandIn::start(|request: &Seen, before: &[Seen]| {
            match (request.target.as_str(), before.len()) {
                ("/flaky", 0 | 1) => Answer::status(503),
                ("/flaky", _) => Answer::json("1"),
                _ => Answer::status(404),
            }
        })
        .await;
        let fetcher = fetcher(Duration::from_secs(5), 5);
        let mut rng = StdRng::seed_from_u64(1);
        for (path, found) in [("/flaky", true), ("/missing", false)] {
            let entry = DataSourceEntry::from_url(format!("{}{path}", server.url));
            let fetched = fetcher
                .fetch_round(&FetchRequest::from(&entry), &mut rng)
                .await;
            assert_eq!(fetched.is_ok(), found);
        }
        let lines = server.lines();
        assert_eq!(
            lines,
            ["GET /flaky", "GET /flaky", "GET /flaky", "GET /missing"]
        );
    }

    #[tokio::test]
    async fn what_the_source_says_about_coming_back_is_handed_on() {
        let server = StandIn::start(service).await;
        let error = fetch(&format!("{}/busy", server.url), "{}")
            .await
            .unwrap_err();
        assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
        assert!(error.is_transient());
    }

    #[tokio::test]
    async fn a_source_that_is_not_there_is_unreachable() {
        let error = fetch("http://127.0.0.1:1/x?secret", "{}")
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "could not reach `http://127.0.0.1:1/x`");
        assert!(error.is_transient());
        assert!(!format!("{error:?}").contains("secret"));
    }

    #[tokio::test]
    async fn configurations_that_cannot_be_followed_are_refused_before_anything_is_asked() {
        for (config, problem) in [
            (
                r#"{"process_data":false}"#,
                "`process_data: false` leaves nothing to store",
            ),
            (r#"{"data":[1]}"#, "`data` must be an object or a string"),
            (
                r#"{"headers":{"a b":"s3cret"}}"#,
                "`headers.a b` cannot be sent as a header",
            ),
            (
                r#"{"headers":{"a":"s3cret\n"}}"#,
                "`headers.a` cannot be sent as a header",
            ),
        ] {
            let error = fetch("http://127.0.0.1:1/", config).await.unwrap_err();
            assert!(error.to_string().ends_with(problem), "{error}");
            assert!(!error.is_transient());
            assert!(!error.to_string().contains("s3cret"));
        }
        let error = fetch("http://127.0.0.1:1/", r#"{"method":"BREW"}"#)
            .await
            .unwrap_err();
        assert!(matches!(error, FetchError::InvalidConfig { .. }), "{error}");
        for url in ["", "ftp://x/", "/relative"] {
            let error = fetch(url, "{}").await.unwrap_err();
            assert!(matches!(error, FetchError::InvalidUrl { .. }), "{error}");
        }
    }

    #[tokio::test]
    async fn an_unknown_provider_is_named_with_those_there_are() {
        let error = fetch("http://x/", r#"{"fetcher":"Ldap"}"#)
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown fetch provider `Ldap`, expected one of: HttpFetchProvider"
        );
    }
}
