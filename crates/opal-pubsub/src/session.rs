//! What one connection of a server may ask, and what it still owes us. No I/O, no clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use opal_protocol::feed::{self, AppliedArguments, ResumeArguments};
use opal_protocol::rpc::{self, Incoming, PublishArguments, SubscribeArguments, server_methods};
use opal_protocol::{Claims, ScopeId, Topic};

use crate::hub::MOST_TOPICS;

/// The limits of a connection.
#[derive(Debug, Clone, Copy)]
pub struct SessionLimits {
    /// How many notifications may be unanswered before the next one waits.
    pub window: usize,
    /// How long a notification may stay unanswered.
    pub answer_within: Duration,
    /// How long a connection may be silent. Peers answer control-frame pings by themselves.
    pub silent_for: Duration,
    /// How often a connection is looked at and pinged.
    pub check_every: Duration,
    /// How long a single write may take before its reader is given up.
    pub write_within: Duration,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            window: 64,
            answer_within: Duration::from_secs(30),
            silent_for: Duration::from_secs(60),
            check_every: Duration::from_secs(20),
            write_within: Duration::from_secs(10),
        }
    }
}

/// Topics that no peer may subscribe or publish to.
const CLOSED_TOPICS: [&str; 2] = [Topic::ALL_TOPICS, "__opal_scope_purge__"];

/// One connection, seen from the server.
#[derive(Debug)]
pub struct Session {
    channel_id: String,
    permitted_topics: Option<Vec<Topic>>,
    allowed_scopes: Option<Vec<ScopeId>>,
    /// Whether the feed was agreed on.
    feed: bool,
    /// When the peer's token ends.
    expires: Option<Instant>,
    limits: SessionLimits,
    /// When each unanswered notification was sent, oldest first.
    unanswered: VecDeque<(NotificationId, Instant)>,
    last_heard: Instant,
}

/// A notification's `call_id`, which is the digest of the change it tells of.
type NotificationId = Box<str>;

/// What a frame calls for.
#[derive(Debug)]
pub enum Action {
    /// Nothing.
    Nothing,
    /// Send this text.
    Reply(String),
    /// Subscribe, then answer whether it was done, under this call id.
    Subscribe(Vec<Topic>, Option<String>),
    /// Unsubscribe, then send the text.
    Unsubscribe(Vec<Topic>, String),
    /// Follow the feed, then answer how it goes on, or that it is not possible, under this call id.
    Resume(ResumeArguments, Option<String>),
    /// Note what the client holds.
    Applied(AppliedArguments),
    /// Publish, then answer whether it was done, under this call id.
    Publish(PublishArguments, Option<String>),
    /// A request for topics that this peer may not have. Send the text.
    Denied(Vec<Topic>, String),
    /// A request for a scope that this peer may not have. Send the text.
    DeniedScope(ScopeId, String),
    /// Close: the peer does not speak this protocol.
    Close(Fault),
}

/// Why a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Fault {
    #[error("it sent text that is not JSON")]
    NotJson,
    #[error("it sent a binary frame")]
    Binary,
    #[error("it called a method that does not exist, or with wrong arguments")]
    BadCall,
    #[error("it did not answer a notification in time")]
    NoAnswer,
    #[error("it was silent for too long")]
    Silent,
    #[error("it published more than other peers would take")]
    TooLarge,
    #[error("its token expired")]
    TokenExpired,
}

impl Session {
    /// A new connection under the given id, with what its token allows. It speaks the released
    /// protocol and no more until [`with_feed`](Self::with_feed).
    pub fn new(
        channel_id: String,
        claims: Option<&Claims>,
        expires: Option<Instant>,
        limits: SessionLimits,
        now: Instant,
    ) -> Self {
        let permitted = claims.and_then(|claims| claims.permitted_topics.as_ref());
        let permitted_topics =
            permitted.map(|topics| topics.iter().map(|topic| topic.as_str().into()).collect());
        let allowed = claims.and_then(|claims| claims.allowed_scopes.as_ref());
        let allowed_scopes =
            allowed.map(|scopes| scopes.iter().map(|scope| scope.as_str().into()).collect());
        Self {
            channel_id,
            permitted_topics,
            allowed_scopes,
            feed: false,
            expires,
            limits,
            unanswered: VecDeque::new(),
            last_heard: now,
        }
    }

