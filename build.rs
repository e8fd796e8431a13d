//! Effects: makes code of `proto/`: messages, clients and servers of gRPC services. And what upstream says of each type
//! and each field, for the OpenAPI documents. The words are those of the crate k8s-openapi, which has them as the schemas
//! of its feature `schemars`. The feature itself makes code of what is text, and the crate half as large again; so its
//! sources are read, and the texts are kept compressed.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::ZlibEncoder;

const CRATE: &str = "k8s-openapi";
/// The release that we implement, as the crate names it: the feature of `Cargo.toml`.
const RELEASE: &str = "src/v1_36";

/// What plug-ins of a node speak.
const PROTOCOLS: &[&str] = &["proto/csi.proto", "proto/pluginregistration.proto"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for protocol in PROTOCOLS {
        println!("cargo::rerun-if-changed={protocol}");
    }
    // Servers too: the tests play the plug-ins.
    tonic_prost_build::configure()
        .compile_protos(PROTOCOLS, &["proto"])
        .unwrap_or_else(|e| panic!("{PROTOCOLS:?}: {e}"));
    println!("cargo::rerun-if-changed=Cargo.lock");
    let mut files = Vec::new();
    rust_files(&sources().join(RELEASE), &mut files);
    let texts = files.iter().map(|file| fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display())));
    let mut records: Vec<String> = texts.filter_map(|text| record(&text)).collect();
    assert!(!records.is_empty(), "{CRATE} describes nothing in {RELEASE}");
    records.sort_unstable();
    let mut out = ZlibEncoder::new(Vec::new(), Compression::best());
    out.write_all(records.join("\x1e").as_bytes()).expect("memory takes what it is given");
    let out = out.finish().expect("memory takes what it is given");
    let path = PathBuf::from(variable("OUT_DIR")).join("descriptions");
    fs::write(&path, out).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// What cargo tells a build script.
fn variable(name: &str) -> std::ffi::OsString {
    std::env::var_os(name).unwrap_or_else(|| panic!("cargo gives {name} to build scripts"))
}

/// Where the sources of the crate are: in the registry, vendored or patched. Nothing is fetched: it has been by now.
fn sources() -> PathBuf {
    let mut command = Command::new(variable("CARGO"));
    command
        .args(["metadata", "--format-version=1", "--locked", "--offline", "--filter-platform"])
        .arg(variable("TARGET"));
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    let json = String::from_utf8_lossy(&output.stdout);
    // A package names its manifest once, after what it depends on.
    let package = json.split_once(&format!("{{\"name\":\"{CRATE}\",\"version\":")).map(|(_, rest)| rest);
    let manifest = package.and_then(|p| p.split_once("\"manifest_path\":\"")?.1.split_once('"'));
    let manifest = manifest.unwrap_or_else(|| panic!("{CRATE} is no dependency")).0;
    Path::new(manifest).parent().expect("a file is in a folder").to_owned()
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for path in entries.filter_map(Result::ok).map(|e| e.path()) {
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// The name of a type and its description, then those of its fields, with a separator between each two. The sources are
/// generated, so that how far a line is indented tells what it is.
fn record(text: &str) -> Option<String> {
    let (_, schema) = text.split_once("JsonSchema for ")?;
    let name = schema.lines().find_map(|l| l.trim().strip_prefix('"')?.strip_suffix("\".into()"))?;
    if name.contains("alpha") || name.contains("beta") {
        return None;
    }
    let (mut own, mut fields, mut field) = (String::new(), String::new(), None);
    for line in schema.lines() {
        let inner = line.trim_start();
        let described = inner.strip_prefix("\"description\": \"").and_then(|l| l.strip_suffix("\","));
        let described = described.or_else(|| {
            let (_, text) = inner.split_once(".insert(\"description\".into(), \"")?;
            text.strip_suffix("\".into());")
        });
        match (line.len() - inner.len(), described) {
            (12, Some(text)) => own = unescaped(text),
            (16, None) => field = inner.strip_prefix('"').and_then(|l| l.split_once("\": ")).map(|(name, _)| name),
            (20, Some(text)) => {
                let field = field.unwrap_or_else(|| panic!("{name}: a text with no field: {text}"));
                let _ = write!(fields, "\x1f{field}\x1f{}", unescaped(text));
            }
            _ => {}
        }
    }
    Some(format!("{name}\x1f{own}{fields}"))
}

/// What a literal of Rust stands for.
fn unescaped(literal: &str) -> String {
    let mut out = String::with_capacity(literal.len());
    let mut letters = literal.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => out.push(match letters.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('r') => '\r',
                Some(same @ ('\\' | '"' | '\'')) => same,
                other => panic!("a literal with the escape {other:?}: {literal}"),
            }),
            letter => out.push(letter),
        }
    }
    out
}
