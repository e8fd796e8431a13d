//! Types: field paths and field errors, in the words of `k8s.io/apimachinery/pkg/util/validation/field`.

use std::fmt;

/// A path such as `spec.containers[0].ports[1].name` or `data[key]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    #[must_use]
    pub fn new(root: &str) -> Self {
        Self(root.to_owned())
    }

    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self(name.to_owned()) } else { Self([self.0.as_str(), ".", name].concat()) }
    }

    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.key(&index.to_string())
    }

    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self([self.0.as_str(), "[", key, "]"].concat())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong with a field: the `reason` of a Status cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Required,
    Invalid,
    NotSupported,
    Duplicate,
    Forbidden,
    TooLong,
    TooMany,
    NotFound,
    TypeInvalid,
    Internal,
}

impl Reason {
    /// The machine-readable word in `details.causes[].reason`.
    #[must_use]
    pub fn cause(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::NotFound => "FieldValueNotFound",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Internal => "InternalError",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Duplicate => "Duplicate value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::NotFound => "Not found",
            Self::Internal => "Internal error",
        }
    }
}

/// One problem with one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    pub reason: Reason,
    pub path: Path,
    /// Everything after the path: `Invalid value: "x": must be …`.
    pub message: String,
}

/// How Go prints a bad value: strings quoted, the rest as JSON.
fn shown(value: &dyn BadValue) -> String {
    value.shown()
}

/// A value that an error message can show.
pub trait BadValue {
    fn shown(&self) -> String;
}

impl BadValue for str {
    fn shown(&self) -> String {
        format!("{self:?}")
    }
}
impl BadValue for &str {
    fn shown(&self) -> String {
        format!("{self:?}")
    }
}
impl BadValue for String {
    fn shown(&self) -> String {
        format!("{self:?}")
    }
}
impl BadValue for serde_json::Value {
    fn shown(&self) -> String {
        self.to_string()
    }
}
macro_rules! shown_plain { ($($t:ty),*) => { $(impl BadValue for $t { fn shown(&self) -> String { self.to_string() } })* } }
shown_plain!(bool, i32, i64, u16, u32, u64, usize, f64);

impl FieldError {
    #[must_use]
    pub fn required(path: &Path, detail: &str) -> Self {
        Self::plain(Reason::Required, path, detail)
    }

    #[must_use]
    pub fn forbidden(path: &Path, detail: &str) -> Self {
        Self::plain(Reason::Forbidden, path, detail)
    }

    #[must_use]
    pub fn invalid(path: &Path, value: &dyn BadValue, detail: &str) -> Self {
        Self::valued(Reason::Invalid, path, value, detail)
    }

    #[must_use]
    pub fn type_invalid(path: &Path, value: &dyn BadValue, detail: &str) -> Self {
        Self::valued(Reason::TypeInvalid, path, value, detail)
    }

    #[must_use]
    pub fn duplicate(path: &Path, value: &dyn BadValue) -> Self {
        Self::valued(Reason::Duplicate, path, value, "")
    }

    #[must_use]
    pub fn not_found(path: &Path, value: &dyn BadValue) -> Self {
        Self::valued(Reason::NotFound, path, value, "")
    }

    /// `limit` in bytes, as `field.TooLong` words it.
    #[must_use]
    pub fn too_long(path: &Path, limit: usize) -> Self {
        let message = format!("Too long: may not be more than {limit} bytes");
        Self { reason: Reason::TooLong, path: path.clone(), message }
    }

    #[must_use]
    pub fn too_many(path: &Path, actual: usize, limit: usize) -> Self {
        let message = format!("Too many: {actual}: must have at most {limit} items");
        Self { reason: Reason::TooMany, path: path.clone(), message }
    }

    #[must_use]
    pub fn not_supported(path: &Path, value: &dyn BadValue, supported: &[&str]) -> Self {
        let list: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        Self::valued(Reason::NotSupported, path, value, &format!("supported values: {}", list.join(", ")))
    }

    fn plain(reason: Reason, path: &Path, detail: &str) -> Self {
        let colon = if detail.is_empty() { "" } else { ": " };
        Self { reason, path: path.clone(), message: format!("{}{colon}{detail}", reason.text()) }
    }

    fn valued(reason: Reason, path: &Path, value: &dyn BadValue, detail: &str) -> Self {
        let colon = if detail.is_empty() { "" } else { ": " };
        let message = format!("{}: {}{colon}{detail}", reason.text(), shown(value));
        Self { reason, path: path.clone(), message }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}
