//! Effects: `/logs/`: the files below `/var/log` of the machine, folders as lists of links (Go's `http.FileServer`).
//! A link that leads elsewhere is not followed: who may read logs may not read everything.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::TryStreamExt;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::AsyncReadExt as _;
use tokio_util::io::ReaderStream;

use super::answer::{Body, Refusal, body};

const LOGS: &str = "/var/log";
/// Read from a file at once, in bytes.
const PIECE: usize = 64 * 1024;
/// Entries of a folder that are shown.
const ENTRIES_MAX: usize = 10_000;

/// `slash` is whether the path ends with one, as that of a folder must: its links are relative.
pub(super) async fn serve(below: &[&str], slash: bool) -> Result<Response<Body>, Refusal> {
    let asked = below.iter().filter(|part| !part.is_empty());
    let (root, asked) = (Path::new(LOGS), asked.collect::<PathBuf>());
    let path = tokio::task::spawn_blocking(move || resolve(root, &asked)).await.map_err(io::Error::other);
    let path = path.and_then(|path| path).map_err(|error| refusal(&error))?;
    let file = tokio::fs::File::open(&path).await.map_err(|error| refusal(&error))?;
    let metadata = file.metadata().await.map_err(|error| refusal(&error))?;
    if metadata.is_dir() {
        if !slash {
            return Ok(moved(below.last().copied().unwrap_or("logs")));
        }
        let listed = tokio::task::spawn_blocking(move || list(&path)).await.map_err(io::Error::other);
        let mut response = Response::new(body(listed.and_then(|list| list).map_err(|error| refusal(&error))?));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        return Ok(response);
    }
    if !metadata.is_file() {
        return Err(Refusal::not_found("404 page not found\n"));
    }
    // What is added while it is read is not part of the answer.
    let length = metadata.len();
    let pieces = ReaderStream::with_capacity(file.take(length), PIECE).map_ok(Frame::data);
    let mut response = Response::new(StreamBody::new(pieces).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type(&path)));
    Ok(response)
}

fn content_type(path: &Path) -> &'static str {
    match path.extension().and_then(|e| e.to_str()) {
        Some("gz" | "xz" | "zst" | "journal") => "application/octet-stream",
        _ => "text/plain; charset=utf-8",
    }
}

/// The real path, which must lie below the real root.
fn resolve(root: &Path, asked: &Path) -> io::Result<PathBuf> {
    let outside = || io::Error::from(io::ErrorKind::NotFound);
    if asked.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
        return Err(outside());
    }
    let (root, path) = (root.canonicalize()?, root.join(asked).canonicalize()?);
    if path.starts_with(&root) { Ok(path) } else { Err(outside()) }
}

fn list(directory: &Path) -> io::Result<Bytes> {
    let mut names: Vec<String> = std::fs::read_dir(directory)?
        .filter_map(Result::ok)
        .take(ENTRIES_MAX)
        .map(|entry| {
            let slash = if entry.file_type().is_ok_and(|kind| kind.is_dir()) { "/" } else { "" };
            format!("{}{slash}", entry.file_name().to_string_lossy())
        })
        .collect();
    names.sort();
    let line = |name: &String| format!("<a href=\"{}\">{}</a>\n", link(name), escaped(name));
    Ok(format!(
        "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n{}</pre>\n",
        names.iter().map(line).collect::<String>()
    )
    .into())
}

fn link(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/+@".contains(&byte);
    let one = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    let link: String = name.bytes().map(one).collect();
    link
}

fn escaped(name: &str) -> String {
    let name = name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    name.replace('"', "&#34;").replace('\'', "&#39;")
}

fn moved(last: &str) -> Response<Body> {
    let mut response = Response::new(body(""));
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().extend(HeaderValue::from_str(&format!("{}/", link(last))).ok().map(|to| (LOCATION, to)));
    response
}

fn refusal(error: &io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::NotFound => Refusal::not_found("404 page not found\n"),
        io::ErrorKind::PermissionDenied => Refusal(StatusCode::FORBIDDEN, "403 Forbidden\n".into()),
        _ => Refusal::internal(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_elsewhere_is_not_there() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let root = directory.path().join("log");
        std::fs::create_dir_all(root.join("pods")).expect("made");
        std::fs::write(root.join("pods/a.log"), "x").expect("written");
        std::fs::write(directory.path().join("secret"), "x").expect("written");
        std::os::unix::fs::symlink("pods/a.log", root.join("inside")).expect("linked");
        std::os::unix::fs::symlink("../secret", root.join("outside")).expect("linked");
        for (asked, found) in [
            ("", true),
            ("pods/a.log", true),
            ("inside", true),
            ("outside", false),
            ("../secret", false),
            ("pods/../../secret", false),
            ("nothing", false),
        ] {
            assert_eq!(resolve(&root, Path::new(asked)).is_ok(), found, "{asked}");
        }
        let page = String::from_utf8(list(&root).expect("a list").to_vec()).expect("text");
        assert!(page.contains("<a href=\"pods/\">pods/</a>\n"), "{page}");
    }

    #[test]
    fn names_are_written_as_links() {
        assert_eq!((link("a b\"<"), escaped("a\"<")), ("a%20b%22%3C".into(), "a&#34;&lt;".into()));
    }
}
