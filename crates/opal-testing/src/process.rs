//! A child process with its output in a file, which ends when its owner does.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::wait;

/// What to run and how; the same spec can be started again.
#[derive(Debug, Clone)]
pub struct ProcessSpec {
    /// What messages call it.
    pub name: String,
    /// The program's file.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Set on top of our environment, from which every `OPAL_…` variable is removed.
    pub settings: BTreeMap<String, String>,
    /// Its working directory and its `HOME`, so that nothing of the user's is read or changed.
    pub directory: PathBuf,
}

impl ProcessSpec {
    /// A spec without arguments and settings. `directory` must exist.
    pub fn new(name: &str, program: PathBuf, directory: &Path) -> Self {
        Self {
            name: name.to_owned(),
            program,
            arguments: Vec::new(),
            settings: BTreeMap::new(),
            directory: directory.to_owned(),
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments
            .extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// Adds settings; a later value of the same name wins.
    #[must_use]
    pub fn settings(mut self, settings: impl IntoIterator<Item = (String, String)>) -> Self {
        self.settings.extend(settings);
        self
    }

    /// The command, ready to run, without its standard streams set.
    pub fn command(&self) -> Command {
        // Asked to stop when we are gone, even if nothing of ours could run any more.
        // By its full path: the program may be given another `PATH`.
        let mut command = Command::new(on_path("setpriv"));
        command
            .args(["--pdeathsig", "TERM", "--"])
            .arg(&self.program);
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("OPAL_") {
                command.env_remove(name);
            }
        }
        command
            .args(&self.arguments)
            .current_dir(&self.directory)
            .env("HOME", &self.directory)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .envs(&self.settings)
            .stdin(Stdio::null())
            .process_group(0);
        command
    }

    /// Runs it to its end and returns what it printed. Killed if it takes longer than `limit`.
    pub async fn output(&self, limit: Duration) -> anyhow::Result<Finished> {
        let out = self.directory.join(format!("{}.out", self.name));
        let mut process = Process::spawn(self.clone(), &out, self.log_path())?;
        let status = wait::until_within(limit, format!("`{}` to end", self.name), async || {
            process.ended()?.context("still running")
        })
        .await?;
        Ok(Finished {
            code: status.code(),
            stdout: fs::read_to_string(&out)?,
            stderr: process.log(),
        })
    }

    fn log_path(&self) -> PathBuf {
        self.directory.join(format!("{}.log", self.name))
    }
}

/// What a command that ran to its end left behind.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The exit code; none after a signal.
    pub code: Option<i32>,
    /// Everything on standard output.
    pub stdout: String,
    /// Everything on standard error.
    pub stderr: String,
}

/// A running child.
///
/// Dropping it kills it, its process group and all its descendants, and nothing else.
#[derive(Debug)]
pub struct Process {
    spec: ProcessSpec,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `spec`; both output streams are appended to `<directory>/<name>.log`.
    pub fn start(spec: ProcessSpec) -> anyhow::Result<Self> {
        let log = spec.log_path();
        Self::spawn(spec, &log.clone(), log)
    }

    fn spawn(spec: ProcessSpec, stdout: &Path, stderr: PathBuf) -> anyhow::Result<Self> {
        let child = spec
            .command()
            .stdout(append_to(stdout)?)
            .stderr(append_to(&stderr)?)
            .spawn()
            .with_context(|| format!("could not start `{}`", spec.program.display()))?;
        Ok(Self {
            spec,
            child,
            log: stderr,
        })
    }

    /// What it was started with.
    pub fn spec(&self) -> &ProcessSpec {
        &self.spec
    }

