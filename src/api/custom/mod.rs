//! Custom resources: what a CustomResourceDefinition makes of itself.
//!
//! [`Definition`] is a definition compiled once: schemas, types for field ownership, columns, paths. [`rows`] makes of
//! it the rows that serve its versions; they have the same type as built-in ones, with a [`Version`] as their strategy.
//! Everything here is pure; calling conversion webhooks and keeping rows up to date is the API server's.
//!
//! | module | what | upstream |
//! |---|---|---|
//! | [`status`] | accepted names and conditions | `controller/{status,establish,nonstructuralschema,apiapproval}` |
//! | [`conversion`] | reviews for conversion webhooks | `apiserver/conversion` |
//! | [`jsonpath`] | paths of columns | client-go's `jsonpath` |
//! | [`rules`] | rules in the expression language | `apiserver/schema/cel` |
//! | `strategy` | how objects are completed, checked and shown | `registry/customresource` |

pub mod conversion;
pub(crate) mod embedded;
pub mod jsonpath;
pub mod rules;
pub mod status;
mod strategy;
mod version_order;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use schema::Types;
use schema::structural::Structural;
use serde_json::Value;

pub use version_order::priority;

use crate::{
    call::{Resource, Verb},
    failure::FieldError,
    fields::Fields,
    meta,
    print::Column,
    selector::SelectableField,
    table::{Row, Subresource},
};
use jsonpath::JsonPath;
use rules::Rules;

/// The finalizer that keeps a definition until its objects are gone.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Verbs in upstream's order, which discovery shows.
const VERBS: &[Verb] = &[
    Verb::Delete,
    Verb::DeleteCollection,
    Verb::Get,
    Verb::List,
    Verb::Patch,
    Verb::Create,
    Verb::Update,
    Verb::Watch,
];
const VIEW_VERBS: &[Verb] = &[Verb::Get, Verb::Patch, Verb::Update];

/// A definition, compiled. It holds for one uid and generation.
pub struct Definition {
    /// `widgets.example.com`
    pub name: String,
    pub group: String,
    pub kind: String,
    pub namespaced: bool,
    pub storage_version: String,
    /// Objects are kept whole, as very old definitions may ask for.
    pub preserve_unknown_fields: bool,
    /// No object can have been stored under another schema than these.
    pub steady: bool,
    pub conversion: Conversion,
    /// By name, served or not.
    pub versions: BTreeMap<String, Compiled>,
}

/// How objects get from one version to another.
#[derive(Clone, Debug, PartialEq)]
pub enum Conversion {
    /// Only the version is another.
    None,
    Webhook {
        /// `WebhookClientConfig`
        client: Value,
        review_versions: Vec<String>,
    },
}

/// One version, compiled.
pub struct Compiled {
    pub schema: Option<Structural>,
    pub types: Types,
    pub served: bool,
    pub has_status: bool,
    pub scale: Option<Scale>,
    /// The text for those who use a deprecated version.
    pub deprecation: Option<String>,
    /// Compiled when they are needed for the first time: expressions take time.
    rules: OnceLock<Option<Rules>>,
    selectable: Vec<SelectableField>,
    columns: Vec<Column>,
    paths: Vec<JsonPath>,
}

/// Where the numbers of `scale` lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    pub spec_replicas_path: String,
    pub status_replicas_path: String,
    pub label_selector_path: Option<String>,
}

impl Scale {
    /// `.spec.replicas` as `[spec, replicas]`.
    pub fn parts(path: &str) -> Vec<&str> {
        path.strip_prefix('.').unwrap_or(path).split('.').collect()
    }
}

/// The strategy of a row: a version of a definition.
pub struct Version {
    pub definition: Arc<Definition>,
    pub name: String,
    /// Nothing new may be created: the definition is being deleted.
    pub terminating: bool,
}

