//! The pod's `/etc/hosts`.

use std::io;
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;

use crate::containers::sandbox;
use crate::objects::PodExt;

pub const CONTAINER_PATH: &str = "/etc/hosts";

pub fn write(path: &Path, pod: &Pod, pod_ips: &[String], cluster_domain: &str) -> io::Result<()> {
    let host =
        if pod.host_network() { std::fs::read_to_string(CONTAINER_PATH).unwrap_or_default() } else { String::new() };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(path, contents(pod, pod_ips, cluster_domain, &host))
}

/// The file's text; `host` is the node's own, for pods in the node's network.
fn contents(pod: &Pod, pod_ips: &[String], cluster_domain: &str, host: &str) -> String {
    let mut text = String::new();
    if pod.host_network() {
        text.push_str("# Kubernetes-managed hosts file (host network).\n");
        text.push_str(host);
    } else {
        text.push_str(
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
        );
        let name = sandbox::hostname(pod, cluster_domain).unwrap_or_default();
        let short = name.split('.').next().unwrap_or_default();
        for ip in pod_ips {
            match sandbox::domain(pod, cluster_domain) {
                Some(domain) => text.push_str(&format!("{ip}\t{short}.{domain}\t{short}\n")),
                None => text.push_str(&format!("{ip}\t{name}\n")),
            }
        }
    }
    let aliases = pod.spec().host_aliases.as_deref().unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let names = alias.hostnames.as_deref().unwrap_or_default();
            text.push_str(&format!("{}\t{}\n", alias.ip, names.join("\t")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::testing::pod;
    use serde_json::json;

    #[test]
    fn names_and_aliases() {
        let pod = pod(json!({"spec": {"containers": [], "subdomain": "sub",
            "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}}));
        let text = contents(&pod, &["10.42.0.5".to_owned()], "cluster.local", "");
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(text.contains("10.42.0.5\tweb.sub.default.svc.cluster.local\tweb\n"));
        assert!(text.ends_with("# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"));
    }
}
