//! Decides: Secret. `stringData` is only for writing; each known type has keys it cannot do without.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;

use super::config_map::{MAX_SIZE, frozen};
use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::format;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{Errors, immutable, invalid};
use crate::server::registry::strategy::{Kind, Part};

const ACCOUNT_ANNOTATION: &str = "kubernetes.io/service-account.name";

pub struct SecretKind;

impl Kind for SecretKind {
    type Object = Secret;

    fn resource(&self) -> &'static Resource {
        row("v1", "Secret")
    }

    fn defaults(&self, secret: &mut Secret) {
        for (key, value) in secret.string_data.take().unwrap_or_default() {
            secret.data.get_or_insert_default().insert(key, ByteString(value.into_bytes()));
        }
        if secret.type_.as_deref().unwrap_or_default().is_empty() {
            secret.type_ = Some("Opaque".into());
        }
    }

    fn validate(&self, secret: &Secret) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = Path::new("data");
        let mut size = 0;
        for (key, value) in secret.data.iter().flatten() {
            invalid(&mut errors, &path.key(key), key, format::config_key(key));
            size += value.0.len();
        }
        if size > MAX_SIZE {
            errors.push(FieldError::too_long(&path, MAX_SIZE));
        }
        by_type(&mut errors, &path, secret);
        errors
    }

    fn validate_update(&self, _: Part, new: &Secret, old: &Secret) -> Vec<FieldError> {
        let mut errors = Vec::new();
        immutable(&mut errors, &Path::new("type"), &new.type_, &old.type_);
        if old.immutable == Some(true) {
            frozen(&mut errors, "immutable", new.immutable != Some(true));
            frozen(&mut errors, "data", new.data != old.data);
        }
        errors.extend(self.validate(new));
        errors
    }
}

fn by_type(errors: &mut Errors, path: &Path, secret: &Secret) {
    let get = |key: &str| secret.data.as_ref().and_then(|d| d.get(key)).map(|v| v.0.as_slice());
    let mut required = |key: &str| errors.push(FieldError::required(&path.key(key), ""));
    match secret.type_.as_deref().unwrap_or_default() {
        "kubernetes.io/service-account-token" => {
            let annotations = secret.metadata.annotations.as_ref();
            if annotations.and_then(|a| a.get(ACCOUNT_ANNOTATION)).is_none_or(String::is_empty) {
                let path = Path::new("metadata").child("annotations").key(ACCOUNT_ANNOTATION);
                errors.push(FieldError::required(&path, ""));
            }
        }
        "kubernetes.io/dockercfg" => json_key(errors, path, ".dockercfg", get(".dockercfg")),
        "kubernetes.io/dockerconfigjson" => json_key(errors, path, ".dockerconfigjson", get(".dockerconfigjson")),
        "kubernetes.io/basic-auth" if get("username").is_none() && get("password").is_none() => {
            required("username");
            required("password");
        }
        "kubernetes.io/ssh-auth" if get("ssh-privatekey").is_none_or(<[u8]>::is_empty) => required("ssh-privatekey"),
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"] {
                if get(key).is_none() {
                    required(key);
                }
            }
        }
        _ => {}
    }
}

fn json_key(errors: &mut Errors, path: &Path, key: &str, value: Option<&[u8]>) {
    let path = path.key(key);
    match value.map(serde_json::from_slice::<Value>) {
        None => errors.push(FieldError::required(&path, "")),
        Some(Ok(_)) => {}
        Some(Err(error)) => {
            errors.push(FieldError::invalid(&path, &"<secret contents redacted>", &error.to_string()));
        }
    }
}
