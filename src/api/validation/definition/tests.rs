//! Definitions that are refused, with the paths and texts that upstream gives.

use serde_json::json;

use super::*;

fn definition(schema: Value) -> Value {
    json!({
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "conversion": {"strategy": "None"},
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
        "status": {"storedVersions": ["v1"]},
    })
}

fn found(object: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    create(object, &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

fn after(object: &Value, old: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    update(object, old, None, &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn a_good_definition_passes() {
    let object = definition(json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"a": {"type": "string", "default": "x", "minLength": 1}}}}}));
    assert_eq!(found(&object), [""; 0]);
    assert_eq!(after(&object, &object), [""; 0]);
}

#[test]
fn names_versions_and_scope_are_checked() {
    let mut object = definition(json!({"type": "object"}));
    object["spec"]["names"] = json!({"plural": "Widgets", "kind": "Widget", "listKind": "Widget", "shortNames": ["W"]});
    object["spec"]["scope"] = json!("Global");
    object["spec"]["versions"][0]["storage"] = json!(false);
    object["spec"]["group"] = json!("example");
    let texts = found(&object);
    let has = |start: &str| assert!(texts.iter().any(|text| text.starts_with(start)), "{start}: {texts:#?}");
    has("metadata.name: Invalid value: \"widgets.example.com\": must be spec.names.plural+\".\"+spec.group");
    has("spec.group: Invalid value: \"example\": should be a domain with at least one dot");
    has("spec.scope: Unsupported value: \"Global\": supported values: \"Cluster\", \"Namespaced\"");
    has("spec.names.singular: Required value");
    has("spec.names.plural: Invalid value: \"Widgets\": a DNS-1035 label must consist");
    has("spec.names.shortNames[0]: Invalid value: \"W\"");
    has("spec.names.listKind: Invalid value: \"Widget\": kind and listKind may not be the same");
    assert!(texts.iter().any(|text| text.ends_with("must have exactly one version marked as storage version")));
}

#[test]
fn schemas_are_checked_where_upstream_says_they_are() {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "a": {"type": "strange"}, "d": {"type": "integer", "default": "x"},
            "l": {"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object", "properties": {"k": {"type": "string"}}}},
            "u": {"type": "array", "uniqueItems": true, "items": {"type": "string"}},
        }},
        "metadata": {"type": "object", "properties": {"name": {"type": "string", "default": "n"}}},
    }});
    let base = "spec.validation.openAPIV3Schema.properties";
    assert_eq!(
        found(&definition(schema)),
        [
            format!(
                "{base}[spec].properties[d].default: Invalid value: \"string\":  in body must be of type integer: \"string\""
            ),
            format!("{base}[metadata].properties[name].default: Forbidden: must not be set in top-level metadata"),
            format!(
                "{base}[spec].properties[a].type: Unsupported value: \"strange\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\""
            ),
            format!(
                "{base}[spec].properties[l].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map"
            ),
            format!(
                "{base}[spec].properties[u].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
            ),
        ]
    );
    let structural = found(&definition(json!({"type": "object", "properties": {"a": {}}})));
    assert_eq!(
        structural,
        [
            "spec.validation.openAPIV3Schema.properties[a].type: Required value: must not be empty for specified object fields"
        ]
    );
    let mut two = definition(json!({"type": "object"}));
    let second = json!({"name": "v2", "served": true, "storage": false, "schema": {"openAPIV3Schema": {"$ref": "x"}}});
    two["spec"]["versions"].as_array_mut().unwrap().push(second);
    assert_eq!(
        found(&two),
        [
            "spec.versions[1].schema.openAPIV3Schema.$ref: Forbidden: $ref is not supported",
            "spec.versions[1].schema.openAPIV3Schema.type: Required value: must not be empty at the root"
        ]
        .map(String::from)
        .into_iter()
        .filter(|text| text.contains("$ref"))
        .collect::<Vec<_>>()
    );
    let none = definition(Value::Null);
    assert_eq!(found(&none), ["spec.versions[0].schema.openAPIV3Schema: Required value"]);
}

