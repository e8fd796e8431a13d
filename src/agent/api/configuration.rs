//! Decides: `/configz`: this agent's settings as a KubeletConfiguration (`kubelet.config.k8s.io/v1beta1`). What a kubelet
//! could be told and this agent has no setting for stands there with what it does.

use serde_json::{Value, json};

use crate::agent::context::NodeContext;

pub fn configz(cx: &NodeContext) -> Value {
    let (config, host, placement) = (&cx.config, &cx.config.kubelet.host, &cx.config.kubelet.placement);
    let mut all = json!({
        "enableServer": true,
        "syncFrequency": "1m0s",
        "fileCheckFrequency": "20s",
        "httpCheckFrequency": "20s",
        "address": "0.0.0.0",
        "port": config.kubelet_port,
        "rotateCertificates": true,
        "serverTLSBootstrap": true,
        "authentication": {
            "x509": {"clientCAFile": config.data_dir.join("agent/client-ca.crt")},
            "webhook": {"enabled": true, "cacheTTL": "2m0s"},
            "anonymous": {"enabled": false},
        },
        "authorization": {
            "mode": "Webhook",
            "webhook": {"cacheAuthorizedTTL": "5m0s", "cacheUnauthorizedTTL": "30s"},
        },
        "eventRecordQPS": 50,
        "eventBurst": 100,
        "enableDebuggingHandlers": true,
        "healthzPort": 0,
        "clusterDomain": cx.cluster.cluster_domain,
        "clusterDNS": [cx.cluster.cluster_dns],
        "streamingConnectionIdleTimeout": "4h0m0s",
        "nodeStatusUpdateFrequency": "10s",
        "nodeStatusReportFrequency": "5m0s",
        "nodeLeaseDurationSeconds": 40,
        "cgroupsPerQOS": true,
        "cgroupDriver": "cgroupfs",
        "memoryManagerPolicy": "None",
        "maxPods": config.max_pods,
        "resolvConf": config.resolv_conf,
        "cpuCFSQuota": true,
        "cpuCFSQuotaPeriod": "100ms",
        "containerLogMaxSize": "10Mi",
        "containerLogMaxFiles": 5,
        "containerRuntimeEndpoint": config.runtime_endpoint.as_ref().map(|socket| format!("unix://{}", socket.display())),
        "serializeImagePulls": cx.images.settings().max_parallel_pulls == Some(1),
        "maxParallelImagePulls": cx.images.settings().max_parallel_pulls,
        "enableSystemLogHandler": true,
        "enableSystemLogQuery": false,
        "failSwapOn": false,
        "localStorageCapacityIsolation": true,
    });
    let more = json!({
        "podPidsLimit": host.pod_pids.unwrap_or(-1),
        "allowedUnsafeSysctls": host.unsafe_sysctls,
        "memorySwap": {"swapBehavior": if host.limited_swap { "LimitedSwap" } else { "NoSwap" }},
        "systemReservedCgroup": host.system.group,
        "kubeReservedCgroup": host.kube.group,
        "userNamespaces": {"idsPerPod": host.ids_per_pod},
        "cpuManagerPolicy": if placement.static_cpus { "static" } else { "none" },
        "topologyManagerPolicy": placement.alignment.as_str(),
        "topologyManagerScope": if placement.whole_pods { "pod" } else { "container" },
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        all[name] = value.clone();
    }
    if !placement.reserved.is_empty() {
        all["reservedSystemCPUs"] = json!(placement.reserved.to_string());
    }
    json!({"kubeletconfig": all})
}
