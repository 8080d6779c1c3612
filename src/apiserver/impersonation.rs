//! Impersonation: acting as another user, for those who may.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::Failure;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::authz::{Action, Attributes, Authorizer};
use crate::identity::Identity;
use crate::request;
use crate::server::ApiServer;

const USER: HeaderName = HeaderName::from_static("impersonate-user");
const GROUP: HeaderName = HeaderName::from_static("impersonate-group");
const UID: HeaderName = HeaderName::from_static("impersonate-uid");
const EXTRA_PREFIX: &str = "impersonate-extra-";

/// The user that the headers name, if `user` may be them; `user` if they name none. The headers go no further.
pub async fn apply(server: &ApiServer, user: Arc<Identity>, headers: &mut HeaderMap) -> Result<Arc<Identity>, Failure> {
    let Some(wanted) = Wanted::of(headers)? else { return Ok(user) };
    wanted.check(server.authorizer(), &user).await?;
    let named = |name: &HeaderName| [USER, GROUP, UID].contains(name) || name.as_str().starts_with(EXTRA_PREFIX);
    let names: Vec<HeaderName> = headers.keys().filter(|name| named(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
    tracing::debug!(user = user.name, impersonated = wanted.name, "a user acts as another");
    Ok(Arc::new(wanted.identity()))
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

    /// Each part is a permission of its own.
    async fn check(&self, authorizer: &Authorizer, user: &Identity) -> Result<(), Failure> {
        const AUTHENTICATION: (&str, &str) = ("authentication.k8s.io", "v1");
        const CORE: (&str, &str) = ("", "v1");
        let mut parts = match self.account() {
            Some((namespace, account)) => vec![(CORE, "serviceaccounts", "", namespace, account)],
            None => vec![(CORE, "users", "", "", self.name.as_str())],
        };
        parts.extend(self.groups.iter().map(|group| (CORE, "groups", "", "", group.as_str())));
        for (key, values) in &self.extra {
            parts.extend(values.iter().map(|value| (AUTHENTICATION, "userextras", key.as_str(), "", value.as_str())));
        }
        parts.extend(self.uid.iter().map(|uid| (AUTHENTICATION, "uids", "", "", uid.as_str())));
        for ((group, version), resource, subresource, namespace, name) in parts {
            let action = Action::Resource { verb: "impersonate", group, resource, subresource, namespace, name };
            authorizer.require(user, &Attributes { version, ..action.into() }).await?;
        }
        Ok(())
    }

    fn identity(self) -> Identity {
        let mut groups = self.groups.clone();
        if let Some((namespace, _)) = self.account()
            && groups.is_empty()
        {
            groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
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
        Wanted::of(&headers(pairs)).unwrap().unwrap().identity()
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
        let alice = apply(&t.server, eve.clone(), &mut all).await.unwrap();
        assert_eq!((alice.name.as_str(), alice.uid.as_str()), ("alice", "1"));
        assert_eq!(all.len(), 1, "the headers go no further");
        for (header, value, refused) in [
            ("impersonate-group", "ops", "groups \"ops\" is forbidden"),
            ("impersonate-uid", "2", "uids.authentication.k8s.io \"2\" is forbidden"),
            ("impersonate-extra-scope", "b", "userextras.authentication.k8s.io \"b\" is forbidden"),
            ("impersonate-extra-other", "a", "userextras.authentication.k8s.io \"a\" is forbidden"),
        ] {
            let mut more = headers(&[("impersonate-user", "alice"), (header, value)]);
            let failure = apply(&t.server, eve.clone(), &mut more).await.unwrap_err().to_string();
            assert!(failure.starts_with(refused), "{failure}");
        }
    }
}
