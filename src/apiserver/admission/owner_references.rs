//! OwnerReferencesPermissionEnforcement: who gives an object owners must be allowed to delete it, and who keeps owners
//! from going must be allowed to set their finalizers.

use api::{Failure, Fields};
use futures::future::BoxFuture;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::authz::{Action, Attributes as Asked, Decision};
use crate::server::ApiServer;

pub struct OwnerReferencesPermissionEnforcement;

impl Plugin for OwnerReferencesPermissionEnforcement {
    fn asks(&self, attributes: &Attributes<'_>) -> bool {
        let resource = &attributes.row.resource;
        // A Pod's status changes no owners, whatever kubelets send.
        let pod_status =
            resource.group.is_empty() && resource.plural == "pods" && attributes.subresource == Some("status");
        !pod_status && matches!(attributes.operation, Operation::Create | Operation::Update)
    }

    fn ask<'a>(
        &'a self,
        server: &'a ApiServer,
        attributes: &'a mut Attributes<'_>,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(check(server, attributes, object, old))
    }
}

fn owners(object: &Value) -> &[Value] {
    object.part("metadata").list("ownerReferences")
}

async fn check(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), Failure> {
    let Some(object) = object else { return Ok(()) };
    let before = old.map(owners).unwrap_or_default();
    if owners(object) == before {
        return Ok(());
    }
    // Whoever makes an object could as well have left it.
    if attributes.operation != Operation::Create {
        let resource = &attributes.row.resource;
        let action = Action::Resource {
            verb: "delete",
            group: &resource.group,
            resource: &resource.plural,
            subresource: attributes.subresource.unwrap_or_default(),
            namespace: attributes.namespace,
            name: attributes.name,
        };
        let decision = decide(server, attributes, action, &resource.version).await;
        if !decision.is_allowed() {
            let reason = decision.reason();
            return Err(
                attributes.refuse(format!("cannot set an ownerRef on a resource you can't delete: {reason}, <nil>"))
            );
        }
    }
    let blocked_before =
        |owner: &Value| before.iter().any(|one| one.text("uid") == owner.text("uid") && one.flag("blockOwnerDeletion"));
    let blocking = owners(object).iter().filter(|owner| owner.flag("blockOwnerDeletion") && !blocked_before(owner));
    let blocking: Vec<&Value> = blocking.collect();
    if blocking.is_empty() || may_finalize_anything(server, attributes).await {
        return Ok(());
    }
    for owner in blocking {
        may_finalize(server, attributes, owner).await?;
    }
    Ok(())
}

async fn decide(server: &ApiServer, attributes: &Attributes<'_>, action: Action<'_>, version: &str) -> Decision {
    let asked = Asked { version, ..Asked::from(action) };
    server.authorizer().decide(attributes.user, &asked).await
}

async fn may_finalize_anything(server: &ApiServer, attributes: &Attributes<'_>) -> bool {
    let action = Action::Resource {
        verb: "update",
        group: "*",
        resource: "*",
        subresource: "finalizers",
        namespace: "",
        name: "*",
    };
    decide(server, attributes, action, "*").await.is_allowed()
}

/// An owner's kind may be served as more than one resource; they must be allowed to for all of them.
async fn may_finalize(server: &ApiServer, attributes: &Attributes<'_>, owner: &Value) -> Result<(), Failure> {
    let (api_version, kind) = (owner.text("apiVersion"), owner.text("kind"));
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let rows: Vec<_> = server
        .rows()
        .into_iter()
        .filter(|row| row.resource.group == group && row.resource.version == version && row.kind == kind)
        .collect();
    if rows.is_empty() {
        return Err(attributes.refuse(format!(
            "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {api_version} \
             Kind {kind}: no matches for kind \"{kind}\" in version \"{api_version}\""
        )));
    }
    for row in rows {
        let action = Action::Resource {
            verb: "update",
            group,
            resource: &row.resource.plural,
            subresource: "finalizers",
            namespace: if row.namespaced { attributes.namespace } else { "" },
            name: owner.text("name"),
        };
        let decision = decide(server, attributes, action, version).await;
        if !decision.is_allowed() {
            let reason = decision.reason();
            return Err(attributes.refuse(format!(
                "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: \
                 {reason}, <nil>"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use api::Verb;
    use serde_json::json;

    use super::*;
    use crate::identity::Identity;
    use crate::testing::Fixture;

    const RBAC: &str = "rbac.authorization.k8s.io";

    #[tokio::test]
    async fn who_gives_owners_may_delete_and_who_blocks_may_finalize() {
        let t = Fixture::with_flags(&["enable-admission-plugins=OwnerReferencesPermissionEnforcement"]).await;
        let clerk = Identity::user("clerk", Vec::<String>::new());
        let rules = json!([
            {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "update"]},
            {"apiGroups": [""], "resources": ["secrets/finalizers"], "verbs": ["update"]},
        ]);
        t.create(RBAC, "roles", json!({"metadata": {"name": "clerk"}, "rules": rules})).await.unwrap();
        let binding = json!({"metadata": {"name": "clerk"},
            "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": "clerk"},
            "subjects": [{"apiGroup": RBAC, "kind": "User", "name": "clerk"}]});
        t.create(RBAC, "rolebindings", binding).await.unwrap();
        t.catch_up().await;
        let map = |name: &str, kind: &str, blocks: bool| {
            let owner =
                json!({"apiVersion": "v1", "kind": kind, "name": "o", "uid": "u", "blockOwnerDeletion": blocks});
            json!({"metadata": {"name": name, "ownerReferences": [owner]}})
        };
        let create = |body: Value| t.server.call(&clerk, t.ask(Verb::Create, "", "configmaps", Some(body)));
        create(map("a", "Pod", false)).await.unwrap();
        create(map("b", "Secret", true)).await.unwrap();
        let failure = create(map("c", "Pod", true)).await.unwrap_err();
        assert!(failure.message.contains("a resource you can't set finalizers on"), "{failure}");
        let failure = create(map("c", "Nothing", true)).await.unwrap_err();
        assert!(failure.message.ends_with("no matches for kind \"Nothing\" in version \"v1\""), "{failure}");
        let mut made = t.get("", "configmaps/a").await.unwrap();
        made["data"] = json!({"a": "b"});
        let update = |body: Value| t.server.call(&clerk, t.ask(Verb::Update, "", "configmaps/a", Some(body)));
        update(made.clone()).await.unwrap();
        made["metadata"]["ownerReferences"] = json!([]);
        made["metadata"]["resourceVersion"] = json!("");
        let failure = update(made).await.unwrap_err();
        assert!(failure.message.contains("on a resource you can't delete"), "{failure}");
    }
}
