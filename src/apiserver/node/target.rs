//! Which container, on which node, at which address.

use std::borrow::Cow;
use std::net::IpAddr;

use api::{Failure, FieldError, Fields, Row};
use serde_json::Value;

use crate::request::{self, escape};
use crate::server::ApiServer;
use crate::verbs;

const KUBELET_PORT: u16 = 10250;

/// A kubelet's HTTPS endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub node: String,
    pub address: IpAddr,
    pub port: u16,
}

/// A query of the API in the kubelet's words.
pub struct ContainerQuery {
    pub container: Option<String>,
    pub query: String,
}

type Parameters<'a> = [(Cow<'a, str>, Cow<'a, str>)];

fn value<'a>(parameters: &'a Parameters<'_>, wanted: &str) -> Option<&'a str> {
    parameters.iter().find(|(key, _)| key == wanted).map(|(_, value)| value.as_ref()).filter(|value| !value.is_empty())
}

fn truth(parameters: &Parameters<'_>, wanted: &str) -> bool {
    value(parameters, wanted).is_some_and(request::truth)
}

impl ContainerQuery {
    /// `PodLogOptions`.
    pub fn logs(parameters: &Parameters<'_>) -> Result<ContainerQuery, Failure> {
        let invalid = |error: FieldError| Failure::invalid("", "PodLogOptions", "", vec![error]);
        let mut parts = Vec::new();
        for flag in ["follow", "previous", "timestamps"] {
            if truth(parameters, flag) {
                parts.push(format!("{flag}=true"));
            }
        }
        for number in ["sinceSeconds", "tailLines", "limitBytes"] {
            let Some(text) = value(parameters, number) else { continue };
            let parsed: i64 =
                text.parse().map_err(|_| Failure::bad_request(format!("{number}: {text:?} is not a number")))?;
            let min = if number == "tailLines" { 0 } else { 1 };
            if parsed < min {
                let text = if min == 0 { "must be greater than or equal to 0" } else { "must be greater than 0" };
                return Err(invalid(FieldError::invalid(number, &parsed.into(), text)));
            }
            parts.push(format!("{number}={parsed}"));
        }
        if let Some(time) = value(parameters, "sinceTime") {
            if value(parameters, "sinceSeconds").is_some() {
                let text = "at most one of `sinceTime` or `sinceSeconds` may be specified";
                return Err(invalid(FieldError::forbidden("", text)));
            }
            parts.push(format!("sinceTime={}", escape(time)));
        }
        if let Some(stream) = value(parameters, "stream") {
            parts.push(format!("stream={}", escape(stream)));
        }
        Ok(ContainerQuery { container: value(parameters, "container").map(str::to_owned), query: parts.join("&") })
    }

    /// `PodExecOptions` and `PodAttachOptions`.
    pub fn streams(parameters: &Parameters<'_>, exec: bool) -> Result<ContainerQuery, Failure> {
        let mut parts = Vec::new();
        for (ours, theirs) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
            if truth(parameters, ours) {
                parts.push(format!("{theirs}=1"));
            }
        }
        if !parts.iter().any(|part| part != "tty=1") {
            return Err(Failure::bad_request("you must specify at least one of stdin, stdout, stderr"));
        }
        if exec {
            let commands: Vec<String> = parameters
                .iter()
                .filter(|(key, _)| key == "command")
                .map(|(_, value)| format!("command={}", escape(value)))
                .collect();
            if commands.is_empty() {
                return Err(Failure::bad_request("you must specify a command to execute"));
            }
            parts.extend(commands);
        }
        Ok(ContainerQuery { container: value(parameters, "container").map(str::to_owned), query: parts.join("&") })
    }
}

/// The Pod as it is now.
pub async fn pod(server: &ApiServer, namespace: &str, name: &str) -> Result<Value, Failure> {
    let row = Row::find("", "v1", "pods").ok_or_else(|| Failure::internal("no row for pods"))?;
    let key = verbs::key(row, Some(namespace), name)?;
    let stored = server.storage().read(&key, row.list_key(None).len()).await?;
    let stored = stored.ok_or_else(|| Failure::not_found("", "pods", name))?;
    verbs::decoded(row, &stored)
}

