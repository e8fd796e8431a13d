//! Types: what we say we are.

/// The Kubernetes release whose API and behaviour this is.
pub const KUBERNETES: &str = "v1.36.2";
/// Counts our releases of one Kubernetes release.
pub const SKIFF: &str = "skiff1";

/// `v1.36.2+skiff1`: `/version`, the kubelet version of a Node, `--version`.
#[must_use]
pub fn git_version() -> String {
    format!("{KUBERNETES}+{SKIFF}")
}

/// `skiff/v1.36.2+skiff1`: whom our own requests say they are from. What is before the slash is the field manager of
/// their writes.
#[must_use]
pub fn user_agent() -> String {
    format!("skiff/{}", git_version())
}
