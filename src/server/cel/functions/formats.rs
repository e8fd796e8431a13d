//! Decides: named formats of strings (`library.Format`): `format.dns1123Label().validate('…')`.

use std::sync::Arc;

use crate::api::label;
use crate::server::registry::format as rules;

use super::super::time;
use super::super::value::{Error, Value};
use super::cost::Cost;
use super::opaque::Opaque;
use super::{Row, no_overload, url};

/// One of the formats that have a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Dns1123Label,
    Dns1123Subdomain,
    Dns1035Label,
    QualifiedName,
    Dns1123LabelPrefix,
    Dns1123SubdomainPrefix,
    Dns1035LabelPrefix,
    LabelValue,
    Uri,
    Uuid,
    Byte,
    Date,
    Datetime,
}

pub(super) const ROWS: &[Row] = &[
    ("validate", "format.(string) -> optional(list(string))", Cost::Validate, |v| match (&v[0], &v[1]) {
        (Value::Opaque(opaque), Value::String(text)) => match &**opaque {
            Opaque::Format(format) => {
                let problems = format.problems(text);
                Ok(if problems.is_empty() {
                    Value::Optional(None)
                } else {
                    Value::some(Value::list(problems.iter().map(|problem| Value::text(problem)).collect()))
                })
            }
            _ => no_overload("validate", v),
        },
        _ => no_overload("validate", v),
    }),
    ("format.named", "(string) -> optional(format)", Cost::One, |v| match &v[0] {
        Value::String(name) => {
            let found = NAMED.iter().find(|(full, ..)| full.strip_prefix("format.") == Some(&**name));
            match found {
                Some((_, _, _, call)) => Ok(Value::some(call(&mut [])?)),
                None => Ok(Value::Optional(None)),
            }
        }
        _ => no_overload("format.named", v),
    }),
];

pub(super) const NAMED: &[Row] = &[
    ("format.dns1123Label", "() -> format", Cost::One, |_| named(Format::Dns1123Label)),
    ("format.dns1123Subdomain", "() -> format", Cost::One, |_| named(Format::Dns1123Subdomain)),
    ("format.dns1035Label", "() -> format", Cost::One, |_| named(Format::Dns1035Label)),
    ("format.qualifiedName", "() -> format", Cost::One, |_| named(Format::QualifiedName)),
    ("format.dns1123LabelPrefix", "() -> format", Cost::One, |_| named(Format::Dns1123LabelPrefix)),
    ("format.dns1123SubdomainPrefix", "() -> format", Cost::One, |_| named(Format::Dns1123SubdomainPrefix)),
    ("format.dns1035LabelPrefix", "() -> format", Cost::One, |_| named(Format::Dns1035LabelPrefix)),
    ("format.labelValue", "() -> format", Cost::One, |_| named(Format::LabelValue)),
    ("format.uri", "() -> format", Cost::One, |_| named(Format::Uri)),
    ("format.uuid", "() -> format", Cost::One, |_| named(Format::Uuid)),
    ("format.byte", "() -> format", Cost::One, |_| named(Format::Byte)),
    ("format.date", "() -> format", Cost::One, |_| named(Format::Date)),
    ("format.datetime", "() -> format", Cost::One, |_| named(Format::Datetime)),
];

fn named<'a>(format: Format) -> Result<Value<'a>, Error> {
    Ok(Value::Opaque(Arc::new(Opaque::Format(format))))
}

impl Format {
    /// What is wrong with a text, in upstream's words; nothing when it is fine.
    fn problems(self, text: &str) -> Vec<String> {
        let unless = |fine: bool, problem: &str| if fine { Vec::new() } else { vec![problem.to_owned()] };
        // A prefix may end in what a name may not: it is checked with a letter behind it.
        let prefix = || match text.strip_suffix('-') {
            Some(rest) if !rest.is_empty() => format!("{rest}a"),
            _ => text.to_owned(),
        };
        match self {
            Self::Dns1123Label => rules::dns_label(text),
            Self::Dns1123LabelPrefix => rules::dns_label(&prefix()),
            Self::Dns1123Subdomain => label::dns_subdomain(text),
            Self::Dns1123SubdomainPrefix => label::dns_subdomain(&prefix()),
            Self::Dns1035Label => rules::dns_1035_label(text),
            Self::Dns1035LabelPrefix => rules::dns_1035_label(&prefix()),
            Self::QualifiedName => label::qualified_name(text),
            Self::LabelValue => label::value(text),
            Self::Uri => url::Url::parse(text).err().into_iter().collect(),
            Self::Uuid => unless(is_uuid(text), "does not match the UUID format"),
            Self::Byte => {
                use base64::Engine as _;
                let bytes = base64::engine::general_purpose::STANDARD.decode(text);
                unless(!text.is_empty() && bytes.is_ok(), "invalid base64")
            }
            Self::Date => unless(text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(), "invalid date"),
            Self::Datetime => unless(text.len() > 10 && time::of_format(text).is_ok(), "invalid datetime"),
        }
    }
}

/// Hexadecimal digits in groups, whose dashes may be missing.
fn is_uuid(text: &str) -> bool {
    let mut rest = text;
    for (index, digits) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if index > 0 {
            rest = rest.strip_prefix('-').unwrap_or(rest);
        }
        match rest.get(..digits) {
            Some(group) if group.bytes().all(|b| b.is_ascii_hexdigit()) => rest = &rest[digits..],
            _ => return false,
        }
    }
    rest.is_empty()
}
