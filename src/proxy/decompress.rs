//! Undoes `Content-Encoding` while the answer streams. Whatever the upstream has flushed comes out
//! at once: a decoder that waits for more would hold the last event back.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use http_body::{Body, Frame};
use tokio::io::AsyncRead;
use tokio_util::io::{StreamReader, poll_read_buf};

use super::coding::Coding;
use super::headers::tokens;

/// The answer uses a coding that we cannot undo.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown Content-Encoding {0:?}")]
pub struct UnknownCoding(pub String);

/// How much is decoded in one piece; also the bound of what a small input can blow up to before
/// somebody has read it.
const PIECE: usize = 16 << 10;

/// Most codings on top of each other. Real answers have one.
const LAYERS: usize = 4;

/// A body without its content codings. Trailers pass through. Fails on garbage, when the encoded data ends
/// before its own end mark, and when something follows that mark.
pub struct Decoded<E> {
    layers: Pin<Box<dyn AsyncRead + Send>>,
    encoded: Arc<Mutex<Seen<E>>>,
    buffer: BytesMut,
    over: bool,
}

/// What the innermost layer has seen of the encoded body, beside its data.
struct Seen<E> {
    any: bool,
    trailers: Option<HeaderMap>,
    error: Option<E>,
}

impl<E: Send + 'static> Decoded<E> {
    /// Takes the codings off a body; the caller removes `Content-Encoding` and `Content-Length`.
    pub fn new<B>(codings: &Codings, body: B) -> Self
    where
        B: Body<Data = Bytes, Error = E> + Send + Unpin + 'static,
    {
        let encoded = Arc::new(Mutex::new(Seen { any: false, trailers: None, error: None }));
        let data = Data { body, seen: encoded.clone(), failed: false };
        let mut layers: Pin<Box<dyn AsyncRead + Send>> = Box::pin(StreamReader::new(data));
        for coding in codings.0.iter().rev() {
            layers = coding.layer(layers);
        }
        Decoded { layers, encoded, buffer: BytesMut::new(), over: false }
    }
}

/// The codings of a body, in the order in which they were applied (RFC 9110 §8.4).
#[derive(Clone, Debug)]
pub struct Codings(Vec<Coding>);

impl Codings {
    /// The codings that a message's `Content-Encoding` names.
    pub fn of(headers: &HeaderMap) -> Result<Self, UnknownCoding> {
        let mut found = Vec::new();
        for token in tokens(headers, &CONTENT_ENCODING) {
            if !token.eq_ignore_ascii_case("identity") {
                found.push(Coding::named(token).ok_or_else(|| UnknownCoding(token.to_owned()))?);
            }
        }
        if found.len() > LAYERS {
            return Err(UnknownCoding(format!("{} layers", found.len())));
        }
        Ok(Codings(found))
    }

    /// Whether the body is as it is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The data of a body as a stream; its trailers and its error are put aside.
struct Data<B: Body> {
    body: B,
    seen: Arc<Mutex<Seen<B::Error>>>,
    failed: bool,
}

impl<B: Body<Data = Bytes> + Unpin> Stream for Data<B> {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.failed {
            return Poll::Ready(Some(Err(io::ErrorKind::BrokenPipe.into())));
        }
        loop {
            let this = &mut *self;
            let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
            let mut seen = this.seen.lock().unwrap_or_else(PoisonError::into_inner);
            match frame {
                None => return Poll::Ready(None),
                Some(Err(error)) => {
                    seen.error = Some(error);
                    this.failed = true;
                    // A decoder that meets an error forgets what it has just decoded; one that
                    // has to wait hands it out. So let it wait once.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => {
                        seen.any = true;
                        return Poll::Ready(Some(Ok(data)));
                    }
                    Err(frame) => seen.trailers = frame.into_trailers().ok(),
                },
            }
        }
    }
}

