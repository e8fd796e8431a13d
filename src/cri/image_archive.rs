//! Effects: reads an image archive (OCI layout or `docker save`; plain, gzip or zstd) from a file, one entry after
//! another, without unpacking it to disk. Runs on a blocking thread.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Manifests, configurations and indexes are kept in memory; anything larger can only be a layer.
pub const DOCUMENT_LIMIT: u64 = 4 * 1024 * 1024;
/// All documents of one archive together.
const DOCUMENTS_LIMIT: usize = 64 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("cannot read image archive {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("image archive {path} is neither an OCI layout nor the output of docker save: {why}")]
    Format { path: PathBuf, why: String },
    #[error("image archive {path} holds more than {} MiB of manifests", DOCUMENTS_LIMIT / 1024 / 1024)]
    TooManyDocuments { path: PathBuf },
}

/// An OCI descriptor (image-spec, descriptor.md).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Descriptor {
    pub media_type: String,
    pub digest: String,
    pub size: i64,
    pub annotations: BTreeMap<String, String>,
}

/// One line of docker's `manifest.json`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DockerManifest {
    pub config: String,
    #[serde(default)]
    pub repo_tags: Option<Vec<String>>,
    pub layers: Vec<String>,
}

/// What an archive's top level says.
#[derive(Debug, Default)]
pub struct Contents {
    /// Small files by their path in the archive.
    pub documents: BTreeMap<String, Vec<u8>>,
    /// Files that are links to others: `docker save` shares layers this way.
    pub links: BTreeMap<String, String>,
}

/// Takes the entries of an archive as they come.
pub trait Sink {
    /// A file larger than [`DOCUMENT_LIMIT`], or any layer: `path` in the archive, its `size` in bytes, its content.
    ///
    /// # Errors
    /// When the content cannot be taken.
    fn large(&mut self, path: &str, size: u64, content: &mut dyn Read) -> std::io::Result<()>;
}

/// Reads the whole archive: large files go to `sink`, the rest is returned.
///
/// # Errors
/// When the file cannot be read or is no tar.
pub fn read(path: &Path, sink: &mut dyn Sink) -> Result<Contents, ArchiveError> {
    let fail = |source| ArchiveError::Read { path: path.to_owned(), source };
    let mut archive = tar::Archive::new(open(path).map_err(fail)?);
    let mut contents = Contents::default();
    let mut held = 0;
    for entry in archive.entries().map_err(fail)? {
        let mut entry = entry.map_err(fail)?;
        let name = normal(&entry.path().map_err(fail)?);
        match entry.header().entry_type() {
            tar::EntryType::Regular if entry.size() <= DOCUMENT_LIMIT => {
                let mut data = Vec::new();
                entry.read_to_end(&mut data).map_err(fail)?;
                if looks_like_json(&data) {
                    held += data.len();
                    if held > DOCUMENTS_LIMIT {
                        return Err(ArchiveError::TooManyDocuments { path: path.to_owned() });
                    }
                    contents.documents.insert(name, data);
                } else {
                    sink.large(&name, data.len() as u64, &mut data.as_slice()).map_err(fail)?;
                }
            }
            tar::EntryType::Regular => {
                let size = entry.size();
                sink.large(&name, size, &mut entry).map_err(fail)?;
            }
            tar::EntryType::Symlink | tar::EntryType::Link => {
                if let Some(target) = entry.link_name().map_err(fail)? {
                    let base = Path::new(&name).parent().unwrap_or(Path::new(""));
                    let hard = entry.header().entry_type() == tar::EntryType::Link;
                    let target = if hard { normal(&target) } else { normal(&base.join(target)) };
                    contents.links.insert(name, target);
                }
            }
            _ => {}
        }
    }
    Ok(contents)
}

/// Decompresses by what the file starts with, not by its name.
fn open(path: &Path) -> std::io::Result<Box<dyn Read>> {
    let mut file = File::open(path)?;
    let mut magic = [0; 4];
    let read = file.read(&mut magic)?;
    file.rewind()?;
    let file = BufReader::with_capacity(64 * 1024, file);
    Ok(match &magic[..read] {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::Decoder::with_buffer(file)?),
        _ => Box::new(file),
    })
}

/// `./a/../b` → `b`. Names only look things up; nothing is ever written to such a path.
fn normal(path: &Path) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in path.components() {
        match part {
            std::path::Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            std::path::Component::ParentDir => {
                parts.pop();
            }
            _ => {}
        }
    }
    parts.join("/")
}

fn looks_like_json(data: &[u8]) -> bool {
    matches!(data.iter().find(|b| !b.is_ascii_whitespace()), Some(b'{' | b'['))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Names(Vec<(String, u64)>);

    impl Sink for Names {
        fn large(&mut self, path: &str, size: u64, content: &mut dyn Read) -> std::io::Result<()> {
            assert_eq!(std::io::copy(content, &mut std::io::sink())?, size);
            self.0.push((path.to_owned(), size));
            Ok(())
        }
    }

    fn archive() -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut add = |name: &str, data: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            tar.append_data(&mut header, name, data).unwrap();
        };
        add("./index.json", b" {\"manifests\":[]}");
        add("blobs/sha256/aa", b"\x1f\x8bnot json");
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        tar.append_link(&mut link, "b/layer.tar", "../blobs/sha256/aa").unwrap();
        tar.into_inner().unwrap()
    }

    #[track_caller]
    fn check(file: &[u8]) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        std::fs::write(&path, file).unwrap();
        let mut names = Names(Vec::new());
        let contents = read(&path, &mut names).unwrap();
        assert_eq!(contents.documents.keys().collect::<Vec<_>>(), ["index.json"]);
        assert_eq!(contents.links["b/layer.tar"], "blobs/sha256/aa");
        assert_eq!(names.0, [("blobs/sha256/aa".to_owned(), 10)]);
    }

    #[test]
    fn reads_plain_gzip_and_zstd() {
        let tar = archive();
        check(&tar);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, &tar).unwrap();
        check(&gzip.finish().unwrap());
        check(&zstd::encode_all(tar.as_slice(), 1).unwrap());
    }

    #[test]
    fn names_the_file_that_is_no_archive() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.tar");
        std::fs::write(&path, vec![b'x'; 4096]).unwrap();
        let error = read(&path, &mut Names(Vec::new())).unwrap_err();
        assert!(error.to_string().contains("x.tar"), "{error}");
    }
}
