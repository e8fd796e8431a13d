//! Decides: the values of `format` that custom resources are held to, and what they hold them to: those of
//! `apiextensions-apiserver/pkg/apiserver/validation/formats.go`, as `kube-openapi/pkg/validation/strfmt` checks them.
//! Any other format is a remark.

mod address;
mod number;
mod time;

use super::structural::Kind;

/// A format that is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Int32,
    Int64,
    /// 32 bits.
    Float,
    Double,
    /// Known, and every text has it.
    AnyText,
    /// Known, but nothing checks it: upstream's list of formats has it and its checks do not.
    Unchecked,
    Base64,
    BsonObjectId,
    Cidr,
    CreditCard,
    Date,
    DateTime,
    Duration,
    Email,
    HexColor,
    Hostname,
    Ipv4,
    Ipv6,
    Isbn,
    Isbn10,
    Isbn13,
    LongName,
    Mac,
    RgbColor,
    ShortName,
    Ssn,
    Uri,
    Uuid,
    Uuid3,
    Uuid4,
    Uuid5,
}

/// By the names of formats of text without their dashes.
const OF_TEXT: &[(&str, Format)] = &[
    ("bsonobjectid", Format::BsonObjectId),
    ("byte", Format::Base64),
    ("cidr", Format::Cidr),
    ("creditcard", Format::CreditCard),
    ("date", Format::Date),
    ("datetime", Format::DateTime),
    ("duration", Format::Duration),
    ("email", Format::Email),
    ("hexcolor", Format::HexColor),
    ("hostname", Format::Hostname),
    ("ipv4", Format::Ipv4),
    ("ipv6", Format::Ipv6),
    ("isbn", Format::Isbn),
    ("isbn10", Format::Isbn10),
    ("isbn13", Format::Isbn13),
    ("k8slongname", Format::LongName),
    ("k8sshortname", Format::ShortName),
    ("mac", Format::Mac),
    ("password", Format::AnyText),
    ("quantity", Format::Unchecked),
    ("rgbcolor", Format::RgbColor),
    ("ssn", Format::Ssn),
    ("uri", Format::Uri),
    ("uuid", Format::Uuid),
    ("uuid3", Format::Uuid3),
    ("uuid4", Format::Uuid4),
    ("uuid5", Format::Uuid5),
];

/// The format that values of a type are held to; `None` for what upstream ignores.
#[must_use]
pub fn find(kind: Kind, name: &str) -> Option<Format> {
    match kind {
        Kind::String | Kind::Any | Kind::IntOrString => {
            let name = name.replace('-', "");
            OF_TEXT.iter().find(|(n, _)| *n == name).map(|(_, format)| *format)
        }
        Kind::Integer => match name {
            "int32" => Some(Format::Int32),
            "int64" => Some(Format::Int64),
            _ => None,
        },
        Kind::Number => match name {
            "float" => Some(Format::Float),
            "double" => Some(Format::Double),
            _ => None,
        },
        Kind::Object | Kind::Array | Kind::Boolean => None,
    }
}

impl Format {
    /// Whether a text is looked at at all.
    #[must_use]
    pub fn checks_text(self) -> bool {
        !matches!(self, Self::Int32 | Self::Int64 | Self::Float | Self::Double | Self::Unchecked)
    }

    #[must_use]
    pub fn accepts(self, text: &str) -> bool {
        match self {
            Self::Int32 | Self::Int64 | Self::Float | Self::Double | Self::AnyText | Self::Unchecked => true,
            Self::Base64 => base64(text),
            Self::BsonObjectId => hexadecimal(text, 24),
            Self::Cidr => address::cidr(text),
            Self::CreditCard => number::credit_card(text),
            Self::Date => time::date(text),
            Self::DateTime => time::date_time(text),
            Self::Duration => time::duration(text),
            Self::Email => address::email(text),
            Self::HexColor => {
                let digits = text.strip_prefix('#').unwrap_or(text);
                hexadecimal(digits, 3) || hexadecimal(digits, 6)
            }
            Self::Hostname => address::hostname(text),
            Self::Ipv4 => address::ipv4(text),
            Self::Ipv6 => address::ipv6(text),
            Self::Isbn => number::isbn10(text) || number::isbn13(text),
            Self::Isbn10 => number::isbn10(text),
            Self::Isbn13 => number::isbn13(text),
            Self::LongName => text.len() <= 253 && text.split('.').all(label),
            Self::Mac => address::mac(text),
            Self::RgbColor => rgb_color(text),
            Self::ShortName => text.len() <= 63 && label(text),
            Self::Ssn => number::ssn(text),
            Self::Uri => address::uri(text),
            Self::Uuid => uuid(text, None, false),
            Self::Uuid3 => uuid(text, Some(b'3'), false),
            Self::Uuid4 => uuid(text, Some(b'4'), true),
            Self::Uuid5 => uuid(text, Some(b'5'), true),
        }
    }
}

fn hexadecimal(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Of names: lower case, digits and dashes inside.
fn label(text: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

/// Padded, of the standard alphabet, and not empty.
fn base64(text: &str) -> bool {
    let digits = text.trim_end_matches('=');
    !digits.is_empty()
        && text.len().is_multiple_of(4)
        && text.len() - digits.len() <= 2
        && digits.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
}

/// The dashes may be left out, each for itself.
fn uuid(text: &str, version: Option<u8>, variant: bool) -> bool {
    let mut rest = text;
    let mut digits = Vec::with_capacity(32);
    for (i, length) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        rest = if i > 0 { rest.strip_prefix('-').unwrap_or(rest) } else { rest };
        let Some(group) = rest.get(..length).filter(|g| hexadecimal(g, length)) else { return false };
        digits.extend_from_slice(group.as_bytes());
        rest = &rest[length..];
    }
    rest.is_empty()
        && version.is_none_or(|v| digits[12] == v)
        && (!variant || matches!(digits[16].to_ascii_lowercase(), b'8' | b'9' | b'a' | b'b'))
}

/// `rgb(255, 0, 10)`
fn rgb_color(text: &str) -> bool {
    let Some(inner) = text.strip_prefix("rgb(").and_then(|t| t.strip_suffix(')')) else { return false };
    let channel = |part: &str| {
        let digits = part.trim_matches(|c: char| matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{c}'));
        let canonical = digits == "0" || !digits.starts_with('0');
        canonical && digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u8>().is_ok()
    };
    inner.split(',').count() == 3 && inner.split(',').all(channel)
}

#[cfg(test)]
mod tests;
