//! PodSecurity: a namespace's labels say which level its Pods must keep. Pods that do not are refused; of templates that
//! make such Pods their authors are warned.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use api::podsecurity::{Level, LevelVersion, Policy, Subject, details, evaluate, reasons};
use api::{Failure, FieldError, Fields};
use serde_json::Value;

use super::objects::Objects;
use super::{Attributes, Operation, Plugin};
use crate::cache::Cache;
use crate::config::PodSecurityOptions;
use crate::metrics::Text;

mod figures;

const PREFIX: &str = "pod-security.kubernetes.io/";
/// Pods that are looked at when a namespace gets a stricter level, and how long.
const EXISTING_PODS_MAX: usize = 3000;
const EXISTING_PODS_TIME_MAX: Duration = Duration::from_secs(1);
/// Subresources of Pods that change nothing that matters here.
const IGNORED: [&str; 8] = ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];

pub struct PodSecurity {
    options: PodSecurityOptions,
    /// The labels of namespaces.
    labels: Objects<Value>,
    figures: figures::Figures,
}

impl PodSecurity {
    pub fn new(cache: &Cache, options: PodSecurityOptions) -> PodSecurity {
        let labels = |namespace: &Value| {
            let all = namespace.part("metadata").map("labels").into_iter().flatten();
            let ours = all.filter(|(key, _)| key.starts_with(PREFIX));
            Value::Object(ours.map(|(key, value)| (key.clone(), value.clone())).collect())
        };
        let labels = Objects::new(cache, "/registry/namespaces/", labels);
        PodSecurity { options, labels, figures: figures::Figures::default() }
    }

    fn policy(&self, labels: &Value) -> (Policy, Vec<FieldError>) {
        self.options.defaults.of_labels(labels)
    }

    /// The policy of the request's namespace, unless the request is exempt from it.
    fn policy_for(&self, attributes: &mut Attributes<'_>) -> Result<Option<(Policy, Vec<FieldError>)>, Failure> {
        let exemptions = &self.options;
        for (exempt, why) in [
            (exemptions.namespaces.iter().any(|one| one == attributes.namespace), "namespace"),
            (exemptions.usernames.contains(&attributes.user.name), "user"),
        ] {
            if exempt {
                attributes.annotate(format!("{PREFIX}exempt"), why);
                self.figures.exempted(attributes);
                return Ok(None);
            }
        }
        let Some(labels) = self.labels.get(attributes.namespace) else {
            self.figures.failed(true, attributes);
            return Err(Failure::internal(format!("failed to lookup namespace \"{}\"", attributes.namespace)));
        };
        Ok(Some(self.policy(&labels)))
    }

    fn namespace(
        &self,
        cache: &Cache,
        attributes: &mut Attributes<'_>,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<(), Failure> {
        let new_labels = object.part("metadata").part("labels");
        let old_labels = old.map_or(&Value::Null, |old| old.part("metadata").part("labels"));
        let (new, errors) = self.policy(new_labels);
        let (before, old_errors) = self.policy(old_labels);
        if !errors.is_empty() && (old.is_none() || errors != old_errors) {
            return Err(Failure::invalid("", "Namespace", attributes.name, errors));
        }
        let stricter = new.enforce != before.enforce
            && new.enforce.level != Level::Privileged
            && (new.enforce.version != before.enforce.version || new.enforce.level > before.enforce.level);
        if old.is_some() && !stricter {
            return Ok(());
        }
        if self.options.namespaces.iter().any(|one| one == attributes.name) {
            let warning = new.exempt_warning(attributes.name, new_labels, &self.options.defaults);
            attributes.warnings.extend(warning);
        } else if old.is_some() {
            let warnings = self.existing(cache, attributes.name, new.enforce);
            attributes.warnings.extend(warnings);
        }
        Ok(())
    }

    /// What is said of Pods that are there when their namespace gets a stricter level.
    fn existing(&self, cache: &Cache, namespace: &str, level: LevelVersion) -> Vec<String> {
        let mut owners = HashSet::new();
        let mut pods = Vec::new();
        let mut copies = Vec::new();
        let stored = cache.resource(b"/registry/pods/").map(|pods| pods.objects(Some(namespace)));
        for stored in stored.unwrap_or_default() {
            let Ok(pod) = serde_json::from_slice::<Value>(&stored.value) else { continue };
            if self.is_exempt_class(pod.part("spec")) {
                continue;
            }
            let references = pod.part("metadata").list("ownerReferences");
            let owner = references.iter().find(|reference| reference.flag("controller"));
            let is_copy = owner.is_some_and(|owner| !owners.insert(owner.text("uid").to_owned()));
            if is_copy { &mut copies } else { &mut pods }.push(pod);
        }
        pods.append(&mut copies);
        let began = Instant::now();
        let mut checked = 0;
        let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
        for pod in pods.iter().take(EXISTING_PODS_MAX) {
            checked += 1;
            let violations = evaluate(level, Subject { metadata: pod.part("metadata"), spec: pod.part("spec") });
            if !violations.is_empty() {
                let name = pod.part("metadata").text("name");
                let (first, count) = found.entry(reasons(&violations)).or_insert((name.to_owned(), 0));
                *count += 1;
                if name < first.as_str() {
                    *first = name.to_owned();
                }
            }
            if began.elapsed() > EXISTING_PODS_TIME_MAX {
                break;
            }
        }
        let mut warnings = Vec::new();
        if checked < pods.len() {
            warnings.push(format!(
                "new PodSecurity enforce level only checked against the first {checked} of {} existing pods",
                pods.len()
            ));
        }
        if !found.is_empty() {
            warnings.push(format!(
                "existing pods in namespace \"{namespace}\" violate the new PodSecurity enforce level \"{level}\""
            ));
        }
        let mut of_pods: Vec<String> = found
            .into_iter()
            .map(|(reasons, (name, count))| match count {
                1 => format!("{name}: {reasons}"),
                2 => format!("{name} (and 1 other pod): {reasons}"),
                _ => format!("{name} (and {} other pods): {reasons}", count - 1),
            })
            .collect();
        of_pods.sort();
        warnings.append(&mut of_pods);
        warnings
    }

