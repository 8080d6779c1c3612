//! How a container is started, asked after and ended.

use serde_json::Value;

use super::{Check, container::Pod};
use crate::{fields::Fields, format, path::Path};

pub(crate) fn lifecycle_and_probes(check: &mut Check<'_>, container: &Value, pod: &Pod<'_>, path: &Path<'_>) {
    if let Some(lifecycle) = container.at("lifecycle") {
        let path = path.field("lifecycle");
        for name in ["postStart", "preStop"] {
            if let Some(hook) = lifecycle.at(name) {
                handler(check, hook, pod, &path.field(name));
            }
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.at(name) else { continue };
        let path = path.field(name);
        handler(check, probe, pod, &path);
        for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
        {
            check.not_negative(probe, &path, field);
        }
        let grace = path.field("terminationGracePeriodSeconds");
        if let Some(seconds) = probe.int("terminationGracePeriodSeconds").filter(|&seconds| seconds <= 0) {
            check.invalid(&grace, &seconds.into(), "must be greater than 0");
        }
        if name == "readinessProbe" {
            if let Some(seconds) = probe.int("terminationGracePeriodSeconds") {
                check.invalid(&grace, &seconds.into(), "must not be set for readinessProbes");
            }
        } else if probe.int("successThreshold") != Some(1) {
            check.invalid(&path.field("successThreshold"), probe.part("successThreshold"), "must be 1");
        }
    }
}

fn handler(check: &mut Check<'_>, handler: &Value, pod: &Pod<'_>, path: &Path<'_>) {
    let mut handlers = 0;
    for name in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let Some(action) = handler.at(name) else { continue };
        let path = path.field(name);
        handlers += 1;
        if handlers > 1 {
            check.forbidden(&path, "may not specify more than 1 handler type");
            continue;
        }
        match name {
            "exec" => {
                if action.list("command").is_empty() {
                    check.required(&path.field("command"), "");
                }
            }
            "httpGet" => {
                check.text(action, &path, "path");
                check.port(action, &path, "port");
                check.one_of(action, &path, "scheme", &["HTTP", "HTTPS"]);
                for header in action.list("httpHeaders") {
                    let name = header.text("name");
                    check.found(&path.field("httpHeaders"), name, format::http_header_name(name));
                }
            }
            "tcpSocket" | "grpc" => check.port(action, &path, "port"),
            _ => {
                let seconds = action.int("seconds").unwrap_or_default();
                if let Some(limit) = pod.grace_seconds.filter(|&limit| seconds < 0 || seconds > limit) {
                    let text = format!("must be non-negative and less than terminationGracePeriodSeconds ({limit})");
                    check.invalid(&path, &seconds.into(), &text);
                }
            }
        }
    }
    if handlers == 0 {
        check.required(path, "must specify a handler type");
    }
}