impl Definition {
    /// Compiles a definition; the error says what upstream would log.
    pub fn compile(definition: &Value) -> Result<Definition, String> {
        let (metadata, spec) = (definition.part("metadata"), definition.part("spec"));
        let group = spec.text("group").to_owned();
        let kind = spec.part("names").text("kind").to_owned();
        let conversion = spec.part("conversion");
        let conversion = if conversion.text("strategy") == "Webhook" {
            let webhook = conversion.part("webhook");
            let versions = webhook.list("conversionReviewVersions").iter().filter_map(Value::as_str);
            Conversion::Webhook {
                client: webhook.part("clientConfig").clone(),
                review_versions: versions.map(str::to_owned).collect(),
            }
        } else {
            Conversion::None
        };
        let mut storage_version = String::new();
        let mut versions = BTreeMap::new();
        for version in spec.list("versions") {
            if version.flag("storage") {
                version.text("name").clone_into(&mut storage_version);
            }
            let compiled = Compiled::new(version, spec, &group, &kind)?;
            versions.insert(version.text("name").to_owned(), compiled);
        }
        Ok(Definition {
            name: metadata.text("name").to_owned(),
            namespaced: spec.text("scope") == "Namespaced",
            preserve_unknown_fields: spec.flag("preserveUnknownFields"),
            steady: metadata.int("generation") == Some(1),
            group,
            kind,
            storage_version,
            conversion,
            versions,
        })
    }

    /// `example.com/v1`
    pub fn api_version(&self, version: &str) -> String {
        format!("{}/{version}", self.group)
    }

    /// Prunes and defaults an object that was read from the store, by the schema of the version that it is in.
    pub fn as_read(&self, object: &mut Value) {
        let version = object.text("apiVersion").rsplit('/').next().unwrap_or_default().to_owned();
        self.prune(object, &version);
        if let Some(schema) = self.schema(&version) {
            schema::structural::default(object, schema);
        }
    }

    /// Takes out what the schema of a version does not know.
    pub fn prune(&self, object: &mut Value, version: &str) {
        if self.preserve_unknown_fields {
            return;
        }
        if let Some(schema) = self.schema(version) {
            schema::structural::prune(object, schema, true);
            drop_nulls(object, schema);
        }
    }

    fn schema(&self, version: &str) -> Option<&Structural> {
        self.versions.get(version)?.schema.as_ref()
    }
}

/// Nulls outside the metadata, which has its own type.
fn drop_nulls(object: &mut Value, schema: &Structural) {
    let metadata = object.as_object_mut().and_then(|fields| fields.remove("metadata"));
    schema::structural::drop_nulls(object, schema);
    if let (Some(metadata), Some(fields)) = (metadata, object.as_object_mut()) {
        fields.insert("metadata".to_owned(), metadata);
    }
}

impl Compiled {
    fn new(version: &Value, spec: &Value, group: &str, kind: &str) -> Result<Compiled, String> {
        let name = version.text("name");
        let schema = match version.part("schema").at("openAPIV3Schema") {
            Some(json) => Some(Structural::parse(json)?),
            None => None,
        };
        let types = Types::of_custom([group, name, kind], schema.as_ref())
            .or_else(|_| Types::of_custom([group, name, kind], None))
            .map_err(|error| error.to_string())?;
        let subresources = version.part("subresources");
        let scale = subresources.at("scale").map(|scale| Scale {
            spec_replicas_path: scale.text("specReplicasPath").to_owned(),
            status_replicas_path: scale.text("statusReplicasPath").to_owned(),
            label_selector_path: scale
                .at("labelSelectorPath")
                .and_then(Value::as_str)
                .filter(|path| !path.is_empty())
                .map(str::to_owned),
        });
        let selectable = version.list("selectableFields").iter().map(|field| {
            let path = field.text("jsonPath");
            let path: Cow<'static, str> = path.strip_prefix('.').unwrap_or(path).to_owned().into();
            SelectableField { label: path.clone(), path, fallback: Cow::Borrowed(""), missing: Cow::Borrowed("") }
        });
        let (columns, paths) = strategy::columns(version.list("additionalPrinterColumns"));
        Ok(Compiled {
            schema,
            types,
            served: version.flag("served"),
            has_status: subresources.has("status"),
            scale,
            deprecation: version.flag("deprecated").then(|| deprecation(version, spec)),
            rules: OnceLock::new(),
            selectable: selectable.collect(),
            columns,
            paths,
        })
    }

