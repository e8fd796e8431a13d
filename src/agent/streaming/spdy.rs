//! Effects: the client's side of SPDY/3.1 (draft-mbelshe-httpbis-spdy-00), as far as the runtime's streaming server
//! speaks it: we open streams and move data. That server has no flow control, so neither have we; it sends headers only
//! in replies, which say nothing of interest, so we never decompress any.

use std::io;

use flate2::{Compress, Compression, FlushCompress};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Largest frame that we accept, in bytes; the peer writes at most 64 KiB at once.
const FRAME_MAX: usize = 1024 * 1024;
/// Largest data frame that we send, in bytes.
const DATA_MAX: usize = 32 * 1024;
const CONTROL: u8 = 0x80;
const VERSION: u8 = 3;
const SYN_STREAM: u8 = 1;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
/// The sender is done with this stream.
const FIN: u8 = 1;

/// What the peer sent, as far as we care.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    Data { stream: u32, data: Vec<u8>, fin: bool },
    Reset { stream: u32 },
    Ping([u8; 4]),
    GoAway,
    Other,
}

/// Reads one frame. `None` when the connection ended between frames.
///
/// # Errors
/// When it ended within one, or a frame is larger than any peer sends.
pub async fn read<R: AsyncRead + Unpin>(from: &mut R) -> io::Result<Option<Frame>> {
    let mut head = [0; 8];
    match from.read_exact(&mut head[..1]).await {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e),
    }
    from.read_exact(&mut head[1..]).await?;
    let flags = head[4];
    let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
    if length > FRAME_MAX {
        return Err(io::Error::other(format!("a SPDY frame of {length} bytes")));
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).await?;
    let word = |i: usize| body.get(i..i + 4).and_then(|b| <[u8; 4]>::try_from(b).ok());
    let id = |bytes: [u8; 4]| u32::from_be_bytes(bytes) & 0x7fff_ffff;
    if head[0] & CONTROL == 0 {
        let stream = id([head[0], head[1], head[2], head[3]]);
        return Ok(Some(Frame::Data { stream, data: body, fin: flags & FIN != 0 }));
    }
    Ok(Some(match (head[3], word(0)) {
        (RST_STREAM, Some(stream)) => Frame::Reset { stream: id(stream) },
        (PING, Some(ping)) => Frame::Ping(ping),
        (GOAWAY, _) => Frame::GoAway,
        _ => Frame::Other,
    }))
}

/// Writes frames. Streams of a client have odd numbers.
pub struct Writer<W> {
    to: W,
    next: u32,
    /// One stream of compression over all header blocks of a connection. It starts without SPDY's dictionary, which
    /// zlib lets the reader see in its header (RFC 1950, FDICT).
    headers: Compress,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    pub fn new(to: W) -> Self {
        Self { to, next: 1, headers: Compress::new(Compression::fast(), true) }
    }

    /// Opens a stream and returns its number.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn open(&mut self, headers: &[(&str, &str)]) -> io::Result<u32> {
        let stream = self.next;
        self.next += 2;
        let block = self.block(headers)?;
        let mut frame = vec![CONTROL, VERSION, 0, SYN_STREAM, 0];
        frame.extend_from_slice(&length(block.len() + 10)?);
        frame.extend_from_slice(&stream.to_be_bytes());
        // No associated stream, priority 0, no slot.
        frame.extend_from_slice(&[0; 6]);
        frame.extend_from_slice(&block);
        self.to.write_all(&frame).await?;
        self.to.flush().await?;
        Ok(stream)
    }

    /// # Errors
    /// When the connection is gone.
    pub async fn data(&mut self, stream: u32, data: &[u8], fin: bool) -> io::Result<()> {
        let mut chunks = data.chunks(DATA_MAX).peekable();
        let mut chunk = chunks.next().unwrap_or_default();
        loop {
            let last = chunks.peek().is_none();
            let mut frame = Vec::with_capacity(8 + chunk.len());
            frame.extend_from_slice(&stream.to_be_bytes());
            frame.push(if fin && last { FIN } else { 0 });
            frame.extend_from_slice(&length(chunk.len())?);
            frame.extend_from_slice(chunk);
            self.to.write_all(&frame).await?;
            match chunks.next() {
                Some(next) => chunk = next,
                None => return self.to.flush().await,
            }
        }
    }

    /// Answers a ping.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn pong(&mut self, ping: [u8; 4]) -> io::Result<()> {
        let mut frame = vec![CONTROL, VERSION, 0, PING, 0, 0, 0, 4];
        frame.extend_from_slice(&ping);
        self.to.write_all(&frame).await?;
        self.to.flush().await
    }

    /// Names must be in lower case.
    fn block(&mut self, headers: &[(&str, &str)]) -> io::Result<Vec<u8>> {
        let mut plain = u32::try_from(headers.len()).map_err(io::Error::other)?.to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend_from_slice(&u32::try_from(text.len()).map_err(io::Error::other)?.to_be_bytes());
            plain.extend_from_slice(text.as_bytes());
        }
        // Room for the worst case: a few bytes for the stream's head, each stored block and the flush.
        let mut block = Vec::with_capacity(plain.len() * 2 + 64);
        self.headers.compress_vec(&plain, &mut block, FlushCompress::Sync).map_err(io::Error::other)?;
        Ok(block)
    }
}

