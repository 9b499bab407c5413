//! What a client says and understands on one connection, frame by frame.

use std::time::Duration;

use opal_protocol::feed::{self, AppliedArguments, ClientInfo};
use opal_protocol::rpc;
use opal_protocol::{ChainDigest, Document, Epoch, Position, Revision, ScopeId, Topic};
use opal_pubsub::conversation::{Conversation, ConversationError, Heard, Opening, applied_text};
use opal_pubsub::{Event, FeedChange, Start};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const EPOCH: Epoch = Epoch(0xab);

fn at(revision: u64) -> Position {
    Position {
        epoch: EPOCH,
        revision: Revision(revision),
        digest: digest(revision),
    }
}

fn digest(revision: u64) -> ChainDigest {
    ChainDigest([u8::try_from(revision).expect("tests use small revisions"); 16])
}

fn opening(feed: bool, position: Option<Position>) -> Opening {
    Opening {
        feed,
        scope: ScopeId::from("acme"),
        topics: vec![Topic::from("users"), Topic::from("policy:.")],
        client: ClientInfo {
            id: "c1".into(),
            host: "h".into(),
            version: "9".into(),
            instance: "i".into(),
        },
        channel_id: "channel".into(),
        position,
    }
}

fn ask(feed: bool, position: Option<Position>) -> Conversation {
    Conversation::open(opening(feed, position), "call".into()).0
}

fn answer(result: &Value) -> String {
    rpc::response_text(result, "x", Some("call"))
}

fn granted(mode: &str, head: u64) -> String {
    answer(&json!({
        "epoch": EPOCH, "head": head, "digest": digest(head), "mode": mode, "spread_ms": 40,
    }))
}

fn change(revision: u64) -> String {
    let arguments = json!({
        "revision": revision, "digest": digest(revision), "topics": ["users"], "payload": revision,
    });
    rpc::event_text("change", &arguments)
}

fn position(revision: u64) -> String {
    let arguments = json!({ "revision": revision, "digest": digest(revision) });
    rpc::event_text("position", &arguments)
}

fn notify(call_id: &str, data: &Value) -> String {
    let arguments = json!({ "subscription": { "topic": "users" }, "data": data });
    rpc::request_text("notify", &arguments, call_id)
}

/// Tells the conversation `text`, and hands over what it wants handed over.
fn hear(conversation: &mut Conversation, text: &str) -> Heard {
    let heard = conversation.on_text(text).expect("the frame is in order");
    for event in &heard.events {
        conversation.handed_over(event);
    }
    heard
}

fn events(conversation: &mut Conversation, text: &str) -> Vec<Event> {
    hear(conversation, text).events.into()
}

/// A connection that was resumed at revision 5, with a head of 7.
fn resumed() -> Conversation {
    let mut conversation = ask(true, Some(at(5)));
    hear(&mut conversation, &granted("replay", 7));
    conversation
}

fn change_event(revision: u64) -> Event {
    Event::Change(FeedChange {
        position: at(revision),
        topics: vec![Topic::from("users")],
        payload: Document::from(&json!(revision)),
        confirm: false,
    })
}

fn message(data: &Value) -> Event {
    Event::Message {
        topic: Topic::from("users"),
        data: Document::from(data),
    }
}

#[test]
fn a_server_with_a_feed_is_asked_to_resume() {
    let (conversation, first) = Conversation::open(opening(true, Some(at(5))), "call".into());
    let first: Value = serde_json::from_str(&first).unwrap();
    let expected = json!({
        "request": {
            "method": "resume",
            "arguments": {
                "scope": "acme",
                "topics": ["users", "policy:."],
                "position": at(5),
                "client": { "id": "c1", "host": "h", "version": "9", "instance": "i" },
            },
            "call_id": "call",
        },
        "response": null,
    });
    assert_eq!(first, expected);
    assert!(!conversation.is_live());
}

#[test]
fn a_server_without_one_sees_a_released_client() {
    let (_, first) = Conversation::open(opening(false, Some(at(5))), "call".into());
    assert_eq!(
        first,
        r#"{"request":{"method":"subscribe","arguments":{"topics":["users","policy:."]},"call_id":"call"},"response":null}"#
    );
}

