//! One content coding (RFC 9110 §8.4.1, RFC 8878 for zstd), undone as a layer above a reader. A layer ends
//! only where both what it reads and the coding have ended: what follows an end mark is no part of an answer.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_compression::tokio::bufread::{BrotliDecoder, DeflateDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder};
use tokio::io::{AsyncBufRead, AsyncRead, BufReader, ReadBuf};

/// A coding that we can undo.
#[derive(Clone, Copy, Debug)]
pub(super) enum Coding {
    Gzip,
    /// The zlib format, as it should be, or raw deflate, as some servers send.
    Deflate,
    Brotli,
    Zstd,
}

/// What is read.
type Layer = Pin<Box<dyn AsyncRead + Send>>;

/// What a decoder reads from.
type Source = BufReader<Layer>;

impl Coding {
    /// The coding of this name, in whatever case.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Some(Coding::Gzip),
            "deflate" => Some(Coding::Deflate),
            "br" => Some(Coding::Brotli),
            "zstd" => Some(Coding::Zstd),
            _ => None,
        }
    }

    /// What `encoded` is without this coding.
    pub(super) fn layer(self, encoded: Layer) -> Layer {
        let source = BufReader::new(encoded);
        match self {
            Coding::Gzip => {
                let mut decoder = GzipDecoder::new(source);
                // RFC 1952 §2.2: members may follow each other.
                decoder.multiple_members(true);
                Box::pin(ToTheEnd { decoder, ended: false })
            }
            Coding::Deflate => Box::pin(Deflate::Unknown(Some(source))),
            Coding::Brotli => Box::pin(ToTheEnd { decoder: BrotliDecoder::new(source), ended: false }),
            Coding::Zstd => {
                let mut decoder = ZstdDecoder::new(source);
                // RFC 8878 §3: so may frames.
                decoder.multiple_members(true);
                Box::pin(ToTheEnd { decoder, ended: false })
            }
        }
    }
}

/// Somebody who reads from a source and may stop before it ends.
trait Decoder: AsyncRead + Unpin {
    fn source(&mut self) -> &mut Source;
}

impl Decoder for GzipDecoder<Source> {
    fn source(&mut self) -> &mut Source {
        self.get_mut()
    }
}

impl Decoder for ZlibDecoder<Source> {
    fn source(&mut self) -> &mut Source {
        self.get_mut()
    }
}

impl Decoder for DeflateDecoder<Source> {
    fn source(&mut self) -> &mut Source {
        self.get_mut()
    }
}

impl Decoder for BrotliDecoder<Source> {
    fn source(&mut self) -> &mut Source {
        self.get_mut()
    }
}

impl Decoder for ZstdDecoder<Source> {
    fn source(&mut self) -> &mut Source {
        self.get_mut()
    }
}

/// A decoder that reads its source to the end.
struct ToTheEnd<D> {
    decoder: D,
    /// Its end mark has come.
    ended: bool,
}

impl<D: Decoder> AsyncRead for ToTheEnd<D> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.ended {
            let before = out.filled().len();
            ready!(Pin::new(&mut this.decoder).poll_read(cx, out))?;
            if out.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
            this.ended = true;
        }
        match ready!(Pin::new(this.decoder.source()).poll_fill_buf(cx))? {
            [] => Poll::Ready(Ok(())),
            rest => {
                Poll::Ready(Err(io::Error::other(format!("{} bytes after the end of the encoded data", rest.len()))))
            }
        }
    }
}

/// The two formats that go by the name of `deflate`: the first byte tells them apart.
enum Deflate {
    /// Nothing has come yet; the source is there until its format is known.
    Unknown(Option<Source>),
    Wrapped(ToTheEnd<ZlibDecoder<Source>>),
    Raw(ToTheEnd<DeflateDecoder<Source>>),
}

impl AsyncRead for Deflate {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut *self {
                Deflate::Unknown(source) => {
                    let unread = source.as_mut().expect("it is taken only where the format becomes known");
                    let first = ready!(Pin::new(unread).poll_fill_buf(cx))?.first().copied();
                    let source = source.take().expect("it was there a line above");
                    // RFC 1950 §2.2: method 8 in the low half, the window's size in the high half. As raw deflate
                    // this would be a stored block whose padding is not zero.
                    let wrapped = first.is_none_or(|byte| byte & 0x0f == 8 && byte >> 4 <= 7);
                    *self = match wrapped {
                        true => Deflate::Wrapped(ToTheEnd { decoder: ZlibDecoder::new(source), ended: false }),
                        false => Deflate::Raw(ToTheEnd { decoder: DeflateDecoder::new(source), ended: false }),
                    };
                }
                Deflate::Wrapped(decoder) => return Pin::new(decoder).poll_read(cx, out),
                Deflate::Raw(decoder) => return Pin::new(decoder).poll_read(cx, out),
            }
        }
    }
}
