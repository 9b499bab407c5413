//! Wrong settings: all of them named at once, no secret shown, nothing started.

use anyhow::ensure;
use opal_testing::binaries;
use opal_testing::keys::Keys;
use opal_testing::process::{Finished, ProcessSpec};
use opal_testing::services::{Setting, setting};
use opal_testing::wait;

/// Runs a daemon that must refuse its settings.
async fn refused(
    program: &str,
    directory: &std::path::Path,
    settings: impl IntoIterator<Item = Setting>,
) -> anyhow::Result<Finished> {
    let finished = ProcessSpec::new("refused", binaries::ours(program)?, directory)
        .arguments(&["run"])
        .settings(settings)
        .output(wait::LIMIT)
        .await?;
    ensure!(
        finished.code == Some(2),
        "expected exit code 2: {finished:#?}"
    );
    Ok(finished)
}

fn all_named(finished: &Finished, names: &[&str]) -> anyhow::Result<()> {
    for name in names {
        ensure!(
            finished.stderr.contains(name),
            "`{name}` is not named:\n{}",
            finished.stderr
        );
    }
    Ok(())
}

#[tokio::test]
async fn all_wrong_settings_of_a_server_are_named_at_once() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let wrong = [
        setting("OPAL_SERVER_BIND_PORT", &"seven"),
        setting("OPAL_POLICY_REPO_POLLING_INTERVAL", &"soon"),
        setting("OPAL_STATISTICS_ENABLED", &"perhaps"),
        setting("OPAL_POLICY_SOURCE_TYPE", &"FTP"),
        setting("OPAL_DATA_CONFIG_SOURCES", &"{\"config\": "),
        setting("OPAL_AUTH_PRIVATE_KEY", &"text-that-is-a-secret-but-no-key"),
        setting("OPAL_AUTH_MASTER_TOKEN", &"another-secret"),
        setting(
            "OPAL_POLICY_REPO_CLONE_PATH",
            &directory.path().join("clones").display(),
        ),
    ];
    let finished = refused("opal-server", directory.path(), wrong).await?;
    all_named(
        &finished,
        &[
            "OPAL_SERVER_BIND_PORT",
            "seven",
            "OPAL_POLICY_REPO_POLLING_INTERVAL",
            "soon",
            "OPAL_STATISTICS_ENABLED",
            "perhaps",
            "OPAL_POLICY_SOURCE_TYPE",
            "FTP",
            "OPAL_DATA_CONFIG_SOURCES",
            "OPAL_AUTH_PRIVATE_KEY",
        ],
    )?;
    for secret in ["text-that-is-a-secret-but-no-key", "another-secret"] {
        let shown = finished.stderr.contains(secret) || finished.stdout.contains(secret);
        ensure!(!shown, "a secret is shown:\n{finished:#?}");
    }
    ensure!(
        !directory.path().join("clones").exists(),
        "something was started"
    );
    Ok(())
}

#[tokio::test]
async fn all_wrong_settings_of_a_client_are_named_at_once() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let wrong = [
        setting("OPAL_CLIENT_API_SERVER_PORT", &"70000"),
        setting("OPAL_KEEP_ALIVE_INTERVAL", &"often"),
        setting("OPAL_POLICY_STORE_TYPE", &"MAGIC"),
        setting("OPAL_INLINE_OPA_CONFIG", &"{\"addr\": 5"),
        setting("OPAL_SPLIT_ROOT_DATA", &"maybe"),
        setting("OPAL_CLIENT_TOKEN", &"a-token-that-is-a-secret"),
    ];
    let finished = refused("opal-client", directory.path(), wrong).await?;
    all_named(
        &finished,
        &[
            "OPAL_CLIENT_API_SERVER_PORT",
            "70000",
            "OPAL_KEEP_ALIVE_INTERVAL",
            "often",
            "OPAL_POLICY_STORE_TYPE",
            "MAGIC",
            "OPAL_INLINE_OPA_CONFIG",
            "OPAL_SPLIT_ROOT_DATA",
            "maybe",
        ],
    )?;
    ensure!(
        !finished.stderr.contains("a-token-that-is-a-secret"),
        "a secret is shown"
    );
    Ok(())
}

#[tokio::test]
async fn half_a_key_pair_and_a_wrong_passphrase_are_refused() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let keys = Keys::generate(directory.path(), "the right passphrase")?;
    let private = setting("OPAL_AUTH_PRIVATE_KEY", &keys.private_key.display());
    let public = setting("OPAL_AUTH_PUBLIC_KEY", &keys.public_key.display());
    let phrase = |text: &str| setting("OPAL_AUTH_PRIVATE_KEY_PASSPHRASE", &text);

    let right = phrase("the right passphrase");
    let half = refused("opal-server", directory.path(), [private.clone(), right]).await?;
    all_named(&half, &["OPAL_AUTH_PUBLIC_KEY"])?;
    let wrong = phrase("the wrong passphrase");
    let unreadable = refused("opal-server", directory.path(), [private, public, wrong]).await?;
    all_named(&unreadable, &["OPAL_AUTH_PRIVATE_KEY"])?;
    ensure!(
        !unreadable.stderr.contains("the wrong passphrase"),
        "a secret is shown"
    );
    Ok(())
}
