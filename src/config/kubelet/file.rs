//! Decides: a kubelet's file of settings (`KubeletConfiguration`, `kubelet.config.k8s.io/v1beta1`), which
//! `--kubelet-arg=config=<file>` names, and the files of a folder (`config-dir`), as arguments. What is in the folder
//! overrides the file, in the order of names, and arguments override both, as in the kubelet.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
const KIND: &str = "KubeletConfiguration";
/// More than this is no file of settings.
const MAX_BYTES: u64 = 1 << 20;

/// One setting, and how a problem with it is told.
pub(super) struct Argument {
    pub name: String,
    pub value: String,
    pub told_as: String,
}

/// How a field is written as an argument.
#[derive(Clone, Copy)]
enum Shape {
    /// Text, number, truth, or a list of them with commas.
    Plain,
    /// Names and values, joined by this.
    Map(char),
    Taints,
    Priorities,
}

use Shape::{Map as Named, Plain, Priorities, Taints};

/// Field, argument, shape. What the kubelet has and is not here is no setting of ours.
const FIELDS: &[(&str, &str, Shape)] = &[
    ("allowedUnsafeSysctls", "allowed-unsafe-sysctls", Plain),
    ("containerLogMaxFiles", "container-log-max-files", Plain),
    ("containerLogMaxSize", "container-log-max-size", Plain),
    ("containerRuntimeEndpoint", "container-runtime-endpoint", Plain),
    ("cpuManagerPolicy", "cpu-manager-policy", Plain),
    ("cpuManagerPolicyOptions", "cpu-manager-policy-options", Named('=')),
    ("cpuManagerReconcilePeriod", "cpu-manager-reconcile-period", Plain),
    ("enforceNodeAllocatable", "enforce-node-allocatable", Plain),
    ("evictionHard", "eviction-hard", Named('<')),
    ("evictionMaxPodGracePeriod", "eviction-max-pod-grace-period", Plain),
    ("evictionMinimumReclaim", "eviction-minimum-reclaim", Named('=')),
    ("evictionPressureTransitionPeriod", "eviction-pressure-transition-period", Plain),
    ("evictionSoft", "eviction-soft", Named('<')),
    ("evictionSoftGracePeriod", "eviction-soft-grace-period", Named('=')),
    ("failSwapOn", "fail-swap-on", Plain),
    ("imageGCHighThresholdPercent", "image-gc-high-threshold", Plain),
    ("imageGCLowThresholdPercent", "image-gc-low-threshold", Plain),
    ("imageMaximumGCAge", "image-maximum-gc-age", Plain),
    ("imageMinimumGCAge", "minimum-image-ttl-duration", Plain),
    ("kubeReserved", "kube-reserved", Named('=')),
    ("kubeReservedCgroup", "kube-reserved-cgroup", Plain),
    ("maxParallelImagePulls", "max-parallel-image-pulls", Plain),
    ("maxPods", "max-pods", Plain),
    ("memorySwap.swapBehavior", "memory-swap-behavior", Plain),
    ("nodeLeaseDurationSeconds", "node-lease-duration-seconds", Plain),
    ("nodeStatusMaxImages", "node-status-max-images", Plain),
    ("nodeStatusReportFrequency", "node-status-report-frequency", Plain),
    ("podPidsLimit", "pod-max-pids", Plain),
    ("podsPerCore", "pods-per-core", Plain),
    ("port", "port", Plain),
    ("registerWithTaints", "register-with-taints", Taints),
    ("reservedSystemCPUs", "reserved-cpus", Plain),
    ("resolvConf", "resolv-conf", Plain),
    ("serializeImagePulls", "serialize-image-pulls", Plain),
    ("shutdownGracePeriod", "shutdown-grace-period", Plain),
    ("shutdownGracePeriodByPodPriority", "shutdown-grace-period-by-pod-priority", Priorities),
    ("shutdownGracePeriodCriticalPods", "shutdown-grace-period-critical-pods", Plain),
    ("staticPodPath", "pod-manifest-path", Plain),
    ("systemReserved", "system-reserved", Named('=')),
    ("systemReservedCgroup", "system-reserved-cgroup", Plain),
    ("topologyManagerPolicy", "topology-manager-policy", Plain),
    ("topologyManagerPolicyOptions", "topology-manager-policy-options", Named('=')),
    ("topologyManagerScope", "topology-manager-scope", Plain),
    ("userNamespaces.idsPerPod", "user-namespaces-ids-per-pod", Plain),
];
/// Fields that have fields of their own.
const NESTED: [&str; 2] = ["memorySwap", "userNamespaces"];

