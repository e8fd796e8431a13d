//! Decides: what upstream says of the types and fields of the table. The texts are in the binary, compressed, and are
//! unpacked for as long as somebody needs them: `build.rs` says where they come from.

use std::io::Read as _;
use std::ops::Range;

use flate2::read::ZlibDecoder;

/// The texts as they lie in the binary: what a hash is made of.
pub const PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions"));

const RECORD: char = '\u{1e}';
const PART: char = '\u{1f}';

/// All texts, unpacked: 0.8 MB.
pub struct Descriptions {
    text: String,
    /// Where the record of each type is, sorted by name.
    records: Vec<Range<usize>>,
}

/// Those of one type.
#[derive(Clone, Copy)]
pub struct Described<'a> {
    /// Of the type itself.
    pub text: &'a str,
    fields: &'a str,
}

impl Descriptions {
    #[must_use]
    pub fn unpack() -> Self {
        let mut text = String::new();
        // Made by the build itself: it is whole.
        let _ = ZlibDecoder::new(PACKED).read_to_string(&mut text);
        let mut records = Vec::new();
        let mut start = 0;
        for record in text.split(RECORD) {
            records.push(start..start + record.len());
            start += record.len() + RECORD.len_utf8();
        }
        Self { text, records }
    }

    /// By OpenAPI name: `io.k8s.api.core.v1.PodSpec`.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<Described<'_>> {
        let parts = |range: &Range<usize>| self.text[range.clone()].split_once(PART).unwrap_or_default();
        let at = self.records.binary_search_by(|r| parts(r).0.cmp(name)).ok()?;
        let (_, rest) = parts(&self.records[at]);
        let (text, fields) = rest.split_once(PART).unwrap_or((rest, ""));
        Some(Described { text, fields })
    }
}

impl<'a> Described<'a> {
    /// By JSON name.
    #[must_use]
    pub fn field(self, name: &str) -> Option<&'a str> {
        let mut parts = self.fields.split(PART);
        while let Some(field) = parts.next() {
            let text = parts.next();
            if field == name {
                return text;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::schema::TYPES;

    #[test]
    fn types_and_fields_are_described() {
        let all = Descriptions::unpack();
        let pod = all.of("io.k8s.api.core.v1.PodSpec").unwrap();
        assert!(pod.text.starts_with("PodSpec is"), "{}", pod.text);
        assert!(pod.field("containers").unwrap().contains("container"));
        assert_eq!(pod.field("container"), None, "part of a name");
        assert!(all.of("io.k8s.api.core.v1.Pod").unwrap().field("spec").unwrap().contains("desired behavior"));
        assert!(all.of("io.k8s.apimachinery.pkg.api.resource.Quantity").unwrap().text.contains("\n\n"), "unescaped");
        assert!(all.of("io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIService").is_some());
        assert!(all.of("io.k8s.api.core.v1.Nothing").is_none() && all.of("").is_none());
        // Lists are generic in the crate that the texts come from, which says nothing of them there.
        for t in TYPES.iter().filter(|t| !t.name.ends_with("List") || t.short_name() == "APIResourceList") {
            assert!(all.of(t.name).is_some_and(|d| !d.text.is_empty()), "{}", t.name);
        }
    }
}
