//! Decides: which logins of an image pull secret fit an image.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::agent::objects::Data;
use crate::cri::v1::AuthConfig;

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Login>,
}

#[derive(Deserialize)]
struct Login {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
    #[serde(default, rename = "identitytoken")]
    identity_token: String,
}

/// The most specific login first. A secret of another type or with broken content has none.
#[must_use]
pub fn matching(secret: &Data, image: &str) -> Vec<AuthConfig> {
    let auths = match secret.secret_type.as_str() {
        "kubernetes.io/dockerconfigjson" => {
            let bytes = secret.values.get(".dockerconfigjson");
            bytes.and_then(|bytes| serde_json::from_slice::<DockerConfig>(bytes).ok()).map(|config| config.auths)
        }
        "kubernetes.io/dockercfg" => {
            secret.values.get(".dockercfg").and_then(|bytes| serde_json::from_slice(bytes).ok())
        }
        _ => None,
    };
    closest(auths.unwrap_or_default(), image).into_iter().map(auth_config).collect()
}

/// What stands for places that an image is at, the most specific one first.
#[must_use]
pub fn closest<T>(by_place: BTreeMap<String, T>, image: &str) -> Vec<T> {
    let target = full_name(image);
    let mut found: Vec<(usize, T)> = Vec::new();
    for (server, value) in by_place {
        let place = place(&server);
        if fits(&place, &target) {
            found.push((place.len(), value));
        }
    }
    found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    found.into_iter().map(|(_, value)| value).collect()
}

/// Whether an image is at a place, such as `*.example.com/team`.
#[must_use]
pub fn fits_image(pattern: &str, image: &str) -> bool {
    fits(&place(pattern), &full_name(image))
}

fn auth_config(login: Login) -> AuthConfig {
    let decoded = STANDARD.decode(login.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
    let (username, password) = match pair {
        Some((username, password)) if login.username.is_empty() => (username.to_owned(), password.to_owned()),
        _ => (login.username, login.password),
    };
    AuthConfig { username, password, identity_token: login.identity_token, ..AuthConfig::default() }
}

/// `registry/path` of an image, Docker Hub's name filled in.
fn full_name(image: &str) -> String {
    let name = image.split('@').next().unwrap_or_default();
    match name.split_once('/') {
        Some((domain, _)) if domain.contains(['.', ':']) || domain == "localhost" => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
        None => format!("docker.io/library/{name}"),
    }
}

/// A server as docker configurations name it: perhaps with a scheme and an API version.
fn place(server: &str) -> String {
    let bare = server.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let bare = bare.trim_end_matches("/v1").trim_end_matches("/v2").trim_end_matches('/');
    match bare.strip_prefix("index.docker.io") {
        Some(rest) => format!("docker.io{rest}"),
        None => bare.to_owned(),
    }
}

fn fits(place: &str, target: &str) -> bool {
    let (host, path) = place.split_once('/').unwrap_or((place, ""));
    let (target_host, target_path) = target.split_once('/').unwrap_or((target, ""));
    let parts: Vec<&str> = host.split('.').collect();
    let target_parts: Vec<&str> = target_host.split('.').collect();
    let wild = |pattern: &str, part: &str| match pattern.split_once('*') {
        Some((before, after)) => part.starts_with(before) && part.ends_with(after),
        None => pattern == part,
    };
    parts.len() == target_parts.len()
        && parts.iter().zip(&target_parts).all(|(pattern, part)| wild(pattern, part))
        && target_path.starts_with(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_login_comes_first() {
        let config = serde_json::json!({"auths": {
            "https://index.docker.io/v1/": {"auth": STANDARD.encode("hub:h")},
            "r.example.com:5000": {"username": "all", "password": "a"},
            "r.example.com:5000/team": {"username": "team", "password": "t"},
            "*.other.org": {"username": "wild", "password": "w"},
        }});
        let values = [(".dockerconfigjson".to_owned(), config.to_string().into_bytes())].into();
        let secret = Data { values, secret_type: "kubernetes.io/dockerconfigjson".into(), ..Data::default() };
        let names = |image: &str| -> Vec<String> {
            matching(&secret, image).into_iter().map(|auth| format!("{}:{}", auth.username, auth.password)).collect()
        };
        assert_eq!(names("busybox"), ["hub:h"]);
        assert_eq!(names("r.example.com:5000/team/app:1"), ["team:t", "all:a"]);
        assert_eq!(names("r.example.com:5000/x"), ["all:a"]);
        assert_eq!(names("a.other.org/x"), ["wild:w"]);
        assert!(names("quay.io/x").is_empty());
    }
}
