//! Decides: what the labels of a namespace say (`PolicyToEvaluate` of `k8s.io/pod-security-admission`).

use std::fmt;

use crate::api::field::{FieldError, Path};

/// The newest version in which a check of ours, that is of v1.36, changed.
const LATEST: u32 = 35;

/// From loose to strict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// The standards as they were in a version of Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Latest,
    /// `v1.N`
    Minor(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standard {
    pub level: Level,
    pub version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub enforce: Standard,
    pub warn: Standard,
}

/// Always a policy: of labels that make no sense the strictest where pods are refused, and none where it is only said.
pub fn read<'a>(label: impl Fn(&str) -> Option<&'a str>) -> (Policy, Vec<FieldError>) {
    let mut errors = Vec::new();
    let mut standard = |mode: &str, fallback: Level| {
        let key = |rest: &str| format!("pod-security.kubernetes.io/{mode}{rest}");
        let mut wrong = |key: &str, value: &str, why: &str| {
            errors.push(FieldError::invalid(&Path::new("metadata").child("labels").key(key), &value, why));
        };
        let mut found = Standard { level: Level::Privileged, version: Version::Latest };
        if let Some(text) = label(&key("")) {
            found.level = match text {
                "privileged" => Level::Privileged,
                "baseline" => Level::Baseline,
                "restricted" => Level::Restricted,
                other => {
                    wrong(&key(""), other, "must be one of privileged, baseline, restricted");
                    fallback
                }
            };
        }
        if let Some(text) = label(&key("-version")) {
            found.version = version(text).unwrap_or_else(|| {
                wrong(&key("-version"), text, "must be \"latest\" or \"v1.x\"");
                Version::Latest
            });
        }
        found
    };
    let enforce = standard("enforce", Level::Restricted);
    standard("audit", Level::Privileged);
    let warn = standard("warn", Level::Privileged);
    (Policy { enforce, warn }, errors)
}

fn version(text: &str) -> Option<Version> {
    if text == "latest" {
        return Some(Version::Latest);
    }
    let minor = text.strip_prefix("v1.")?;
    let is_number = minor == "0" || (minor.bytes().all(|b| b.is_ascii_digit()) && !minor.starts_with('0'));
    if is_number { minor.parse().ok().map(Version::Minor) } else { None }
}

impl Version {
    /// The minor version whose checks apply.
    pub fn number(self) -> u32 {
        match self {
            Self::Latest => LATEST,
            Self::Minor(minor) => minor.min(LATEST),
        }
    }
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        })?;
        match self.version {
            Version::Latest => f.write_str(":latest"),
            Version::Minor(minor) => write!(f, ":v1.{minor}"),
        }
    }
}
