//! `opal demo`: the main job at work, with real figures, from nothing.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use hmac::{Hmac, Mac};
use opal_protocol::RedactedUrl;
use opal_runtime::Tasks;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio_util::sync::CancellationToken;

use crate::console::{complain, is_reader_gone, say};
use crate::stack::{GRACE, Stack, StackOptions};
use crate::story::{NEW_GRANT, POLICY, PolicyRepository};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// End after the demonstration: 0 if everything was as expected, else 1.
    #[arg(long)]
    once: bool,
}

/// How long one step may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let directory = tempfile::Builder::new().prefix("opal-demo-").tempdir()?;
    let tasks = Tasks::new(CancellationToken::new());
    opal_runtime::shutdown::on_signal(&tasks)?;
    let repository = PolicyRepository::create(directory.path().join("policies")).await?;
    let shutdown = tasks.shutdown().clone();
    let shown = async {
        let demo = Demo::start(&repository, directory.path(), &tasks).await?;
        demo.show(&repository).await?;
        demo.invite(&repository)?;
        match options.once {
            true => Ok(()),
            false => say!("\nEverything keeps running; Ctrl-C ends it."),
        }
    };
    let outcome = shutdown.run_until_cancelled(shown).await;
    // Parts that stop refuse those that still ask: that is no failure of its own.
    let interrupted = shutdown.is_cancelled();
    let outcome = outcome.filter(|outcome| outcome.is_ok() || !interrupted);
    let reader_gone = matches!(&outcome, Some(Err(error)) if is_reader_gone(error));
    if let Some(Err(error)) = &outcome
        && !reader_gone
    {
        complain!("opal demo: {error:#}");
    }
    if options.once || !matches!(outcome, Some(Ok(()))) {
        shutdown.cancel();
    }
    tasks.join(GRACE).await?;
    match outcome {
        Some(Ok(())) => Ok(ExitCode::SUCCESS),
        // Interrupted before everything was shown.
        None if !options.once => Ok(ExitCode::SUCCESS),
        Some(Err(_)) if reader_gone => Ok(ExitCode::SUCCESS),
        Some(Err(_)) | None => Ok(ExitCode::FAILURE),
    }
}

struct Demo {
    stack: Stack,
    http: reqwest::Client,
}

/// What one asks the engine.
#[derive(Debug, Clone, Copy)]
struct Question {
    user: &'static str,
    action: &'static str,
}

impl Question {
    fn input(self) -> Value {
        json!({ "user": self.user, "action": self.action, "type": "document" })
    }
}

impl Demo {
    async fn start(
        repository: &PolicyRepository,
        directory: &std::path::Path,
        tasks: &Tasks,
    ) -> anyhow::Result<Self> {
        let started = Instant::now();
        let repo = repository.path().display().to_string();
        let options = StackOptions {
            repo: &RedactedUrl::new(&repo),
            branch: "main",
            directory: &directory.join("state"),
            ports: [0; 3],
            polling: 0,
        };
        let stack = Stack::start(&options, tasks).await?;
        say!("A policy repository, a server, a client and an engine, in secure mode:")?;
        say!("  repository  {repo}")?;
        say!("  server      http://{}", stack.server)?;
        say!("  client      http://{}", stack.client)?;
        say!(
            "  engine      http://{}   (open it in a browser)",
            stack.engine
        )?;
        stack.wait_until_ready(PATIENCE).await?;
        say!(
            "Ready after {}, keys made and repository cloned.",
            millis(started)
        )?;
        let http = opal_runtime::http::client(&Default::default())?;
        Ok(Self { stack, http })
    }

    /// The two roads, each with a decision before and after.
    async fn show(&self, repository: &PolicyRepository) -> anyhow::Result<()> {
        let comment = Question {
            user: "bob",
            action: "comment",
        };
        let write = Question {
            user: "bob",
            action: "write",
        };

        say!("\n1. A decision: bob is a viewer.")?;
        self.expect(comment, false).await?;

        say!("\n2. A commit lets viewers comment; a signed webhook says so.")?;
        let (old, new) = NEW_GRANT;
        repository
            .write("rbac.rego", &POLICY.replace(old, new))
            .await?;
        repository.commit("Let viewers comment").await?;
        let committed = Instant::now();
        self.push_webhook(repository).await?;
        self.await_answer(comment, true, committed, "commit")
            .await?;

        say!("\n3. A data update makes bob an editor.")?;
        self.expect(write, false).await?;
        let published = Instant::now();
        self.publish_role("editor").await?;
        self.await_answer(write, true, published, "publish").await
    }