    /// The same connection after both sides agreed on the feed.
    pub fn with_feed(self) -> Self {
        Self { feed: true, ..self }
    }

    /// The id that the server gave the connection.
    pub fn channel_id(&self) -> &str {
        &self.channel_id
    }

    /// What this connection is allowed.
    pub fn limits(&self) -> &SessionLimits {
        &self.limits
    }

    /// Whether the next notification may be sent already.
    pub fn may_notify(&self) -> bool {
        self.unanswered.len() < self.limits.window
    }

    /// Notes a frame that is being sent, if it has to be answered.
    pub fn notified(&mut self, frame: &str, now: Instant) {
        if let Some(call_id) = call_id_of(frame) {
            self.unanswered.push_back((call_id.into(), now));
        }
    }

    /// Notes that the peer is there.
    pub fn heard(&mut self, now: Instant) {
        self.last_heard = now;
    }

    /// What is wrong with the connection by now, if anything.
    pub fn overdue(&self, now: Instant) -> Option<Fault> {
        let oldest = self.unanswered.front().map(|(_, sent)| *sent);
        if oldest.is_some_and(|sent| now.duration_since(sent) >= self.limits.answer_within) {
            return Some(Fault::NoAnswer);
        }
        if now.duration_since(self.last_heard) >= self.limits.silent_for {
            return Some(Fault::Silent);
        }
        self.expires
            .is_some_and(|end| end <= now)
            .then_some(Fault::TokenExpired)
    }

    /// What a text frame calls for.
    pub fn on_text(&mut self, text: &str, now: Instant) -> Action {
        self.heard(now);
        match Incoming::parse(text) {
            Ok(Incoming::Request(request)) => self.on_request(&request),
            Ok(Incoming::Response(response)) => {
                if let Some(call_id) = response.call_id {
                    self.answered(&call_id);
                }
                Action::Nothing
            }
            Ok(Incoming::Neither) => Action::Nothing,
            Err(_) => Action::Close(Fault::NotJson),
        }
    }

    fn answered(&mut self, call_id: &str) {
        // Answers come in order, so this is the first one, but nobody promised.
        let at = self.unanswered.iter().position(|(id, _)| **id == *call_id);
        if let Some(at) = at {
            self.unanswered.remove(at);
        }
        if self.unanswered.is_empty() {
            self.unanswered = VecDeque::new();
        }
    }

    fn on_request(&self, request: &rpc::Request<'_>) -> Action {
        let Some(arguments) = request.arguments.map(serde_json::value::RawValue::get) else {
            return Action::Close(Fault::BadCall);
        };
        let call_id = request.call_id.as_deref();
        let yes = || rpc::response_text(&true, "bool", call_id);
        let pong = || rpc::response_text(&"pong", "str", call_id);
        match request.method.as_str() {
            server_methods::PING | server_methods::PUBLIC_PING => Action::Reply(pong()),
            server_methods::GET_CHANNEL_ID => {
                Action::Reply(rpc::response_text(&self.channel_id, "str", call_id))
            }
            server_methods::SUBSCRIBE => {
                match serde_json::from_str::<SubscribeArguments>(arguments) {
                    Ok(SubscribeArguments { topics }) => self
                        .denied(&topics, call_id)
                        .unwrap_or_else(|| Action::Subscribe(topics, request.call_id.clone())),
                    Err(_) => Action::Close(Fault::BadCall),
                }
            }
            server_methods::UNSUBSCRIBE => {
                match serde_json::from_str::<SubscribeArguments>(arguments) {
                    Ok(SubscribeArguments { topics }) => Action::Unsubscribe(topics, yes()),
                    Err(_) => Action::Close(Fault::BadCall),
                }
            }
            server_methods::PUBLISH => match serde_json::from_str::<PublishArguments>(arguments) {
                Ok(publish) if is_too_large(&publish) => Action::Close(Fault::TooLarge),
                Ok(publish) => self
                    .denied(&publish.topics, call_id)
                    .unwrap_or_else(|| Action::Publish(publish, request.call_id.clone())),
                Err(_) => Action::Close(Fault::BadCall),
            },
            feed::RESUME if self.feed => match serde_json::from_str(arguments) {
                Ok(resume) => self.on_resume(resume, request.call_id.clone()),
                Err(_) => Action::Close(Fault::BadCall),
            },
            feed::APPLIED if self.feed => match serde_json::from_str(arguments) {
                Ok(report) => Action::Applied(report),
                Err(_) => Action::Close(Fault::BadCall),
            },
            // As upstream: private names and attributes that are no methods are ignored.
            name if name.starts_with('_') || name == "channel" => Action::Nothing,
            _ => Action::Close(Fault::BadCall),
        }
    }

