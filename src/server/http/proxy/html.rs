//! Decides: the links of an HTML page, rewritten while the page passes (`rewriteHTML`). Only the values of attributes that
//! hold links change; every other byte passes as it is, whatever it means.
//!
//! ```text
//! text ─┬─ "<!--" ─▶ comment ─── "-->" ─▶ text
//!       ├─ "<a …>" ─▶ attributes ───────▶ text, or raw text after <script> and its like
//!       └─ raw text ─── "</script" ─────▶ text
//! ```

use super::links::Links;

/// Longest tag that is looked into, in bytes. Longer ones pass unread.
const TAG_MAX: usize = 64 * 1024;
const COMMENT: &[u8] = b"<!--";
const COMMENT_END: &[u8] = b"-->";
/// Elements whose content is no markup.
const RAW: [&str; 9] = ["iframe", "noembed", "noframes", "noscript", "script", "style", "textarea", "title", "xmp"];
/// Attributes that hold links, by element (upstream's `atomsToAttrs`).
const LINKS: [(&str, &[&str]); 25] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// A page on its way.
pub struct Html {
    links: Links,
    /// What has come and cannot be told yet.
    held: Vec<u8>,
    inside: Inside,
}

enum Inside {
    Text,
    Comment,
    /// Of the element whose end closes it.
    Raw(&'static str),
}

impl Html {
    #[must_use]
    pub fn new(links: Links) -> Self {
        Self { links, held: Vec::new(), inside: Inside::Text }
    }

    /// Takes a piece and gives what can pass.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        self.held.extend_from_slice(piece);
        let held = std::mem::take(&mut self.held);
        let mut rest = held.as_slice();
        while let Some(passed) = self.step(rest, out) {
            rest = &rest[passed..];
        }
        self.held = rest.to_vec();
    }

    /// The page is over.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
    }

    /// Passes the next part of what is held, or nothing when more has to come.
    fn step(&mut self, held: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        if held.is_empty() {
            return None;
        }
        let (pass, inside) = match self.inside {
            Inside::Comment => match find(held, COMMENT_END) {
                Some(at) => (at + COMMENT_END.len(), Inside::Text),
                None => (held.len().saturating_sub(COMMENT_END.len() - 1), Inside::Comment),
            },
            Inside::Raw(element) => raw_end(held, element),
            Inside::Text => return self.text(held, out),
        };
        self.inside = inside;
        out.extend_from_slice(&held[..pass]);
        (pass > 0 || matches!(self.inside, Inside::Text)).then_some(pass)
    }

    fn text(&mut self, held: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let start = held.iter().position(|b| *b == b'<').unwrap_or(held.len());
        if start > 0 {
            out.extend_from_slice(&held[..start]);
            return Some(start);
        }
        if held.starts_with(COMMENT) {
            out.extend_from_slice(COMMENT);
            self.inside = Inside::Comment;
            return Some(COMMENT.len());
        }
        let undecided = held.len() < 2 || (held.len() < COMMENT.len() && COMMENT.starts_with(held));
        if undecided {
            return None;
        }
        if !held[1].is_ascii_alphabetic() {
            // An end tag, a doctype, or a lone "<": nothing in it is a link.
            out.push(b'<');
            return Some(1);
        }
        let Some(tag) = Tag::read(held) else {
            if held.len() <= TAG_MAX {
                return None;
            }
            out.push(b'<');
            return Some(1);
        };
        tag.write(held, &self.links, out);
        if let Some(element) = RAW.iter().find(|r| **r == tag.name) {
            self.inside = Inside::Raw(element);
        }
        Some(tag.length)
    }
}