#[test]
fn a_released_start_voids_the_position() {
    let mut conversation = ask(false, Some(at(5)));
    let heard = conversation.on_text(&answer(&json!(true))).unwrap();
    assert_eq!(heard.events, [Event::Subscribed(Start::Released)]);
    assert_eq!(conversation.received(), Some(at(5)));
    conversation.handed_over(&heard.events[0]);
    assert_eq!(conversation.received(), None);
    assert_eq!(conversation.epoch(), None);
    assert!(conversation.is_live());
}

#[test]
fn a_snapshot_starts_at_its_head() {
    let mut conversation = ask(true, None);
    let start = Start::Snapshot {
        head: at(7),
        spread: Duration::from_millis(40),
    };
    let heard = events(&mut conversation, &granted("snapshot", 7));
    assert_eq!(heard, [Event::Subscribed(start)]);
    assert_eq!(conversation.received(), Some(at(7)));
    assert_eq!(conversation.epoch(), Some(EPOCH));
}

#[test]
fn a_replay_goes_on_from_our_position_until_one_says_that_it_is_over() {
    let mut conversation = ask(true, Some(at(5)));
    let heard = events(&mut conversation, &granted("replay", 7));
    assert_eq!(heard, [Event::Subscribed(Start::Resumed { head: at(7) })]);
    assert_eq!(conversation.received(), Some(at(5)));
    assert_eq!(events(&mut conversation, &change(6)), [change_event(6)]);
    assert_eq!(conversation.received(), Some(at(6)));
    assert_eq!(
        events(&mut conversation, &position(7)),
        [Event::Position(at(7))]
    );
    assert_eq!(conversation.received(), Some(at(7)));
}

#[test]
fn a_replay_of_nothing_is_over_at_once() {
    let mut conversation = ask(true, Some(at(7)));
    hear(&mut conversation, &granted("replay", 7));
    assert_eq!(
        events(&mut conversation, &position(7)),
        [Event::Position(at(7))]
    );
}

#[test]
fn a_replay_from_elsewhere_is_refused_and_the_position_given_up() {
    let of_another_epoch = Position {
        epoch: Epoch(1),
        ..at(5)
    };
    let of_another_history = Position {
        digest: digest(9),
        ..at(7)
    };
    for ours in [
        None,
        Some(of_another_epoch),
        Some(at(8)),
        Some(of_another_history),
    ] {
        let mut conversation = ask(true, ours);
        let error = conversation.on_text(&granted("replay", 7)).unwrap_err();
        assert!(
            matches!(error, ConversationError::NotOurPosition),
            "{ours:?}: {error}"
        );
        assert_eq!(conversation.received(), None);
    }
}

#[test]
fn a_refusal_is_an_error_that_names_topics_and_scope_and_keeps_the_position() {
    for feed in [true, false] {
        let mut conversation = ask(feed, Some(at(5)));
        let error = conversation.on_text(&answer(&json!(false))).unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"the server refused to subscribe us to [Topic("users"), Topic("policy:.")] of scope `acme`"#
        );
        assert_eq!(conversation.received(), Some(at(5)));
    }
}

#[test]
fn an_answer_that_cannot_be_read_is_an_error() {
    for result in [
        json!(true),
        json!({}),
        json!({ "mode": "replay" }),
        json!(null),
    ] {
        let error = ask(true, None).on_text(&answer(&result)).unwrap_err();
        let is_unreadable = matches!(
            error,
            ConversationError::Unreadable {
                method: "resume",
                ..
            }
        );
        assert!(is_unreadable, "{result}: {error}");
    }
}

#[test]
fn the_answer_to_something_else_does_not_subscribe_us() {
    let mut conversation = ask(false, None);
    let other = rpc::response_text(&true, "bool", Some("other"));
    assert_eq!(hear(&mut conversation, &other), Heard::default());
    assert!(!conversation.is_live());
}

#[test]
fn the_position_advances_when_an_event_was_handed_over_and_not_before() {
    let mut conversation = resumed();
    let heard = conversation.on_text(&change(6)).unwrap();
    assert_eq!(heard.events, [change_event(6)]);
    assert_eq!(conversation.received(), Some(at(5)));
    conversation.handed_over(&heard.events[0]);
    assert_eq!(conversation.received(), Some(at(6)));
}