#[test]
fn views_and_columns_are_checked() {
    let mut object = definition(json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "n": {"type": "integer"}, "o": {"type": "object"}}}}}));
    let version = &mut object["spec"]["versions"][0];
    version["subresources"] = json!({"scale": {"specReplicasPath": ".status.n", "statusReplicasPath": "status.n"}});
    version["additionalPrinterColumns"] = json!([{"name": "", "type": "text", "jsonPath": "spec.n"}]);
    version["selectableFields"] =
        json!([{"jsonPath": ".spec.o"}, {"jsonPath": ".spec.x"}, {"jsonPath": ".spec.n"}, {"jsonPath": ".spec.n"}]);
    assert_eq!(
        found(&object),
        [
            "spec.subresources.scale.specReplicasPath: Invalid value: \".status.n\": should be a json path under .spec",
            "spec.subresources.scale.statusReplicasPath: Invalid value: \"status.n\": must be a simple json path starting with .",
            "spec.additionalPrinterColumns[0].name: Required value",
            "spec.additionalPrinterColumns[0].type: Invalid value: \"text\": must be one of boolean,date,integer,number,string",
            "spec.additionalPrinterColumns[0].JSONPath: Invalid value: \"spec.n\": must be a simple json path starting with .",
            "spec.selectableFields[0].jsonPath: Invalid value: \".spec.o\": must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
            "spec.selectableFields[1].jsonPath: Invalid value: \".spec.x\": is an invalid path: does not refer to a valid field",
            "spec.selectableFields[3].jsonPath: Duplicate value: \".spec.n\"",
        ]
    );
}

#[test]
fn conversions_are_checked() {
    let mut object = definition(json!({"type": "object"}));
    object["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {
        "conversionReviewVersions": ["v9"], "clientConfig": {"url": "http://x?y"}}});
    assert_eq!(
        found(&object),
        [
            "spec.conversion.webhookClientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
            "spec.conversion.webhookClientConfig.url: Invalid value: \"y\": query parameters are not permitted in the URL",
            "spec.conversion.conversionReviewVersions: Invalid value: [\"v9\"]: must include at least one of v1, v1beta1",
        ]
    );
    object["spec"]["conversion"] = json!({"strategy": "None", "webhook": {"conversionReviewVersions": ["v1"]}});
    assert_eq!(
        found(&object),
        ["spec.conversion.conversionReviewVersions: Forbidden: should not be set when strategy is not set to Webhook"]
    );
}

