//! Watches that share an HTTP/2 connection, as Go's clients make them, read by one thread with as little as that takes
//! (RFC 9113, RFC 7541), so that the figures are the server's: a client library costs more than what it measures.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use tokio_rustls::rustls::{ClientConnection, StreamOwned};

use crate::load::Target;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER: usize = 9;
/// The largest window: nothing has to be given back.
const WINDOW: u32 = (1 << 31) - 1;
const FIRST_WINDOW: u32 = 65_535;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const INITIAL_WINDOW_SIZE: u16 = 4;

pub struct Watches {
    stream: StreamOwned<ClientConnection, TcpStream>,
    /// What was read; all before `start` is done with.
    buffer: Vec<u8>,
    start: usize,
    /// What is read next.
    piece: Box<[u8]>,
    /// What the last frames said.
    text: Vec<u8>,
}

/// One frame, as far as it matters here.
struct Frame {
    kind: u8,
    flags: u8,
    payload: std::ops::Range<usize>,
}

impl Watches {
    /// Opens one watch for each path; all of them have been answered when this returns.
    pub fn open<'p>(target: &Target, paths: impl IntoIterator<Item = &'p str>) -> Self {
        let mut watches = Self {
            stream: target.stream(&[b"h2"]),
            buffer: Vec::new(),
            start: 0,
            piece: vec![0; 65_536].into(),
            text: Vec::new(),
        };
        watches.stream.write_all(PREFACE).unwrap();
        let mut window = INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
        window.extend(WINDOW.to_be_bytes());
        watches.send(SETTINGS, 0, 0, &window);
        watches.send(WINDOW_UPDATE, 0, 0, &(WINDOW - FIRST_WINDOW).to_be_bytes());
        let mut asked = 0;
        for (path, stream) in paths.into_iter().zip((1..).step_by(2)) {
            let fields = [(":method", "GET"), (":scheme", "https"), (":path", path), (":authority", "skiff")];
            let block: Vec<u8> = fields.iter().flat_map(|(name, value)| field(name, value)).collect();
            watches.send(HEADERS, END_STREAM | END_HEADERS, stream, &block);
            asked += 1;
        }
        while asked > 0 {
            asked -= usize::from(watches.frame().expect("an open connection").kind == HEADERS);
        }
        watches
    }

    /// Reads until a line of one of the watches is whole. The text means something when there is only one; `None` when
    /// the server has closed the connection.
    pub fn next(&mut self) -> Option<&[u8]> {
        self.text.clear();
        loop {
            let frame = self.frame()?;
            assert_ne!((frame.kind, frame.flags & END_STREAM), (DATA, END_STREAM), "the watch stays open");
            if frame.kind == DATA {
                self.text.extend_from_slice(&self.buffer[frame.payload]);
                if self.text.ends_with(b"\n") {
                    return Some(&self.text);
                }
            }
        }
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.stream.write_all(&frame).unwrap();
    }

    fn frame(&mut self) -> Option<Frame> {
        self.fill(HEADER)?;
        let head = &self.buffer[self.start..];
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (kind, flags) = (head[3], head[4]);
        self.fill(HEADER + length)?;
        let payload = self.start + HEADER..self.start + HEADER + length;
        self.start = payload.end;
        match kind {
            SETTINGS if flags & ACK == 0 => self.send(SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => {
                let same = self.buffer[payload.clone()].to_vec();
                self.send(PING, ACK, 0, &same);
            }
            _ => {}
        }
        Some(Frame { kind, flags, payload })
    }

    /// Reads until so many bytes are there.
    fn fill(&mut self, wanted: usize) -> Option<()> {
        while self.buffer.len() - self.start < wanted {
            self.buffer.drain(..std::mem::take(&mut self.start));
            let count = self.stream.read(&mut self.piece).ok().filter(|count| *count > 0)?;
            self.buffer.extend_from_slice(&self.piece[..count]);
        }
        Some(())
    }
}

/// A literal that is not indexed, with a new name (RFC 7541, 6.2.2).
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut out = vec![0];
    for text in [name, value] {
        integer(&mut out, text.len());
        out.extend(text.as_bytes());
    }
    out
}

/// With a prefix of seven bits (RFC 7541, 5.1).
fn integer(out: &mut Vec<u8>, n: usize) {
    let Ok(short @ 0..127) = u8::try_from(n) else {
        out.push(127);
        let mut rest = n - 127;
        while rest >= 128 {
            out.push(u8::try_from(rest % 128).unwrap() | 128);
            rest /= 128;
        }
        return out.push(u8::try_from(rest).unwrap());
    };
    out.push(short);
}

#[test]
fn integers_are_those_of_the_standard() {
    for (n, bytes) in [(10, &[10][..]), (126, &[126]), (127, &[127, 0]), (1337, &[127, 186, 9])] {
        let mut out = Vec::new();
        integer(&mut out, n);
        assert_eq!(out, bytes, "{n}");
    }
}