    fn on_resume(&self, resume: ResumeArguments, call_id: Option<String>) -> Action {
        if let Some(denied) = self.denied(&resume.topics, call_id.as_deref()) {
            return denied;
        }
        let allowed = self.allowed_scopes.as_ref();
        if allowed.is_none_or(|allowed| allowed.contains(&resume.scope)) {
            return Action::Resume(resume, call_id);
        }
        let no = rpc::response_text(&false, "bool", call_id.as_deref());
        Action::DeniedScope(resume.scope, no)
    }

    /// A refusal, if one of the topics is not for this peer. The connection stays: released
    /// servers close it, which makes released clients come back at once, for ever.
    fn denied(&self, topics: &[Topic], call_id: Option<&str>) -> Option<Action> {
        let closed: Vec<Topic> = topics
            .iter()
            .filter(|topic| !self.permits(topic))
            .cloned()
            .collect();
        let no = || rpc::response_text(&false, "bool", call_id);
        (!closed.is_empty()).then(|| Action::Denied(closed, no()))
    }

    fn permits(&self, topic: &Topic) -> bool {
        let permitted = match &self.permitted_topics {
            Some(permitted) => permitted.contains(topic),
            None => !CLOSED_TOPICS.contains(&topic.as_str()),
        };
        permitted && self.allows_scope_of(topic)
    }

    /// Whether the topic is of no scope but one that this peer may have. Scopes name theirs
    /// `<scope>:policy:…` and `<scope>:data:…`.
    fn allows_scope_of(&self, topic: &Topic) -> bool {
        let Some(allowed) = &self.allowed_scopes else {
            return true;
        };
        let of_scope = |kind: &str| topic.as_str().split_once(kind).map(|(scope, _)| scope);
        let scopes = [":policy:", ":data:"].map(of_scope);
        let mut scopes = scopes.into_iter().flatten();
        scopes.all(|scope| allowed.iter().any(|allowed| allowed.as_str() == scope))
    }
}

/// Whether a publish would break its subscribers' connections, or has an absurd number of topics.
fn is_too_large(publish: &PublishArguments) -> bool {
    const ENVELOPE: usize = 1024;
    let data = publish.data.as_ref().map_or(0, |data| data.text().len());
    let topics = publish.topics.iter().map(|topic| topic.as_str().len());
    data + topics.sum::<usize>() > rpc::MAX_FRAME_TO_RELEASED_CLIENTS - ENVELOPE
        || publish.topics.len() > MOST_TOPICS
}