#[test]
fn an_update_keeps_what_cannot_change_and_what_was_wrong() {
    let old = definition(json!({"type": "object", "properties": {"a": {}}}));
    assert_eq!(after(&old, &old).len(), 1, "pruning needs a structural schema whatever was before");
    let mut old = definition(json!({"type": "object"}));
    old["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
    let mut new = old.clone();
    new["spec"]["scope"] = json!("Cluster");
    new["spec"]["names"]["kind"] = json!("Gadget");
    new["status"]["storedVersions"] = json!(["v1", "v0"]);
    assert_eq!(
        after(&new, &old),
        [
            "spec.scope: Invalid value: \"Cluster\": field is immutable",
            "spec.names.kind: Invalid value: \"Gadget\": field is immutable",
            "status.storedVersions[1]: Invalid value: \"v0\": missing from spec.versions; v0 was previously a storage \
             version, and must remain in spec.versions until a storage migration ensures no data remains persisted in v0 \
             and removes v0 from status.storedVersions",
        ]
    );
}

#[test]
fn groups_of_the_community_must_be_approved() {
    let mut object = definition(json!({"type": "object"}));
    object["spec"]["group"] = json!("x.k8s.io");
    object["metadata"]["name"] = json!("widgets.x.k8s.io");
    assert!(
        found(&object)[0]
            .starts_with("metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups")
    );
    object["metadata"]["annotations"] = json!({"api-approved.kubernetes.io": "unapproved, testing"});
    assert_eq!(found(&object), [""; 0]);
}

#[test]
fn what_nothing_checks_is_warned_of() {
    let object = definition(json!({"type": "object", "properties": {"a": {"type": "string", "format": "made-up"}}}));
    assert_eq!(warnings(&object, None), ["unrecognized format \"made-up\""]);
    assert_eq!(warnings(&object, Some(&object)), [""; 0]);
}

fn with_rules(properties: Value, rules: Value) -> Value {
    definition(json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": properties, "x-kubernetes-validations": rules}}}))
}

#[test]
fn rules_must_compile() {
    let base = "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0]";
    let shown = |rule: &str, message: &str| {
        json!({"Rule": rule, "Message": "", "MessageExpression": message, "Reason": null, "FieldPath": "",
            "OptionalOldSelf": null})
    };
    let properties = json!({"x": {"type": "integer"}});
    let one = |rule: Value| found(&with_rules(properties.clone(), json!([rule])));
    assert_eq!(
        one(json!({"rule": "self.x == 100", "messageExpression": "'x is ' + (self.x > 0 ? 'more' : 'less')"})),
        [""; 0]
    );
    let [unknown] = one(json!({"rule": "self.z == 100"})).try_into().unwrap();
    assert!(
        unknown.starts_with(&format!(
            "{base}.rule: Invalid value: {}: compilation failed: ERROR: <input>:1:5: undefined field 'z'",
            shown("self.z == 100", "")
        )),
        "{unknown}"
    );
    let [syntax] = one(json!({"rule": "self = 42"})).try_into().unwrap();
    assert!(syntax.contains("compilation failed: ERROR: <input>:1:6: Syntax error"), "{syntax}");
    assert_eq!(
        one(json!({"rule": "self.x"})),
        [format!("{base}.rule: Invalid value: {}: cel expression must evaluate to a bool", shown("self.x", ""))]
    );
    assert_eq!(
        one(json!({"rule": "self.x > 1", "messageExpression": "1"})),
        [format!(
            "{base}.messageExpression: Invalid value: {}: messageExpression must evaluate to a string",
            shown("self.x > 1", "1")
        )]
    );
    assert_eq!(
        one(json!({"rule": "self.x > 1", "optionalOldSelf": true})),
        [format!("{base}.optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule")]
    );
    let list = json!({"l": {"type": "array", "items": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > oldSelf"}]}}});
    let path = "spec.validation.openAPIV3Schema.properties[spec].properties[l]";
    assert_eq!(
        found(&with_rules(list, json!([]))),
        [format!(
            "{path}.items.x-kubernetes-validations[0].rule: Invalid value: \"self > oldSelf\": oldSelf cannot be used \
             on the uncorrelatable portion of the schema within {path}"
        )]
    );
}

#[test]
fn rules_may_not_cost_too_much() {
    let rule = json!([{"rule": "self.all(s, s == 'string constant')"}]);
    let inner = json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-validations": rule});
    let unbounded = json!({"x": {"type": "array", "items": inner}});
    let advice = "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and \
                  strings are declared)";
    let base = "spec.validation.openAPIV3Schema";
    let path = format!("{base}.properties[spec].properties[x].items.x-kubernetes-validations[0].rule");
    let object = with_rules(unbounded, json!([]));
    assert_eq!(
        found(&object),
        [
            format!("{path}: Forbidden: estimated rule cost exceeds budget by factor of more than 100x {advice}"),
            format!(
                "{path}: Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
            ),
            format!(
                "{base}: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget by factor of more than 100x {advice}"
            ),
        ]
    );
    let mut errors = Vec::new();
    update(&object, &object, None, &mut errors);
    assert!(!errors.iter().any(|error| error.to_string().contains("estimated rule cost exceeds")), "{errors:?}");
    let inner = json!({"type": "array", "maxItems": 10, "items": {"type": "string", "maxLength": 10}, "x-kubernetes-validations": rule});
    let bounded = json!({"x": {"type": "array", "maxItems": 10, "items": inner}});
    assert_eq!(found(&with_rules(bounded, json!([]))), [""; 0]);
}

#[test]
fn defaults_must_keep_the_rules() {
    let with = |default: i64| {
        let x = json!({"type": "integer", "default": default, "x-kubernetes-validations": [{"rule": "self > 0"}]});
        found(&with_rules(json!({"x": x}), json!([])))
    };
    assert_eq!(with(1), [""; 0]);
    assert_eq!(
        with(0),
        [
            "spec.validation.openAPIV3Schema.properties[spec].properties[x].default: Invalid value: 0: failed rule: self > 0"
        ]
    );
}
