//! Decides: what an image's name consists of (`github.com/distribution/reference`).

/// A name as a pod has it: `registry.example.com:5000/team/app:1@sha256:…`, all but the path left out at will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// `docker.io` where none is named.
    pub registry: String,
    /// `library/busybox`
    pub repository: String,
    pub tag: Option<String>,
    pub digest: Option<String>,
}

/// Longest name, without tag and digest, in bytes.
const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;
/// Digits of a digest, at least.
const DIGITS_MIN: usize = 32;

impl Reference {
    /// # Errors
    /// What is wrong, in upstream's words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let invalid = || "invalid reference format".to_owned();
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        // A colon before the last slash belongs to a port.
        let last = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match rest[last..].split_once(':') {
            Some((name, tag)) => (&rest[..last + name.len()], Some(tag)),
            None => (rest, None),
        };
        let is_registry = |first: &str| {
            first.contains(['.', ':']) || first == "localhost" || first.chars().any(|c| c.is_ascii_uppercase())
        };
        let (registry, path) = match name.split_once('/') {
            Some((first, path)) if is_registry(first) => (first, path),
            _ => ("docker.io", name),
        };
        if path.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(format!("invalid reference format: repository name ({path}) must be lowercase"));
        }
        let good = is_host(registry)
            && !path.is_empty()
            && path.split('/').all(is_component)
            && tag.is_none_or(is_tag)
            && digest.is_none_or(is_digest)
            && name.len() <= NAME_MAX;
        if !good {
            return Err(invalid());
        }
        let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
        let library = registry == "docker.io" && !path.contains('/');
        Ok(Self {
            registry: registry.to_owned(),
            repository: if library { format!("library/{path}") } else { path.to_owned() },
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }

    /// The name without tag and digest: who may read one may read all.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// What comes after the name. With a digest the tag says nothing.
    #[must_use]
    pub fn rest(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => format!("@{digest}"),
            (None, tag) => format!(":{}", tag.as_deref().unwrap_or("latest")),
        }
    }
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let port = port.is_none_or(|port| !port.is_empty() && port.chars().all(|c| c.is_ascii_digit()));
    let label = |label: &str| {
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '-';
        !label.is_empty() && label.chars().all(legal) && !label.starts_with('-') && !label.ends_with('-')
    };
    let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let name = match address {
        Some(address) => !address.is_empty() && address.chars().all(|c| c.is_ascii_hexdigit() || c == ':'),
        None => name.split('.').all(label),
    };
    name && port
}

/// Letters and digits in lower case; between them one dot, up to two underscores, or any number of dashes.
fn is_component(component: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let between: Vec<&str> = component.split(alphanumeric).filter(|part| !part.is_empty()).collect();
    let separator = |part: &&str| matches!(*part, "." | "_" | "__") || part.chars().all(|c| c == '-');
    component.starts_with(alphanumeric) && component.ends_with(alphanumeric) && between.iter().all(separator)
}

fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= TAG_MAX && tag.starts_with(word) && tag.chars().all(|c| word(c) || c == '.' || c == '-')
}

fn is_digest(digest: &str) -> bool {
    let Some((algorithm, hex)) = digest.split_once(':') else { return false };
    let length = match algorithm {
        "sha256" => hex.len() == 64,
        "sha384" => hex.len() == 96,
        "sha512" => hex.len() == 128,
        _ => hex.len() >= DIGITS_MIN,
    };
    let algorithm = algorithm.starts_with(|c: char| c.is_ascii_alphabetic())
        && algorithm.chars().all(|c| c.is_ascii_alphanumeric() || "+.-_".contains(c));
    algorithm && length && hex.chars().all(|c| c.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Result<(&str, &str), &str>) {
        let found = Reference::parse(text).map(|r| (r.name(), r.rest()));
        let found = found.as_ref().map(|(name, rest)| (name.as_str(), rest.as_str())).map_err(String::as_str);
        assert_eq!(found, expect, "{text}");
    }

    #[test]
    fn names_are_taken_apart() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let at = format!("@{digest}");
        check("busybox", Ok(("docker.io/library/busybox", ":latest")));
        check("docker.io/library/busybox:1.36", Ok(("docker.io/library/busybox", ":1.36")));
        check("team/app", Ok(("docker.io/team/app", ":latest")));
        check("localhost/app:1", Ok(("localhost/app", ":1")));
        check("r:5000/a/b__c/d--e.f:v_1", Ok(("r:5000/a/b__c/d--e.f", ":v_1")));
        check("[::1]:5000/a", Ok(("[::1]:5000/a", ":latest")));
        check(&format!("r.io/a:1@{digest}"), Ok(("r.io/a", &at)));
        check(&format!("index.docker.io/a@{digest}"), Ok(("docker.io/library/a", &at)));
    }

    #[test]
    fn what_is_no_name() {
        for bad in [
            "",
            "a b",
            "x/",
            "/x",
            "a$b",
            "a:",
            "a:-x",
            "a@sha256:ab",
            "a@",
            "a..b",
            "-a",
            "a-",
            "r.io//a",
            "a___b",
            "r.io:/a",
        ] {
            check(bad, Err("invalid reference format"));
        }
        check(&"a".repeat(256), Err("invalid reference format"));
        check("Busybox", Err("invalid reference format: repository name (Busybox) must be lowercase"));
        check("r.io/Team/x", Err("invalid reference format: repository name (Team/x) must be lowercase"));
    }
}
