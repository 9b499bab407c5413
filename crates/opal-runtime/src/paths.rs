//! Paths as users write them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// `text` with a `~` or `~/` at its start replaced by the home directory.
pub fn expand_home(text: &str) -> PathBuf {
    match (text.strip_prefix('~'), home()) {
        (Some(""), Some(home)) => home,
        (Some(rest), Some(home)) if rest.starts_with('/') => {
            home.join(rest.trim_start_matches('/'))
        }
        _ => PathBuf::from(text),
    }
}

/// The home directory of whoever runs this process.
pub fn home() -> Option<PathBuf> {
    std::env::home_dir().filter(|home| home.as_path() != Path::new(""))
}

/// Where programs are looked for: the value of `PATH`.
pub fn search_path() -> Option<OsString> {
    std::env::var_os("PATH")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_home_is_expanded() {
        let home = home().unwrap();
        assert_eq!(expand_home("~/.ssh/key"), home.join(".ssh/key"));
        assert_eq!(expand_home("~"), home);
        assert_eq!(expand_home("~other/x"), Path::new("~other/x"));
        assert_eq!(expand_home("/a/~"), Path::new("/a/~"));
    }
}