/// How much of raw text passes, and whether it ends there.
fn raw_end(held: &[u8], element: &'static str) -> (usize, Inside) {
    let closing = element.len() + 2;
    let mut from = 0;
    while let Some(at) = find(&held[from..], b"</").map(|at| at + from) {
        let Some(next) = held.get(at + closing) else { return (at, Inside::Raw(element)) };
        let same = held[at + 2..at + closing].eq_ignore_ascii_case(element.as_bytes());
        if same && (next.is_ascii_whitespace() || b"/>".contains(next)) {
            return (at, Inside::Text);
        }
        from = at + 2;
    }
    (held.len().saturating_sub(usize::from(held.ends_with(b"<"))), Inside::Raw(element))
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// A start tag.
struct Tag {
    name: String,
    /// With both brackets, in bytes.
    length: usize,
    values: Vec<Attribute>,
}

struct Attribute {
    name: String,
    /// Where its value stands, without quotes.
    start: usize,
    end: usize,
    quote: Option<u8>,
}

impl Tag {
    /// `None` when its end has not come.
    fn read(held: &[u8]) -> Option<Self> {
        let stops = |b: &u8| b.is_ascii_whitespace() || b"/>".contains(b);
        let end = 1 + held[1..].iter().position(stops)?;
        let name = String::from_utf8_lossy(&held[1..end]).to_ascii_lowercase();
        let (mut at, mut values) = (end, Vec::new());
        loop {
            at += held[at..].iter().position(|b| !b.is_ascii_whitespace() && *b != b'/')?;
            if held[at] == b'>' {
                return Some(Self { name, length: at + 1, values });
            }
            let key = at;
            at += 1 + held.get(at + 1..)?.iter().position(|b| stops(b) || *b == b'=')?;
            let name = String::from_utf8_lossy(&held[key..at]).to_ascii_lowercase();
            let next = at + held[at..].iter().position(|b| !b.is_ascii_whitespace())?;
            if held[next] != b'=' {
                continue;
            }
            at = next + 1 + held.get(next + 1..)?.iter().position(|b| !b.is_ascii_whitespace())?;
            let quote = Some(held[at]).filter(|b| b"\"'".contains(b));
            let start = at + usize::from(quote.is_some());
            let ends = |b: &u8| quote.map_or(b.is_ascii_whitespace() || *b == b'>', |q| *b == q);
            let end = start + held.get(start..)?.iter().position(ends)?;
            at = end + usize::from(quote.is_some());
            values.push(Attribute { name, start, end, quote });
        }
    }

    fn write(&self, held: &[u8], links: &Links, out: &mut Vec<u8>) {
        let known = LINKS.iter().find(|(element, _)| *element == self.name).map_or(&[][..], |(_, names)| names);
        let mut from = 0;
        for value in self.values.iter().filter(|v| known.contains(&v.name.as_str())) {
            let Ok(text) = std::str::from_utf8(&held[value.start..value.end]) else { continue };
            let Some(link) = links.rewritten(&decoded(text)) else { continue };
            out.extend_from_slice(&held[from..value.start]);
            let bare = value.quote.is_none();
            out.extend(bare.then_some(b'"'));
            out.extend_from_slice(encoded(&link).as_bytes());
            out.extend(bare.then_some(b'"'));
            from = value.end;
        }
        out.extend_from_slice(&held[from..self.length]);
    }
}

/// The character references that URLs are written with.
fn decoded(text: &str) -> String {
    if !text.contains('&') {
        return text.to_owned();
    }
    let mut out = text.to_owned();
    for (written, meant) in
        [("&quot;", "\""), ("&#34;", "\""), ("&#39;", "'"), ("&#x27;", "'"), ("&#x2F;", "/"), ("&#47;", "/")]
    {
        out = out.replace(written, meant);
    }
    out.replace("&lt;", "<").replace("&gt;", ">").replace("&#38;", "&").replace("&amp;", "&")
}

fn encoded(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&#34;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(page: &[u8], pieces: usize) -> String {
        let mut html = Html::new(Links::new("/proxy/node", "foo.com", "server"));
        let mut out = Vec::new();
        for piece in page.chunks(pieces) {
            html.push(piece, &mut out);
        }
        html.end(&mut out);
        String::from_utf8(out).unwrap()
    }

    /// However the page is cut.
    fn check(page: &str, expect: &str) {
        for pieces in [1, 2, 3, 7, 1000] {
            assert_eq!(pass(page.as_bytes(), pieces), expect, "in pieces of {pieces}");
        }
    }

    fn stays(page: &str) {
        check(page, page);
    }

    #[test]
    fn links_are_rewritten_and_nothing_else() {
        check(
            r#"<pre><a href="kubelet.log">kubelet.log</a><A class=x HREF='/google.log'>google.log</a></pre>"#,
            r#"<pre><a href="kubelet.log">kubelet.log</a><A class=x HREF='/proxy/node/google.log'>google.log</a></pre>"#,
        );
        check("<a href=/a>", "<a href=\"/proxy/node/a\">");
        check(
            "<img src = \"/a\" alt=\"/b\" longdesc='/c'/>",
            "<img src = \"/proxy/node/a\" alt=\"/b\" longdesc='/proxy/node/c'/>",
        );
        check("<a href=\"/a?b=1&amp;c='\">", "<a href=\"/proxy/node/a?b=1&amp;c=&#39;\">");
        check("<a href=\"http://foo.com/a\">", "<a href=\"/proxy/node/a\">");
        check(
            "<script src=\"/a.js\"></script><a href=/b>",
            "<script src=\"/proxy/node/a.js\"></script><a href=\"/proxy/node/b\">",
        );
        check("<p title=\">\"><a href=\"/a\">", "<p title=\">\"><a href=\"/proxy/node/a\">");
    }

    #[test]
    fn what_is_no_tag_is_left_alone() {
        stays("<!-- <a href=\"/a\"> --> x < y <!DOCTYPE html> </a >");
        stays("<script>var a = '<a href=\"/a\">'; b < c</script>");
        stays("<SCRIPT>x</scriptx></SCRIPT>");
        stays("<textarea><a href=\"/a\"></textarea>");
        stays("<a data-href=\"/a\" name=/a href>");
        stays("<link href=\"https://example.com/a\">");
        stays("<a href=\"/a");
        stays("<p href=\"/a\">é</p><");
    }

    #[test]
    fn a_comment_and_a_script_end() {
        check("<!-- x --><a href=/a>", "<!-- x --><a href=\"/proxy/node/a\">");
        check("<style>a</style ><a href=/a>", "<style>a</style ><a href=\"/proxy/node/a\">");
    }

    #[test]
    fn of_a_page_only_one_tag_is_held() {
        let mut html = Html::new(Links::new("/p", "h", "s"));
        let mut out = Vec::new();
        html.push(b"<a href=\"", &mut out);
        for _ in 0..200 {
            html.push(&[b'x'; 1024], &mut out);
            assert!(html.held.len() <= TAG_MAX + 1024);
        }
        assert!(out.len() > 200 * 1024 - TAG_MAX - 1024);
    }
}
