//! What people read: lines on standard output, whose reader may leave at any time.

use std::fmt;
use std::io::{self, Write};

/// Nobody reads our output any more (`opal status | head`): a reason to end, and no failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody reads the output")]
pub(crate) struct ReaderGone;

/// Whether `error` only says that nobody reads our output.
pub(crate) fn is_reader_gone(error: &anyhow::Error) -> bool {
    error.is::<ReaderGone>()
}

/// Prints a line; see [`say!`].
pub(crate) fn line(text: fmt::Arguments<'_>) -> anyhow::Result<()> {
    checked(writeln!(io::stdout(), "{text}"))
}

/// Prints text and makes it appear.
pub(crate) fn show(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    checked(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

fn checked(written: io::Result<()>) -> anyhow::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        written => Ok(written?),
    }
}

/// Prints a line as `println!` does, but fails where that panics.
macro_rules! say {
    ($($text:tt)*) => { $crate::console::line(format_args!($($text)*)) };
}
pub(crate) use say;

/// Prints a line on standard error, if anybody is there.
macro_rules! complain {
    ($($text:tt)*) => { {
        use std::io::Write as _;
        // If nobody reads complaints there is nobody to complain to.
        let _ = writeln!(std::io::stderr(), $($text)*);
    } };
}
pub(crate) use complain;

/// `text` without what moves a terminal's cursor or changes its colours: it may come from anybody.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_reader_that_left_ends_quietly() {
        let failed = |kind: io::ErrorKind| checked(Err(kind.into())).unwrap_err();
        assert!(is_reader_gone(&failed(io::ErrorKind::BrokenPipe)));
        assert!(!is_reader_gone(&failed(io::ErrorKind::StorageFull)));
    }

    #[test]
    fn nothing_that_a_peer_calls_itself_reaches_the_terminal_as_a_command() {
        assert_eq!(plain("edge\x1b[2J\n\u{9b}1"), "edge?[2J??1");
    }
}