/// Why a decoded body broke off.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError<E> {
    /// The encoded body broke off.
    #[error(transparent)]
    Body(E),
    /// It is not what `Content-Encoding` says, or ends too early.
    #[error("cannot decode the answer: {0}")]
    Garbage(io::Error),
}

impl<E> Body for Decoded<E> {
    type Data = Bytes;
    type Error = DecodeError<E>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, DecodeError<E>>>> {
        let body = &mut *self;
        if body.over {
            return Poll::Ready(None);
        }
        if body.buffer.capacity() < PIECE / 4 {
            body.buffer.reserve(PIECE);
        }
        let read = ready!(poll_read_buf(body.layers.as_mut(), cx, &mut body.buffer));
        let mut seen = body.encoded.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(n @ 1..) => Poll::Ready(Some(Ok(Frame::data(body.buffer.split_to(n).freeze())))),
            // An empty body has no end mark, and needs none.
            Err(error) if seen.any || seen.error.is_some() => {
                body.over = true;
                Poll::Ready(Some(Err(seen.error.take().map_or(DecodeError::Garbage(error), DecodeError::Body))))
            }
            Ok(_) | Err(_) => {
                body.over = true;
                Poll::Ready(seen.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::{Read, Write};

    use async_compression::tokio::write::{BrotliEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder};
    use flate2::Compression;
    use http::HeaderValue;
    use http_body_util::BodyExt;
    use tokio::io::AsyncWriteExt;
    use tokio::sync::mpsc;

    use super::*;

    const EVENTS: [&str; 3] = ["data: one\n\n", "data: two, a little longer\n\n", "data: \u{fc}\n\n"];

    /// A body whose frames a test hands out one by one.
    struct Fed(mpsc::Receiver<Result<Frame<Bytes>, &'static str>>);

    impl Body for Fed {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            self.0.poll_recv(cx)
        }
    }

    fn decoded(coding: &'static str) -> (mpsc::Sender<Result<Frame<Bytes>, &'static str>>, Decoded<&'static str>) {
        let (sender, receiver) = mpsc::channel(64);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
        let codings = Codings::of(&headers).expect("known codings");
        (sender, Decoded::new(&codings, Fed(receiver)))
    }

    /// Each event compressed and flushed; then the end.
    async fn compressed(coding: &str) -> VecDeque<Vec<u8>> {
        macro_rules! pieces {
            ($encoder:ident) => {{
                let (mut encoder, mut pieces, mut at) = ($encoder::new(Vec::new()), VecDeque::new(), 0);
                for event in EVENTS {
                    encoder.write_all(event.as_bytes()).await.expect("written");
                    encoder.flush().await.expect("flushed");
                    pieces.push_back(encoder.get_ref()[at..].to_vec());
                    at = encoder.get_ref().len();
                }
                encoder.shutdown().await.expect("ended");
                pieces.push_back(encoder.get_ref()[at..].to_vec());
                pieces
            }};
        }
        match coding {
            "gzip" => pieces!(GzipEncoder),
            "deflate" => pieces!(ZlibEncoder),
            "br" => pieces!(BrotliEncoder),
            _ => pieces!(ZstdEncoder),
        }
    }

    async fn next(body: &mut Decoded<&'static str>, length: usize) -> String {
        let mut text = Vec::new();
        while text.len() < length {
            let frame = body.frame().await.expect("not the end").expect("no error");
            text.extend_from_slice(frame.data_ref().expect("data"));
        }
        String::from_utf8(text).expect("text")
    }

    #[tokio::test]
    async fn every_flush_of_the_upstream_comes_out_at_once() {
        for coding in ["gzip", "deflate", "br", "zstd"] {
            let (sender, mut body) = decoded(coding);
            let mut pieces = compressed(coding).await;
            for event in EVENTS {
                let piece = pieces.pop_front().expect("a piece per event");
                sender.try_send(Ok(Frame::data(piece.into()))).expect("sent");
                // Nothing more is sent before this event is out.
                assert_eq!(next(&mut body, event.len()).await, event, "{coding}");
            }
            sender.try_send(Ok(Frame::data(pieces.pop_front().expect("the end").into()))).expect("sent");
            drop(sender);
            assert!(body.frame().await.is_none(), "{coding}");
        }
    }

    #[tokio::test]
    async fn a_stream_that_ends_before_its_own_end_is_an_error_after_its_last_event() {
        for coding in ["gzip", "deflate", "br", "zstd"] {
            let (sender, mut body) = decoded(coding);
            let first = compressed(coding).await.pop_front().expect("a piece");
            sender.try_send(Ok(Frame::data(first.into()))).expect("sent");
            drop(sender);
            assert_eq!(next(&mut body, EVENTS[0].len()).await, EVENTS[0], "{coding}");
            let end = body.frame().await;
            assert!(matches!(end, Some(Err(DecodeError::Garbage(_)))), "{coding}");
            assert!(body.frame().await.is_none());
        }
    }

    #[tokio::test]
    async fn what_came_before_a_reset_is_not_lost() {
        for coding in ["gzip", "deflate", "br", "zstd"] {
            let (sender, mut body) = decoded(coding);
            let first = compressed(coding).await.pop_front().expect("a piece");
            sender.try_send(Ok(Frame::data(first.into()))).expect("sent");
            sender.try_send(Err("reset")).expect("sent");
            assert_eq!(next(&mut body, EVENTS[0].len()).await, EVENTS[0], "{coding}");
            assert!(matches!(body.frame().await, Some(Err(DecodeError::Body("reset")))), "{coding}");
        }
    }

    #[tokio::test]
    async fn what_follows_the_end_of_the_encoded_data_is_an_error_after_its_last_event() {
        for coding in ["gzip", "deflate", "br", "zstd"] {
            for apart in [false, true] {
                let (sender, mut body) = decoded(coding);
                let mut whole: Vec<u8> = compressed(coding).await.into_iter().flatten().collect();
                if !apart {
                    whole.extend_from_slice(b"<html>");
                }
                sender.try_send(Ok(Frame::data(whole.into()))).expect("sent");
                let all = EVENTS.concat();
                assert_eq!(next(&mut body, all.len()).await, all, "{coding}");
                if apart {
                    sender.try_send(Ok(Frame::data(Bytes::from_static(b"<html>")))).expect("sent");
                }
                drop(sender);
                assert!(matches!(body.frame().await, Some(Err(DecodeError::Garbage(_)))), "{coding}, apart: {apart}");
            }
        }
    }

    #[tokio::test]
    async fn the_end_of_the_encoded_data_is_not_the_end_of_the_body() {
        for coding in ["gzip", "deflate", "br", "zstd"] {
            let (sender, mut body) = decoded(coding);
            let whole: Vec<u8> = compressed(coding).await.into_iter().flatten().collect();
            sender.try_send(Ok(Frame::data(whole.into()))).expect("sent");
            sender.try_send(Err("reset")).expect("sent");
            let all = EVENTS.concat();
            assert_eq!(next(&mut body, all.len()).await, all, "{coding}");
            assert!(matches!(body.frame().await, Some(Err(DecodeError::Body("reset")))), "{coding}");
        }
    }

    #[tokio::test]
    async fn deflate_without_the_wrapper_that_it_should_have_is_read_too() {
        let (sender, mut body) = decoded("deflate");
        let mut deflate = flate2::write::DeflateEncoder::new(Vec::new(), Compression::fast());
        for event in EVENTS {
            deflate.write_all(event.as_bytes()).expect("written");
            deflate.flush().expect("flushed");
            sender.try_send(Ok(Frame::data(std::mem::take(deflate.get_mut()).into()))).expect("sent");
            assert_eq!(next(&mut body, event.len()).await, event);
        }
        sender.try_send(Ok(Frame::data(deflate.finish().expect("ended").into()))).expect("sent");
        drop(sender);
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn members_behind_each_other_are_one_body() {
        for coding in ["gzip", "zstd"] {
            let (sender, mut body) = decoded(coding);
            for _ in 0..2 {
                let whole: Vec<u8> = compressed(coding).await.into_iter().flatten().collect();
                sender.try_send(Ok(Frame::data(whole.into()))).expect("sent");
                assert_eq!(next(&mut body, EVENTS.concat().len()).await, EVENTS.concat(), "{coding}");
            }
            drop(sender);
            assert!(body.frame().await.is_none(), "{coding}");
        }
    }

    #[tokio::test]
    async fn garbage_is_an_error() {
        for coding in ["gzip", "deflate", "br", "zstd"] {
            let (sender, mut body) = decoded(coding);
            sender.try_send(Ok(Frame::data(Bytes::from_static(b"data: not compressed\n\n")))).expect("sent");
            drop(sender);
            let frame = body.frame().await;
            assert!(matches!(frame, Some(Err(DecodeError::Garbage(_)))), "{coding}");
        }
    }

    #[tokio::test]
    async fn an_empty_body_is_empty_and_trailers_pass() {
        let (sender, mut body) = decoded("gzip");
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("0"));
        sender.try_send(Ok(Frame::trailers(trailers.clone()))).expect("sent");
        drop(sender);
        let frame = body.frame().await.expect("a frame").expect("no error");
        assert_eq!(frame.into_trailers().ok(), Some(trailers));
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn codings_come_off_in_the_reverse_of_their_order() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(b"twice").expect("written");
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(&gzip.finish().expect("ended")).expect("written");
        let (sender, mut body) = decoded("gzip, identity, deflate");
        sender.try_send(Ok(Frame::data(zlib.finish().expect("ended").into()))).expect("sent");
        drop(sender);
        assert_eq!(next(&mut body, 5).await, "twice");
    }

    #[test]
    fn a_coding_we_cannot_undo_is_said() {
        let mut headers = HeaderMap::new();
        assert!(Codings::of(&headers).is_ok_and(|codings| codings.is_empty()), "no coding, nothing to do");
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip, compress"));
        assert_eq!(Codings::of(&headers).err(), Some(UnknownCoding("compress".into())));
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip, gzip, gzip, gzip, gzip"));
        assert!(Codings::of(&headers).is_err(), "nobody means that");
    }

    #[tokio::test]
    async fn recorded_gzip_answers_come_out_as_a_whole_and_event_by_event() {
        let recordings: [&[u8]; 2] = [
            include_bytes!("../../tests/data/sse/visible/anthropic-messages__schema-gzip.sse.gz"),
            include_bytes!("../../tests/data/sse/visible/anthropic-messages__tool-use-gzip.sse.gz"),
        ];
        for recording in recordings {
            let mut expected = String::new();
            flate2::read::GzDecoder::new(recording).read_to_string(&mut expected).expect("the recording is gzip");

            let (sender, mut body) = decoded("gzip");
            let (mut text, mut rest, mut flushes) = (String::new(), recording, 0);
            // Each flush of the recorded server ends with this mark (Z_SYNC_FLUSH).
            while let Some(mark) = rest.windows(4).position(|w| w == [0, 0, 0xff, 0xff]) {
                let (piece, after) = rest.split_at(mark + 4);
                sender.try_send(Ok(Frame::data(Bytes::copy_from_slice(piece)))).expect("sent");
                rest = after;
                flushes += 1;
                text += &next(&mut body, 1).await;
                while !text.ends_with("\n\n") {
                    text += &next(&mut body, 1).await;
                }
            }
            sender.try_send(Ok(Frame::data(Bytes::copy_from_slice(rest)))).expect("sent");
            drop(sender);
            while let Some(frame) = body.frame().await {
                let data = frame.expect("no error").into_data().expect("data");
                text += std::str::from_utf8(&data).expect("text");
            }
            assert_eq!(text, expected);
            assert!(flushes > 5, "the recording was flushed per event: {flushes}");
        }
    }
}
