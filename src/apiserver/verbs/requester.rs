//! A CertificateSigningRequest says who made it. Whoever approves and signs goes by that, so it is written here, over
//! whatever the request says (upstream: the strategy's `PrepareForCreate`).

use api::Row;
use serde_json::{Value, json};

use crate::identity::Identity;

/// Writes the requester's identity into a new CertificateSigningRequest; leaves other objects alone.
pub fn record(user: &Identity, row: &Row, object: &mut Value) {
    if row.resource.group != "certificates.k8s.io" || row.resource.plural != "certificatesigningrequests" {
        return;
    }
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    for (field, value, given) in [
        ("username", json!(user.name), !user.name.is_empty()),
        ("uid", json!(user.uid), !user.uid.is_empty()),
        ("groups", json!(user.groups), !user.groups.is_empty()),
        ("extra", json!(user.extra), !user.extra.is_empty()),
    ] {
        if given {
            spec.insert(field.to_owned(), value);
        } else {
            spec.remove(field);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_asks_in_another_name() {
        let row = Row::find("certificates.k8s.io", "v1", "certificatesigningrequests").unwrap();
        let mut request =
            json!({"spec": {"username": "system:node:a", "groups": ["system:nodes"], "uid": "1", "request": "x"}});
        record(&Identity::user("eve", [""; 0]), row, &mut request);
        assert_eq!(request["spec"], json!({"username": "eve", "groups": ["system:authenticated"], "request": "x"}));
        let pods = Row::find("", "v1", "pods").unwrap();
        let mut pod = json!({"spec": {"username": "kept"}});
        record(&Identity::user("eve", [""; 0]), pods, &mut pod);
        assert_eq!(pod["spec"]["username"], "kept");
    }
}