#[test]
fn a_change_that_was_told_before_is_dropped() {
    let mut conversation = resumed();
    hear(&mut conversation, &change(6));
    for revision in [6, 5, 3] {
        assert_eq!(hear(&mut conversation, &change(revision)), Heard::default());
    }
    assert_eq!(conversation.received(), Some(at(6)));
    let mut snapshot = ask(true, None);
    hear(&mut snapshot, &granted("snapshot", 7));
    assert_eq!(hear(&mut snapshot, &change(7)), Heard::default());
    assert_eq!(events(&mut snapshot, &change(8)), [change_event(8)]);
}

#[test]
fn a_position_that_goes_back_tells_nothing() {
    let mut conversation = resumed();
    hear(&mut conversation, &change(7));
    assert_eq!(hear(&mut conversation, &position(6)), Heard::default());
    assert_eq!(conversation.received(), Some(at(7)));
}

#[test]
fn two_histories_with_one_revision_end_the_connection_and_the_position() {
    for method in ["change", "position"] {
        let mut conversation = resumed();
        let arguments = json!({
            "revision": 5, "digest": digest(9), "topics": ["users"], "payload": 0,
        });
        let text = rpc::event_text(method, &arguments);
        let error = conversation.on_text(&text).unwrap_err();
        let revision = Revision(5);
        assert!(
            matches!(error, ConversationError::Diverged { revision: r } if r == revision),
            "{error}"
        );
        assert_eq!(conversation.received(), None);
    }
}

#[test]
fn what_cannot_be_read_ends_a_connection_with_a_feed_and_comes_again() {
    for text in [
        "nonsense".to_owned(),
        r#"{"request":{"method":"change","call_id":5}}"#.to_owned(),
        rpc::event_text("change", &json!({})),
        rpc::event_text("change", &json!(null)),
        rpc::event_text(
            "change",
            &json!({ "revision": "6", "digest": digest(6), "topics": [], "payload": 0 }),
        ),
        rpc::event_text(
            "change",
            &json!({ "revision": 6, "digest": "short", "topics": [], "payload": 0 }),
        ),
        rpc::event_text("position", &json!({ "revision": -1 })),
        rpc::event_text("notify", &json!({})),
    ] {
        let mut conversation = resumed();
        conversation.on_text(&text).expect_err(&text);
        assert_eq!(conversation.received(), Some(at(5)), "{text}");
    }
}

#[test]
fn a_released_connection_ignores_what_it_cannot_read() {
    let mut conversation = ask(false, None);
    hear(&mut conversation, &answer(&json!(true)));
    for text in [
        "nonsense",
        "{}",
        r#"{"request":{"method":"change","call_id":5}}"#,
    ] {
        assert_eq!(hear(&mut conversation, text), Heard::default(), "{text}");
    }
    assert_eq!(hear(&mut conversation, &change(6)), Heard::default());
    assert_eq!(hear(&mut conversation, &position(6)), Heard::default());
}

#[test]
fn a_change_before_the_answer_is_an_error() {
    for text in [change(6), position(6)] {
        let error = ask(true, Some(at(5))).on_text(&text).unwrap_err();
        assert!(
            matches!(error, ConversationError::TooEarly { .. }),
            "{error}"
        );
    }
}

#[test]
fn a_notification_is_answered_and_told() {
    let mut conversation = ask(false, None);
    hear(&mut conversation, &answer(&json!(true)));
    let heard = hear(&mut conversation, &notify("n1", &json!({ "a": 1 })));
    assert_eq!(heard.replies, [rpc::notify_answer(Some("n1"))]);
    assert_eq!(heard.events, [message(&json!({ "a": 1 }))]);
}

#[test]
fn a_notification_before_the_answer_is_told_after_it() {
    let mut conversation = ask(false, None);
    let early = hear(&mut conversation, &notify("n1", &json!(1)));
    assert_eq!(early.replies, [rpc::notify_answer(Some("n1"))]);
    assert_eq!(early.events, []);
    assert_eq!(
        events(&mut conversation, &answer(&json!(true))),
        [Event::Subscribed(Start::Released), message(&json!(1))]
    );
}

