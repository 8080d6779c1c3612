//! Impersonation: acting as another user, for those who may.

use std::collections::BTreeMap;

use api::Failure;
use http::HeaderMap;

use crate::authz::Action;
use crate::identity::Identity;
use crate::request;
use crate::server::ApiServer;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA_PREFIX: &str = "impersonate-extra-";

/// The user that the headers name, if `user` may be them; `user` if they name none.
pub fn apply(server: &ApiServer, user: Identity, headers: &HeaderMap) -> Result<Identity, Failure> {
    let text = |value: &http::HeaderValue| {
        value.to_str().map(str::to_owned).map_err(|_| Failure::bad_request("an Impersonate header is no text"))
    };
    let names_any = headers
        .keys()
        .any(|name| matches!(name.as_str(), USER | GROUP | UID) || name.as_str().starts_with(EXTRA_PREFIX));
    if !names_any {
        return Ok(user);
    }
    let Some(name) = headers.get(USER) else {
        return Err(Failure::bad_request("requested impersonation without naming a user (Impersonate-User)"));
    };
    let name = text(name)?;
    let allow = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| {
        let action = Action::Resource { verb: "impersonate", group, resource, subresource, namespace, name };
        server.authorizer().require(&user, &action)
    };
    let mut groups = headers.get_all(GROUP).iter().map(text).collect::<Result<Vec<_>, _>>()?;
    let account = name.strip_prefix(Identity::SERVICE_ACCOUNT_PREFIX).and_then(|rest| rest.split_once(':'));
    match account {
        Some((namespace, account)) => allow("", "serviceaccounts", "", namespace, account)?,
        None => allow("", "users", "", "", &name)?,
    }
    for group in &groups {
        allow("", "groups", "", "", group)?;
    }
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (header, value) in headers {
        let Some(key) = header.as_str().strip_prefix(EXTRA_PREFIX) else { continue };
        let key = request::unescape(key, false).unwrap_or_default().into_owned();
        let value = text(value)?;
        allow("authentication.k8s.io", "userextras", &key, "", &value)?;
        extra.entry(key).or_default().push(value);
    }
    let uid = match headers.get(UID) {
        Some(uid) => {
            let uid = text(uid)?;
            allow("authentication.k8s.io", "uids", "", "", &uid)?;
            uid
        }
        None => String::new(),
    };
    if let Some((namespace, _)) = account
        && groups.is_empty()
    {
        groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
    }
    let general = if name == Identity::ANONYMOUS { Identity::UNAUTHENTICATED } else { Identity::AUTHENTICATED };
    if !groups.iter().any(|group| group == general) {
        groups.push(general.to_owned());
    }
    Ok(Identity { name, uid, groups, extra })
}
