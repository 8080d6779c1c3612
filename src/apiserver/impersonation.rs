//! Impersonation: acting as another user, for those who may.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::Failure;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::authz::{Action, Attributes, Authorizer, forbidden};
use crate::identity::Identity;
use crate::pipeline::Asked;
use crate::request;
use crate::server::ApiServer;

const USER: HeaderName = HeaderName::from_static("impersonate-user");
const GROUP: HeaderName = HeaderName::from_static("impersonate-group");
const UID: HeaderName = HeaderName::from_static("impersonate-uid");
const EXTRA_PREFIX: &str = "impersonate-extra-";

/// The user that the headers name, if `user` may be them for what is asked; `user` if they name none. The headers go no
/// further.
pub async fn apply(
    server: &ApiServer,
    user: Arc<Identity>,
    headers: &mut HeaderMap,
    asked: &Asked,
) -> Result<Arc<Identity>, Failure> {
    let Some(wanted) = Wanted::of(headers)? else { return Ok(user) };
    let mut first = None;
    for mode in MODES.into_iter().filter(|mode| mode.fits(&wanted, &user)) {
        match mode.check(server, &user, &wanted, asked).await {
            Ok(()) => {
                let named =
                    |name: &HeaderName| [USER, GROUP, UID].contains(name) || name.as_str().starts_with(EXTRA_PREFIX);
                let names: Vec<HeaderName> = headers.keys().filter(|name| named(name)).cloned().collect();
                for name in names {
                    headers.remove(name);
                }
                tracing::debug!(user = user.name, impersonated = wanted.name, ?mode, "a user acts as another");
                return Ok(Arc::new(wanted.identity(mode)));
            }
            // What the narrowest way says is what upstream answers.
            Err(failure) => first = first.or(Some(failure)),
        }
    }
    Err(first.unwrap_or_else(|| Failure::internal("all impersonation modes failed")))
}

/// Ways to act as another (KEP-5284), from the narrowest. All but the old one also need a permission for what is asked:
/// `impersonate-on:<mode>:<verb>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// A ServiceAccount acts as the node that its Pod runs on.
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    UserInfo,
    Legacy,
}

const MODES: [Mode; 5] =
    [Mode::AssociatedNode, Mode::ArbitraryNode, Mode::ServiceAccount, Mode::UserInfo, Mode::Legacy];

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::AssociatedNode => "associated-node",
            Mode::ArbitraryNode => "arbitrary-node",
            Mode::ServiceAccount => "serviceaccount",
            Mode::UserInfo => "user-info",
            Mode::Legacy => "",
        }
    }

    fn fits(self, wanted: &Wanted, user: &Identity) -> bool {
        let node = wanted.node();
        match self {
            Mode::Legacy => true,
            Mode::UserInfo => node.is_none() && wanted.account().is_none(),
            Mode::ServiceAccount => wanted.is_name_only() && wanted.account().is_some(),
            Mode::ArbitraryNode => wanted.is_name_only() && node.is_some(),
            Mode::AssociatedNode => {
                let own = user.extra.get("authentication.kubernetes.io/node-name").and_then(|names| names.first());
                let own = own.filter(|_| user.service_account_name().is_some());
                wanted.is_name_only() && node.is_some() && own.map(String::as_str) == node
            }
        }
    }

    async fn check(self, server: &ApiServer, user: &Identity, wanted: &Wanted, asked: &Asked) -> Result<(), Failure> {
        if self == Mode::Legacy {
            return wanted.check(server.authorizer(), user, "impersonate", self).await;
        }
        // Which node it is has been looked at: the authorizers see the same for all of them.
        let general;
        let user = if self == Mode::AssociatedNode {
            let keys = user.extra.keys().cloned().collect();
            let extra = [("authentication.kubernetes.io/associated-node-keys".to_owned(), keys)].into();
            general = Identity { extra, ..user.clone() };
            &general
        } else {
            user
        };
        asked.authorize_impersonated(server, user, self.name()).await?;
        wanted.check(server.authorizer(), user, &format!("impersonate:{}", self.name()), self).await
    }
}

/// Whom the headers name.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    name: String,
    uid: Option<String>,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

impl Wanted {
    fn of(headers: &HeaderMap) -> Result<Option<Wanted>, Failure> {
        let name = headers.get(USER).map(text).transpose()?.filter(|name| !name.is_empty());
        let uid = headers.get(UID).map(text).transpose()?.filter(|uid| !uid.is_empty());
        let groups = headers.get_all(GROUP).iter().map(text).collect::<Result<Vec<_>, _>>()?;
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (header, value) in headers {
            let Some(key) = header.as_str().strip_prefix(EXTRA_PREFIX) else { continue };
            // What is not well escaped is taken as it is.
            let key = request::unescape(key, false).map_or_else(|| key.to_owned(), |key| key.into_owned());
            extra.entry(key).or_default().push(text(value)?);
        }
        match name {
            Some(name) => Ok(Some(Wanted { name, uid, groups, extra })),
            None if uid.is_none() && groups.is_empty() && extra.is_empty() => Ok(None),
            None => Err(Failure::bad_request(format!(
                "requested impersonation of uid {uid:?}, groups {groups:?}, extra {extra:?} without impersonating a user"
            ))),
        }
    }

