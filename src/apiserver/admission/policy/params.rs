//! Parameters: the objects that a binding gives a policy to be evaluated with.

use std::sync::Arc;

use api::{Fields, LabelSelector, Row};
use serde_json::Value;

use crate::cache::Stored;
use crate::server::ApiServer;
use crate::verbs;

/// `paramRef` of a binding.
pub struct ParamRef {
    name: String,
    namespace: String,
    selector: Option<Result<LabelSelector, String>>,
    /// `parameterNotFoundAction: Deny`.
    denies_if_missing: bool,
}

impl ParamRef {
    pub fn compile(reference: &Value) -> ParamRef {
        let selector = reference.at("selector");
        ParamRef {
            name: reference.text("name").to_owned(),
            namespace: reference.text("namespace").to_owned(),
            selector: selector.map(|one| LabelSelector::from_value(Some(one)).map_err(|error| error.to_string())),
            denies_if_missing: reference.text("parameterNotFoundAction") == "Deny",
        }
    }
}

/// The parameters for a request in `namespace`: one `None` where the policy takes none, nothing where there are none
/// and that is no error. The error is a configuration error in upstream's words.
pub async fn collect(
    server: &ApiServer,
    kind: Option<&(String, String)>,
    reference: Option<&ParamRef>,
    namespace: &str,
) -> Result<Vec<Option<Arc<Value>>>, String> {
    let (Some((api_version, kind)), Some(reference)) = (kind, reference) else { return Ok(vec![None]) };
    let row = find_row(server, api_version, kind)
        .ok_or_else(|| format!("paramKind kind `&ParamKind{{APIVersion:{api_version},Kind:{kind},}}` not known"))?;
    let namespace = match (row.namespaced, reference.namespace.as_str()) {
        (false, "") => "",
        (false, _) => return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned()),
        (true, "") if namespace.is_empty() => {
            let why = "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources";
            return Err(why.to_owned());
        }
        (true, "") => namespace,
        (true, given) => given,
    };
    let mut found = Vec::new();
    if !reference.name.is_empty() {
        found.extend(read(server, &row, namespace, &reference.name).await?);
    } else if let Some(selector) = &reference.selector {
        let selector = selector.as_ref().map_err(Clone::clone)?;
        found.extend(select(server, &row, namespace, selector).await?);
    } else {
        return Err("one of name or selector must be provided".to_owned());
    }
    if found.is_empty() && reference.denies_if_missing {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    Ok(found.into_iter().map(|param| Some(Arc::new(param))).collect())
}

/// A policy whose parameters are of a kind that is not served cannot be evaluated at all.
pub fn check_kind(server: &ApiServer, kind: Option<&(String, String)>) -> Result<(), String> {
    let Some((api_version, kind)) = kind else { return Ok(()) };
    if find_row(server, api_version, kind).is_some() {
        return Ok(());
    }
    let slash = if api_version.contains('/') { "" } else { "/" };
    Err(format!("failed to find resource referenced by paramKind: '{slash}{api_version}, Kind={kind}'"))
}

fn find_row(server: &ApiServer, api_version: &str, kind: &str) -> Option<Arc<Row>> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let is = |row: &Arc<Row>| row.resource.group == group && row.resource.version == version && row.kind == kind;
    server.rows().into_iter().find(is)
}

fn prefix(row: &Row) -> String {
    row.list_key(None)
}

/// From the cache, or from the store: the parameter may have been written a moment ago.
async fn read(server: &ApiServer, row: &Row, namespace: &str, name: &str) -> Result<Option<Value>, String> {
    let prefix = prefix(row);
    let path = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") };
    let cached = server.cache().resource(prefix.as_bytes()).and_then(|params| params.get(&path));
    let stored = match cached {
        Some(stored) => Some(stored),
        None => {
            let key = format!("{prefix}{path}");
            server.storage().read(&key, prefix.len()).await.map_err(|failure| failure.message)?
        }
    };
    match stored {
        Some(stored) => served(server, row, &stored).await.map(Some),
        None => Ok(None),
    }
}

async fn select(
    server: &ApiServer,
    row: &Row,
    namespace: &str,
    selector: &LabelSelector,
) -> Result<Vec<Value>, String> {
    let Some(params) = server.cache().resource(prefix(row).as_bytes()) else { return Ok(Vec::new()) };
    let mut selected = Vec::new();
    for stored in params.objects(Some(namespace).filter(|namespace| !namespace.is_empty())) {
        let object = served(server, row, &stored).await?;
        if selector.matches_object(&object) {
            selected.push(object);
        }
    }
    Ok(selected)
}

async fn served(server: &ApiServer, row: &Row, stored: &Stored) -> Result<Value, String> {
    verbs::object(server, row, stored).await.map_err(|failure| failure.message)
}
