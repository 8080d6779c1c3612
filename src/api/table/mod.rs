//! The table of served resources: one row per group, version and plural name. It drives routes, discovery,
//! storage keys, defaulting, validation and printing.
//!
//! Built-in rows are made once ([`rows`]); rows for custom resources are made at run time with [`Row::new`] and
//! have the same type. Betas and alphas are in the table but not [`Row::enabled`].

use std::{
    borrow::Cow,
    collections::HashMap,
    fmt,
    sync::{Arc, LazyLock},
};

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    call::{Resource, Verb},
    custom,
    failure::FieldError,
    meta,
    print::Column,
    selector::SelectableField,
    strategy::{self, Functions, Strategy},
};

mod admission;
mod apps;
mod authorization;
mod beta;
mod cluster;
mod core;
mod extension;
mod preview;

type Text = Cow<'static, str>;

/// Every verb, for resources that are kept.
pub const ALL_VERBS: &[Verb] = &[
    Verb::Create,
    Verb::Delete,
    Verb::DeleteCollection,
    Verb::Get,
    Verb::List,
    Verb::Patch,
    Verb::Update,
    Verb::Watch,
];
const CREATE: &[Verb] = &[Verb::Create];
const CREATE_GET: &[Verb] = &[Verb::Create, Verb::Get];
const GET: &[Verb] = &[Verb::Get];
const GET_PATCH_UPDATE: &[Verb] = &[Verb::Get, Verb::Patch, Verb::Update];
const PROXY: &[Verb] = &[Verb::Create, Verb::Delete, Verb::Get, Verb::Patch, Verb::Update];
const UPDATE: &[Verb] = &[Verb::Update];

/// A subresource and the type that it takes or gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subresource {
    pub name: Text,
    /// Empty `group` and `version` mean the row's own.
    pub group: Text,
    pub version: Text,
    pub kind: Text,
    pub verbs: Cow<'static, [Verb]>,
}

/// One served resource.
#[derive(Clone)]
pub struct Row {
    pub resource: Resource,
    pub kind: Text,
    pub list_kind: Text,
    pub singular: Text,
    pub short_names: Vec<Text>,
    pub categories: Vec<Text>,
    pub namespaced: bool,
    /// In discovery's order. Empty where only subresources are served.
    pub verbs: Cow<'static, [Verb]>,
    pub subresources: Vec<Subresource>,
    /// Where objects lie below `/registry/`, as in upstream's etcd: `pods`, `services/specs`, `minions`.
    pub key_prefix: Text,
    /// Beside `metadata.name` and, for namespaced resources, `metadata.namespace`.
    pub selectable_fields: Vec<SelectableField>,
    /// Served by default. Alphas and betas are not.
    pub enabled: bool,
    /// False for what is computed and never kept: reviews, bindings, component statuses.
    pub stored: bool,
    /// The version and group that are stored (upstream's storage version); several rows may share it.
    pub storage: Resource,
    pub storage_kind: Text,
    /// A PUT of a name that does not exist creates it.
    pub create_on_update: bool,
    /// An update without `metadata.resourceVersion` is accepted.
    pub unconditional_update: bool,
    /// What `metadata.generation` counts.
    pub generation: meta::Generation,
    pub name_rule: meta::NameRule,
    pub strategy: Arc<dyn Strategy>,
    /// Of a custom resource, the version of its definition.
    pub custom: Option<Arc<custom::Version>>,
    /// What users are told who still ask for it.
    pub deprecation: Option<Text>,
}

/// Built-in rows, by group and then by name.
pub fn rows() -> &'static [Arc<Row>] {
    &TABLE.rows
}

impl Row {
    /// A row with all verbs and no functions of its own, to be completed.
    pub fn new(resource: Resource, kind: impl Into<Text>, singular: impl Into<Text>, namespaced: bool) -> Row {
        let kind = kind.into();
        Row {
            list_kind: Cow::Owned(format!("{kind}List")),
            singular: singular.into(),
            short_names: Vec::new(),
            categories: Vec::new(),
            namespaced,
            verbs: Cow::Borrowed(ALL_VERBS),
            subresources: Vec::new(),
            key_prefix: resource.plural.clone(),
            selectable_fields: Vec::new(),
            enabled: true,
            stored: true,
            storage: resource.clone(),
            storage_kind: kind.clone(),
            create_on_update: false,
            unconditional_update: true,
            generation: meta::Generation::None,
            name_rule: meta::NameRule::Subdomain,
            strategy: Arc::new(Functions::PLAIN),
            custom: None,
            deprecation: None,
            resource,
            kind,
        }
    }

    /// A built-in row by what a request's path names.
    pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Arc<Row>> {
        TABLE.by_plural.get(&(group, version, plural)).map(|&index| &TABLE.rows[index])
    }