    fn is_exempt_class(&self, spec: &Value) -> bool {
        let class = spec.text("runtimeClassName");
        !class.is_empty() && self.options.runtime_classes.iter().any(|one| one == class)
    }

    fn subject(
        &self,
        attributes: &mut Attributes<'_>,
        (policy, errors): (Policy, Vec<FieldError>),
        subject: Subject<'_>,
        enforce: bool,
    ) -> Result<(), Failure> {
        if self.is_exempt_class(subject.spec) {
            attributes.annotate(format!("{PREFIX}exempt"), "runtimeClass");
            self.figures.exempted(attributes);
            return Ok(());
        }
        if !errors.is_empty() {
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            let list = if texts.len() == 1 { texts.concat() } else { format!("[{}]", texts.join(", ")) };
            attributes.annotate(format!("{PREFIX}error"), format!("Failed to parse policy: {list}"));
            self.figures.failed(false, attributes);
        }
        let enforced = enforce.then(|| evaluate(policy.enforce, subject));
        let at = |level: LevelVersion| match &enforced {
            Some(violations) if level == policy.enforce => violations.clone(),
            _ => evaluate(level, subject),
        };
        if let Some(violations) = &enforced {
            attributes.annotate(format!("{PREFIX}enforce-policy"), policy.enforce.to_string());
            self.figures.evaluated(violations.is_empty(), policy.enforce, "enforce", attributes);
        }
        let audited = at(policy.audit);
        if !audited.is_empty() {
            let text = format!("would violate PodSecurity \"{}\": {}", policy.audit, details(&audited));
            attributes.annotate(format!("{PREFIX}audit-violations"), text);
            self.figures.evaluated(false, policy.audit, "audit", attributes);
        }
        if let Some(violations) = enforced.as_ref().filter(|violations| !violations.is_empty()) {
            let text = format!("violates PodSecurity \"{}\": {}", policy.enforce, details(violations));
            return Err(attributes.refuse(text));
        }
        let warned = at(policy.warn);
        if !warned.is_empty() {
            attributes.warnings.push(format!("would violate PodSecurity \"{}\": {}", policy.warn, details(&warned)));
            self.figures.evaluated(false, policy.warn, "warn", attributes);
        }
        Ok(())
    }
}

impl Plugin for PodSecurity {
    fn write_figures(&self, out: &mut Text) {
        self.figures.write(out);
    }

