//! Streams go through admission too: exec, attach, port-forward and proxy, as `CONNECT`. What is admitted is the options
//! that open the stream.

use std::borrow::Cow;

use api::{Call, Failure, Fields};
use serde_json::{Value, json};

use super::{Attributes, Operation, Reinvocation, kind_of};
use crate::identity::Identity;
use crate::notes::Notes;
use crate::request::Target;
use crate::server::ApiServer;

type Parameters<'a> = [(Cow<'a, str>, Cow<'a, str>)];

/// Asks whether the stream may be opened. What is said besides stands in the notes. Logs are read and not connected to.
pub async fn admit(
    server: &ApiServer,
    user: &Identity,
    asked: &Target,
    call: &Call,
    parameters: &Parameters<'_>,
    notes: &Notes,
) -> Result<(), Failure> {
    let subresource = call.subresource.as_deref().filter(|name| *name != "log");
    let (Some(subresource), true) = (subresource, server.admission().is_configured(server)) else { return Ok(()) };
    let row = server.row(call)?;
    let [_, _, kind] = kind_of(&row, Some(subresource));
    let mut object = options(kind, &format!("/{}", asked.rest), parameters);
    let mut attributes = Attributes {
        user,
        operation: Operation::Connect,
        row: &row,
        subresource: Some(subresource),
        namespace: call.namespace.as_deref().unwrap_or_default(),
        name: call.name.as_deref().unwrap_or_default(),
        dry_run: false,
        call,
        delete_options: None,
        warnings: Vec::new(),
        annotations: Vec::new(),
        reinvocation: Reinvocation::default(),
        notes,
    };
    server.admission().mutate(server, &mut attributes, Some(&mut object), None).await?;
    server.admission().validate(server, &mut attributes, Some(&object), None).await
}

fn values<'a>(parameters: &'a Parameters<'_>, wanted: &'a str) -> impl Iterator<Item = &'a str> {
    parameters.iter().filter(move |(key, _)| key == wanted).map(|(_, value)| value.as_ref())
}

/// The options as an object: `PodExecOptions` and its like.
fn options(kind: &str, path: &str, parameters: &Parameters<'_>) -> Value {
    let mut options = json!({"kind": kind, "apiVersion": "v1"});
    match kind {
        "PodExecOptions" | "PodAttachOptions" => {
            for flag in ["stdin", "stdout", "stderr", "tty"] {
                // Who attaches sees both outputs unless they say otherwise.
                let default = kind == "PodAttachOptions" && matches!(flag, "stdout" | "stderr");
                if values(parameters, flag).next().map_or(default, |value| !matches!(value, "false" | "0")) {
                    options.set(flag, true);
                }
            }
            if let Some(container) = values(parameters, "container").next() {
                options.set("container", container);
            }
            let command: Vec<&str> = values(parameters, "command").collect();
            if !command.is_empty() {
                options.set("command", command);
            }
        }
        "PodPortForwardOptions" => {
            let ports: Vec<i32> = values(parameters, "ports")
                .flat_map(|list| list.split(','))
                .filter_map(|port| port.parse().ok())
                .collect();
            if !ports.is_empty() {
                options.set("ports", ports);
            }
        }
        _ => options.set("path", path),
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::query;

    #[test]
    fn a_query_is_the_options_of_its_stream() {
        let exec = options("PodExecOptions", "/", &query("command=sh&command=-c&stdin=true&stdout=false&container=a"));
        assert_eq!(
            exec,
            json!({"kind": "PodExecOptions", "apiVersion": "v1", "stdin": true, "container": "a",
                "command": ["sh", "-c"]})
        );
        let attach = options("PodAttachOptions", "/", &query("stderr=0"));
        assert_eq!(attach, json!({"kind": "PodAttachOptions", "apiVersion": "v1", "stdout": true}));
        let forward = options("PodPortForwardOptions", "/", &query("ports=80,443&ports=x"));
        assert_eq!(forward["ports"], json!([80, 443]));
        let proxy = options("NodeProxyOptions", "/metrics", &query("a=b"));
        assert_eq!(proxy, json!({"kind": "NodeProxyOptions", "apiVersion": "v1", "path": "/metrics"}));
    }
}
