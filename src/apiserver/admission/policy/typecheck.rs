//! What is wrong with a policy's expressions for the types that it names: warnings in its status, nothing more.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::custom::rules::Declared;
use api::{Fields, Row};
use cel::{Decl, ListKind, ObjectType, Type};
use schema::{Scalar, Shape, TypeRef, Types};
use serde_json::{Value, json};

use super::compile::{Compiler, Purpose};

/// Types that are looked at for one policy.
const TYPES_MAX: usize = 10;

/// Group, version and kind.
type Kind<'a> = (&'a str, &'a str, &'a str);

/// `status.typeChecking.expressionWarnings` of a policy among these resources.
pub fn warnings(policy: &Value, rows: &[Arc<Row>]) -> Vec<Value> {
    let spec = policy.part("spec");
    let found = kinds(spec, rows);
    let kinds: Vec<(Kind<'_>, Decl)> =
        found.into_iter().filter_map(|(kind, row)| declared(row).map(|decl| (kind, decl))).collect();
    let params = spec.at("paramKind").and_then(|kind| {
        let api_version = kind.text("apiVersion");
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let wanted = (group, version, kind.text("kind"));
        declared(rows.iter().find(|row| kind_of(row) == wanted)?)
    });
    let params = params.unwrap_or_else(Decl::dynamic);
    let mut warnings = Vec::new();
    for (index, validation) in spec.list("validations").iter().enumerate() {
        for field in ["expression", "messageExpression"] {
            let text = validation.text(field);
            if text.is_empty() {
                continue;
            }
            let issues: Vec<String> = kinds
                .iter()
                .filter_map(|((group, version, kind), decl)| {
                    let mut compiler = Compiler::new(spec, decl.clone(), params.clone());
                    for variable in spec.list("variables") {
                        compiler.variable(variable);
                    }
                    // Any type will do: what the expression is for was checked when it was written.
                    let why = compiler.compile(text, Purpose::Variable).program.err()?;
                    Some(format!("{group}/{version}, Kind={kind}: {why}\n"))
                })
                .collect();
            if !issues.is_empty() {
                let field = format!("spec.validations[{index}].{field}");
                warnings.push(json!({"fieldRef": field, "warning": issues.join("\n")}));
            }
        }
    }
    warnings
}

/// The kinds behind the rules that say exactly what they mean.
fn kinds<'r>(spec: &Value, rows: &'r [Arc<Row>]) -> BTreeMap<Kind<'r>, &'r Row> {
    let mut found = BTreeMap::new();
    for rule in spec.part("matchConstraints").list("resourceRules") {
        let exact = |field: &str| -> Vec<&str> {
            let texts: Vec<&str> = rule.list(field).iter().filter_map(Value::as_str).collect();
            if texts.iter().any(|text| text.contains('*')) { Vec::new() } else { texts }
        };
        let (groups, versions, resources) = (exact("apiGroups"), exact("apiVersions"), exact("resources"));
        let is = |row: &&Arc<Row>| {
            let of = &row.resource;
            groups.contains(&&*of.group) && versions.contains(&&*of.version) && resources.contains(&&*of.plural)
        };
        for row in rows.iter().filter(is) {
            if found.len() == TYPES_MAX {
                break;
            }
            found.insert(kind_of(row), &**row);
        }
    }
    found
}

fn kind_of(row: &Row) -> Kind<'_> {
    (&row.resource.group, &row.resource.version, &row.kind)
}

/// `None` where nothing is known of the type.
fn declared(row: &Row) -> Option<Decl> {
    if let Some(custom) = &row.custom {
        let schema = custom.compiled()?.schema.as_ref()?;
        return Declared::new(schema, true).decl;
    }
    let (group, version, kind) = kind_of(row);
    let ty = Types::builtin().kind(group, version, kind)?;
    Some(Decl::Object(Arc::new(Typed { name: kind.to_owned(), ty })))
}

/// A built-in type, known by its path from the kind.
struct Typed {
    name: String,
    ty: TypeRef<'static>,
}

impl ObjectType for Typed {
    fn name(&self) -> &str {
        &self.name
    }

    fn field(&self, name: &str) -> Option<Decl> {
        self.ty.field(name).map(|ty| decl(&format!("{}.{name}", self.name), ty))
    }
}

fn decl(name: &str, ty: TypeRef<'static>) -> Decl {
    let max_length = 0;
    match ty.shape() {
        Shape::Scalar(scalar) => match scalar {
            Scalar::String | Scalar::Quantity => Decl::String { max_length },
            Scalar::Byte => Decl::Bytes { max_length },
            Scalar::DateTime => Decl::Timestamp { max_length },
            Scalar::Int32 | Scalar::Int64 | Scalar::Integer => Decl::Plain(Type::Int),
            Scalar::Double | Scalar::Number => Decl::Plain(Type::Double),
            Scalar::Boolean => Decl::Plain(Type::Bool),
            Scalar::IntOrString => Decl::dynamic(),
        },
        Shape::List(list) => {
            let items = Arc::new(decl(&format!("{name}.@idx"), list.element));
            Decl::List { items, max_items: 0, kind: ListKind::Atomic }
        }
        Shape::Map(map) => {
            Decl::Map { values: Arc::new(decl(&format!("{name}.@elem"), map.element)), max_properties: 0 }
        }
        Shape::Struct(_) => Decl::Object(Arc::new(Typed { name: name.to_owned(), ty })),
        Shape::Object | Shape::Any => Decl::dynamic(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(resources: &[&str], expression: &str) -> Value {
        json!({"spec": {
            "matchConstraints": {"resourceRules": [{"operations": ["*"], "apiGroups": ["apps"], "apiVersions": ["v1"],
                "resources": resources}]},
            "variables": [{"name": "replicas", "expression": "object.spec.replicas"}],
            "validations": [{"expression": expression, "messageExpression": "object.metadata.name"}],
        }})
    }

    #[test]
    fn expressions_are_checked_against_each_type() {
        let of = |resources: &[&str], expression: &str| warnings(&policy(resources, expression), api::rows());
        assert!(of(&["deployments"], "object.spec.replicas > 1 && variables.replicas < 9").is_empty());
        let found = of(&["deployments", "daemonsets"], "object.spec.replicas > 1");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0]["fieldRef"], "spec.validations[0].expression");
        let warning = found[0]["warning"].as_str().unwrap();
        let expected = "apps/v1, Kind=DaemonSet: compilation failed: ERROR: <input>:1:12: undefined field 'replicas'";
        assert!(warning.starts_with(expected), "{warning}");
        let found = of(&["deployments"], "variables.replicas > '1'");
        assert!(found[0]["warning"].as_str().unwrap().contains("applied to '(int, string)'"));
        assert!(of(&["*"], "object.nothing").is_empty());
    }

    #[test]
    fn custom_resources_have_types_too() {
        let names = json!({"plural": "limits", "kind": "Limit"});
        let definition = json!({"metadata": {"name": "limits.apps"}, "status": {"acceptedNames": names}, "spec": {
            "group": "apps", "scope": "Namespaced", "names": names,
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"max": {"type": "integer"}}}}}],
        }});
        let compiled = Arc::new(api::custom::Definition::compile(&definition).unwrap());
        let rows = api::custom::rows(&compiled, &definition);
        let of = |expression: &str| warnings(&policy(&["limits"], expression), &rows).len();
        assert_eq!((of("object.max < 9"), of("object.min < 9")), (0, 1));
    }
}
