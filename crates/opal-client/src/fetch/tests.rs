use std::sync::Mutex;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

/// A provider that gives scripted answers, each after a time.
struct Scripted {
    answers: Mutex<Vec<(Duration, Result<Document, FetchError>)>>,
    attempts: Mutex<Vec<Instant>>,
}

#[async_trait]
impl FetchProvider for Scripted {
    fn name(&self) -> &'static str {
        "Scripted"
    }

    async fn fetch(&self, _: &FetchRequest) -> Result<Document, FetchError> {
        self.attempts.lock().unwrap().push(Instant::now());
        let (after, answer) = self.answers.lock().unwrap().remove(0);
        tokio::time::sleep(after).await;
        answer
    }
}

fn scripted(answers: Vec<(u64, Result<Document, FetchError>)>) -> Arc<Scripted> {
    let timed = answers
        .into_iter()
        .map(|(ms, answer)| (Duration::from_millis(ms), answer));
    Arc::new(Scripted {
        answers: Mutex::new(timed.collect()),
        attempts: Mutex::default(),
    })
}

fn fetcher(provider: &Arc<Scripted>, workers: usize) -> Fetcher {
    let provider: Arc<dyn FetchProvider> = Arc::clone(provider) as _;
    let limits = FetchLimits {
        retry: ConnRetryOptions {
            wait_time: 1.0,
            attempts: 5,
            ..ConnRetryOptions::default()
        },
        deadline: Duration::from_secs(10),
        workers,
    };
    Fetcher::new(vec![provider], limits)
}

fn request() -> FetchRequest {
    FetchRequest::from(&DataSourceEntry::from_url("http://source/"))
}

fn busy(retry_after: Option<u64>) -> Result<Document, FetchError> {
    Err(FetchError::Rejected {
        url: "http://source/".into(),
        status: reqwest::StatusCode::SERVICE_UNAVAILABLE,
        retry_after: retry_after.map(Duration::from_secs),
    })
}

fn found() -> Result<Document, FetchError> {
    Ok(Document::parse("1").unwrap())
}

async fn round(fetcher: &Fetcher) -> Result<Document, FetchError> {
    fetcher
        .fetch_round(&request(), &mut StdRng::seed_from_u64(1))
        .await
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_at_least_what_the_source_asks_for() {
    let provider = scripted(vec![(0, busy(None)), (0, busy(Some(4))), (0, found())]);
    let start = Instant::now();
    round(&fetcher(&provider, 6)).await.unwrap();
    let attempts = provider.attempts.lock().unwrap().clone();
    let after: Vec<u64> = attempts.iter().map(|at| (*at - start).as_secs()).collect();
    assert_eq!(after, [0, 1, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_asks_for_more_time_than_there_is_ends_the_round_at_once() {
    let provider = scripted(vec![(0, busy(Some(60)))]);
    let start = Instant::now();
    let error = round(&fetcher(&provider, 6)).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(60)));
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_round_ends_at_its_deadline_whatever_the_provider_does() {
    let provider = scripted(vec![(9_500, busy(None)), (60_000, found())]);
    let start = Instant::now();
    round(&fetcher(&provider, 6)).await.unwrap_err();
    assert_eq!(start.elapsed().as_millis(), 9_500);

    let provider = scripted(vec![(5_000, busy(None)), (60_000, found())]);
    let start = Instant::now();
    let error = round(&fetcher(&provider, 6)).await.unwrap_err();
    assert!(matches!(error, FetchError::TimedOut { .. }));
    assert_eq!(start.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_worker_costs_no_time_of_the_round() {
    let provider = scripted(vec![(8_000, found()), (8_000, found()), (8_000, found())]);
    let fetcher = fetcher(&provider, 1);
    let rounds = tokio::join!(round(&fetcher), round(&fetcher), round(&fetcher));
    assert!(rounds.0.is_ok() && rounds.1.is_ok() && rounds.2.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_null_document_is_a_failure_for_every_provider() {
    let provider = scripted(vec![(0, Ok(Document::parse("null").unwrap()))]);
    let error = round(&fetcher(&provider, 6)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the answer from `http://source/` is empty"
    );
}
