//! Decides: warnings about pods that work but are likely not meant (`pkg/api/pod/warnings.go`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};

use crate::api::field::Path;
use crate::server::registry::core::node_labels;
use crate::server::registry::quantity;

const ANNOTATIONS: &[(&str, &str)] = &[
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
];

/// About the template of a workload.
#[must_use]
pub fn of_template(path: &Path, template: &PodTemplateSpec) -> Vec<String> {
    let annotations = template.metadata.as_ref().and_then(|m| m.annotations.as_ref());
    template.spec.as_ref().map(|pod| of(path, pod, annotations)).unwrap_or_default()
}

/// `path` is that of what holds `metadata` and `spec`.
#[must_use]
pub fn of(path: &Path, spec: &PodSpec, annotations: Option<&BTreeMap<String, String>>) -> Vec<String> {
    let mut warnings = Vec::new();
    let root = path.child("spec");
    for key in spec.node_selector.iter().flatten().map(|(k, _)| k) {
        if let Some(message) = node_labels::deprecation(key) {
            warnings.push(format!("{}: {message}", root.child("nodeSelector").key(key)));
        }
    }
    let annotations_path = path.child("metadata").child("annotations");
    for (key, message) in ANNOTATIONS {
        if annotations.is_some_and(|a| a.contains_key(*key)) {
            warnings.push(format!("{}: {message}", annotations_path.key(key)));
        }
    }
    let aliases = spec.host_aliases.as_deref().unwrap_or_default();
    for (i, alias) in aliases.iter().enumerate() {
        if let Some(first) = aliases[..i].iter().position(|a| a.ip == alias.ip) {
            let list = root.child("hostAliases");
            warnings.push(format!(
                "{}: duplicates {} (IP {:?}){}",
                list.index(i).child("ip"),
                list.index(first).child("ip"),
                alias.ip,
                ""
            ));
        }
    }
    let secrets = spec.image_pull_secrets.as_deref().unwrap_or_default();
    for (i, secret) in secrets.iter().enumerate() {
        let at = root.child("imagePullSecrets").index(i).child("name");
        if secret.name.is_empty() {
            warnings.push(format!("{}: invalid empty name {:?}", root.child("imagePullSecrets").index(i), secret.name));
        } else if secrets[..i].contains(secret) {
            warnings.push(format!("{at}: duplicate name {:?}", secret.name));
        }
    }
    volumes(&mut warnings, &root, spec);
    let lists = [("initContainers", spec.init_containers.as_deref()), ("containers", Some(spec.containers.as_slice()))];
    for (field, list) in lists {
        for (i, one) in list.unwrap_or_default().iter().enumerate() {
            container(&mut warnings, &root.child(field).index(i), one);
        }
    }
    if spec.termination_grace_period_seconds.is_some_and(|s| s < 0) {
        let at = root.child("terminationGracePeriodSeconds");
        warnings.push(format!("{at}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    warnings
}

fn volumes(warnings: &mut Vec<String>, root: &Path, spec: &PodSpec) {
    for (i, volume) in spec.volumes.iter().flatten().enumerate() {
        let at = root.child("volumes").index(i);
        let mut warn = |field: &str, message: &str| warnings.push(format!("{}: {message}", at.child(field)));
        if volume.photon_persistent_disk.is_some() {
            warn("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+");
        }
        if volume.git_repo.is_some() {
            warn("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+");
        }
        if volume.scale_io.is_some() {
            warn("scaleIO", "deprecated in v1.16, non-functional in v1.22+");
        }
        if volume.flocker.is_some() {
            warn("flocker", "deprecated in v1.22, non-functional in v1.25+");
        }
        if volume.storageos.is_some() {
            warn("storageOS", "deprecated in v1.22, non-functional in v1.25+");
        }
        if volume.quobyte.is_some() {
            warn("quobyte", "deprecated in v1.22, non-functional in v1.25+");
        }
        if volume.glusterfs.is_some() {
            warn("glusterfs", "deprecated in v1.25, non-functional in v1.26+");
        }
        if volume.cephfs.is_some() {
            warn("cephfs", "deprecated in v1.28, non-functional in v1.31+");
        }
        if volume.rbd.is_some() {
            warn("rbd", "deprecated in v1.28, non-functional in v1.31+");
        }
    }
}

fn container(warnings: &mut Vec<String>, path: &Path, container: &Container) {
    let resources = container.resources.clone().unwrap_or_default();
    for (field, list) in [("limits", &resources.limits), ("requests", &resources.requests)] {
        if let Some(memory) = list.as_ref().and_then(|l| l.get("memory")).and_then(|m| quantity::parse(m).ok())
            && memory.milli() % 1000 != 0
        {
            let at = path.child("resources").child(field).key("memory");
            warnings
                .push(format!("{at}: fractional byte value {:?} is invalid, must be an integer", memory.to_string()));
        }
    }
    let variables = container.env.as_deref().unwrap_or_default();
    for (i, variable) in variables.iter().enumerate() {
        // Defining a variable again may refer to what it was: `PATH=$(PATH):/x`.
        let refers = variable.value.as_deref().unwrap_or_default().contains(&format!("$({})", variable.name));
        let before = variables[..i].iter().rposition(|v| v.name == variable.name);
        if let Some(before) = before.filter(|_| !refers) {
            let env = path.child("env");
            warnings.push(format!(
                "{}: hides previous definition of {:?}, which may be dropped when using apply",
                env.index(i),
                variable.name
            ));
            let _ = before;
        }
    }
    let ports = container.ports.as_deref().unwrap_or_default();
    for (i, port) in ports.iter().enumerate() {
        let same = |p: &&k8s_openapi::api::core::v1::ContainerPort| {
            p.container_port == port.container_port
                && p.protocol == port.protocol
                && p.host_ip == port.host_ip
                && p.host_port == port.host_port
        };
        if let Some(first) = ports[..i].iter().position(|p| same(&p)) {
            let list = path.child("ports");
            warnings.push(format!("{}: duplicate port definition with {}", list.index(i), list.index(first)));
        }
    }
}
