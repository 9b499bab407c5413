//! An `opa` of our own beside the client: started, watched, restarted, stopped with us.
//!
//! [`InlineOpaConfig`] is what the settings say, [`find_executable`] finds the program, and
//! [`InlineOpa::run`] is the task that keeps one process alive and tells what happens to it as
//! [`EngineEvent`]s: after each `Up { restart: true }` the engine is empty and has to be filled again.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

mod config;
mod log_line;
mod process;

pub use config::{Authentication, Authorization, InlineOpaConfig, OpaLogLevel};
pub use log_line::EngineLogFormat;
pub use process::{EngineEvent, InlineOpa};

/// The program's name where no path is set.
const PROGRAM: &str = "opa";

/// Why there is no engine to run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecutableError {
    /// The configured file cannot be run.
    #[error("`{}` is not an executable file", path.display())]
    NotExecutable {
        /// What `OPAL_INLINE_OPA_EXEC_PATH` says.
        path: PathBuf,
    },
    /// No directory of `PATH` has the program.
    #[error("there is no `{name}` in any directory of PATH")]
    NotFound {
        /// The program.
        name: String,
    },
}

/// Finds the program to run: `configured` (`OPAL_INLINE_OPA_EXEC_PATH`) if set, else `opa`; a name
/// without a slash is looked up in `path`, the value of `PATH`.
///
/// # Errors
///
/// If there is no such program.
pub fn find_executable(
    configured: Option<&Path>,
    path: Option<&OsStr>,
) -> Result<PathBuf, ExecutableError> {
    let wanted = configured.unwrap_or(Path::new(PROGRAM));
    if wanted.components().count() > 1 {
        return match is_executable(wanted) {
            true => Ok(wanted.to_owned()),
            false => Err(ExecutableError::NotExecutable {
                path: wanted.to_owned(),
            }),
        };
    }
    std::env::split_paths(path.unwrap_or_default())
        .map(|directory| directory.join(wanted))
        .find(|candidate| is_executable(candidate))
        .ok_or_else(|| ExecutableError::NotFound {
            name: wanted.display().to_string(),
        })
}

fn is_executable(path: &Path) -> bool {
    let metadata = std::fs::metadata(path);
    metadata.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_found_where_it_is_configured_or_on_the_path() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("opa");
        let path = Some(directory.path().as_os_str());
        std::fs::write(&program, "#!/bin/sh\n").unwrap();
        let error = find_executable(None, path).unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no `opa` in any directory of PATH"
        );

        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find_executable(None, path).unwrap(), program);
        assert_eq!(find_executable(Some(&program), None).unwrap(), program);
        assert_eq!(
            find_executable(Some(Path::new("opa")), path).unwrap(),
            program
        );
        assert!(find_executable(Some(Path::new("/no/such/opa")), path).is_err());
    }
}