    fn validate(
        &self,
        cache: &Cache,
        attributes: &mut Attributes<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), Failure> {
        let Some(object) = object else { return Ok(()) };
        if !matches!(attributes.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        if attributes.is("", "namespaces") {
            return self.namespace(cache, attributes, object, old);
        }
        let resource = &attributes.row.resource;
        if resource.group.is_empty() && resource.plural == "pods" {
            if attributes.subresource.is_some_and(|name| IGNORED.contains(&name)) {
                return Ok(());
            }
            let Some(policy) = self.policy_for(attributes)? else { return Ok(()) };
            if policy.1.is_empty() && policy.0.is_privileged() {
                attributes.annotate(format!("{PREFIX}enforce-policy"), "privileged:latest");
                self.figures.evaluated(true, policy.0.enforce, "enforce", attributes);
                return Ok(());
            }
            if old.is_some_and(|old| !is_significant(object.part("spec"), old.part("spec"))) {
                return Ok(());
            }
            let subject = Subject { metadata: object.part("metadata"), spec: object.part("spec") };
            return self.subject(attributes, policy, subject, true);
        }
        let Some(template) = template(attributes, object) else { return Ok(()) };
        let policy = match self.policy_for(attributes) {
            Ok(Some(policy)) => policy,
            Ok(None) => return Ok(()),
            // Only Pods are refused.
            Err(_) => {
                let name = attributes.namespace;
                let text = format!("failed to lookup namespace \"{name}\": namespace \"{name}\" not found");
                attributes.annotate(format!("{PREFIX}error"), text);
                return Ok(());
            }
        };
        let silent = policy.0.audit.level == Level::Privileged && policy.0.warn.level == Level::Privileged;
        if policy.1.is_empty() && silent {
            return Ok(());
        }
        let subject = Subject { metadata: template.part("metadata"), spec: template.part("spec") };
        self.subject(attributes, policy, subject, false)
    }
}

/// The template of the Pods that the object makes.
fn template<'a>(attributes: &Attributes<'_>, object: &'a Value) -> Option<&'a Value> {
    if attributes.subresource.is_some() {
        return None;
    }
    let resource = &attributes.row.resource;
    match (resource.group.as_ref(), resource.plural.as_ref()) {
        ("", "podtemplates") => object.at("template"),
        ("", "replicationcontrollers")
        | ("apps", "replicasets" | "deployments" | "statefulsets" | "daemonsets")
        | ("batch", "jobs") => object.part("spec").at("template"),
        ("batch", "cronjobs") => object.part("spec").part("jobTemplate").part("spec").at("template"),
        _ => None,
    }
}

/// Other containers, or other images in them.
fn is_significant(new: &Value, old: &Value) -> bool {
    let images = |spec: &Value, field: &str| -> Vec<String> {
        spec.list(field).iter().map(|container| container.text("image").to_owned()).collect()
    };
    if ["containers", "initContainers"].iter().any(|field| images(new, field) != images(old, field)) {
        return true;
    }
    let before = old.list("ephemeralContainers");
    new.list("ephemeralContainers").iter().any(|container| {
        let known = before.iter().find(|one| one.text("name") == container.text("name"));
        known.is_none_or(|known| known.text("image") != container.text("image"))
    })
}

#[cfg(test)]
mod tests {
    use api::Verb;
    use serde_json::json;

    use super::*;
    use crate::testing::Fixture;

    fn pod(name: &str, privileged: bool) -> Value {
        let container = json!({"name": "c", "image": "i", "securityContext": {"privileged": privileged}});
        json!({"metadata": {"name": name}, "spec": {"containers": [container]}})
    }

    async fn label(t: &Fixture, labels: Value) -> Result<Vec<String>, Failure> {
        let mut namespace = t.get("", "namespaces/default").await.unwrap();
        for (key, value) in labels.as_object().unwrap() {
            namespace["metadata"]["labels"][format!("{PREFIX}{key}")] = value.clone();
        }
        let answer = t.server.call(&t.admin, t.ask(Verb::Update, "", "namespaces/default", Some(namespace))).await;
        t.catch_up().await;
        Ok(answer?.warnings)
    }

    #[tokio::test]
    async fn a_namespace_takes_the_pods_of_its_level() {
        let t = Fixture::start().await.with_account().await;
        t.create("", "pods", pod("old", true)).await.unwrap();
        t.catch_up().await;
        let warnings = label(&t, json!({"enforce": "baseline"})).await.unwrap();
        assert_eq!(
            warnings,
            [
                "existing pods in namespace \"default\" violate the new PodSecurity enforce level \"baseline:latest\"",
                "old: privileged",
            ]
        );
        let failure = t.create("", "pods", pod("new", true)).await.unwrap_err();
        assert_eq!(
            failure.message,
            "pods \"new\" is forbidden: violates PodSecurity \"baseline:latest\": privileged (container \"c\" must not \
             set securityContext.privileged=true)"
        );
        t.create("", "pods", pod("new", false)).await.unwrap();
        let mut old = t.get("", "pods/old").await.unwrap();
        old["metadata"]["labels"] = json!({"a": "b"});
        t.update("", "pods/old", old).await.unwrap();
        let template = pod("", true);
        let labels = json!({"a": "b"});
        let body = json!({"metadata": {"name": "d"}, "spec": {
            "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": template["spec"]},
        }});
        let made = t.server.call(&t.admin, t.ask(Verb::Create, "apps", "deployments", Some(body))).await.unwrap();
        assert!(made.warnings[0].starts_with("would violate PodSecurity \"baseline:latest\": privileged"));
        let counted = t.http().await.get("/metrics", "text/plain").await;
        let counted = String::from_utf8_lossy(&counted.body).into_owned();
        for (labels, count) in [
            ("decision=\"deny\",mode=\"enforce\",policy_level=\"baseline\",policy_version=\"latest\"", 1),
            ("decision=\"allow\",mode=\"enforce\",policy_level=\"baseline\",policy_version=\"latest\"", 1),
            ("decision=\"allow\",mode=\"enforce\",policy_level=\"privileged\",policy_version=\"latest\"", 1),
        ] {
            let about = "request_operation=\"create\",resource=\"pod\",subresource=\"\"";
            let line = format!("pod_security_evaluations_total{{{labels},{about}}} {count}\n");
            assert!(counted.contains(&line), "{line}");
        }
        let failure = label(&t, json!({"enforce": "strict"})).await.unwrap_err();
        assert_eq!(failure.code, 422);
    }
}
