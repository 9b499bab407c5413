//! The policy repository of the demonstration, and what is asked of it.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tokio::process::Command;

/// Who may do what, by role.
pub(crate) const POLICY: &str = r#"package app.rbac

import rego.v1

default allow := false

allow if {
	some role in data.users[input.user].roles
	some grant in grants[role]
	grant.action == input.action
	grant.type == input.type
}

grants := {
	"viewer": [{"action": "read", "type": "document"}],
	"editor": [
		{"action": "read", "type": "document"},
		{"action": "write", "type": "document"},
	],
}
"#;

/// What the commit of the demonstration adds.
pub(crate) const NEW_GRANT: (&str, &str) = (
    r#"	"viewer": [{"action": "read", "type": "document"}],"#,
    r#"	"viewer": [
		{"action": "read", "type": "document"},
		{"action": "comment", "type": "document"},
	],"#,
);

/// Who has which role, to begin with.
pub(crate) const USERS: &str = r#"{"alice": {"roles": ["editor"]}, "bob": {"roles": ["viewer"]}}
"#;

/// A small policy repository.
#[derive(Debug)]
pub(crate) struct PolicyRepository {
    path: PathBuf,
}

impl PolicyRepository {
    /// Makes the repository in `path`, with one commit on branch `main`.
    pub(crate) async fn create(path: PathBuf) -> anyhow::Result<Self> {
        tokio::fs::create_dir_all(path.join("users")).await?;
        let repository = Self { path };
        repository.git(&["init", "--quiet"]).await?;
        repository
            .git(&["symbolic-ref", "HEAD", "refs/heads/main"])
            .await?;
        repository.write("rbac.rego", POLICY).await?;
        repository.write("users/data.json", USERS).await?;
        repository
            .commit("Let editors write and viewers read")
            .await?;
        Ok(repository)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) async fn write(&self, file: &str, text: &str) -> anyhow::Result<()> {
        Ok(tokio::fs::write(self.path.join(file), text).await?)
    }

    pub(crate) async fn commit(&self, message: &str) -> anyhow::Result<()> {
        self.git(&["add", "--all"]).await?;
        self.git(&["commit", "--quiet", "--message", message]).await
    }

    async fn git(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let output = Command::new("git")
            .args([
                "-c",
                "user.name=OPAL demo",
                "-c",
                "user.email=demo@localhost",
            ])
            .args(["-c", "commit.gpgsign=false"])
            .args(arguments)
            .current_dir(&self.path)
            .output()
            .await
            .context("could not run `git`; is it installed?")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            bail!("`git {}` failed: {}", arguments.join(" "), said.trim());
        }
        Ok(())
    }
}
