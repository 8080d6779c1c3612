//! Webhook configurations as they are worked with: read once for each change of any of them.

use std::sync::Arc;
use std::time::Duration;

use api::{Fields, LabelSelector};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde_json::Value;

use crate::admission::policy::Conditions;
use crate::cache::{Cache, ResourceCache};
use crate::webhook::{Credentials, Endpoint, EndpointError};

/// What a hook gets that says nothing (upstream's default in v1).
const TIMEOUT_SECONDS: i64 = 10;
const TIMEOUT_SECONDS_MAX: i64 = 30;

/// One webhook of one configuration.
pub struct Hook {
    /// Stays the same while the configuration does not move it.
    pub id: String,
    pub configuration: String,
    pub name: String,
    pub rules: Vec<Rule>,
    /// `matchPolicy: Equivalent`: rules for another version of the same objects count too.
    pub equivalent: bool,
    pub namespaces: LabelSelector,
    pub objects: LabelSelector,
    pub conditions: Conditions,
    /// `failurePolicy: Ignore`.
    pub ignores_failures: bool,
    /// `None` or `NoneOnDryRun`: it may be asked about what is only tried.
    pub takes_dry_run: bool,
    /// `reinvocationPolicy: IfNeeded`.
    pub reinvoked: bool,
    pub timeout: Duration,
    /// The first of its `admissionReviewVersions` that is known here.
    pub version: Option<&'static str>,
    pub endpoint: Result<Endpoint, EndpointError>,
}

/// What a hook wants to be asked about (`RuleWithOperations`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    pub operations: Vec<String>,
    pub groups: Vec<String>,
    pub versions: Vec<String>,
    /// Plural name and subresource; each may be `*`.
    pub resources: Vec<(String, String)>,
    pub scope: Scope,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    #[default]
    All,
    Cluster,
    Namespaced,
}

/// All hooks of one kind of configuration, in the order in which they are asked: by the configurations' names.
pub struct Hooks {
    configurations: Option<Arc<ResourceCache>>,
    credentials: Option<Credentials>,
    compiled: ArcSwap<Compiled>,
    compiling: Mutex<()>,
}

struct Compiled {
    revision: Option<u64>,
    hooks: Arc<[Hook]>,
}

impl Hooks {
    /// `prefix` is the configurations', such as `/registry/mutatingwebhookconfigurations/`.
    pub fn new(cache: &Cache, prefix: &str, credentials: Option<Credentials>) -> Hooks {
        Hooks {
            configurations: cache.resource(prefix.as_bytes()),
            credentials,
            compiled: ArcSwap::from_pointee(Compiled { revision: None, hooks: Arc::new([]) }),
            compiling: Mutex::new(()),
        }
    }

    /// The hooks as they are now.
    pub fn current(&self) -> Arc<[Hook]> {
        let compiled = self.compiled.load();
        let Some(configurations) = &self.configurations else { return compiled.hooks.clone() };
        if compiled.revision == Some(configurations.revision()) {
            return compiled.hooks.clone();
        }
        let _compiling = self.compiling.lock();
        let compiled = self.compiled.load();
        if compiled.revision == Some(configurations.revision()) {
            return compiled.hooks.clone();
        }
        let snapshot = configurations.snapshot(None, 0);
        let mut hooks = Vec::new();
        for stored in &snapshot.objects {
            match serde_json::from_slice(&stored.value) {
                Ok(configuration) => hooks.extend(compile(&configuration, self.credentials.as_ref())),
                Err(error) => tracing::error!(name = stored.name(), %error, "a webhook configuration is no JSON"),
            }
        }
        let hooks: Arc<[Hook]> = hooks.into();
        self.compiled.store(Arc::new(Compiled { revision: Some(snapshot.revision), hooks: hooks.clone() }));
        hooks
    }

    pub fn is_empty(&self) -> bool {
        let compiled = self.compiled.load();
        match &self.configurations {
            Some(configurations) if compiled.revision != Some(configurations.revision()) => self.current().is_empty(),
            _ => compiled.hooks.is_empty(),
        }
    }
}

/// The hooks of one configuration.
fn compile(configuration: &Value, credentials: Option<&Credentials>) -> Vec<Hook> {
    let configuration_name = configuration.part("metadata").text("name");
    let hooks = configuration.list("webhooks").iter().enumerate();
    hooks.map(|(index, hook)| compile_hook(configuration_name, index, hook, credentials)).collect()
}

fn compile_hook(configuration: &str, index: usize, hook: &Value, credentials: Option<&Credentials>) -> Hook {
    let name = hook.text("name");
    // What cannot be read was refused when it was written; should it be there all the same, it selects nothing.
    let selector = |field| match hook.at(field) {
        Some(selector) => LabelSelector::from_value(Some(selector)).unwrap_or_else(|_| LabelSelector::nothing()),
        None => LabelSelector::everything(),
    };
    let seconds = hook.int("timeoutSeconds").unwrap_or(TIMEOUT_SECONDS).clamp(1, TIMEOUT_SECONDS_MAX);
    let client = hook.part("clientConfig");
    let endpoint = match credentials {
        Some(credentials) => Endpoint::from_client_config_with(client, credentials),
        None => Endpoint::from_client_config(client),
    };
    Hook {
        id: format!("{configuration}/{name}/{index}"),
        configuration: configuration.to_owned(),
        name: name.to_owned(),
        rules: hook.list("rules").iter().map(compile_rule).collect(),
        equivalent: hook.text("matchPolicy") != "Exact",
        namespaces: selector("namespaceSelector"),
        objects: selector("objectSelector"),
        conditions: Conditions::compile(hook.list("matchConditions")),
        ignores_failures: hook.text("failurePolicy") == "Ignore",
        takes_dry_run: matches!(hook.text("sideEffects"), "None" | "NoneOnDryRun"),
        reinvoked: hook.text("reinvocationPolicy") == "IfNeeded",
        timeout: Duration::from_secs(seconds.unsigned_abs()),
        version: hook.list("admissionReviewVersions").iter().find_map(|version| match version.as_str() {
            Some("v1") => Some("v1"),
            Some("v1beta1") => Some("v1beta1"),
            _ => None,
        }),
        endpoint: endpoint.map(|endpoint| endpoint.with_query(&format!("timeout={seconds}s"))),
    }
}

pub fn compile_rule(rule: &Value) -> Rule {
    let texts = |field| rule.list(field).iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let resource = |text: &str| {
        let (plural, subresource) = text.split_once('/').unwrap_or((text, ""));
        (plural.to_owned(), subresource.to_owned())
    };
    Rule {
        operations: texts("operations"),
        groups: texts("apiGroups"),
        versions: texts("apiVersions"),
        resources: rule.list("resources").iter().filter_map(Value::as_str).map(resource).collect(),
        scope: match rule.text("scope") {
            "Cluster" => Scope::Cluster,
            "Namespaced" => Scope::Namespaced,
            _ => Scope::All,
        },
    }
}