    fn account(&self) -> Option<(&str, &str)> {
        let (namespace, name) = self.name.strip_prefix(Identity::SERVICE_ACCOUNT_PREFIX)?.split_once(':')?;
        (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
    }

    fn node(&self) -> Option<&str> {
        self.name.strip_prefix(Identity::NODE_PREFIX).filter(|node| !node.is_empty())
    }

    fn is_name_only(&self) -> bool {
        self.uid.is_none() && self.groups.is_empty() && self.extra.is_empty()
    }

    /// Each part is a permission of its own.
    async fn check(&self, authorizer: &Authorizer, user: &Identity, verb: &str, mode: Mode) -> Result<(), Failure> {
        const AUTHENTICATION: &str = "authentication.k8s.io";
        let legacy = mode == Mode::Legacy;
        let group = if legacy { "" } else { AUTHENTICATION };
        let action = |group, resource, subresource, namespace, name| Action::Resource {
            verb,
            group,
            resource,
            subresource,
            namespace,
            name,
        };
        let mut parts = match (self.account(), self.node().filter(|_| !legacy)) {
            (Some((namespace, account)), _) => vec![action(group, "serviceaccounts", "", namespace, account)],
            (None, Some(_)) if mode == Mode::AssociatedNode => vec![action(group, "nodes", "", "", "*")],
            (None, Some(node)) => vec![action(group, "nodes", "", "", node)],
            (None, None) => vec![action(group, "users", "", "", self.name.as_str())],
        };
        parts.extend(self.uid.iter().map(|uid| action(AUTHENTICATION, "uids", "", "", uid)));
        for name in &self.groups {
            let part = action(group, "groups", "", "", name.as_str());
            let why = match name.as_str() {
                "" => "impersonating the empty string group is not allowed",
                Identity::MASTERS => "impersonating the system:masters group is not allowed",
                _ => "",
            };
            if !legacy && !why.is_empty() {
                return Err(forbidden(user, &part, why));
            }
            parts.push(part);
        }
        for (key, values) in &self.extra {
            for value in values {
                let part = action(AUTHENTICATION, "userextras", key.as_str(), "", value.as_str());
                let is_path = key.split_once('/').is_some_and(|(domain, path)| !domain.is_empty() && !path.is_empty());
                if !legacy && (!is_path || value.is_empty()) {
                    let part = action(AUTHENTICATION, "userextras", "", "", "");
                    return Err(forbidden(user, &part, "impersonating an invalid key in extra is not allowed"));
                }
                parts.push(part);
            }
        }
        for action in parts {
            authorizer.require(user, &Attributes { version: "v1", ..action.into() }).await?;
        }
        Ok(())
    }

    fn identity(self, mode: Mode) -> Identity {
        let mut groups = self.groups.clone();
        if groups.is_empty() {
            if let Some((namespace, _)) = self.account() {
                groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
            } else if self.node().is_some() && mode != Mode::Legacy {
                groups = vec![Identity::NODES.to_owned()];
            }
        }
        let is_unauthenticated = groups.iter().any(|group| group == Identity::UNAUTHENTICATED);
        if self.name == Identity::ANONYMOUS && !is_unauthenticated {
            groups.push(Identity::UNAUTHENTICATED.to_owned());
        }
        let uid = self.uid.unwrap_or_default();
        Identity { name: self.name, uid, groups, extra: self.extra }.authenticated()
    }
}

fn text(value: &HeaderValue) -> Result<String, Failure> {
    value.to_str().map(str::to_owned).map_err(|_| Failure::bad_request("an Impersonate header is no text"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;
    use serde_json::json;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn identity(pairs: &[(&'static str, &str)]) -> Identity {
        Wanted::of(&headers(pairs)).unwrap().unwrap().identity(Mode::Legacy)
    }

    #[test]
    fn groups_follow_from_the_user_unless_they_are_named() {
        let groups = |pairs: &[(&'static str, &str)]| identity(pairs).groups.join(" ");
        assert_eq!(groups(&[("impersonate-user", "alice")]), "system:authenticated");
        assert_eq!(
            groups(&[("impersonate-user", "system:serviceaccount:shop:web")]),
            "system:serviceaccounts system:serviceaccounts:shop system:authenticated"
        );
        let dev = [("impersonate-user", "system:serviceaccount:shop:web"), ("impersonate-group", "dev")];
        assert_eq!(groups(&dev), "dev system:authenticated");
        assert_eq!(groups(&[("impersonate-user", "system:anonymous")]), "system:unauthenticated");
        let unauthenticated = [("impersonate-user", "alice"), ("impersonate-group", "system:unauthenticated")];
        assert_eq!(groups(&unauthenticated), "system:unauthenticated");
    }

    #[test]
    fn extra_keys_are_unescaped_and_nothing_goes_without_a_user() {
        let extra = [("impersonate-extra-example.com%2fscope", "a"), ("impersonate-extra-example.com%2fscope", "b")];
        assert!(Wanted::of(&headers(&extra)).is_err());
        assert!(Wanted::of(&headers(&[("impersonate-uid", "1")])).is_err());
        assert_eq!(Wanted::of(&headers(&[("accept", "*/*")])).unwrap(), None);
        let named = identity(&[("impersonate-user", "alice"), extra[0], extra[1]]);
        assert_eq!(named.extra["example.com/scope"], ["a", "b"]);
    }

    #[tokio::test]
    async fn each_part_needs_its_permission() {
        let t = Fixture::start().await;
        let rule = |group: &str, resource: &str, name: &str| json!({"apiGroups": [group], "resources": [resource], "verbs": ["impersonate"], "resourceNames": [name]});
        let role = json!({"metadata": {"name": "actor"}, "rules": [
            rule("", "users", "alice"), rule("", "groups", "dev"), rule("authentication.k8s.io", "uids", "1"),
            rule("authentication.k8s.io", "userextras/scope", "a"),
        ]});
        t.create("rbac.authorization.k8s.io", "clusterroles", role).await.unwrap();
        let binding = json!({"metadata": {"name": "actor"},
            "subjects": [{"kind": "User", "name": "eve", "apiGroup": "rbac.authorization.k8s.io"}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "actor"}});
        t.create("rbac.authorization.k8s.io", "clusterrolebindings", binding).await.unwrap();
        t.catch_up().await;
        let eve = Arc::new(Identity::user("eve", [""; 0]));
        let mut all = headers(&[
            ("impersonate-user", "alice"),
            ("impersonate-group", "dev"),
            ("impersonate-uid", "1"),
            ("impersonate-extra-scope", "a"),
            ("accept", "*/*"),
        ]);
        let alice = apply(&t.server, eve.clone(), &mut all, &asked()).await.unwrap();
        assert_eq!((alice.name.as_str(), alice.uid.as_str()), ("alice", "1"));
        assert_eq!(all.len(), 1, "the headers go no further");
        for (header, value, refused) in [
            ("impersonate-group", "ops", "groups \"ops\" is forbidden"),
            ("impersonate-uid", "2", "uids.authentication.k8s.io \"2\" is forbidden"),
            ("impersonate-extra-scope", "b", "userextras.authentication.k8s.io \"b\" is forbidden"),
            ("impersonate-extra-other", "a", "userextras.authentication.k8s.io \"a\" is forbidden"),
        ] {
            let more = headers(&[("impersonate-user", "alice"), (header, value)]);
            let wanted = Wanted::of(&more).unwrap().unwrap();
            let failure = Mode::Legacy.check(&t.server, &eve, &wanted, &asked()).await.unwrap_err().to_string();
            assert!(failure.starts_with(refused), "{failure}");
            let failure = apply(&t.server, eve.clone(), &mut more.clone(), &asked()).await.unwrap_err().to_string();
            assert!(failure.contains("cannot impersonate-on:user-info:list resource \"pods\""), "{failure}");
        }
    }

    fn asked() -> Asked {
        Asked::new(&http::Request::get("/api/v1/namespaces/shop/pods").body(()).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_pod_acts_as_its_own_node_only_and_only_for_what_it_may() {
        let t = Fixture::start().await;
        let rule = |group: &str, resource: &str, verb: &str| json!({"apiGroups": [group], "resources": [resource], "verbs": [verb]});
        let role = json!({"metadata": {"name": "agent"}, "rules": [
            rule("authentication.k8s.io", "nodes", "impersonate:associated-node"),
            rule("", "pods", "impersonate-on:associated-node:list"),
        ]});
        t.create("rbac.authorization.k8s.io", "clusterroles", role).await.unwrap();
        let binding = json!({"metadata": {"name": "agent"},
            "subjects": [{"kind": "ServiceAccount", "name": "agent", "namespace": "shop"}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "agent"}});
        t.create("rbac.authorization.k8s.io", "clusterrolebindings", binding).await.unwrap();
        t.catch_up().await;
        let mut agent = Identity::service_account("shop", "agent");
        agent.extra.insert("authentication.kubernetes.io/node-name".into(), vec!["here".into()]);
        let agent = Arc::new(agent);
        let as_node = async |node: &str, path: &str| {
            let asked = Asked::new(&http::Request::get(path).body(()).unwrap()).unwrap();
            let mut headers = headers(&[("impersonate-user", node)]);
            apply(&t.server, agent.clone(), &mut headers, &asked).await
        };
        let node = as_node("system:node:here", "/api/v1/namespaces/shop/pods").await.unwrap();
        assert_eq!(node.groups, ["system:nodes", "system:authenticated"]);
        assert!(as_node("system:node:there", "/api/v1/namespaces/shop/pods").await.is_err());
        assert!(as_node("system:node:here", "/api/v1/namespaces/shop/secrets").await.is_err());
    }
}