/// The arguments with those of the files before them; what is wrong with a file is added to `problems`.
pub(super) fn expand(given: &[String], problems: &mut Vec<String>) -> Vec<Argument> {
    let split = |argument: &String| {
        let argument = argument.trim_start_matches("--").to_owned();
        let (name, value) = argument.split_once('=').unwrap_or((&argument, "true"));
        let (name, value) = (name.to_owned(), value.to_owned());
        Argument { name, value, told_as: format!("--kubelet-arg={argument}") }
    };
    let is_file = |argument: &Argument| ["config", "config-dir"].contains(&argument.name.as_str());
    let (mut files, others): (Vec<Argument>, Vec<Argument>) = given.iter().map(split).partition(is_file);
    // The folder overrides the file, whichever was named first.
    files.sort_by_key(|argument| argument.name == "config-dir");
    let mut all = Vec::new();
    for argument in files {
        let read = match argument.name.as_str() {
            "config" => document(Path::new(&argument.value)).map(|document| vec![(argument.told_as.clone(), document)]),
            _ => folder(&argument),
        };
        match read {
            Ok(documents) => {
                for (told_as, document) in documents {
                    fields(&told_as, &document, &mut all, problems);
                }
            }
            Err(why) => problems.push(format!("{}: {why}", argument.told_as)),
        }
    }
    all.extend(others);
    all
}

/// Drop-ins end with `.conf`; other files are none.
fn folder(argument: &Argument) -> Result<Vec<(String, Value)>, String> {
    let entries = std::fs::read_dir(&argument.value).map_err(|error| error.to_string())?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
    paths.sort();
    let read = |path: PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let document = document(&path).map_err(|why| format!("{name}: {why}"))?;
        Ok((format!("{}: {name}", argument.told_as), document))
    };
    paths.into_iter().map(read).collect()
}

/// A list is not merged with the one of an earlier file but replaces it, as do its arguments.
fn document(path: &Path) -> Result<Value, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > MAX_BYTES {
        return Err(format!("{size} bytes are too many for settings"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    serde_saphyr::from_str(&text).map_err(|error| format!("not YAML: {error}"))
}

fn fields(told_as: &str, document: &Value, all: &mut Vec<Argument>, problems: &mut Vec<String>) {
    let Some(fields) = document.as_object() else {
        return problems.push(format!("{told_as}: not a {KIND}"));
    };
    for (name, expect) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        let found = fields.get(name).and_then(Value::as_str).unwrap_or_default();
        if found != expect {
            problems.push(format!("{told_as}: {name} is {found:?}, and not {expect:?}"));
        }
    }
    for (path, value) in flat(fields) {
        if ["apiVersion", "kind"].contains(&path.as_str()) || value.is_null() {
            continue;
        }
        let told_as = format!("{told_as}: {path}");
        let Some((_, name, shape)) = FIELDS.iter().find(|(field, ..)| *field == path) else {
            problems.push(format!("{told_as}: not a setting of this kubelet"));
            continue;
        };
        match written(value, *shape) {
            Some(value) => all.push(Argument { name: (*name).to_owned(), value, told_as }),
            None => problems.push(format!("{told_as}: {value} is not what this setting takes")),
        }
    }
}

/// Fields by their paths, as [`FIELDS`] has them.
fn flat(fields: &Map<String, Value>) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    for (name, value) in fields {
        match value.as_object().filter(|_| NESTED.contains(&name.as_str())) {
            Some(inner) => found.extend(inner.iter().map(|(field, value)| (format!("{name}.{field}"), value))),
            None => found.push((name.clone(), value)),
        }
    }
    found
}

