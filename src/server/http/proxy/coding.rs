//! Decides: pages that come compressed are unpacked, rewritten and packed again, piece by piece.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::{DeflateDecoder, DeflateEncoder, GzDecoder, GzEncoder};

use super::html::Html;

/// Packed bytes that are unpacked at once: a thousand times as many may come out.
const PIECE: usize = 1024;

/// How a page is packed.
pub enum Coding {
    Plain,
    Packed { unpack: Box<dyn Filter>, pack: Box<dyn Filter> },
}

/// Bytes in, other bytes out.
pub trait Filter: Write + Send {
    /// Takes what has come out.
    fn taken(&mut self) -> Vec<u8>;

    /// # Errors
    /// When the input is not whole.
    fn finished(&mut self) -> io::Result<()>;
}

macro_rules! filters {
    ($($t:ident),*) => { $(impl Filter for $t<Vec<u8>> {
        fn taken(&mut self) -> Vec<u8> {
            std::mem::take(self.get_mut())
        }

        fn finished(&mut self) -> io::Result<()> {
            self.try_finish()
        }
    })* };
}
filters!(GzDecoder, GzEncoder, DeflateDecoder, DeflateEncoder);

impl Coding {
    /// `None` for a coding that is not known: such pages pass as they are.
    #[must_use]
    pub fn of(content_encoding: &[u8]) -> Option<Self> {
        let level = Compression::default();
        match content_encoding {
            b"" => Some(Self::Plain),
            b"gzip" => Some(Self::Packed {
                unpack: Box::new(GzDecoder::new(Vec::new())),
                pack: Box::new(GzEncoder::new(Vec::new(), level)),
            }),
            b"deflate" => Some(Self::Packed {
                unpack: Box::new(DeflateDecoder::new(Vec::new())),
                pack: Box::new(DeflateEncoder::new(Vec::new(), level)),
            }),
            _ => None,
        }
    }

    /// # Errors
    /// When the page is not packed as it says.
    pub fn push(&mut self, data: &[u8], html: &mut Html) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        let Self::Packed { unpack, pack } = self else {
            html.push(data, &mut out);
            return Ok(out);
        };
        for piece in data.chunks(PIECE) {
            unpack.write_all(piece)?;
            let mut text = Vec::new();
            html.push(&unpack.taken(), &mut text);
            pack.write_all(&text)?;
            out.append(&mut pack.taken());
        }
        // Whoever waits for this piece must be able to read it.
        pack.flush()?;
        out.append(&mut pack.taken());
        Ok(out)
    }

    /// # Errors
    /// When the page is not whole.
    pub fn end(&mut self, html: &mut Html) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        let Self::Packed { unpack, pack } = self else {
            html.end(&mut text);
            return Ok(text);
        };
        unpack.finished()?;
        html.push(&unpack.taken(), &mut text);
        html.end(&mut text);
        pack.write_all(&text)?;
        pack.finished()?;
        Ok(pack.taken())
    }
}

#[cfg(test)]
mod tests {
    use super::super::links::Links;
    use super::*;

    fn through(mut filter: impl Filter, data: &[u8]) -> Vec<u8> {
        filter.write_all(data).unwrap();
        filter.finished().unwrap();
        filter.taken()
    }

    #[test]
    fn packed_pages_are_rewritten_too() {
        let page = "<a href=\"/a\">".repeat(1000);
        let expect = "<a href=\"/p/a\">".repeat(1000);
        for coding in ["", "gzip", "deflate"] {
            let packed = match coding {
                "gzip" => through(GzEncoder::new(Vec::new(), Compression::fast()), page.as_bytes()),
                "deflate" => through(DeflateEncoder::new(Vec::new(), Compression::fast()), page.as_bytes()),
                _ => page.clone().into_bytes(),
            };
            let (mut html, mut out) = (Html::new(Links::new("/p", "h", "s")), Vec::new());
            let mut passing = Coding::of(coding.as_bytes()).unwrap();
            for piece in packed.chunks(50) {
                out.extend(passing.push(piece, &mut html).unwrap());
            }
            out.extend(passing.end(&mut html).unwrap());
            let text = match coding {
                "gzip" => through(GzDecoder::new(Vec::new()), &out),
                "deflate" => through(DeflateDecoder::new(Vec::new()), &out),
                _ => out,
            };
            assert_eq!(String::from_utf8(text).unwrap(), expect, "{coding}");
        }
        assert!(Coding::of(b"br").is_none());
    }

    #[test]
    fn what_is_not_packed_as_it_says_breaks_off() {
        let mut html = Html::new(Links::new("/p", "h", "s"));
        assert!(Coding::of(b"gzip").unwrap().push(b"<a href=\"/a\"> and more", &mut html).is_err());
    }
}