    fn rules(&self) -> Option<&Rules> {
        let compile = || Rules::new(self.schema.as_ref()?, true);
        self.rules.get_or_init(compile).as_ref()
    }
}

fn deprecation(version: &Value, spec: &Value) -> String {
    if let Some(text) = version.at("deprecationWarning").and_then(Value::as_str) {
        return text.to_owned();
    }
    let (group, kind, name) = (spec.text("group"), spec.part("names").text("kind"), version.text("name"));
    let newest = spec
        .list("versions")
        .iter()
        .filter(|one| one.flag("served") && !one.flag("deprecated"))
        .map(|one| one.text("name"))
        .filter(|one| priority(one) > priority(name))
        .max_by_key(|one| priority(one));
    match newest {
        Some(newest) => format!("{group}/{name} {kind} is deprecated; use {group}/{newest} {kind}"),
        None => format!("{group}/{name} {kind} is deprecated"),
    }
}

/// The rows of a definition: one for each version, those that are not served without being enabled.
pub fn rows(definition: &Arc<Definition>, object: &Value) -> Vec<Arc<Row>> {
    let names = object.part("status").part("acceptedNames");
    let terminating = object.part("metadata").has("deletionTimestamp") || status::is_true(object, status::TERMINATING);
    let rows = definition.versions.iter().map(|(version, compiled)| {
        let resource = Resource {
            group: definition.group.clone().into(),
            version: version.clone().into(),
            plural: names.text("plural").to_owned().into(),
        };
        let texts =
            |name: &str| names.list(name).iter().filter_map(Value::as_str).map(|text| text.to_owned().into()).collect();
        let kind = names.text("kind").to_owned();
        let mut row =
            Row::new(resource.clone(), kind.clone(), names.text("singular").to_owned(), definition.namespaced);
        row.list_kind = names.text("listKind").to_owned().into();
        row.short_names = texts("shortNames");
        row.categories = texts("categories");
        row.verbs = Cow::Borrowed(VERBS);
        row.key_prefix = format!("{}/{}", definition.group, resource.plural).into();
        row.selectable_fields.clone_from(&compiled.selectable);
        row.enabled = compiled.served;
        row.storage = Resource { version: definition.storage_version.clone().into(), ..resource };
        row.unconditional_update = false;
        row.generation = meta::Generation::AllButMetadata;
        let view = |name: &'static str, [group, version, kind]: [String; 3]| Subresource {
            name: name.into(),
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
            verbs: Cow::Borrowed(VIEW_VERBS),
        };
        if compiled.has_status {
            row.subresources.push(view("status", [String::new(), String::new(), kind]));
        }
        if compiled.scale.is_some() {
            row.subresources.push(view("scale", ["autoscaling", "v1", "Scale"].map(str::to_owned)));
        }
        let version = Arc::new(Version { definition: definition.clone(), name: version.clone(), terminating });
        row.custom = Some(version.clone());
        row.strategy = version;
        Arc::new(row)
    });
    rows.collect()
}

impl From<schema::structural::Problem> for FieldError {
    fn from(problem: schema::structural::Problem) -> FieldError {
        use schema::structural::Kind;
        let (reason, text) = match problem.kind {
            Kind::Required => ("FieldValueRequired", "Required value"),
            Kind::Invalid => ("FieldValueInvalid", "Invalid value"),
            Kind::TypeInvalid => ("FieldValueTypeInvalid", "Invalid value"),
            Kind::NotSupported => ("FieldValueNotSupported", "Unsupported value"),
            Kind::TooLong => ("FieldValueTooLong", "Too long"),
            Kind::TooMany => ("FieldValueTooMany", "Too many"),
            Kind::Duplicate => ("FieldValueDuplicate", "Duplicate value"),
            Kind::Forbidden => ("FieldValueForbidden", "Forbidden"),
        };
        FieldError::with(reason, problem.path, text, problem.value.as_ref(), &problem.detail)
    }
}

#[cfg(test)]
mod tests;