#[test]
fn the_servers_questions_are_answered_before_and_after_ours() {
    let mut conversation = ask(true, None);
    let ping = rpc::request_text("_ping_", &json!({}), "q1");
    let id = rpc::request_text("_get_channel_id_", &json!({}), "q2");
    let other = rpc::request_text("frobnicate", &json!({}), "q3");
    for _ in 0..2 {
        let pong = rpc::response_text(&"pong", "str", Some("q1"));
        assert_eq!(hear(&mut conversation, &ping).replies, [pong]);
        let channel = rpc::response_text(&"channel", "str", Some("q2"));
        assert_eq!(hear(&mut conversation, &id).replies, [channel]);
        assert_eq!(hear(&mut conversation, &other), Heard::default());
        hear(&mut conversation, &granted("snapshot", 7));
    }
}

#[test]
fn changes_and_positions_are_not_answered() {
    let mut conversation = resumed();
    assert!(hear(&mut conversation, &change(6)).replies.is_empty());
    assert!(hear(&mut conversation, &position(7)).replies.is_empty());
}

#[test]
fn drift_is_told_after_the_position() {
    let mut conversation = resumed();
    let arguments = json!({ "revision": 7, "digest": digest(7), "drift": true });
    assert_eq!(
        events(&mut conversation, &rpc::event_text("position", &arguments)),
        [Event::Position(at(7)), Event::Drifted]
    );
}

#[test]
fn a_confirmed_change_says_so() {
    let mut conversation = resumed();
    let arguments = json!({
        "revision": 6, "digest": digest(6), "topics": ["users"], "payload": 0, "confirm": true,
    });
    let heard = events(&mut conversation, &rpc::event_text("change", &arguments));
    let [Event::Change(change)] = heard.as_slice() else {
        panic!("{heard:?}");
    };
    assert!(change.confirm);
}

#[test]
fn a_report_has_no_call_id() {
    let applied = AppliedArguments {
        low: Revision(5),
        done: vec![(Revision(7), Revision(9))],
        ..AppliedArguments::default()
    };
    assert_eq!(
        applied_text(&applied),
        r#"{"request":{"method":"applied","arguments":{"low":5,"done":[[7,9]]},"call_id":null},"response":null}"#
    );
}

#[test]
fn the_documented_frames_are_those_we_read_and_write() {
    let document = include_str!("../../../docs/protocol.md");
    let examples = document
        .split("```")
        .filter_map(|part| part.strip_prefix("json\n"))
        .flat_map(str::lines);
    let mut read = Vec::new();
    for example in examples {
        let frame: Value = serde_json::from_str(example).expect(example);
        let (method, arguments) = match frame["method"].as_str() {
            Some(method) => (method, &frame["arguments"]),
            None if frame["mode"].is_string() => ("answer", &frame),
            None => ("base", &frame),
        };
        let again = match method {
            "resume" => rewritten::<feed::ResumeArguments>(arguments),
            "answer" => rewritten::<feed::ResumeAnswer>(arguments),
            "change" => rewritten::<feed::ChangeArguments>(arguments),
            "position" => rewritten::<feed::PositionArguments>(arguments),
            "applied" => rewritten::<feed::AppliedArguments>(arguments),
            _ => rewritten::<feed::BaseSnapshot>(arguments),
        };
        assert!(says(&again, arguments), "{example}\nis written as\n{again}");
        read.push(method.to_owned());
    }
    read.dedup();
    assert_eq!(
        read,
        ["resume", "answer", "change", "position", "applied", "base"]
    );
}

fn rewritten<T: DeserializeOwned + Serialize>(value: &Value) -> Value {
    let read: T = serde_json::from_value(value.clone()).expect("the example is of its type");
    serde_json::to_value(read).expect("it can be written")
}

/// Whether `written` has all that `shown` has. It may have more: members with their default values.
fn says(written: &Value, shown: &Value) -> bool {
    match (written, shown) {
        (Value::Object(written), Value::Object(shown)) => shown
            .iter()
            .all(|(name, value)| written.get(name).is_some_and(|w| says(w, value))),
        (Value::Array(written), Value::Array(shown)) => {
            written.len() == shown.len() && written.iter().zip(shown).all(|(w, s)| says(w, s))
        }
        _ => written == shown,
    }
}
