//! Decides: what a pod finds in `/etc/hosts` and `/etc/resolv.conf`.

use k8s_openapi::api::core::v1::Pod;

use super::{host_network, namespace, pod_spec, spec};
use crate::config::Cluster;
use crate::cri::v1;

/// The resolver of musl and glibc read no more than three.
const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;

const HEADER: &str = "# Kubernetes-managed hosts file.\n\
    127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::0\tip6-localnet\n\
    fe00::0\tip6-mcastprefix\n\
    fe00::1\tip6-allnodes\n\
    fe00::2\tip6-allrouters\n";

/// The hosts file of a pod. `host_file` is the node's own, which a pod in the host's network gets a copy of.
#[must_use]
pub fn hosts_file(pod: &Pod, pod_ips: &[String], domain: &str, host_file: &str) -> String {
    let mut text = match host_network(pod) {
        true => format!("# Kubernetes-managed hosts file (host network).\n{host_file}"),
        false => HEADER.to_owned(),
    };
    if !host_network(pod) {
        let hostname = spec::hostname(pod);
        for ip in pod_ips {
            text.push_str(&match spec::fqdn(pod, domain) {
                Some(full) => format!("{ip}\t{full}\t{hostname}\n"),
                None => format!("{ip}\t{hostname}\n"),
            });
        }
    }
    let aliases = pod_spec(pod).host_aliases.as_deref().unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let names = alias.hostnames.clone().unwrap_or_default().join("\t");
            text.push_str(&format!("{}\t{names}\n", alias.ip));
        }
    }
    text
}

/// `host_resolv` is the text of the node's resolver configuration.
#[must_use]
pub fn dns_config(pod: &Pod, cluster: &Cluster, host_resolv: &str) -> v1::DnsConfig {
    let spec = pod_spec(pod);
    let host = parse_resolv(host_resolv);
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let mut config = match policy {
        "None" => v1::DnsConfig::default(),
        "ClusterFirst" if !host_network(pod) => cluster_first(pod, cluster, &host),
        "ClusterFirstWithHostNet" => cluster_first(pod, cluster, &host),
        _ => host,
    };
    if let Some(own) = &spec.dns_config {
        append(&mut config.servers, own.nameservers.as_deref().unwrap_or_default());
        append(&mut config.searches, own.searches.as_deref().unwrap_or_default());
        for option in own.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            let text = option.value.as_ref().map_or_else(|| name.clone(), |value| format!("{name}:{value}"));
            config.options.retain(|known| known.split(':').next() != Some(name));
            config.options.push(text);
        }
    }
    config.servers.truncate(MAX_SERVERS);
    config.searches.truncate(MAX_SEARCHES);
    config
}

fn cluster_first(pod: &Pod, cluster: &Cluster, host: &v1::DnsConfig) -> v1::DnsConfig {
    let domain = &cluster.cluster_domain;
    let mut searches = vec![format!("{}.svc.{domain}", namespace(pod)), format!("svc.{domain}"), domain.clone()];
    append(&mut searches, &host.searches);
    v1::DnsConfig { servers: vec![cluster.cluster_dns.to_string()], searches, options: vec!["ndots:5".into()] }
}

fn append(list: &mut Vec<String>, more: &[String]) {
    for item in more {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

fn parse_resolv(text: &str) -> v1::DnsConfig {
    let mut config = v1::DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => config.servers.extend(words.next()),
            // The last one counts.
            Some("search" | "domain") => config.searches = words.filter(|word| word != ".").collect(),
            Some("options") => config.options = words.collect(),
            _ => {}
        }
    }
    config
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use serde_json::{Value, json};

    use super::*;
    use crate::config::Cidr;

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "web-0", "namespace": "shop"}, "spec": spec}))
            .expect("valid")
    }

    fn resolv(spec: Value) -> String {
        let any = Cidr { address: Ipv4Addr::UNSPECIFIED, prefix: 0 };
        let cluster = Cluster {
            cluster_cidr: any,
            service_cidr: any,
            cluster_dns: Ipv4Addr::new(10, 43, 0, 10),
            cluster_domain: "cluster.local".into(),
            node_ports: (30000, 32767),
        };
        let host = "# made by\nnameserver 192.0.2.1\nsearch lan\noptions edns0\n";
        let config = dns_config(&pod(spec), &cluster, host);
        format!("{} | {} | {}", config.servers.join(" "), config.searches.join(" "), config.options.join(" "))
    }

    #[test]
    fn resolver_configurations() {
        let cluster = "10.43.0.10 | shop.svc.cluster.local svc.cluster.local cluster.local lan | ndots:5";
        assert_eq!(resolv(json!({"containers": []})), cluster);
        assert_eq!(resolv(json!({"containers": [], "dnsPolicy": "Default"})), "192.0.2.1 | lan | edns0");
        assert_eq!(resolv(json!({"containers": [], "hostNetwork": true})), "192.0.2.1 | lan | edns0");
        let with_host = json!({"containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"});
        assert_eq!(resolv(with_host), cluster);
        let own = json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {
            "nameservers": ["1.1.1.1"], "searches": ["x.y"], "options": [{"name": "ndots", "value": "2"}, {"name": "a"}]}});
        assert_eq!(resolv(own), "1.1.1.1 | x.y | ndots:2 a");
        let merged = json!({"containers": [], "dnsConfig": {"options": [{"name": "ndots", "value": "2"}]}});
        assert!(resolv(merged).ends_with("| ndots:2"));
    }

    #[test]
    fn hosts_files() {
        let spec = json!({"containers": [], "subdomain": "db", "hostAliases": [
            {"ip": "192.0.2.7", "hostnames": ["a", "b"]}]});
        let text = hosts_file(&pod(spec), &["10.42.0.3".into()], "cluster.local", "");
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"), "{text}");
        let expect = "10.42.0.3\tweb-0.db.shop.svc.cluster.local\tweb-0\n\n\
            # Entries added by HostAliases.\n192.0.2.7\ta\tb\n";
        assert!(text.ends_with(expect), "{text}");
        let host = hosts_file(&pod(json!({"containers": [], "hostNetwork": true})), &[], "x", "127.0.0.1 me\n");
        assert_eq!(host, "# Kubernetes-managed hosts file (host network).\n127.0.0.1 me\n");
    }
}
