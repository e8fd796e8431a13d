//! Decides: the pause image, built from nothing. Its one program holds a pod's namespaces open: it ignores SIGCHLD
//! (so that the kernel reaps orphans when the pod shares its process namespace) and sleeps for ever. The runtime ends
//! it with SIGKILL, so no other signal needs a handler.

use sha2::{Digest as _, Sha256};

/// The name under which the image is imported and the runtime finds it.
pub const NAME: &str = "skiff.local/pause:1";

/// Bytes of content with their OCI digest.
#[derive(Clone, Debug)]
pub struct Blob {
    pub digest: String,
    pub data: Vec<u8>,
}

/// The three blobs of a single-layer image.
#[derive(Clone, Debug)]
pub struct PauseImage {
    pub layer: Blob,
    pub config: Blob,
    pub manifest: Blob,
}

pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

impl Blob {
    #[must_use]
    pub fn new(data: Vec<u8>) -> Self {
        Self { digest: format!("sha256:{}", hex(&Sha256::digest(&data))), data }
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The image for the architecture this binary was built for.
///
/// # Panics
/// Never: writing a tar into memory cannot fail.
#[must_use]
#[expect(clippy::expect_used, reason = "the same bytes each time, which a test writes")]
pub fn image() -> PauseImage {
    let program = elf();
    let mut header = tar::Header::new_ustar();
    header.set_size(program.len() as u64);
    header.set_mode(0o555);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, "pause", program.as_slice()).expect("memory cannot fail");
    let layer = Blob::new(archive.into_inner().expect("memory cannot fail"));

    let config = Blob::new(
        serde_json::json!({
            "architecture": OCI_ARCHITECTURE, "os": "linux",
            "config": {"Entrypoint": ["/pause"], "User": "65535:65535", "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
        })
        .to_string()
        .into_bytes(),
    );
    let manifest = Blob::new(
        serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST_TYPE,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config.digest, "size": config.data.len(),
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": layer.digest, "size": layer.data.len(),
            }],
        })
        .to_string()
        .into_bytes(),
    );
    PauseImage { layer, config, manifest }
}

/// Go's name of this architecture, as OCI images use it.
pub const OCI_ARCHITECTURE: &str = if cfg!(target_arch = "x86_64") {
    "amd64"
} else if cfg!(target_arch = "aarch64") {
    "arm64"
} else {
    "arm"
};

/// rt_sigaction(SIGCHLD, {SIG_IGN}, 0, 8); for (;;) pause();
#[cfg(target_arch = "x86_64")]
const CODE: &[u8] = &[
    0xb8, 13, 0, 0, 0, // mov eax, rt_sigaction
    0xbf, 17, 0, 0, 0, // mov edi, SIGCHLD
    0x48, 0x8d, 0x35, 0x13, 0, 0, 0, // lea rsi, [rip + action]
    0x31, 0xd2, // xor edx, edx
    0x41, 0xba, 8, 0, 0, 0, // mov r10d, 8
    0x0f, 0x05, // syscall
    0xb8, 34, 0, 0, 0, // again: mov eax, pause
    0x0f, 0x05, // syscall
    0xeb, 0xf7, // jmp again
    1, 0, 0, 0, 0, 0, 0, 0, // action: handler = SIG_IGN
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // flags, restorer, mask
];

/// The same with ppoll(0, 0, 0, 0), as arm64 has no pause.
#[cfg(target_arch = "aarch64")]
const CODE: &[u8] = &[
    0xc8, 0x10, 0x80, 0xd2, // mov x8, #134 (rt_sigaction)
    0x20, 0x02, 0x80, 0xd2, // mov x0, #17 (SIGCHLD)
    0xa1, 0x01, 0x00, 0x10, // adr x1, action (+52)
    0x02, 0x00, 0x80, 0xd2, // mov x2, #0
    0x03, 0x01, 0x80, 0xd2, // mov x3, #8
    0x01, 0x00, 0x00, 0xd4, // svc #0
    0x00, 0x00, 0x80, 0xd2, // again: mov x0, #0
    0x01, 0x00, 0x80, 0xd2, // mov x1, #0
    0x02, 0x00, 0x80, 0xd2, // mov x2, #0
    0x03, 0x00, 0x80, 0xd2, // mov x3, #0
    0x04, 0x00, 0x80, 0xd2, // mov x4, #0
    0x28, 0x09, 0x80, 0xd2, // mov x8, #73 (ppoll)
    0x01, 0x00, 0x00, 0xd4, // svc #0
    0xf9, 0xff, 0xff, 0x17, // b again
    0x1f, 0x20, 0x03, 0xd5, // nop
    1, 0, 0, 0, 0, 0, 0, 0, // action: handler = SIG_IGN
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

#[cfg(target_arch = "x86_64")]
const ELF_MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const ELF_MACHINE: u16 = 183;

/// A 64-bit static executable with one read-execute segment that is the whole file (elf(5)).
fn elf() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let size = HEADERS + CODE.len() as u64;
    let mut file = Vec::with_capacity(size as usize);
    file.extend_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for half in [2u16, ELF_MACHINE] {
        file.extend_from_slice(&half.to_le_bytes()); // e_type EXEC, e_machine
    }
    file.extend_from_slice(&1u32.to_le_bytes()); // e_version
    for word in [BASE + HEADERS, 64, 0] {
        file.extend_from_slice(&word.to_le_bytes()); // e_entry, e_phoff, e_shoff
    }
    file.extend_from_slice(&0u32.to_le_bytes()); // e_flags
    for half in [64u16, 56, 1, 64, 0, 0] {
        file.extend_from_slice(&half.to_le_bytes()); // e_ehsize, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx
    }
    for word in [1u32, 5] {
        file.extend_from_slice(&word.to_le_bytes()); // p_type LOAD, p_flags R+X
    }
    for word in [0, BASE, BASE, size, size, 0x1000] {
        file.extend_from_slice(&word.to_le_bytes()); // p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align
    }
    file.extend_from_slice(CODE);
    file
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn the_program_sleeps_until_it_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pause");
        std::fs::write(&path, elf()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut child = Command::new(&path).spawn().unwrap();
        // It blocks in a system call and has SIGCHLD (bit 16) ignored once it got there.
        let ignored = |pid: u32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let line = status.lines().find_map(|l| l.strip_prefix("SigIgn:")).unwrap().trim().to_owned();
            u64::from_str_radix(&line, 16).unwrap() & (1 << 16) != 0
        };
        for _ in 0..500 {
            if ignored(child.id()) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        assert!(ignored(child.id()));
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn the_image_refers_to_its_own_blobs() {
        let image = image();
        let manifest: serde_json::Value = serde_json::from_slice(&image.manifest.data).unwrap();
        assert_eq!(manifest["layers"][0]["digest"], image.layer.digest);
        assert_eq!(manifest["config"]["digest"], image.config.digest);
        assert_eq!(image.layer.digest, Blob::new(image.layer.data.clone()).digest);
    }
}