fn written(value: &Value, shape: Shape) -> Option<String> {
    let list = |each: fn(&Value) -> Option<String>| {
        let parts: Option<Vec<String>> = value.as_array()?.iter().map(each).collect();
        Some(parts?.join(","))
    };
    match shape {
        Plain if value.is_array() => list(plain),
        Plain => plain(value),
        Named(joint) => {
            let parts = value.as_object()?.iter().map(|(name, value)| Some(format!("{name}{joint}{}", plain(value)?)));
            Some(parts.collect::<Option<Vec<String>>>()?.join(","))
        }
        Taints => list(|taint| {
            let text = |name: &str| taint.get(name).and_then(Value::as_str);
            let value = text("value").map(|value| format!("={value}")).unwrap_or_default();
            Some(format!("{}{value}:{}", text("key")?, text("effect")?))
        }),
        Priorities => list(|row| {
            let (priority, seconds) =
                (row.get("priority")?.as_i64()?, row.get("shutdownGracePeriodSeconds")?.as_u64()?);
            Some(format!("{priority}={seconds}s"))
        }),
    }
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::parsed;

    const START: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

    #[test]
    fn a_file_a_folder_and_arguments() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let write = |name: &str, text: &str| std::fs::write(path(name), format!("{START}{text}")).unwrap();
        write(
            "kubelet.yaml",
            "maxPods: 50\npodPidsLimit: 200\nevictionHard: {memory.available: 200Mi, nodefs.available: 7%}\n\
             systemReserved: {cpu: 100m, memory: 64Mi}\nserializeImagePulls: false\nmaxParallelImagePulls: 7\n\
             memorySwap: {swapBehavior: LimitedSwap}\nuserNamespaces: {idsPerPod: 131072}\nfailSwapOn: false\n\
             allowedUnsafeSysctls: [net.core.somaxconn, \"kernel.msg*\"]\nimageMaximumGCAge: 1h\n\
             shutdownGracePeriodByPodPriority: [{priority: 1000, shutdownGracePeriodSeconds: 10}, \
             {priority: 0, shutdownGracePeriodSeconds: 20}]\n\
             registerWithTaints: [{key: a, value: b, effect: NoSchedule}, {key: c, effect: NoExecute}]\n",
        );
        std::fs::create_dir(path("conf.d")).unwrap();
        write("conf.d/10-a.conf", "podPidsLimit: 300\nmaxPods: 60\n");
        write("conf.d/20-b.conf", "podPidsLimit: 400\n");
        std::fs::write(path("conf.d/README"), "no settings").unwrap();
        let file = format!("config={}", path("kubelet.yaml").display());
        let drop_ins = format!("config-dir={}", path("conf.d").display());
        let (kubelet, values, problems) = parsed(&["image-gc-high-threshold=90", &drop_ins, &file, "maxPods=1"]);
        assert_eq!(problems, ["--kubelet-arg=maxPods=1: not a setting of this kubelet"]);
        assert_eq!(values["max-pods"], ["60"]);
        assert_eq!(values["node-taint"], ["a=b:NoSchedule,c:NoExecute"]);
        assert_eq!(kubelet.host.pod_pids, Some(400));
        assert_eq!((kubelet.host.limited_swap, kubelet.host.ids_per_pod), (true, 131_072));
        assert_eq!(kubelet.host.unsafe_sysctls, ["net.core.somaxconn", "kernel.msg*"]);
        let priorities = [(0, Duration::from_secs(20)), (1000, Duration::from_secs(10))];
        assert_eq!(kubelet.host.shutdown, priorities);
        assert_eq!(kubelet.longest_shutdown(), std::time::Duration::from_secs(30));
        assert_eq!((kubelet.parallel_pulls, kubelet.image_gc.high_percent), (Some(7), 90));
        assert_eq!(kubelet.image_gc.max_age, Duration::from_secs(3600));
        assert_eq!(kubelet.system_reserved["memory"].value(), 64 << 20);
        assert_eq!(parsed(&[&file, "pod-max-pids=5"]).0.host.pod_pids, Some(5));
    }

    #[test]
    fn all_that_is_wrong_with_a_file_is_told_at_once() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let argument = format!("config={}", file.path().display());
        let check = |text: &str| {
            std::fs::write(file.path(), text).unwrap();
            let told = format!("--kubelet-arg={argument}: ");
            let problems = parsed(&[&argument]).2;
            problems.iter().map(|text| text.strip_prefix(&told).unwrap_or(text).to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(
            check("apiVersion: v1\nkind: KubeletConfiguration\nnonsense: 1\nmaxPods: {}\npodPidsLimit: -7\n"),
            [
                "apiVersion is \"v1\", and not \"kubelet.config.k8s.io/v1beta1\"",
                "maxPods: {} is not what this setting takes",
                "nonsense: not a setting of this kubelet",
                "podPidsLimit: must be at least -1",
            ]
        );
        assert_eq!(check("[]"), ["not a KubeletConfiguration"]);
        assert_eq!(
            check(&format!("{START}memorySwap: {{other: 1}}")),
            ["memorySwap.other: not a setting of this kubelet"]
        );
        assert!(check("{")[0].starts_with("not YAML"));
        assert!(check(&format!("{START}maxPods: 1\nmaxPods: 2"))[0].starts_with("not YAML"), "a field is there twice");
        let missing = parsed(&["config=/nonexistent/a", "config-dir=/nonexistent/b"]).2;
        assert_eq!(missing.len(), 2, "{missing:?}");
    }
}