    /// A built-in row by what an object says it is; `api_version` is `v1` or `apps/v1`.
    pub fn find_kind(api_version: &str, kind: &str) -> Option<&'static Arc<Row>> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        TABLE.by_kind.get(&(group, version, kind)).map(|&index| &TABLE.rows[index])
    }

    pub fn api_version(&self) -> String {
        self.resource.api_version()
    }

    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }

    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    pub fn has_verb(&self, verb: Verb) -> bool {
        self.verbs.contains(&verb)
    }

    /// `/registry/<prefix>/`, or with the namespace `/registry/<prefix>/<namespace>/`: what a list reads.
    pub fn list_key(&self, namespace: Option<&str>) -> String {
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!("/registry/{}/{namespace}/", self.key_prefix),
            None => format!("/registry/{}/", self.key_prefix),
        }
    }

    /// Where one object lies.
    pub fn key(&self, namespace: Option<&str>, name: &str) -> String {
        let mut key = self.list_key(namespace);
        key.push_str(name);
        key
    }

    pub fn default(&self, object: &mut Value) {
        self.strategy.default(object);
    }

    /// Resets what an author may not set. The caller gives the object its identity (uid, creation time, a generated
    /// name) with [`meta::begin`], before or after.
    pub fn prepare_create(&self, object: &mut Value) {
        self.strategy.prepare_create(object);
        meta::prepare_create(object, self.generation);
    }

    /// Resets what this update may not change, and counts the generation.
    pub fn prepare_update(&self, object: &mut Value, old: &Value, subresource: Option<&str>) {
        self.strategy.prepare_update(object, old, subresource);
        let counts = !matches!(subresource, Some("status" | "approval" | "finalize"));
        meta::prepare_update(object, old, if counts { self.generation } else { meta::Generation::None });
    }

    /// After defaulting, admission and [`Row::prepare_create`].
    pub fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        meta::validate_create(object, self, &mut errors);
        self.strategy.validate_create(object, &mut errors);
        errors
    }

    pub fn validate_update(&self, object: &Value, old: &Value, subresource: Option<&str>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        meta::validate_update(object, old, self, &mut errors);
        self.strategy.validate_update(object, old, subresource, &mut errors);
        errors
    }

    pub fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        self.strategy.warnings(object, old)
    }

    /// From the served to the stored version, type included.
    pub fn to_storage(&self, object: &mut Value) {
        if self.storage != self.resource {
            self.strategy.to_storage(object);
            meta::set_type(object, &self.storage.api_version(), &self.storage_kind);
        }
    }

    /// From the stored to the served version, type included.
    pub fn to_served(&self, object: &mut Value) {
        if self.storage != self.resource {
            self.strategy.to_served(object);
            meta::set_type(object, &self.api_version(), &self.kind);
        }
    }

    pub fn columns(&self) -> Cow<'_, [Column]> {
        self.strategy.columns()
    }

    /// A table's row for one object: a cell for each of [`Row::columns`].
    pub fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        self.strategy.cells(object, now)
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row").field("resource", &self.resource).field("kind", &self.kind).finish_non_exhaustive()
    }
}

struct Table {
    rows: Vec<Arc<Row>>,
    by_plural: HashMap<(&'static str, &'static str, &'static str), usize>,
    by_kind: HashMap<(&'static str, &'static str, &'static str), usize>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut rows = Vec::new();
    core::add(&mut rows);
    apps::add(&mut rows);
    authorization::add(&mut rows);
    cluster::add(&mut rows);
    admission::add(&mut rows);
    extension::add(&mut rows);
    preview::add(&mut rows);
    beta::add(&mut rows);
    let mut by_plural = HashMap::new();
    let mut by_kind = HashMap::new();
    for (index, built) in rows.iter().enumerate() {
        by_plural.insert((built.group, built.version, built.plural), index);
        by_kind.entry((built.group, built.version, built.kind)).or_insert(index);
    }
    Table { rows: rows.into_iter().map(Built::finish).collect(), by_plural, by_kind }
});

/// A built-in row while it is written down, with its names still static.
struct Built {
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    kind: &'static str,
    row: Row,
    functions: Functions,
}

fn namespaced(group: &'static str, version: &'static str, plural: &'static str, kind: &'static str) -> Built {
    Built::new(group, version, plural, kind, true)
}

fn global(group: &'static str, version: &'static str, plural: &'static str, kind: &'static str) -> Built {
    Built::new(group, version, plural, kind, false)
}

impl Built {
    fn new(group: &'static str, version: &'static str, plural: &'static str, kind: &'static str, ns: bool) -> Built {
        let row = Row::new(Resource::new(group, version, plural), kind, kind.to_ascii_lowercase(), ns);
        Built { group, version, plural, kind, row, functions: Functions::PLAIN }
    }

