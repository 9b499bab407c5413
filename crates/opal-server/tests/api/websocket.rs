//! `/ws`: hand-made frames, well-formed and not, that were recorded with the released server.

use std::collections::BTreeMap;

use opal_protocol::rpc::{
    Incoming, NotifyArguments, PublishArguments, SubscribeArguments, server_methods,
};
use opal_protocol::{DataUpdate, DataUpdateReport, PolicyUpdateMessage};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::peer::{Heard, Peer};
use crate::support::{TestServer, fixture, lines};

/// A line of a probe: a frame, or how the connection ended.
#[derive(Debug, Deserialize)]
struct Line {
    case: String,
    #[serde(default)]
    dir: Option<String>,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    binary_hex: Option<String>,
    #[serde(default)]
    event: Option<String>,
    #[serde(default)]
    code: Option<u16>,
    #[serde(default)]
    http_status: Option<u16>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

/// What a peer hears in the course of a case. Answers come in order and notifications too, but
/// nobody promises an order between them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Transcript {
    answers: Vec<String>,
    notifications: Vec<String>,
    end: String,
}

impl Transcript {
    fn note(&mut self, frame: &Value) {
        let shape = |value: &Value| -> Vec<String> {
            value
                .as_object()
                .map(|o| o.keys().cloned().collect())
                .unwrap_or_default()
        };
        assert_eq!(
            shape(frame),
            ["request", "response"],
            "both are always written"
        );
        let (request, response) = (&frame["request"], &frame["response"]);
        if response.is_object() {
            assert_eq!(shape(response), ["result", "result_type", "call_id"]);
            let call_id = response["call_id"].as_str().unwrap_or("null");
            let result = match &response["result"] {
                Value::String(text) if is_id(text) => "<id>".to_owned(),
                result => result.to_string(),
            };
            let kind = response["result_type"].as_str().unwrap();
            self.answers.push(format!("{call_id}: {result} {kind}"));
            return;
        }
        assert_eq!(shape(request), ["method", "arguments", "call_id"]);
        if request["method"] == server_methods::GET_CHANNEL_ID {
            return; // Asked with statistics on, which are later work.
        }
        let arguments = &request["arguments"];
        assert_eq!(request["method"], "notify");
        assert_eq!(shape(arguments), ["subscription", "data"]);
        let subscription = &arguments["subscription"];
        assert_eq!(
            shape(subscription),
            ["id", "subscriber_id", "topic", "notifier_id"]
        );
        let topic = subscription["topic"].as_str().unwrap();
        self.notifications
            .push(format!("{topic} {}", arguments["data"]));
    }
}

fn is_id(text: &str) -> bool {
    text.len() == 32 && text.chars().all(|c| c.is_ascii_hexdigit())
}

/// A recorded case: what the peer sent, and what it heard.
#[derive(Debug, Default)]
struct Case {
    name: String,
    sent: Vec<Message>,
    heard: Transcript,
    /// The refusal, if the peer was not let in.
    refused: Option<(u16, BTreeMap<String, String>)>,
}

fn cases(recording: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in lines::<Line>(recording) {
        if cases.last().is_none_or(|case| case.name != line.case) {
            let name = line.case.clone();
            cases.push(Case {
                name,
                ..Case::default()
            });
        }
        let case = cases.last_mut().unwrap();
        match (line.dir.as_deref(), line.event.as_deref()) {
            (Some("client_to_server"), _) => case.sent.push(match line.text {
                Some(text) => Message::text(text),
                None => Message::binary(hex::decode(line.binary_hex.unwrap()).unwrap()),
            }),
            (Some(_), _) => case
                .heard
                .note(&serde_json::from_str(&line.text.unwrap()).unwrap()),
            (None, Some("connect_failed")) => {
                case.refused = Some((line.http_status.unwrap(), line.headers));
            }
            (None, event) => {
                let code = line.code.map_or(String::new(), |code| format!(" {code}"));
                case.heard.end = format!("{}{code}", event.unwrap());
            }
        }
    }
    cases
}

/// Where ours differs on purpose, and how: answers, notifications, end.
struct OnPurpose {
    case: &'static str,
    answers: &'static [&'static str],
    notifications: &'static [&'static str],
    end: &'static str,
    #[expect(dead_code, reason = "it is for people")]
    why: &'static str,
}

const OPEN: &str = "still_open";
const QUEUED: &str = "a publish is answered once it is queued, and each connection is told once";
const DENIED: &str =
    "what is denied is answered with false: a close makes released clients come back for ever";

