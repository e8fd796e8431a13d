//! Decides: what of a container's log a client gets. The file is in the CRI format
//! (`k8s.io/cri-client/pkg/logs`): `2016-10-06T00:17:09.669794202Z stdout F the text`, where `P` instead of `F` marks a
//! piece of a line that goes on.

use jiff::{SignedDuration, Timestamp};

use crate::api::query::Query;

/// Query of `/containerLogs`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub follow: bool,
    pub previous: bool,
    pub timestamps: bool,
    pub since: Option<Timestamp>,
    /// The last lines only.
    pub tail: Option<u64>,
    /// Bytes of output after which the stream ends.
    pub limit: Option<u64>,
    /// `stdout` or `stderr` alone.
    pub stream: Option<&'static str>,
}

impl Options {
    /// # Errors
    /// What is wrong with the query.
    pub fn parse(query: &Query, now: Timestamp) -> Result<Self, String> {
        let count = |key| Ok::<_, String>(query.integer(key)?.map(|n| u64::try_from(n).unwrap_or(0)));
        let since = match query.first("sinceTime").filter(|t| !t.is_empty()) {
            Some(text) => Some(text.parse().map_err(|_| format!("parsing time {text:?} as RFC 3339 failed"))?),
            None => query.integer("sinceSeconds")?.map(|s| now - SignedDuration::from_secs(s)),
        };
        let stream = match query.first("stream") {
            None | Some("" | "All") => None,
            Some("Stdout") => Some("stdout"),
            Some("Stderr") => Some("stderr"),
            Some(other) => return Err(format!("unsupported stream {other:?}")),
        };
        let flag = |key| query.flag(key).unwrap_or(false);
        Ok(Self {
            follow: flag("follow"),
            previous: flag("previous"),
            timestamps: flag("timestamps"),
            since,
            tail: count("tailLines")?,
            limit: count("limitBytes")?,
            stream,
        })
    }
}

/// Turns lines of the file into output, one at a time.
#[derive(Debug)]
pub struct Filter {
    timestamps: bool,
    since: Option<Timestamp>,
    stream: Option<&'static str>,
    left: Option<u64>,
    /// The last piece that went out did not end its line.
    partial: bool,
}

impl Filter {
    #[must_use]
    pub fn new(options: &Options) -> Self {
        Self {
            timestamps: options.timestamps,
            since: options.since,
            stream: options.stream,
            left: options.limit,
            partial: false,
        }
    }

    /// The limit is used up.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.left == Some(0)
    }

    /// `line` without its newline. Lines that are not in the format are left out, as upstream does.
    pub fn push(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(Line { time, stream, full, text }) = parse(line) else { return };
        if self.stream.is_some_and(|wanted| wanted.as_bytes() != stream) {
            return;
        }
        let time = || std::str::from_utf8(time).unwrap_or_default();
        if let Some(since) = self.since
            && time().parse::<Timestamp>().is_ok_and(|at| at < since)
        {
            return;
        }
        let start = out.len();
        if self.timestamps && !self.partial {
            nanoseconds(time(), out);
            out.push(b' ');
        }
        out.extend_from_slice(text);
        if full {
            out.push(b'\n');
        }
        self.partial = !full;
        if let Some(left) = &mut self.left {
            let written = (out.len() - start) as u64;
            let kept = written.min(*left);
            out.truncate(start + usize::try_from(kept).unwrap_or(0));
            *left -= kept;
        }
    }
}

struct Line<'a> {
    time: &'a [u8],
    stream: &'a [u8],
    /// It ends here.
    full: bool,
    text: &'a [u8],
}

fn parse(line: &[u8]) -> Option<Line<'_>> {
    let (time, rest) = cut(line)?;
    let (stream, rest) = cut(rest)?;
    let known = stream == b"stdout" || stream == b"stderr";
    let (tags, text) = cut(rest).unwrap_or((rest, b""));
    let full = !(tags == b"P" || tags.starts_with(b"P:"));
    known.then_some(Line { time, stream, full, text })
}

/// At the first space.
fn cut(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b' ', line)?;
    Some((&line[..at], &line[at + 1..]))
}

/// The same time with all nine digits, so that columns line up; runtimes drop zeros at the end.
fn nanoseconds(time: &str, out: &mut Vec<u8>) {
    let zone =
        time.find(['Z', '+']).or_else(|| time.rfind('-').filter(|i| *i > "2006-01-02".len())).unwrap_or(time.len());
    let (clock, zone) = time.split_at(zone);
    let (seconds, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    out.extend_from_slice(seconds.as_bytes());
    out.push(b'.');
    out.extend_from_slice(fraction.as_bytes());
    out.extend_from_slice(&b"000000000"[fraction.len().min(9)..]);
    out.extend_from_slice(zone.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-01-01T00:00:01.5Z stdout F one\n2026-01-01T00:00:02.000000001Z stderr F oops\n\
                       2026-01-01T00:00:03Z stdout P two \n2026-01-01T00:00:03Z stdout F and a half\nrubbish\n\
                       2026-01-01T00:00:04Z stdout F \n";

    fn check(query: &str, expect: &str) {
        let options = Options::parse(&Query::parse(query), "2026-01-01T00:00:05Z".parse().unwrap()).expect(query);
        let (mut filter, mut out) = (Filter::new(&options), Vec::new());
        LOG.lines().for_each(|line| filter.push(line.as_bytes(), &mut out));
        assert_eq!(String::from_utf8(out).unwrap(), expect, "{query}");
    }

    #[test]
    fn selects_what_was_asked_for() {
        check("", "one\noops\ntwo and a half\n\n");
        check("stream=Stderr", "oops\n");
        check("sinceSeconds=2", "two and a half\n\n");
        check("sinceTime=2026-01-01T00:00:04Z", "\n");
        check("limitBytes=6", "one\noo");
        check("limitBytes=2&timestamps=false", "on");
        check(
            "timestamps=true",
            "2026-01-01T00:00:01.500000000Z one\n2026-01-01T00:00:02.000000001Z oops\n\
             2026-01-01T00:00:03.000000000Z two and a half\n2026-01-01T00:00:04.000000000Z \n",
        );
    }
}
