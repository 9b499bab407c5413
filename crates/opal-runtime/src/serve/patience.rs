//! Request bodies that must keep coming.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::tasks::BoxError;

/// What a peer must send for each second that it wants to go on.
const BYTES_PER_SECOND: usize = 8 * 1024;

/// A body whose sender has so much patience to use up, and earns it back by sending.
///
/// Time counts only while we wait for the peer. Whoever sends 8 KiB/s on average may send as long
/// as the body is: how long that may be, others say. Silence, or a trickle, ends in an error once
/// the patience is used up.
#[derive(Debug)]
pub(super) struct PatientBody<B> {
    body: B,
    patience: Duration,
    /// What is left of it.
    left: Duration,
    /// Since when we have been waiting, and for how long at most. Most bodies never need it.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<B> PatientBody<B> {
    pub(super) fn new(body: B, patience: Duration) -> Self {
        Self {
            body,
            patience,
            left: patience,
            waiting: None,
        }
    }

    /// Reckons up what the peer used, and what it earned by sending `bytes`.
    fn account(&mut self, bytes: usize) {
        if let Some((since, _)) = self.waiting.take() {
            self.left = self.left.saturating_sub(since.elapsed());
        }
        let earned = Duration::from_secs_f64(bytes as f64 / BYTES_PER_SECOND as f64);
        self.left = self.patience.min(self.left + earned);
    }
}

impl<B> Body for PatientBody<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            let data = frame
                .as_ref()
                .and_then(|frame| frame.as_ref().ok()?.data_ref());
            this.account(data.map_or(0, Bytes::len));
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let left = this.left;
        let (_, sleep) = this
            .waiting
            .get_or_insert_with(|| (Instant::now(), Box::pin(tokio::time::sleep(left))));
        ready!(sleep.as_mut().poll(context));
        let error = io::Error::new(io::ErrorKind::TimedOut, "the body came too slowly");
        Poll::Ready(Some(Err(error.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body as AnyBody, to_bytes};
    use futures_util::stream;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// `frames` of so many bytes, one each `pause`.
    fn body(frames: usize, bytes: usize, pause: Duration) -> AnyBody {
        let frames = stream::unfold(frames, move |left| async move {
            let left = left.checked_sub(1)?;
            tokio::time::sleep(pause).await;
            Some((Ok::<_, io::Error>(Bytes::from(vec![0; bytes])), left))
        });
        AnyBody::from_stream(Box::pin(frames))
    }

    async fn received(body: AnyBody) -> Option<usize> {
        let patient = AnyBody::new(PatientBody::new(body, PATIENCE));
        Some(to_bytes(patient, usize::MAX).await.ok()?.len())
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_body_may_take_hours() {
        let slow_link = body(250 * 16, 64 * 1024, Duration::from_secs(7));
        assert_eq!(received(slow_link).await, Some(250 << 20));
        let with_a_pause = body(2, 1, Duration::from_secs(29));
        assert_eq!(received(with_a_pause).await, Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_a_trickle_end_in_an_error() {
        for (bytes, pause) in [(1, 61), (1, 1), (4 * 1024, 1)] {
            let start = Instant::now();
            let slow = body(1_000_000, bytes, Duration::from_secs(pause));
            assert_eq!(received(slow).await, None);
            assert!(start.elapsed() < PATIENCE * 3, "{bytes} {pause}");
        }
    }
}
