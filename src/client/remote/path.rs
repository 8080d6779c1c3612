//! A call's path and query on the wire.

use std::fmt::Write;

use api::{Call, Options, Verb};

/// `/apis/apps/v1/namespaces/default/deployments/web/scale?dryRun=All`.
pub fn of(call: &Call) -> String {
    let resource = &call.resource;
    let mut path = if resource.group.is_empty() {
        format!("/api/{}", resource.version)
    } else {
        format!("/apis/{}/{}", resource.group, resource.version)
    };
    if let Some(namespace) = &call.namespace {
        path.push_str("/namespaces/");
        escape(&mut path, namespace);
    }
    path.push('/');
    path.push_str(&resource.plural);
    for part in [call.name.as_deref(), call.subresource.as_deref()].into_iter().flatten() {
        path.push('/');
        escape(&mut path, part);
    }
    let mut query = Query { path, first: true };
    query.options(&call.options, call.verb);
    query.path
}

struct Query {
    path: String,
    first: bool,
}

impl Query {
    fn options(&mut self, options: &Options, verb: Verb) {
        if verb == Verb::Watch {
            self.add("watch", "true");
        }
        self.text("labelSelector", options.label_selector.as_deref());
        self.text("fieldSelector", options.field_selector.as_deref());
        self.text("resourceVersion", options.resource_version.as_deref());
        self.text("resourceVersionMatch", options.resource_version_match.as_deref());
        self.number("limit", options.limit);
        self.text("continue", options.continue_token.as_deref());
        self.number("timeoutSeconds", options.timeout_seconds);
        if options.allow_watch_bookmarks {
            self.add("allowWatchBookmarks", "true");
        }
        self.number("sendInitialEvents", options.send_initial_events);
        if options.dry_run {
            self.add("dryRun", "All");
        }
        self.text("fieldManager", options.field_manager.as_deref());
        self.text("fieldValidation", options.field_validation.as_deref());
        self.number("force", options.force);
        self.number("gracePeriodSeconds", options.grace_period_seconds);
        self.text("propagationPolicy", options.propagation_policy.as_deref());
    }

    fn text(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }

    fn number(&mut self, name: &str, value: Option<impl std::fmt::Display>) {
        if let Some(value) = value {
            self.add(name, &value.to_string());
        }
    }

    fn add(&mut self, name: &str, value: &str) {
        self.path.push(if self.first { '?' } else { '&' });
        self.first = false;
        self.path.push_str(name);
        self.path.push('=');
        escape(&mut self.path, value);
    }
}

/// Percent-encodes everything but RFC 3986's unreserved characters.
fn escape(out: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            // Writing to a String cannot fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Resource;

    #[test]
    fn paths_as_upstream_has_them() {
        let mut call = Call::new(Verb::List, Resource::new("", "v1", "pods"));
        assert_eq!(of(&call), "/api/v1/pods");
        call.namespace = Some("kube-system".into());
        call.options.field_selector = Some("spec.nodeName=a b".into());
        call.options.limit = Some(5);
        assert_eq!(of(&call), "/api/v1/namespaces/kube-system/pods?fieldSelector=spec.nodeName%3Da%20b&limit=5");
        let mut call = Call::new(Verb::Update, Resource::new("apps", "v1", "deployments"));
        call.namespace = Some("default".into());
        call.name = Some("web".into());
        call.subresource = Some("scale".into());
        call.options.dry_run = true;
        assert_eq!(of(&call), "/apis/apps/v1/namespaces/default/deployments/web/scale?dryRun=All");
    }
}
