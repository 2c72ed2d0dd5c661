//! Connections to an upstream, over a pair of sockets.

use super::*;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const CHUNKS: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
const SIZED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde";

fn message(body: &'static [u8]) -> Message {
    Message { head: b"GET / HTTP/1.1\r\n\r\n".to_vec(), body: Bytes::from_static(body) }
}

fn line() -> (Line, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    (Line::new(Socket::Unix(TokioIo::new(near))), far)
}

/// Hears a request without a body, then says this in pieces of so many bytes, each when the other side has waited.
async fn answer(far: &mut UnixStream, text: &str, piece: usize) {
    let mut asked = [0; 18];
    far.read_exact(&mut asked).await.unwrap();
    for piece in text.as_bytes().chunks(piece) {
        far.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
}

async fn asked(line: Line, far: &mut UnixStream, text: &str, piece: usize) -> (Result<Bytes, Broken>, Arc<Pool>) {
    let pool = Arc::<Pool>::default();
    let asking = async {
        let (_, body) = line.ask(&message(b""), &pool).await?;
        body.whole(1 << 20).await
    };
    let (whole, ()) = tokio::join!(asking, answer(far, text, piece));
    (whole, pool)
}

#[tokio::test]
async fn an_answer_in_pieces_is_whole_and_its_connection_is_used_again() {
    for text in [CHUNKS, SIZED] {
        let (mut line, mut far) = line();
        for piece in (1..text.len()).chain([text.len()]) {
            let (whole, pool) = asked(line, &mut far, text, piece).await;
            assert_eq!(whole.unwrap(), "abcde", "{piece}");
            line = pool.take().expect("it rests");
        }
    }
}

#[tokio::test]
async fn a_connection_that_is_not_at_the_end_of_its_answer_is_closed() {
    let close = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nabcde";
    for text in [&format!("{SIZED}x"), &format!("{CHUNKS}HTTP"), close] {
        let (line, mut far) = line();
        let (whole, pool) = asked(line, &mut far, text, text.len()).await;
        assert_eq!(whole.unwrap(), "abcde", "{text}");
        assert!(pool.take().is_none(), "{text}");
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
    }
    let (line, mut far) = line();
    let pool = Arc::default();
    let message = message(b"");
    let (answered, ()) = tokio::join!(line.ask(&message, &pool), answer(&mut far, &SIZED[..41], 99));
    drop(answered.unwrap());
    assert!(pool.take().is_none() && far.read(&mut [0]).await.unwrap() == 0, "a body was dropped");
}

#[tokio::test]
async fn a_connection_that_was_closed_or_spoke_while_it_rested_is_not_used() {
    for speaks in [false, true] {
        let (line, mut far) = line();
        let (_, pool) = asked(line, &mut far, SIZED, 99).await;
        match speaks {
            true => far.write_all(b"x").await.unwrap(),
            false => drop(far),
        }
        tokio::task::yield_now().await;
        pool.sweep();
        assert!(pool.idle.lock().unwrap().is_empty(), "{speaks}");
    }
}

#[tokio::test]
async fn what_breaks_says_where() {
    let (line, far) = line();
    drop(far);
    assert!(line.ask(&message(b""), &Arc::default()).await.is_err_and(|broken| broken.is_stale()));
    for (text, stale) in [("", true), ("HTTP/1.1 2", false), ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", false)]
    {
        let (line, mut far) = self::line();
        let answering = async move { answer(&mut far, text, 99).await };
        let pool = Arc::default();
        let asking = async { line.ask(&message(b""), &pool).await?.1.whole(9).await };
        let (whole, ()) = tokio::join!(asking, answering);
        assert_eq!(whole.unwrap_err().is_stale(), stale, "{text:?}");
    }
    let (line, mut far) = self::line();
    let until_closed = "HTTP/1.1 200 OK\r\n\r\nabcde";
    let answering = async move { answer(&mut far, until_closed, 20).await };
    let pool = Arc::default();
    let asking = async { line.ask(&message(b""), &pool).await?.1.whole(5).await };
    assert_eq!(tokio::join!(asking, answering).0.unwrap(), "abcde");
    let (line, mut far) = self::line();
    let pool = Arc::default();
    let message = message(b"");
    let (answered, ()) = tokio::join!(line.ask(&message, &pool), answer(&mut far, CHUNKS, 60));
    assert!(matches!(answered.unwrap().1.whole(4).await, Err(Broken::Long)));
}

#[tokio::test]
async fn a_refusal_may_come_before_a_long_body_is_sent() {
    const BODY: &[u8] = &[b'x'; 4 << 20];
    let (line, mut far) = line();
    let refusal = "HTTP/1.1 413 X\r\nContent-Length: 0\r\n\r\n";
    let pool = Arc::default();
    let message = message(BODY);
    let (answered, ()) = tokio::join!(line.ask(&message, &pool), answer(&mut far, refusal, 99));
    assert_eq!(answered.unwrap().0.status, 413);
    assert!(pool.take().is_none(), "the rest of the body would be taken for a request");
}