    /// The child's process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has logged so far, in this life and earlier ones of the same spec.
    pub fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The last lines of the log, under a heading with the name.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines
            .get(lines.len().saturating_sub(60)..)
            .unwrap_or_default();
        format!(
            "---- last lines of `{}` ----\n{}\n",
            self.spec.name,
            tail.join("\n")
        )
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Asks it to stop (`SIGTERM`) and waits for the end.
    ///
    /// An error if it does not stop within `limit`; it is killed then.
    pub async fn stop(mut self, limit: Duration) -> anyhow::Result<(ProcessSpec, ExitStatus)> {
        kill_process(pid(self.child.id())?, Signal::TERM)?;
        let what = format!("`{}` to stop when asked", self.spec.name);
        let status =
            wait::until_within(limit, what, async || self.ended()?.context("still running"))
                .await
                .with_context(|| self.log_tail())?;
        Ok((self.spec.clone(), status))
    }

    /// Kills it at once (`SIGKILL`), as a machine short of memory does, and its descendants too.
    pub fn kill(self) -> ProcessSpec {
        self.spec.clone()
    }

    /// The process ids of its living descendants whose program is called `program`.
    pub fn descendants_called(&self, program: &str) -> Vec<u32> {
        descendants(self.child.id())
            .into_iter()
            .filter(|id| program_of(*id).as_deref() == Some(program))
            .collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Collected first: once the parent is gone, its children belong to another process.
        let family = descendants(self.child.id());
        if let Ok(leader) = pid(self.child.id()) {
            let _gone_already = kill_process_group(leader, Signal::KILL);
        }
        for id in family {
            let _gone_already = kill_now(id);
        }
        let _status = self.child.wait();
    }
}

/// Sends `SIGKILL` to exactly this process.
pub fn kill_now(id: u32) -> anyhow::Result<()> {
    Ok(kill_process(pid(id)?, Signal::KILL)?)
}

fn pid(id: u32) -> anyhow::Result<Pid> {
    let id = i32::try_from(id)?;
    Pid::from_raw(id).context("no process has the id 0")
}

fn append_to(path: &Path) -> anyhow::Result<File> {
    let file = File::options().create(true).append(true).open(path);
    file.with_context(|| format!("could not open `{}`", path.display()))
}

/// Children, grandchildren and so on of `root`, from `/proc`.
fn descendants(root: u32) -> Vec<u32> {
    let parents: BTreeMap<u32, u32> = all_processes()
        .filter_map(|id| Some((id, parent_of(id)?)))
        .collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(
            parents
                .iter()
                .filter(|(_, of)| **of == parent)
                .map(|(id, _)| *id),
        );
        next += 1;
    }
    found.split_off(1)
}

fn all_processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn parent_of(id: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name in parentheses may hold blanks; the parent is the second field after it.
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(1)?.parse().ok()
}

fn program_of(id: u32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{id}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}

/// Where `PATH` has `program`; the bare name if it does not, so that starting it names it.
fn on_path(program: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut candidates = env::split_paths(&path).map(|directory| directory.join(program));
    let found = candidates.find(|candidate| candidate.is_file());
    found.unwrap_or_else(|| PathBuf::from(program))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(directory: &Path, script: &str) -> ProcessSpec {
        ProcessSpec::new("shell", "/bin/sh".into(), directory).arguments(&["-c", script])
    }

    #[tokio::test]
    async fn output_and_exit_code_are_kept_apart() {
        let directory = tempfile::tempdir().unwrap();
        let spec = shell(directory.path(), "echo out; echo err >&2; exit 3");
        let finished = spec.output(wait::LIMIT).await.unwrap();
        assert_eq!(finished.code, Some(3));
        assert_eq!(finished.stdout, "out\n");
        assert_eq!(finished.stderr, "err\n");
    }

    #[tokio::test]
    async fn a_dropped_process_takes_its_children_in_other_sessions_along() {
        let directory = tempfile::tempdir().unwrap();
        let process = Process::start(shell(directory.path(), "setsid sleep 600 & wait")).unwrap();
        let grandchild = wait::until("the grandchild", async || {
            let sleeping = process.descendants_called("sleep");
            sleeping.first().copied().context("not started yet")
        })
        .await
        .unwrap();
        drop(process);
        wait::until("the grandchild's end", async || {
            let state = program_of(grandchild).filter(|_| parent_of(grandchild) != Some(1));
            anyhow::ensure!(state.is_none(), "still there");
            Ok(())
        })
        .await
        .unwrap();
    }
}