    fn short(mut self, names: &'static [&'static str]) -> Built {
        self.row.short_names = names.iter().map(|&name| Cow::Borrowed(name)).collect();
        self
    }

    fn category(mut self, name: &'static str) -> Built {
        self.row.categories.push(Cow::Borrowed(name));
        self
    }

    fn verbs(mut self, verbs: &'static [Verb]) -> Built {
        self.row.verbs = Cow::Borrowed(verbs);
        self
    }

    /// A subresource of another type than the row's.
    fn sub(mut self, name: &'static str, gvk: [&'static str; 3], verbs: &'static [Verb]) -> Built {
        let [group, version, kind] = gvk.map(Cow::Borrowed);
        self.row.subresources.push(Subresource {
            name: Cow::Borrowed(name),
            group,
            version,
            kind,
            verbs: Cow::Borrowed(verbs),
        });
        self
    }

    /// A subresource that is a view of the object itself.
    fn view(self, name: &'static str) -> Built {
        let kind = self.kind;
        self.sub(name, ["", "", kind], GET_PATCH_UPDATE)
    }

    /// A status that only its subresource sets.
    fn status(mut self) -> Built {
        self.functions.prepare_create.get_or_insert(strategy::clear_status);
        self.functions.prepare_update.get_or_insert(strategy::isolate_status);
        self.view("status")
    }

    fn scale(self) -> Built {
        self.sub("scale", ["autoscaling", "v1", "Scale"], GET_PATCH_UPDATE)
    }

    fn key(mut self, prefix: &'static str) -> Built {
        self.row.key_prefix = Cow::Borrowed(prefix);
        self
    }

    fn select(mut self, fields: &[SelectableField]) -> Built {
        self.row.selectable_fields = fields.to_vec();
        self
    }

    /// Answered from what the request says; nothing is kept.
    fn computed(mut self, verbs: &'static [Verb]) -> Built {
        self.row.stored = false;
        self.verbs(verbs)
    }

    /// Since a release; `more` says until when it is there and what to use instead.
    fn deprecated(mut self, since: &str, more: &str) -> Built {
        let text = format!("{} {} is deprecated in v{since}+{more}", self.row.api_version(), self.kind);
        self.row.deprecation = Some(text.into());
        self
    }

    fn off(mut self) -> Built {
        self.row.enabled = false;
        self
    }

    fn stored_as(mut self, group: &'static str, version: &'static str, plural: &'static str) -> Built {
        self.row.storage = Resource::new(group, version, plural);
        self
    }

    fn create_on_update(mut self) -> Built {
        self.row.create_on_update = true;
        self
    }

    /// Updates must carry the resource version.
    fn conditional(mut self) -> Built {
        self.row.unconditional_update = false;
        self
    }

    fn generation(mut self) -> Built {
        self.row.generation = meta::Generation::Spec;
        self
    }

    fn counts(mut self, generation: meta::Generation) -> Built {
        self.row.generation = generation;
        self
    }

    fn names(mut self, rule: meta::NameRule) -> Built {
        self.row.name_rule = rule;
        self
    }

    fn prepare_create(mut self, prepare: fn(&mut Value)) -> Built {
        self.functions.prepare_create = Some(prepare);
        self
    }

    fn prepare_update(mut self, prepare: fn(&mut Value, &Value, Option<&str>)) -> Built {
        self.functions.prepare_update = Some(prepare);
        self
    }

    fn validate(mut self, validate: fn(&Value, &mut Vec<FieldError>)) -> Built {
        self.functions.validate_create = validate;
        self
    }

    /// What is checked on an update, where that is not just what is checked on a create.
    fn validate_update(mut self, validate: fn(&Value, &Value, Option<&str>, &mut Vec<FieldError>)) -> Built {
        self.functions.validate_update = Some(validate);
        self
    }

    fn warn(mut self, warnings: fn(&Value, Option<&Value>) -> Vec<String>) -> Built {
        self.functions.warnings = warnings;
        self
    }

    fn convert(mut self, to_storage: fn(&mut Value), to_served: fn(&mut Value)) -> Built {
        self.functions.to_storage = to_storage;
        self.functions.to_served = to_served;
        self
    }

    fn show(mut self, columns: &'static [Column], cells: fn(&Value, Timestamp) -> Vec<Value>) -> Built {
        self.functions.columns = columns;
        self.functions.cells = cells;
        self
    }

    fn finish(mut self) -> Arc<Row> {
        self.row.strategy = Arc::new(self.functions);
        Arc::new(self.row)
    }

    fn default(mut self, default: fn(&mut Value)) -> Built {
        self.functions.default = default;
        self
    }
}

#[cfg(test)]
mod tests;