const UNSECURED: &[OnPurpose] = &[
    OnPurpose {
        case: "subscribe_publish_self",
        answers: &[
            "c1: true bool",
            "c2: true bool",
            "c3: true bool",
            "c4: true bool",
        ],
        notifications: &[r#"t1 {"a":1}"#, "t2 null"],
        end: OPEN,
        why: QUEUED,
    },
    OnPurpose {
        case: "subscribe_string_topic",
        answers: &["c1: true bool", "c2: true bool"],
        notifications: &["a null"],
        end: OPEN,
        why: QUEUED,
    },
    OnPurpose {
        case: "subscribe_twice",
        answers: &["c1: true bool", "c2: true bool", "c3: true bool"],
        notifications: &["d 1"],
        end: OPEN,
        why: QUEUED,
    },
    OnPurpose {
        case: "subscribe_all_topics_list",
        answers: &["c1: false bool"],
        notifications: &[],
        end: OPEN,
        why: DENIED,
    },
    OnPurpose {
        case: "subscribe_all_topics_str",
        answers: &["c1: false bool"],
        notifications: &[],
        end: OPEN,
        why: DENIED,
    },
    OnPurpose {
        case: "subscribe_purge_channel",
        answers: &["c1: false bool"],
        notifications: &[],
        end: OPEN,
        why: DENIED,
    },
];

const SECURED: &[OnPurpose] = &[
    OnPurpose {
        case: "permitted_denied",
        answers: &["c1: false bool"],
        notifications: &[],
        end: OPEN,
        why: DENIED,
    },
    OnPurpose {
        case: "permitted_publish_denied",
        answers: &["c1: false bool"],
        notifications: &[],
        end: OPEN,
        why: DENIED,
    },
    OnPurpose {
        case: "permitted_publish_stats_denied",
        answers: &["c1: false bool"],
        notifications: &[],
        end: OPEN,
        why: DENIED,
    },
];

fn expected(case: Case, table: &[OnPurpose]) -> (Vec<Message>, Transcript) {
    let ours = table.iter().find(|deviation| deviation.case == case.name);
    let Some(ours) = ours else {
        return (case.sent, case.heard);
    };
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let expected = Transcript {
        answers: owned(ours.answers),
        notifications: owned(ours.notifications),
        end: ours.end.to_owned(),
    };
    assert_ne!(
        expected, case.heard,
        "{} does not differ any more",
        case.name
    );
    (case.sent, expected)
}

/// Sends `messages` and notes what comes back: as many notifications as expected, and whatever
/// else the server says until it has answered a ping at the end.
async fn converse(mut peer: Peer, messages: Vec<Message>, notifications: usize) -> Transcript {
    let mut heard = Transcript::default();
    for message in messages {
        // After a close, what is still to be sent finds nobody.
        let _ = peer.send(message).await;
    }
    let ping = json!({"request": {"method": "_ping_", "arguments": {}, "call_id": "end"}});
    peer.send_text(ping.to_string()).await;
    let mut ended = false;
    while !ended || heard.notifications.len() < notifications {
        match peer.hear().await {
            Heard::Frame(frame) if frame["response"]["call_id"] == "end" => ended = true,
            Heard::Frame(frame) => heard.note(&frame),
            Heard::Closed(code) => {
                heard.end = format!("closed_by_server {}", code.unwrap_or_default());
                return heard;
            }
        }
    }
    heard.end = OPEN.to_owned();
    heard
}

#[tokio::test]
async fn every_probe_is_answered_as_recorded() {
    let server = TestServer::start(&[]).await;
    for case in cases(fixture!("websocket/probes-unsecured.jsonl")) {
        let name = case.name.clone();
        let (sent, expected) = expected(case, UNSECURED);
        let peer = Peer::connect(&server).await;
        let heard = converse(peer, sent, expected.notifications.len()).await;
        assert_eq!(heard, expected, "{name}");
    }
}

#[tokio::test]
async fn every_kind_of_token_is_let_in_or_refused_as_recorded() {
    let server = TestServer::secured(&[]).await;
    let bearer = |token: String| Some(format!("Bearer {token}"));
    let client = server.token_of("client").await;
    let topics = json!({ "permitted_topics": ["policy_data", "policy:."] });
    let permitted = server.token(&json!({ "claims": topics })).await;
    for case in cases(fixture!("websocket/probes-auth-statistics.jsonl")) {
        let name = case.name.clone();
        let authorization = match name.as_str() {
            "auth_none" | "auth_token_in_query" => None,
            "auth_garbage" => bearer("garbage".to_owned()),
            "auth_expired" => bearer(server.token(&json!({ "ttl": -10 })).await),
            "auth_basic_scheme" => Some("Basic abc".to_owned()),
            "auth_datasource_token" => bearer(server.token_of("datasource").await),
            "auth_listener_token" => bearer(server.token_of("listener").await),
            name if name.starts_with("permitted") => bearer(permitted.clone()),
            _ => bearer(client.clone()),
        };
        let target = match name.as_str() {
            "auth_token_in_query" => format!("/ws?token={client}"),
            "client_id_query_param" => "/ws?__opal_client_id=me".to_owned(),
            _ => "/ws".to_owned(),
        };
        let peer = Peer::try_connect(&server, &target, authorization.as_deref()).await;
        match (peer, &case.refused) {
            (Err(refusal), Some((status, headers))) => {
                assert_eq!(refusal.status(), *status, "{name}");
                assert_eq!(refusal.body().as_deref().unwrap_or_default(), b"", "{name}");
                for header in ["content-type", "content-length"] {
                    assert_eq!(
                        refusal.headers()[header],
                        headers[header].as_str(),
                        "{name}"
                    );
                }
            }
            (Ok(peer), None) => {
                let (sent, expected) = expected(case, SECURED);
                let heard = converse(peer, sent, expected.notifications.len()).await;
                assert_eq!(heard, expected, "{name}");
            }
            (Ok(_), Some(_)) => panic!("{name} was let in"),
            (Err(refusal), None) => panic!("{name} got {}", refusal.status()),
        }
    }
}

#[tokio::test]
async fn a_token_of_another_issuer_is_refused_before_the_upgrade() {
    let server = TestServer::secured(&[]).await;
    let recorded: Value = serde_json::from_str(fixture!("auth/tokens.json")).unwrap();
    let foreign = recorded["client"]["response"]["token"].as_str().unwrap();
    let other_claims = json!({ "claims": { "aud": "https://elsewhere.example/" } });
    let other_audience = server.token(&other_claims).await;
    for token in [foreign, &other_audience] {
        let authorization = format!("Bearer {token}");
        let peer = Peer::try_connect(&server, "/ws", Some(&authorization)).await;
        assert_eq!(peer.err().unwrap().status(), 403);
    }
}

#[tokio::test]
async fn what_asks_for_no_upgrade_finds_no_route() {
    let server = TestServer::start(&[]).await;
    let answer = server.get("/ws").await;
    assert_eq!(
        (answer.status.as_u16(), answer.text().as_str()),
        (404, r#"{"detail":"Not Found"}"#)
    );
}

#[tokio::test]
async fn a_server_that_stops_tells_its_peers_to_come_back() {
    let server = TestServer::start(&[]).await;
    let mut peer = Peer::subscribed(&server, &["policy:."]).await;
    server.stop();
    assert_eq!(peer.closed().await, Some(1012));
}

#[tokio::test]
async fn a_publish_whose_subscribers_do_not_answer_holds_up_nobody() {
    let server = TestServer::start(&[]).await;
    let mut silent = Peer::subscribed(&server, &["t"]).await;
    let mut publisher = Peer::subscribed(&server, &["t"]).await;
    for n in 0..3 {
        let publish = json!({ "topics": ["t"], "data": n, "sync": true, "notifier_id": "other" });
        assert_eq!(publisher.call("publish", publish).await, json!(true));
    }
    for n in 0..3 {
        assert_eq!(
            silent.notification().await["request"]["arguments"]["data"],
            n
        );
        assert_eq!(publisher.notified().await["data"], n);
    }
}

/// Whatever was recorded on either side's sockets is read by the types that both our sides use.
#[test]
fn every_recorded_frame_is_read_by_our_types() {
    let mut read = 0;
    for recording in [
        fixture!("websocket/connection-unsecured.jsonl"),
        fixture!("websocket/connection-policy-update.jsonl"),
        fixture!("websocket/connection-server-restart.jsonl"),
        fixture!("websocket/connection-scoped-client-statistics.jsonl"),
        fixture!("websocket/connection-frame-over-1MiB.jsonl"),
    ] {
        for line in lines::<Value>(recording) {
            if line["kind"] == "frame" && line["text_length"].is_null() {
                read_frame(line["text"].as_str().unwrap());
                read += 1;
            }
            if line["target"] == "/data/callback_report" {
                DataUpdateReport::parse(line["request_body"].as_str().unwrap().as_bytes()).unwrap();
            }
        }
    }
    assert!(read > 60, "{read}");
}

fn read_frame(text: &str) {
    let request = match Incoming::parse(text).unwrap() {
        Incoming::Request(request) => request,
        Incoming::Response(response) => return assert!(response.call_id.is_some(), "{text}"),
        Incoming::Neither => panic!("{text}"),
    };
    assert!(request.call_id.is_some(), "{text}");
    let arguments = request.arguments.unwrap().get();
    match request.method.as_str() {
        server_methods::PING | server_methods::GET_CHANNEL_ID => assert_eq!(arguments, "{}"),
        server_methods::SUBSCRIBE => {
            let subscribe: SubscribeArguments = serde_json::from_str(arguments).unwrap();
            assert!(!subscribe.topics.is_empty());
        }
        server_methods::PUBLISH => {
            serde_json::from_str::<PublishArguments>(arguments).unwrap();
        }
        "notify" => {
            let notify: NotifyArguments = serde_json::from_str(arguments).unwrap();
            let data = notify.data.unwrap();
            match notify.subscription.topic.as_str().contains("policy:") {
                true => drop(serde_json::from_str::<PolicyUpdateMessage>(data.text()).unwrap()),
                false => drop(serde_json::from_str::<DataUpdate>(data.text()).unwrap()),
            }
        }
        other => panic!("nobody calls `{other}`"),
    }
}