/// The container that is meant: the one that is named, or the only one.
pub fn container(pod: &Value, wanted: Option<&str>) -> Result<String, Failure> {
    let name = pod.part("metadata").text("name");
    let spec = pod.part("spec");
    let names = |field: &str| -> Vec<String> {
        spec.list(field).iter().map(|container| container.text("name").to_owned()).collect()
    };
    let (main, init, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    match wanted {
        Some(wanted) => {
            let known = main.iter().chain(&init).chain(&ephemeral).any(|one| one == wanted);
            let problem = || Failure::bad_request(format!("container {wanted} is not valid for pod {name}"));
            if known { Ok(wanted.to_owned()) } else { Err(problem()) }
        }
        None => match main.as_slice() {
            [only] => Ok(only.clone()),
            _ => {
                let mut message =
                    format!("a container name must be specified for pod {name}, choose one of: [{}]", main.join(" "));
                if !init.is_empty() {
                    message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
                }
                if !ephemeral.is_empty() {
                    message.push_str(&format!(" or one of the ephemeral containers: [{}]", ephemeral.join(" ")));
                }
                Err(Failure::bad_request(message))
            }
        },
    }
}

/// The kubelet of the Pod's node; `None` while it has no node.
pub fn endpoint(server: &ApiServer, pod: &Value) -> Result<Option<Endpoint>, Failure> {
    match pod.part("spec").text("nodeName") {
        "" => Ok(None),
        name => node(server, name).map(Some),
    }
}

/// A node's kubelet.
pub fn node(server: &ApiServer, name: &str) -> Result<Endpoint, Failure> {
    let row = Row::find("", "v1", "nodes").ok_or_else(|| Failure::internal("no row for nodes"))?;
    let stored = verbs::cache_of(server, row)?.get(name).ok_or_else(|| Failure::not_found("", "nodes", name))?;
    let node: Value = serde_json::from_slice(&stored.value).map_err(Failure::internal)?;
    of_node(&node)
        .ok_or_else(|| Failure::internal(format!("no preferred addresses found; known addresses of node {name}: none")))
}

fn of_node(node: &Value) -> Option<Endpoint> {
    let status = node.part("status");
    let of_type = |wanted: &str| {
        let mut addresses = status.list("addresses").iter().filter(|address| address.text("type") == wanted);
        addresses.find_map(|address| address.text("address").parse::<IpAddr>().ok())
    };
    let address = of_type("InternalIP").or_else(|| of_type("ExternalIP"))?;
    let port = status.part("daemonEndpoints").part("kubeletEndpoint").int("Port");
    let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0).unwrap_or(KUBELET_PORT);
    Some(Endpoint { node: node.part("metadata").text("name").to_owned(), address, port })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::query;
    use serde_json::json;

    #[test]
    fn the_only_container_needs_no_name() {
        let one = json!({"metadata": {"name": "x"}, "spec": {"containers": [{"name": "a"}]}});
        assert_eq!(container(&one, None).unwrap(), "a");
        assert_eq!(container(&one, Some("b")).unwrap_err().message, "container b is not valid for pod x");
        let two = json!({"metadata": {"name": "x"}, "spec": {
            "containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}],
        }});
        assert_eq!(
            container(&two, None).unwrap_err().message,
            "a container name must be specified for pod x, choose one of: [a b] or one of the init containers: [i]"
        );
        assert_eq!(container(&two, Some("i")).unwrap(), "i");
    }

    #[test]
    fn queries_are_put_into_the_kubelets_words() {
        let parameters =
            query("container=a&command=sh&command=-c&command=echo%20x%26y&stdin=true&stdout=true&tty=true");
        let exec = ContainerQuery::streams(&parameters, true).unwrap();
        assert_eq!(exec.query, "input=1&output=1&tty=1&command=sh&command=-c&command=echo%20x%26y");
        assert!(ContainerQuery::streams(&query("tty=true&command=a"), true).is_err());
        let python = ContainerQuery::streams(&query("command=a&stdin=False&stdout=True&tty=False"), true).unwrap();
        assert_eq!(python.query, "output=1&command=a");
        let logs = ContainerQuery::logs(&query("follow=true&tailLines=10&previous=false")).unwrap();
        assert_eq!(logs.query, "follow=true&tailLines=10");
        assert_eq!(ContainerQuery::logs(&query("limitBytes=0")).err().unwrap().code, 422);
    }

    #[test]
    fn a_kubelet_is_found_by_what_its_node_says() {
        let node = json!({"metadata": {"name": "n"}, "status": {
            "addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "10.0.0.7"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10251}},
        }});
        let endpoint = of_node(&node).unwrap();
        assert_eq!((endpoint.address.to_string().as_str(), endpoint.port), ("10.0.0.7", 10251));
        assert!(of_node(&json!({})).is_none());
    }
}
