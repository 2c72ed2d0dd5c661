//! An answer that its client does not take: what HTTP/1 allows a slow reader, for each stream by itself.
//!
//! ```text
//! hyper's task of a stream waits ─┬─ it asked the service or the body, which had nothing yet ─▶ ours, not timed
//!                                 └─ else for room in the client's window ─▶ timed ─▶ dropped: RST_STREAM, its access line
//! ```
//! hyper tells nobody what a task waits for; but it waits for us only after it asked, and those whom it asks say so here.

use super::super::body::allowed;
use super::super::strict::Times;
use super::Pulse;
use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use tokio::time::{Instant, Sleep, sleep_until};

/// What was heard of the one task that is polled now.
#[derive(Clone, Copy, Default)]
struct Asked {
    /// Who was asked had nothing yet.
    waits: bool,
    /// Bytes of the body that were handed over.
    bytes: u64,
}

thread_local! {
    static ASKED: Cell<Asked> = const { Cell::new(Asked { waits: false, bytes: 0 }) };
}

fn waits<T>(polled: Poll<T>) -> Poll<T> {
    if polled.is_pending() {
        ASKED.set(Asked { waits: true, ..ASKED.get() });
    }
    polled
}

/// The service's future, heard.
pub async fn heard<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| waits(future.as_mut().poll(cx))).await
}

/// An answer's body, heard.
pub struct Heard<B>(pub B);

impl<B: Body + Unpin> Body for Heard<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let polled = waits(Pin::new(&mut self.0).poll_frame(cx));
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            let asked = ASKED.get();
            let bytes = asked.bytes + frame.data_ref().map_or(0, |data| data.remaining() as u64);
            ASKED.set(Asked { bytes, ..asked });
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// Runs the tasks of one connection's streams, each with its limit.
#[derive(Clone)]
pub struct Paced {
    pub times: Times,
    pub pulse: Arc<Pulse>,
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Paced {
    fn execute(&self, task: F) {
        tokio::spawn(run(task, self.times, self.pulse.clone()));
    }
}

async fn run(task: impl Future<Output = ()>, times: Times, pulse: Arc<Pulse>) {
    if !taken(task, times).await {
        pulse.given_up.store(true, Relaxed);
        pulse.gave_up.notify_one();
    }
}

/// Runs it to its end, or drops it: false.
async fn taken(task: impl Future<Output = ()>, times: Times) -> bool {
    let (mut task, mut wait) = (pin!(task), Wait::default());
    poll_fn(|cx| {
        ASKED.set(Asked::default());
        match task.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending => wait.poll(ASKED.get(), &times, cx).map(|()| false),
        }
    })
    .await
}

/// How long the client has been waited for.
#[derive(Default)]
struct Wait {
    /// And the bytes that it took since.
    since: Option<(Instant, u64)>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Wait {
    /// Ready when it was too long.
    fn poll(&mut self, asked: Asked, times: &Times, cx: &mut Context<'_>) -> Poll<()> {
        if asked.waits {
            self.since = None;
            return Poll::Pending;
        }
        let (since, taken) = match self.since {
            Some((since, taken)) => (since, taken + asked.bytes),
            None => (Instant::now(), 0),
        };
        self.since = Some((since, taken));
        let until = since + allowed(times, taken);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if timer.deadline() != until {
            timer.as_mut().reset(until);
        }
        timer.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::time::Duration;

    const TIMES: Times = Times {
        head_ms_max: 10_000,
        body_ms_max: 100,
        per_kib_ms: 10,
        whole_ms_max: 600,
        idle_ms_max: 75_000,
        linger_ms_max: 2_000,
    };

    /// A body that has the next piece after so many milliseconds.
    struct Pieces(Pin<Box<Sleep>>, usize);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            self.0.as_mut().poll(cx).map(|()| Some(Ok(Frame::data(Bytes::from(vec![0; self.1])))))
        }
    }

    fn later(ms: u64) -> Pin<Box<Sleep>> {
        Box::pin(tokio::time::sleep(Duration::from_millis(ms)))
    }

    /// hyper's part: asks for a piece that comes after `wait_ms` at first, then waits `room_ms` for room, each time.
    async fn sends(wait_ms: u64, bytes: usize, pieces: usize, room_ms: u64) {
        let mut body = Heard(Pieces(later(wait_ms), bytes));
        for _ in 0..pieces {
            poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
            later(room_ms).await;
        }
    }

    /// Whether it was given up, and not before its time.
    async fn given_up(task: impl Future<Output = ()>, after_ms: u128) -> bool {
        let (pulse, began) = (Arc::new(Pulse::default()), Instant::now());
        run(task, TIMES, pulse.clone()).await;
        let elapsed = began.elapsed();
        assert!(elapsed.as_millis() >= after_ms, "{elapsed:?}");
        pulse.given_up.load(Relaxed)
    }

    const NEVER: u64 = 1 << 30;

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_given_up_and_a_source_that_gives_nothing_is_not() {
        assert!(given_up(sends(0, 10, 1, NEVER), 100).await);
        assert!(!given_up(sends(300, 10, 1, 1), 300).await);
        assert!(given_up(sends(300, 10, 1, NEVER), 400).await);
        assert!(!given_up(heard(later(300)), 300).await);
    }

    #[tokio::test]
    async fn what_is_taken_earns_time_up_to_the_whole() {
        assert!(!given_up(sends(0, 16 << 10, 8, 40), 320).await);
        assert!(given_up(sends(0, 1, 1_000, 40), 100).await);
        assert!(given_up(sends(0, 16 << 10, 1_000, 40), 600).await);
    }
}
