//! Types: what server and nodes agree on about volumes that are folders on a node's disk.

/// On Nodes: the folder that holds the volumes.
pub const PATH_ANNOTATION: &str = "skiff.io/local-storage-path";
/// Path of the node's endpoint below which a folder is removed, by its name.
pub const ENDPOINT: &str = "/localVolumes";

/// The name of a volume's folder.
#[must_use]
pub fn folder(volume: &str, namespace: &str, claim: &str) -> String {
    format!("{volume}_{namespace}_{claim}")
}

/// Whether that is the name of a volume's folder and nothing else: three names of the API, joined. So it holds no slash
/// and begins with no dot.
#[must_use]
pub fn is_folder(name: &str) -> bool {
    let parts: Vec<&str> = name.split('_').collect();
    let is_name = |part: &&str| {
        let inner = part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.');
        inner && part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.len() <= 253
    };
    parts.len() == 3 && parts.iter().all(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_of_volumes() {
        assert!(is_folder(&folder("pvc-1f", "default", "data-web-0")));
        assert!(is_folder("pv.x_a_b.c"));
        for name in
            ["", "a", "a_b", "..", "._._.", "a_b_..", "../a_b_c", "a_b_c/..", "a_b_c_d", "a_b_/etc", "A_b_c", "__"]
        {
            assert!(!is_folder(name), "{name}");
        }
    }
}
