//! Types: what we say we are.

/// The Kubernetes release whose API and behaviour this is.
pub const KUBERNETES: &str = "v1.36.2";
/// Counts our releases of one Kubernetes release.
pub const SKIFF: &str = "skiff1";

/// What was built, as `packaging/build.sh` says it. Other builds do not know.
pub const COMMIT: &str = or(option_env!("SKIFF_COMMIT"), "");
/// `clean`, or `dirty` when something was built that is in no commit.
pub const TREE_STATE: &str = or(option_env!("SKIFF_TREE_STATE"), "clean");
/// When the commit was made, so that what is built from it is always the same.
pub const DATE: &str = or(option_env!("SKIFF_COMMIT_DATE"), "1970-01-01T00:00:00Z");

const fn or(given: Option<&'static str>, otherwise: &'static str) -> &'static str {
    match given {
        Some(given) => given,
        None => otherwise,
    }
}

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
