use axum::body::{Body, to_bytes};
use axum::routing::get;
use tower::ServiceExt;

use super::*;

type Sender = watch::Sender<Option<(Epoch, Revision)>>;

fn at(revision: u64) -> Option<(Epoch, Revision)> {
    Some((Epoch(0xab), Revision(revision)))
}

fn text_of(revision: u64) -> String {
    at(revision).map(shown).unwrap()
}

fn api(held: &Sender) -> Router {
    let router = Router::new().route("/v1/data", get(|| async { "{}" }));
    with_positions(router, held.subscribe())
}

async fn ask(api: Router, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap, String) {
    let mut request = Request::get("/v1/data");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).unwrap();
    let response = api.oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    (parts.status, parts.headers, body)
}

#[tokio::test]
async fn an_answer_names_the_position_that_the_engine_held_before_it() {
    let held = Sender::new(at(7));
    let (status, headers, _) = ask(api(&held), &[]).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers[POSITION_HEADER], text_of(7));

    held.send_replace(None);
    let (_, headers, _) = ask(api(&held), &[]).await;
    assert!(!headers.contains_key(POSITION_HEADER), "without a feed");
}

#[tokio::test]
async fn the_position_is_read_before_the_request_is_handled() {
    let held = Sender::new(at(7));
    let later = held.clone();
    let handler = move || async move {
        later.send_replace(at(9));
        "{}"
    };
    let router = Router::new().route("/v1/data", get(handler));
    let api = with_positions(router, held.subscribe());
    let (_, headers, _) = ask(api, &[]).await;
    assert_eq!(headers[POSITION_HEADER], text_of(7));
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_until_the_engine_is_where_it_wants_it() {
    let held = Sender::new(at(7));
    let wanted = text_of(8);
    let headers = [(AT_LEAST_HEADER, wanted.as_str())];
    let asking = ask(api(&held), &headers);
    tokio::pin!(asking);
    assert!(futures_util::poll!(&mut asking).is_pending());
    held.send_replace(Some((Epoch(1), Revision(100))));
    assert!(
        futures_util::poll!(&mut asking).is_pending(),
        "another epoch"
    );
    held.send_replace(at(9));
    let (status, headers, _) = asking.await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers[POSITION_HEADER], text_of(9));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waited_in_vain_hears_where_the_engine_is() {
    let held = Sender::new(at(7));
    let wanted = text_of(8);
    for (limit, waits) in [
        (None, 5_000),
        (Some("0"), 0),
        (Some("0.25"), 250),
        (Some("60"), 60_000),
    ] {
        let mut headers = vec![(AT_LEAST_HEADER, wanted.as_str())];
        headers.extend(limit.map(|limit| (TIMEOUT_HEADER, limit)));
        let began = tokio::time::Instant::now();
        let (status, answered, body) = ask(api(&held), &headers).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(began.elapsed(), Duration::from_millis(waits), "{limit:?}");
        assert_eq!(answered[header::RETRY_AFTER], "1");
        assert_eq!(answered[POSITION_HEADER], text_of(7));
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["code"], "position_not_reached");
        let message = "00000000000000ab:8 was asked for and the engine is at 00000000000000ab:7";
        assert_eq!(body["message"], message);
    }
}

#[tokio::test]
async fn a_whole_position_may_be_asked_for() {
    let held = Sender::new(at(7));
    let whole = format!("{}:{}", text_of(7), "0".repeat(32));
    let (status, ..) = ask(api(&held), &[(AT_LEAST_HEADER, &whole)]).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_and_not_waited_for() {
    let held = Sender::new(at(7));
    let reached = text_of(7);
    for (at_least, limit) in [
        ("7", "1"),
        ("", "1"),
        ("ab:7", "1"),
        (&reached, "soon"),
        (&reached, "-1"),
        (&reached, ""),
        (&reached, "61"),
        (&reached, "1e1"),
        (&reached, "NaN"),
    ] {
        let headers = [(AT_LEAST_HEADER, at_least), (TIMEOUT_HEADER, limit)];
        let (status, _, body) = ask(api(&held), &headers).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{at_least} {limit}");
        assert!(body.contains("invalid_parameter"), "{body}");
    }
}