/// 24 bits.
fn length(n: usize) -> io::Result<[u8; 3]> {
    let bytes = u32::try_from(n).map_err(io::Error::other)?.to_be_bytes();
    if bytes[0] == 0 { Ok([bytes[1], bytes[2], bytes[3]]) } else { Err(io::Error::other("a frame beyond 16 MiB")) }
}

#[cfg(test)]
mod tests {
    use flate2::{Decompress, FlushDecompress};

    use super::*;

    #[tokio::test]
    async fn header_blocks_are_one_zlib_stream_without_a_dictionary() {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        assert_eq!(writer.open(&[("streamtype", "error")]).await.unwrap(), 1);
        assert_eq!(writer.open(&[("streamtype", "stdin")]).await.unwrap(), 3);
        let mut inflate = Decompress::new(true);
        let mut at = 0;
        for (stream, value) in [(1_u32, "error"), (3, "stdin")] {
            assert_eq!(bytes[at..at + 5], [0x80, 3, 0, 1, 0]);
            let size = u32::from_be_bytes([0, bytes[at + 5], bytes[at + 6], bytes[at + 7]]) as usize;
            assert_eq!(bytes[at + 8..at + 12], stream.to_be_bytes());
            let block = &bytes[at + 18..at + 8 + size];
            if stream == 1 {
                assert_eq!(block[1] & 0x20, 0, "no preset dictionary");
            }
            let mut plain = Vec::with_capacity(1024);
            inflate.decompress_vec(block, &mut plain, FlushDecompress::Sync).unwrap();
            let mut expect = vec![0, 0, 0, 1, 0, 0, 0, 10];
            expect.extend_from_slice(b"streamtype");
            expect.extend_from_slice(&[0, 0, 0, 5]);
            expect.extend_from_slice(value.as_bytes());
            assert_eq!(plain, expect);
            at += 8 + size;
        }
        assert_eq!(at, bytes.len());
    }

    #[tokio::test]
    async fn data_is_split_and_read_back() {
        let mut bytes = Vec::new();
        let long = vec![7_u8; DATA_MAX + 1];
        let mut writer = Writer::new(&mut bytes);
        writer.data(5, &long, true).await.unwrap();
        writer.data(3, b"", true).await.unwrap();
        writer.pong([0, 0, 0, 9]).await.unwrap();
        let mut from = bytes.as_slice();
        let mut next = async || read(&mut from).await.unwrap();
        assert_eq!(next().await, Some(Frame::Data { stream: 5, data: vec![7; DATA_MAX], fin: false }));
        assert_eq!(next().await, Some(Frame::Data { stream: 5, data: vec![7], fin: true }));
        assert_eq!(next().await, Some(Frame::Data { stream: 3, data: vec![], fin: true }));
        assert_eq!(next().await, Some(Frame::Ping([0, 0, 0, 9])));
        assert_eq!(next().await, None);
    }
}
