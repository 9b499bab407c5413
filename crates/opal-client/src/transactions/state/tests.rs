use super::*;

const BOTH: EnabledUpdaters = EnabledUpdaters {
    policy: true,
    data: true,
};

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
}

fn entry(dst_path: &str) -> Subject {
    Subject::Entry {
        dst_path: dst_path.to_owned(),
        url: "http://source/".to_owned(),
    }
}

fn transaction(subject: Subject, outcome: Result<(), &str>, seconds: i64) -> Transaction {
    let kind = match subject {
        Subject::Policies => TransactionKind::Policy,
        Subject::Entry { .. } | Subject::Sources => TransactionKind::Data,
    };
    Transaction {
        id: "fail-1".to_owned(),
        kind,
        actions: vec!["set_policy_data"],
        outcome: outcome.map_err(|error| Failure {
            error: error.to_owned(),
            problems: Vec::new(),
        }),
        creation_time: at(seconds),
        end_time: at(seconds),
        remotes: Vec::new(),
        subject,
    }
}

fn filled() -> TransactionState {
    let mut log = TransactionState::new(BOTH);
    log.record(transaction(Subject::Policies, Ok(()), 0));
    log.record(transaction(entry("/a"), Ok(()), 0));
    log
}

#[test]
fn a_client_is_ready_once_each_updater_that_runs_has_stored_something() {
    let mut log = TransactionState::new(BOTH);
    assert_eq!(log.unready().len(), 2);
    log.record(transaction(Subject::Policies, Ok(()), 0));
    let kind = TransactionKind::Data;
    assert_eq!(log.unready(), [Reason::NothingStored { kind }]);
    log.record(transaction(entry("/a"), Ok(()), 0));
    assert!(log.ready() && log.healthy());

    let mut without_data = TransactionState::new(EnabledUpdaters {
        policy: true,
        data: false,
    });
    without_data.record(transaction(Subject::Policies, Ok(()), 0));
    assert!(without_data.healthy());
    let without_both = TransactionState::new(EnabledUpdaters {
        policy: false,
        data: false,
    });
    assert!(without_both.ready() && without_both.healthy());
}

#[test]
fn a_failing_bundle_shows_with_file_and_line_until_one_succeeds() {
    let mut log = filled();
    let problem = PolicyProblem {
        file: "app/rbac.rego".to_owned(),
        row: 3,
        col: 7,
        code: "rego_parse_error".to_owned(),
        message: "unexpected token".to_owned(),
    };
    let mut failed = transaction(Subject::Policies, Err("refused"), 5);
    failed.outcome.as_mut().unwrap_err().problems.push(problem);
    log.record(failed);
    assert!(log.ready() && !log.healthy());
    let shown = serde_json::to_value(log.unhealthy()).unwrap();
    assert_eq!(shown[0]["reason"], "failing");
    assert_eq!(shown[0]["problems"][0]["file"], "app/rbac.rego");
    assert_eq!(shown[0]["problems"][0]["row"], 3);

    log.record(transaction(Subject::Policies, Ok(()), 6));
    assert!(log.healthy());
}

#[test]
fn a_failing_entry_is_named_with_its_latest_error_and_its_first_time() {
    let mut log = filled();
    log.record(transaction(entry("/b"), Err("500"), 10));
    log.record(transaction(entry("/b"), Err("404"), 20));
    log.record(transaction(entry("/a"), Ok(()), 30));
    let failing: Vec<&Failing> = log.failing().collect();
    assert_eq!(failing.len(), 1);
    assert_eq!(failing[0].subject, entry("/b"));
    assert_eq!(
        (
            failing[0].error.as_str(),
            failing[0].since,
            failing[0].attempts
        ),
        ("404", at(10), 2)
    );
    assert!(!log.healthy());

    log.settle(&entry("/b"));
    assert!(log.healthy());
}

#[test]
fn a_store_that_does_not_answer_makes_the_client_unhealthy_since_the_first_failed_probe() {
    let mut log = filled();
    log.probed(Err("refused".to_owned()), at(1));
    log.probed(Err("timed out".to_owned()), at(2));
    let error = "timed out".to_owned();
    assert_eq!(
        log.unhealthy(),
        [Reason::StoreUnreachable {
            error,
            since: at(1)
        }]
    );
    assert!(log.ready());
    log.probed(Ok(()), at(3));
    assert!(log.healthy());
}

#[test]
fn an_engine_that_restarted_has_to_be_filled_again() {
    let mut log = filled();
    log.engine_restarted();
    assert!(!log.ready());
    log.record(transaction(Subject::Policies, Ok(()), 1));
    log.record(transaction(entry("/a"), Ok(()), 1));
    assert!(log.ready());
    assert_eq!(log.kind(TransactionKind::Policy).statistics.successful, 2);
}

#[test]
fn a_transaction_is_logged_as_released_opal_does() {
    let mut transaction = transaction(entry("/a"), Err("no"), 0);
    transaction.remotes.push(RemoteStatus {
        remote_url: "http://s/".to_owned(),
        succeed: true,
        error: None,
    });
    assert_eq!(
        serde_json::to_string(&transaction).unwrap(),
        r#"{"id":"fail-1","actions":["set_policy_data"],"transaction_type":"data","success":false,"error":"no","creation_time":"2027-01-15T08:00:00.000000","end_time":"2027-01-15T08:00:00.000000","remotes_status":[{"remote_url":"http://s/","succeed":true,"error":null}]}"#
    );
}
