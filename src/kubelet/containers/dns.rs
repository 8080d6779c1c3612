//! A pod's resolver configuration, by its `dnsPolicy`.

use std::net::IpAddr;

use cri::v1::DnsConfig;
use k8s_openapi::api::core::v1::Pod;

use crate::objects::PodExt;

/// Upstream's limits on what it passes on: glibc takes no more name servers; newer resolvers take more searches.
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_CHARS_MAX: usize = 2048;

/// The cluster's side.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    pub servers: Vec<IpAddr>,
    pub domain: String,
}

/// Reads a resolv.conf. Unknown lines are left out.
pub fn parse_resolv_conf(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().map(str::to_owned)),
            Some("search" | "domain") => {
                config.searches =
                    words.map(|word| if word == "." { word } else { word.trim_end_matches('.') }.to_owned()).collect();
            }
            Some("options") => config.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    config
}

/// The pod's resolver configuration. `host` is the node's own.
pub fn dns_config(pod: &Pod, cluster: &Cluster, host: &DnsConfig) -> DnsConfig {
    let spec = pod.spec();
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster_first = match policy {
        "ClusterFirstWithHostNet" => true,
        "ClusterFirst" => !pod.host_network(),
        _ => false,
    } && !cluster.servers.is_empty();
    let mut config = if policy == "None" {
        DnsConfig::default()
    } else if cluster_first {
        let mut searches = Vec::new();
        if !cluster.domain.is_empty() {
            let domain = &cluster.domain;
            searches.extend([format!("{}.svc.{domain}", pod.ns()), format!("svc.{domain}"), domain.clone()]);
        }
        searches.extend(host.searches.iter().cloned());
        DnsConfig {
            servers: cluster.servers.iter().map(IpAddr::to_string).collect(),
            searches,
            options: vec!["ndots:5".to_owned()],
        }
    } else {
        host.clone()
    };
    if let Some(own) = &spec.dns_config {
        config.servers.extend(own.nameservers.iter().flatten().cloned());
        config.searches.extend(own.searches.iter().flatten().cloned());
        for option in own.options.iter().flatten() {
            let Some(name) = option.name.as_deref() else { continue };
            config.options.retain(|known| known.split(':').next() != Some(name));
            config.options.push(match option.value.as_deref() {
                Some(value) if !value.is_empty() => format!("{name}:{value}"),
                _ => name.to_owned(),
            });
        }
    }
    for list in [&mut config.servers, &mut config.searches] {
        let mut seen = std::collections::HashSet::new();
        list.retain(|entry| seen.insert(entry.clone()));
    }
    config.servers.truncate(NAMESERVERS_MAX);
    config.searches.truncate(SEARCHES_MAX);
    let mut chars = 0;
    config.searches.retain(|search| {
        chars += search.len() + 1;
        chars <= SEARCH_CHARS_MAX
    });
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::testing::pod;
    use serde_json::json;

    #[test]
    fn policies() {
        let cluster = Cluster { servers: vec!["10.43.0.10".parse().unwrap()], domain: "cluster.local".into() };
        let host = parse_resolv_conf("# x\nnameserver 1.1.1.1\nsearch home.lan. lan\noptions edns0\nnameserver\n");
        assert_eq!(host.searches, ["home.lan", "lan"]);
        let of = |spec: serde_json::Value| dns_config(&pod(json!({"spec": spec})), &cluster, &host);
        let first = of(json!({"containers": []}));
        assert_eq!(first.servers, ["10.43.0.10"]);
        assert_eq!(
            first.searches,
            ["default.svc.cluster.local", "svc.cluster.local", "cluster.local", "home.lan", "lan"]
        );
        assert_eq!(first.options, ["ndots:5"]);
        assert_eq!(of(json!({"containers": [], "hostNetwork": true})), host);
        assert_eq!(of(json!({"containers": [], "dnsPolicy": "Default"})), host);
        let with_host = of(json!({"containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}));
        assert_eq!(with_host.servers, ["10.43.0.10"]);
        let own = of(json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {"nameservers": ["9.9.9.9"],
            "searches": ["a"], "options": [{"name": "ndots", "value": "2"}, {"name": "rotate"}]}}));
        assert_eq!(
            (own.servers, own.options),
            (vec!["9.9.9.9".to_owned()], vec!["ndots:2".to_owned(), "rotate".to_owned()])
        );
        let changed = of(json!({"containers": [], "dnsConfig": {"options": [{"name": "ndots", "value": "2"}]}}));
        assert_eq!(changed.options, ["ndots:2"]);
    }
}