    async fn ask(&self, question: Question) -> anyhow::Result<bool> {
        let url = format!("http://{}/v1/data/app/rbac/allow", self.stack.engine);
        let body = json!({ "input": question.input() });
        let answer: Value = self
            .http
            .post(url)
            .json(&body)
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        answer["result"]
            .as_bool()
            .with_context(|| format!("the engine answered {answer}"))
    }

    async fn expect(&self, question: Question, expected: bool) -> anyhow::Result<()> {
        let asked = Instant::now();
        let answer = self.ask(question).await?;
        let Question { user, action } = question;
        say!("   may {user} {action}?  {answer}   ({})", millis(asked))?;
        if answer != expected {
            bail!("expected {expected}");
        }
        Ok(())
    }

    /// Asks again and again until the answer is as expected.
    async fn await_answer(
        &self,
        question: Question,
        expected: bool,
        since: Instant,
        event: &str,
    ) -> anyhow::Result<()> {
        while self.ask(question).await? != expected {
            if since.elapsed() > PATIENCE {
                bail!("no answer {expected} within {PATIENCE:?} of the {event}");
            }
        }
        let Question { user, action } = question;
        say!(
            "   may {user} {action}?  {expected}   ({} from {event} to new answer)",
            millis(since)
        )?;
        Ok(())
    }

    async fn push_webhook(&self, repository: &PolicyRepository) -> anyhow::Result<()> {
        let body = webhook_body(repository);
        self.http
            .post(format!("http://{}/webhook", self.stack.server))
            .header("x-github-event", "push")
            .header("x-hub-signature-256", self.signature(&body))
            .body(body)
            .send()
            .await?
            .error_for_status()?;
        Ok(())
    }

    fn signature(&self, body: &str) -> String {
        let secret = self.stack.tokens.webhook_secret.expose_secret();
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())
            .expect("HMAC takes keys of any length");
        mac.update(body.as_bytes());
        format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
    }

    async fn publish_role(&self, role: &str) -> anyhow::Result<()> {
        self.http
            .post(format!("http://{}/data/config", self.stack.server))
            .bearer_auth(self.stack.tokens.data_source.expose_secret())
            .json(&role_update(role))
            .send()
            .await?
            .error_for_status()?;
        Ok(())
    }

    /// Three commands to go on with.
    fn invite(&self, repository: &PolicyRepository) -> anyhow::Result<()> {
        let Stack { server, engine, .. } = self.stack;
        let repo = repository.path().display();
        let token = self.stack.tokens.data_source.expose_secret();
        let body = webhook_body(repository);
        let signature = self.signature(&body);
        let question = Question {
            user: "bob",
            action: "write",
        };
        say!("\nGo on by yourself:")?;
        say!("\n# a decision")?;
        say!(
            "curl -s http://{engine}/v1/data/app/rbac/allow -d '{}'",
            json!({ "input": question.input() })
        )?;
        say!("\n# a data update: bob is a viewer again")?;
        say!(
            "curl -s http://{server}/data/config -H 'Authorization: Bearer {token}' \
             -H 'Content-Type: application/json' -d '{}'",
            role_update("viewer")
        )?;
        say!("\n# a commit: nobody may write")?;
        say!(
            "cd {repo} && sed -i '/\"write\"/d' rbac.rego && git -c user.name=me -c user.email=me@localhost \
             commit -qam 'Nobody writes' && curl -s http://{server}/webhook -H 'X-GitHub-Event: push' \
             -H 'X-Hub-Signature-256: {signature}' -d '{body}'"
        )
    }
}

fn webhook_body(repository: &PolicyRepository) -> String {
    let url = repository.path().display().to_string();
    json!({ "ref": "refs/heads/main", "repository": { "clone_url": url } }).to_string()
}

fn role_update(role: &str) -> Value {
    json!({
        "reason": "a new role for bob",
        "entries": [{
            "url": "",
            "topics": ["policy_data"],
            "dst_path": "/users/bob",
            "data": { "roles": [role] },
        }],
    })
}

fn millis(since: Instant) -> String {
    format!("{:.1} ms", since.elapsed().as_secs_f64() * 1000.0)
}
