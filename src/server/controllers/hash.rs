//! Decides: the hash in the names of ReplicaSets and ControllerRevisions: same form as upstream's (FNV-1a in the
//! alphabet of safe names).
//!
//! Upstream hashes Go's print of the struct, which differs between its releases; nothing may rely on the value, only
//! on equal templates giving equal names. Ours hashes the template's JSON.

use serde::Serialize;

/// Letters and digits that make no words.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// `collisions`: how often a name with this hash was found taken by something else.
#[must_use]
pub fn hash(of: &impl Serialize, collisions: Option<i32>) -> String {
    let mut hash = 0x811c_9dc5_u32;
    let mut write = |bytes: &[u8]| {
        for b in bytes {
            hash = (hash ^ u32::from(*b)).wrapping_mul(0x0100_0193);
        }
    };
    write(&serde_json::to_vec(of).unwrap_or_default());
    if let Some(count) = collisions {
        write(&u64::try_from(count).unwrap_or(0).to_le_bytes());
    }
    hash.to_string().bytes().map(|b| char::from(ALPHABET[usize::from(b) % ALPHABET.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_stable_and_depends_on_collisions() {
        let template = serde_json::json!({ "spec": { "containers": [] } });
        let plain = hash(&template, None);
        assert_eq!(plain, hash(&template.clone(), None));
        assert_ne!(plain, hash(&template, Some(1)));
        assert_ne!(hash(&template, Some(1)), hash(&template, Some(2)));
        assert!(plain.bytes().all(|b| ALPHABET.contains(&b)), "{plain}");
    }
}
