//! The SSH key of the settings, as a file that `ssh` reads.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

/// Sees to it that `file` holds the key for `ssh`, readable by us alone.
pub(super) fn write_key(key: &SecretString, file: &Path) -> io::Result<()> {
    // As upstream: `_` stands for a newline, and the last line must end.
    let mut text = key.expose_secret().replace('_', "\n");
    if !text.ends_with('\n') {
        text.push('\n');
    }
    if holds(file, &text) {
        return Ok(());
    }
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent)?;
    }
    let beside = file.with_extension(format!("new-{}", std::process::id()));
    let _ = fs::remove_file(&beside);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options.open(&beside)?.write_all(text.as_bytes())?;
    fs::rename(&beside, file)
}

/// Whether the file is as we would write it.
fn holds(file: &Path, text: &str) -> bool {
    let is_ours = |found: &fs::Metadata| found.is_file() && found.permissions().mode() & 0o077 == 0;
    fs::symlink_metadata(file).is_ok_and(|found| is_ours(&found))
        && fs::read(file).is_ok_and(|found| found == text.as_bytes())
}

/// The command that makes git use the key: as upstream, and never asking anyone anything.
pub(super) fn command(file: &Path) -> OsString {
    let mut command = OsString::from(
        "ssh -o BatchMode=yes -o StrictHostKeyChecking=no -o IdentitiesOnly=yes -i ",
    );
    command.push(quoted(&file.to_string_lossy()));
    command
}

/// Git gives the command to a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_key_file_is_readable_by_us_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("it's/key");
        write_key(&SecretString::from("BEGIN_x_END"), &file).unwrap();
        write_key(&SecretString::from("BEGIN_y_END"), &file).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "BEGIN\ny\nEND\n");
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(command(&file).to_string_lossy().ends_with(r"/it'\''s/key'"));
    }

    #[test]
    fn the_key_file_is_written_again_only_if_it_is_not_as_it_must_be() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        let key = SecretString::from("key");
        let written = |text: &str| {
            write_key(&SecretString::from(text), &file).unwrap();
            let found = fs::metadata(&file).unwrap();
            assert_eq!(found.permissions().mode() & 0o777, 0o600);
            found.ino()
        };
        let first = written("key");
        assert_eq!(written("key"), first);
        let second = written("other");
        assert_ne!(second, first);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        write_key(&key, &file).unwrap();
        assert_eq!(written("key"), fs::metadata(&file).unwrap().ino());
        assert_eq!(fs::read_to_string(&file).unwrap(), "key\n");
    }
}