/// The `call_id` of a frame that we wrote, which ends `"call_id":"…"},"response":null}`; none for
/// one that asks for no answer. Looks at the end only: payloads may hold the same words.
pub(crate) fn call_id_of(frame: &str) -> Option<&str> {
    let (head, call_id) = frame
        .strip_suffix(r#""},"response":null}"#)?
        .rsplit_once('"')?;
    head.ends_with(r#""call_id":"#).then_some(call_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(permitted: Option<&[&str]>) -> (Session, Instant) {
        let now = Instant::now();
        let claims = permitted.map(|topics| Claims {
            permitted_topics: Some(topics.iter().map(|t| (*t).to_owned()).collect()),
            ..Claims::default()
        });
        let limits = SessionLimits {
            window: 2,
            ..SessionLimits::default()
        };
        (
            Session::new("id".into(), claims.as_ref(), None, limits, now),
            now,
        )
    }

    fn call(method: &str, arguments: &str) -> String {
        format!(r#"{{"request":{{"method":"{method}","arguments":{arguments},"call_id":"c"}}}}"#)
    }

    #[test]
    fn topics_of_a_scope_that_the_token_does_not_list_are_refused() {
        let now = Instant::now();
        let claims = Claims {
            allowed_scopes: Some(vec!["s1".to_owned()]),
            ..Claims::default()
        };
        let limits = SessionLimits::default();
        let mut session = Session::new("id".into(), Some(&claims), None, limits, now);
        let mut denied = |topic: &str| {
            let arguments = format!(r#"{{"topics":["{topic}"]}}"#);
            let action = session.on_text(&call("subscribe", &arguments), now);
            matches!(action, Action::Denied(..))
        };
        for ours in [
            "s1:policy:.",
            "s1:data:users",
            "policy:.",
            "policy_data",
            "a:b",
        ] {
            assert!(!denied(ours), "{ours}");
        }
        for other in ["s2:policy:.", "s2:data:users", "s2:data:a:policy:b"] {
            assert!(denied(other), "{other}");
        }
    }

    #[test]
    fn what_is_no_call_of_ours_closes_and_what_is_no_frame_is_ignored() {
        let (mut session, now) = session(None);
        for text in [
            call("frobnicate", "{}"),
            call("subscribe", "null"),
            call("subscribe", r#"{"topic":"x"}"#),
            "nonsense".to_owned(),
        ] {
            assert!(
                matches!(session.on_text(&text, now), Action::Close(_)),
                "{text}"
            );
        }
        for text in [
            call("_secret_", "{}"),
            call("channel", "{}"),
            "{}".into(),
            "[1]".into(),
        ] {
            assert!(
                matches!(session.on_text(&text, now), Action::Nothing),
                "{text}"
            );
        }
    }

    #[test]
    fn a_token_limits_topics_to_exactly_those_it_names() {
        let (mut session, now) = session(Some(&["users"]));
        let ask = |session: &mut Session, topic: &str| {
            session.on_text(
                &call("subscribe", &format!(r#"{{"topics":["{topic}"]}}"#)),
                now,
            )
        };
        assert!(matches!(ask(&mut session, "users"), Action::Subscribe(..)));
        let Action::Denied(topics, reply) = ask(&mut session, "users/a") else {
            unreachable!("the topic is not permitted");
        };
        assert_eq!(topics, ["users/a".into()]);
        assert!(reply.contains(r#""result":false"#), "{reply}");
    }

    #[test]
    fn the_wildcard_and_internal_topics_are_for_nobody() {
        let (mut session, now) = session(None);
        for topic in CLOSED_TOPICS {
            let text = call("publish", &format!(r#"{{"topics":"{topic}"}}"#));
            assert!(matches!(session.on_text(&text, now), Action::Denied(..)));
        }
    }

    #[test]
    fn unanswered_notifications_hold_back_the_next_and_end_the_connection() {
        let (mut session, now) = session(None);
        for call_id in ["n1", "n2"] {
            assert!(session.may_notify());
            let frame = rpc::request_text("notify", &serde_json::json!({}), call_id);
            session.notified(&frame, now);
        }
        assert!(!session.may_notify());
        session.on_text(r#"{"response":{"result":null,"call_id":"n1"}}"#, now);
        assert!(session.may_notify());
        let later = now + SessionLimits::default().answer_within;
        assert_eq!(session.overdue(later), Some(Fault::NoAnswer));
        session.on_text(&rpc::notify_answer(Some("n2")), now);
        assert_eq!(session.overdue(later), None);
        assert_eq!(
            session.overdue(later + SessionLimits::default().silent_for),
            Some(Fault::Silent)
        );
    }

    #[test]
    fn a_connection_ends_with_its_token() {
        let now = Instant::now();
        let end = now + Duration::from_secs(5);
        let session = Session::new("id".into(), None, Some(end), SessionLimits::default(), now);
        assert_eq!(session.overdue(now), None);
        assert_eq!(session.overdue(end), Some(Fault::TokenExpired));
    }

    #[test]
    fn without_the_feed_its_methods_do_not_exist() {
        let (mut session, now) = session(None);
        for method in ["resume", "applied"] {
            let action = session.on_text(&call(method, r#"{"topics":[],"low":0}"#), now);
            assert!(matches!(action, Action::Close(Fault::BadCall)), "{method}");
        }
    }

    #[test]
    fn with_the_feed_what_cannot_be_read_closes() {
        let (session, now) = session(None);
        let mut session = session.with_feed();
        for text in [
            call("resume", "{}"),
            call("resume", r#"{"topics":"a"}"#),
            call("resume", "null"),
            call("applied", "{}"),
            call("applied", r#"{"low":-1}"#),
            call("applied", r#"{"low":1,"done":[[1]]}"#),
            call("applied", r#"{"low":1,"failing":[{"revision":1}]}"#),
            call("change", "{}"),
            call("position", "{}"),
        ] {
            let action = session.on_text(&text, now);
            assert!(matches!(action, Action::Close(Fault::BadCall)), "{text}");
        }
    }

    #[test]
    fn a_resume_is_for_the_topics_and_scopes_of_the_token() {
        let now = Instant::now();
        let claims = Claims {
            permitted_topics: Some(vec!["users".to_owned()]),
            allowed_scopes: Some(vec!["tenant".to_owned()]),
            ..Claims::default()
        };
        let limits = SessionLimits::default();
        let mut session = Session::new("id".into(), Some(&claims), None, limits, now).with_feed();
        let mut ask = |scope: &str, topic: &str| {
            let arguments = format!(r#"{{"scope":"{scope}","topics":["{topic}"]}}"#);
            session.on_text(&call("resume", &arguments), now)
        };
        let Action::Resume(arguments, call_id) = ask("tenant", "users") else {
            unreachable!("both are permitted");
        };
        assert_eq!(
            (arguments.scope, call_id.as_deref()),
            ("tenant".into(), Some("c"))
        );
        for (action, expected) in [
            (ask("tenant", "users/a"), "topic"),
            (ask("default", "users"), "scope"),
        ] {
            let (what, reply) = match action {
                Action::Denied(_, reply) => ("topic", reply),
                Action::DeniedScope(_, reply) => ("scope", reply),
                other => unreachable!("{other:?}"),
            };
            assert_eq!(what, expected);
            assert_eq!(reply, rpc::response_text(&false, "bool", Some("c")));
        }
    }

    #[test]
    fn without_a_token_every_scope_is_open_but_closed_topics_are_not() {
        let (session, now) = session(None);
        let mut session = session.with_feed();
        let open = session.on_text(&call("resume", r#"{"scope":"x","topics":["a"]}"#), now);
        assert!(matches!(open, Action::Resume(..)));
        for topic in CLOSED_TOPICS {
            let arguments = format!(r#"{{"topics":["a","{topic}"]}}"#);
            let closed = session.on_text(&call("resume", &arguments), now);
            assert!(matches!(closed, Action::Denied(..)), "{topic}");
        }
    }

    #[test]
    fn frames_that_ask_for_no_answer_do_not_fill_the_window() {
        let (session, now) = session(None);
        let mut session = session.with_feed();
        let tricky = serde_json::json!({ "payload": { "call_id": "x" }, "end": "\"call_id\":\"y" });
        for _ in 0..10 {
            session.notified(&rpc::event_text("change", &tricky), now);
        }
        assert!(session.may_notify());
        let later = now + SessionLimits::default().answer_within;
        assert_eq!(session.overdue(later), None);
        let frame = rpc::request_text("notify", &tricky, "n1");
        assert_eq!(call_id_of(&frame), Some("n1"));
    }
}
