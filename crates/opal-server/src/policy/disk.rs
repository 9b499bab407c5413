//! Work that blocks, kept off the runtime's threads.

use std::io;

use tokio::task::spawn_blocking;

/// Does `work` on a thread that may block. It is done to its end even if nobody waits for it.
///
/// # Errors
///
/// If it panicked.
pub(super) async fn blocking<T>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T>
where
    T: Send + 'static,
{
    spawn_blocking(work).await.map_err(io::Error::other)
}
