//! Builds small OCI image archives from what Debian installs, as no registry can be reached.

use std::path::Path;

use serde_json::json;
use sha2::{Digest as _, Sha256};

/// Where Debian's `busybox-static` puts its one program.
const BUSYBOX: &str = "/bin/busybox";

/// Debian's static busybox crashes when it looks up a name (its glibc wants plug-ins of its own version), so requests
/// are sent by curl.
const CURL: &str = "/usr/bin/curl";

/// Applets that the tests use, linked in `/bin`.
const APPLETS: &[&str] = &[
    "sh", "cat", "echo", "sleep", "ls", "env", "httpd", "nc", "nslookup", "hostname", "id", "true", "false", "touch",
    "rm", "mkdir", "date", "grep", "ip", "ping", "kill", "ps", "head", "tail", "dd", "stat", "readlink", "test", "seq",
    "wc", "mount", "df", "stty", "tty", "sync", "trap", "yes", "printf", "vi", "uname", "time", "tar",
];

fn digest(data: &[u8]) -> String {
    let hash = Sha256::digest(data);
    format!("sha256:{}", hash.iter().map(|b| format!("{b:02x}")).collect::<String>())
}

/// An OCI layout in a tar: busybox with its applets and the files given (path, mode, content).
///
/// # Panics
/// When busybox-static is not installed.
pub fn busybox(name: &str, config: &serde_json::Value, files: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let program = std::fs::read(BUSYBOX).expect("busybox-static is installed by tests/run.sh");
    let mut layer = tar::Builder::new(Vec::new());
    for dir in ["bin", "tmp", "etc", "var", "root"] {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(if dir == "tmp" { 0o1777 } else { 0o755 });
        header.set_size(0);
        layer.append_data(&mut header, dir, std::io::empty()).unwrap();
    }
    let mut file = |path: &str, mode: u32, data: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_mode(mode);
        header.set_size(data.len() as u64);
        layer.append_data(&mut header, path, data).unwrap();
    };
    file("bin/busybox", 0o755, &program);
    file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000:web:/:/bin/sh\n");
    file("etc/group", 0o644, b"root:x:0:\nweb:x:1000:\n");
    for (path, mode, data) in files {
        file(path, *mode, data);
    }
    for path in with_libraries(CURL) {
        let data = std::fs::read(&path).expect("ldd names files that are there");
        file(path.trim_start_matches('/'), 0o755, &data);
    }
    for applet in APPLETS {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        layer.append_link(&mut header, format!("bin/{applet}"), "busybox").unwrap();
    }
    layout(name, config, &layer.into_inner().unwrap())
}

/// A program with the libraries that ldd(1) finds for it.
fn with_libraries(program: &str) -> Vec<String> {
    let output = std::process::Command::new("ldd").arg(program).output().expect("ldd is part of libc-bin");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let paths = text.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned);
    std::iter::once(program.to_owned()).chain(paths).collect()
}

/// An OCI layout in a tar around one layer.
fn layout(name: &str, config: &serde_json::Value, layer: &[u8]) -> Vec<u8> {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({
        "architecture": architecture, "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
    })
    .to_string();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest(config.as_bytes()), "size": config.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest(layer), "size": layer.len(),
        }],
    })
    .to_string();
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest(manifest.as_bytes()), "size": manifest.len(),
            "annotations": {"io.containerd.image.name": name},
        }],
    })
    .to_string();
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: String, data: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(data.len() as u64);
        tar.append_data(&mut header, path, data).unwrap();
    };
    add("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#);
    for blob in [layer, config.as_bytes(), manifest.as_bytes()] {
        add(format!("blobs/sha256/{}", &digest(blob)[7..]), blob);
    }
    add("index.json".into(), index.as_bytes());
    tar.into_inner().unwrap()
}

/// Writes an archive so that a watcher sees it whole.
///
/// # Panics
/// When the directory cannot be written.
pub fn drop_into(dir: &Path, file: &str, archive: &[u8]) {
    std::fs::create_dir_all(dir).unwrap();
    let hidden = dir.join(format!(".{file}"));
    std::fs::write(&hidden, archive).unwrap();
    std::fs::rename(hidden, dir.join(file)).unwrap();
}
