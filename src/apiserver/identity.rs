//! Who makes a request.

use std::collections::BTreeMap;

/// A user as authentication found it (upstream: `user.Info`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    /// What the authenticator knows besides, such as `authentication.kubernetes.io/pod-name` of a bound token.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Identity {
    pub const MASTERS: &str = "system:masters";
    pub const AUTHENTICATED: &str = "system:authenticated";
    pub const UNAUTHENTICATED: &str = "system:unauthenticated";
    pub const ANONYMOUS: &str = "system:anonymous";
    pub const NODES: &str = "system:nodes";
    pub const NODE_PREFIX: &str = "system:node:";
    pub const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";

    /// An authenticated user; the group `system:authenticated` is added.
    pub fn user(name: impl Into<String>, groups: impl IntoIterator<Item = impl Into<String>>) -> Identity {
        let groups = groups.into_iter().map(Into::into).collect();
        Identity { name: name.into(), groups, ..Identity::default() }.authenticated()
    }

    /// The same user, in the group `system:authenticated` unless one of the groups says already whether they are.
    #[must_use]
    pub fn authenticated(mut self) -> Identity {
        let says = |group: &String| group == Identity::AUTHENTICATED || group == Identity::UNAUTHENTICATED;
        if self.name != Identity::ANONYMOUS && !self.groups.iter().any(says) {
            self.groups.push(Identity::AUTHENTICATED.to_owned());
        }
        self
    }

    /// A component of the control plane or the administrator: member of `system:masters`, whom nothing is denied.
    pub fn master(name: impl Into<String>) -> Identity {
        Identity::user(name, [Identity::MASTERS])
    }

    /// The kubelet of a node.
    pub fn node(node: &str) -> Identity {
        Identity::user(format!("{}{node}", Identity::NODE_PREFIX), [Identity::NODES])
    }

    /// A ServiceAccount.
    pub fn service_account(namespace: &str, name: &str) -> Identity {
        Identity::user(
            format!("{}{namespace}:{name}", Identity::SERVICE_ACCOUNT_PREFIX),
            ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")],
        )
    }

    /// Somebody who shows nothing.
    pub fn anonymous() -> Identity {
        Identity {
            name: Identity::ANONYMOUS.to_owned(),
            groups: vec![Identity::UNAUTHENTICATED.to_owned()],
            ..Identity::default()
        }
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|one| one == group)
    }

    /// The node's name if this is a kubelet.
    pub fn node_name(&self) -> Option<&str> {
        if !self.is_in(Identity::NODES) {
            return None;
        }
        self.name.strip_prefix(Identity::NODE_PREFIX).filter(|node| !node.is_empty())
    }

    /// Namespace and name if this is a ServiceAccount.
    pub fn service_account_name(&self) -> Option<(&str, &str)> {
        self.name.strip_prefix(Identity::SERVICE_ACCOUNT_PREFIX)?.split_once(':')
    }
}
