//! Decides: which representation a client gets, from its `Accept` header (RFC 9110 section 12.5.1).

use http::HeaderMap;
use http::header::{ACCEPT, USER_AGENT};

use crate::api::protobuf;
use crate::api::query::Query;
use crate::api::status::Status;

/// What the objects of a response look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// As they are.
    Object,
    /// Rows and columns (`meta.k8s.io` Table), which is what `kubectl get` asks for.
    Table(&'static str),
    /// Only metadata (`meta.k8s.io` PartialObjectMetadata).
    Partial(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Yaml,
    Protobuf,
}

/// The answer of a negotiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    pub shape: Shape,
    pub encoding: Encoding,
    pub pretty: bool,
}

pub const JSON: Format = Format { shape: Shape::Object, encoding: Encoding::Json, pretty: false };

/// What an endpoint can answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// A document of its own: discovery, reviews, Status.
    Plain,
    /// Objects of a kind: whole, as a table, or only their metadata.
    Objects,
    /// A stream of such objects: one JSON document a line, or framed protobuf.
    Stream,
}

const MEDIA_TYPES: [&str; 3] = ["application/json", "application/yaml", protobuf::MEDIA_TYPE];

/// # Errors
/// 406 when nothing that the client accepts can be made.
pub fn negotiate(headers: &HeaderMap, query: &Query, offer: Offer) -> Result<Format, Status> {
    let header = |name| headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).collect::<Vec<_>>().join(",");
    let accept = header(ACCEPT);
    let mut ranges: Vec<(u16, &str)> =
        accept.split(',').map(str::trim).filter(|r| !r.is_empty()).map(weighed).collect();
    ranges.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    let chosen = if ranges.is_empty() {
        Some(JSON)
    } else {
        ranges.iter().filter(|(weight, _)| *weight > 0).find_map(|(_, range)| acceptable(range, offer))
    };
    let Some(mut format) = chosen else {
        let of_streams = [MEDIA_TYPES[0], MEDIA_TYPES[2]];
        return Err(Status::not_acceptable(if offer == Offer::Stream { &of_streams } else { &MEDIA_TYPES }));
    };
    // People at a terminal get indented documents without asking, as upstream does by the same three prefixes.
    let agent = header(USER_AGENT);
    let person = ["curl", "Wget", "Mozilla/5.0"].iter().any(|p| agent.starts_with(p));
    format.pretty = offer != Offer::Stream && query.flag("pretty").unwrap_or(person);
    Ok(format)
}

/// A media range and its `q`, in thousandths.
pub(super) fn weighed(range: &str) -> (u16, &str) {
    let q = range.split(';').filter_map(|p| p.trim().strip_prefix("q=")).find_map(|q| q.trim().parse::<f32>().ok());
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped just before")]
    (q.map_or(1000, |q| (q.clamp(0.0, 1.0) * 1000.0) as u16), range)
}

fn acceptable(range: &str, offer: Offer) -> Option<Format> {
    let mut parts = range.split(';').map(str::trim);
    let encoding = match parts.next()?.to_ascii_lowercase().as_str() {
        "*/*" | "application/*" | "application/json" => Encoding::Json,
        "application/yaml" if offer != Offer::Stream => Encoding::Yaml,
        protobuf::MEDIA_TYPE => Encoding::Protobuf,
        _ => return None,
    };
    let (mut kind, mut group, mut version) = ("", "", "");
    for (key, value) in parts.filter_map(|p| p.split_once('=')) {
        match key.trim() {
            "as" => kind = value.trim(),
            "g" => group = value.trim(),
            "v" => version = value.trim(),
            _ => {}
        }
    }
    let shape = if kind.is_empty() {
        Shape::Object
    } else {
        let version = ["v1", "v1beta1"].into_iter().find(|v| *v == version)?;
        if group != "meta.k8s.io" || offer == Offer::Plain {
            return None;
        }
        match kind {
            // Rows have no protobuf form.
            "Table" if encoding != Encoding::Protobuf => Shape::Table(version),
            "PartialObjectMetadata" | "PartialObjectMetadataList" => Shape::Partial(version),
            _ => return None,
        }
    };
    Some(Format { shape, encoding, pretty: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(accept: &str, offer: Offer) -> Result<(Shape, Encoding), u16> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().expect("a header"));
        negotiate(&headers, &Query::default(), offer).map(|f| (f.shape, f.encoding)).map_err(|s| s.code())
    }

    #[test]
    fn picks_what_clients_of_upstream_get() {
        use Encoding::{Json, Protobuf, Yaml};
        use Shape::{Object, Partial, Table};
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(check(kubectl, Offer::Objects), Ok((Table("v1"), Json)));
        assert_eq!(check(kubectl, Offer::Plain), Ok((Object, Json)));
        assert_eq!(
            check("application/json;as=Table;v=v1beta1;g=meta.k8s.io", Offer::Stream),
            Ok((Table("v1beta1"), Json))
        );
        let typed = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(check(typed, Offer::Objects), Ok((Object, Protobuf)));
        assert_eq!(check("application/vnd.kubernetes.protobuf, */*;q=0.1", Offer::Stream), Ok((Object, Protobuf)));
        let rows = "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io";
        assert_eq!(check(rows, Offer::Objects), Err(406));
        assert_eq!(check("application/cbor", Offer::Objects), Err(406));
        assert_eq!(check("application/json;q=0.5,application/yaml", Offer::Objects), Ok((Object, Yaml)));
        assert_eq!(check("application/yaml", Offer::Stream), Err(406));
        assert_eq!(
            check("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", Offer::Objects),
            Ok((Partial("v1"), Json))
        );
        assert_eq!(check("application/json;as=Table;v=v2;g=meta.k8s.io", Offer::Objects), Err(406));
        assert_eq!(check("", Offer::Plain), Ok((Object, Json)));
    }
}
