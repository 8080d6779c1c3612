//! Get and list.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::{Failure, Reason};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use store::{KeyRange, Range};

use super::{Answered, Listed, Outcome, Request, Selection, convert, in_version};
use crate::cache::Stored;
use crate::encryption;
use crate::failures;

/// Objects read from the store at once when a selector leaves many of them out.
const PAGE_OBJECTS: usize = 1000;

pub async fn get(request: &Request<'_>) -> Result<Outcome, Failure> {
    let name = request.name()?;
    let stored = match revision_of_one(request.call.options.resource_version.as_deref())? {
        // "Any version will do".
        Some(0) => match request.cache()?.get(&path(request.namespace(), name)) {
            Some(stored) => stored,
            None => request.read(name).await?,
        },
        wanted => {
            if let Some(wanted) = wanted {
                request.server.cache().reach(wanted).await?;
            }
            request.read(name).await?
        }
    };
    Ok(Outcome::stored(200, in_version(request.server, &request.row, stored).await?))
}

pub async fn list(request: &Request<'_>) -> Result<Outcome, Failure> {
    let options = &request.call.options;
    let selection = Selection::new(&request.row, request.namespace(), options)?;
    let asked = revision(options.resource_version.as_deref())?;
    let exact = check_match(options.resource_version_match.as_deref(), asked, options.continue_token.is_some())?;
    let listed = match (&options.continue_token, exact) {
        (Some(token), _) => resumed(request, &selection, token).await?,
        (None, Some(at)) => page(request, &selection, at, None).await?,
        (None, None) => current(request, &selection, asked).await?,
    };
    Ok(Outcome { code: 200, body: Answered::List(listed), warnings: Vec::new() })
}

/// The newest state, or any that is not older than the revision asked for.
async fn current(request: &Request<'_>, selection: &Selection, asked: Option<u64>) -> Result<Listed, Failure> {
    let server = request.server;
    let wanted = match asked {
        Some(0) => 0,
        Some(asked) => asked,
        None => server.store().read_index().await.map_err(|error| failures::of_store(&error))?,
    };
    reach(request, wanted, asked.is_none()).await?;
    let cache = request.cache()?;
    let snapshot = cache.snapshot(selection.namespace.as_deref(), server.cache().revision());
    let mut objects = snapshot.objects;
    let read = objects.len();
    if selection.looks_into(&request.row) {
        objects = convert::all_in_version(server, &request.row, objects).await?;
    }
    if !selection.is_everything() {
        objects.retain(|stored| selection.matches(&request.row, stored));
    }
    let mut listed = Listed {
        row: request.row.clone(),
        objects,
        revision: snapshot.revision,
        continue_token: None,
        remaining: None,
    };
    if let Some(limit) = limit(request)
        && listed.objects.len() > limit
    {
        let rest = listed.objects.len() - limit;
        listed.objects.truncate(limit);
        listed.continue_token = listed.objects.last().map(|last| Token::at(listed.revision, last.path()));
        listed.remaining = selection.is_everything().then_some(rest as u64);
    }
    server.metrics().lists.cached(&request.row.storage, read, listed.objects.len());
    converted(request, selection, listed).await
}

/// Waits until the watch cache is as new as it has to be.
async fn reach(request: &Request<'_>, wanted: u64, consistent: bool) -> Result<(), Failure> {
    let (cache, lists) = (request.server.cache(), &request.server.metrics().lists);
    if cache.revision() >= wanted {
        lists.waited(&request.row.storage, Duration::ZERO, true, consistent);
        return Ok(());
    }
    let began = Instant::now();
    let reached = cache.reach(wanted).await;
    lists.waited(&request.row.storage, began.elapsed(), reached.is_ok(), consistent);
    reached
}

/// Where a continue token goes on.
fn position(token: &str) -> Result<Token, Failure> {
    let invalid = || Failure::bad_request("invalid continue token: continue key is not valid: its form is not known");
    let bytes = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|_| invalid())?;
    let token: Token = serde_json::from_slice(&bytes).map_err(|_| invalid())?;
    if token.start.contains("..") { Err(invalid()) } else { Ok(token) }
}

async fn resumed(request: &Request<'_>, selection: &Selection, token: &str) -> Result<Listed, Failure> {
    let token = position(token)?;
    let at = match u64::try_from(token.rv) {
        Ok(at) => at,
        // From here on the list is of another state than what came before.
        Err(_) => request.server.store().read_index().await.map_err(|error| failures::of_store(&error))?,
    };
    page(request, selection, at, Some(&token.start)).await.map_err(|failure| {
        if failure.reason != Reason::Expired {
            return failure;
        }
        let mut failure = Failure::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new \
             list without the continue parameter, or use the continue token in this response to retrieve the \
             remainder of the results. Continuing with the provided token results in an inconsistent list - objects \
             that were created, modified, or deleted between the time the first chunk was returned and now may show up \
             in the list.",
        );
        failure.continue_token = Some(Token { rv: NEWEST, ..token }.encoded());
        failure
    })
}

/// The state at one revision, from the store's history.
async fn page(request: &Request<'_>, selection: &Selection, at: u64, after: Option<&str>) -> Result<Listed, Failure> {
    let row = &request.row;
    let all = KeyRange::prefix(row.list_key(selection.namespace.as_deref()));
    let mut start = match after {
        // The key that follows immediately.
        Some(after) => format!("{}{after}\0", row.list_key(None)).into(),
        None => all.start.clone(),
    };
    if !all.contains(&start) {
        let text = format!("invalid continue token: continue key is not valid: {}", after.unwrap_or_default());
        return Err(Failure::bad_request(text));
    }
    let limit = limit(request);
    let mut objects: Vec<Arc<Stored>> = Vec::new();
    let (mut fetched, mut evaluated) = (0, 0);
    let mut remaining = 0;
    let mut more = true;
    while more && limit.is_none_or(|limit| objects.len() < limit) {
        let wanted =
            limit.map_or(0, |limit| if selection.is_everything() { limit - objects.len() } else { PAGE_OBJECTS });
        let end = all.end.clone().unwrap_or_default();
        let keys = KeyRange::between(start.clone(), end);
        let range = Range { revision: Some(at), limit: wanted, ..Range::all(keys) };
        let outcome = request.server.store().range(&range).map_err(|error| failures::of_store(&error))?;
        more = outcome.more;
        remaining = outcome.count.saturating_sub(outcome.kvs.len());
        let read = outcome.kvs.len();
        fetched += read;
        let at_rest = request.server.storage().at_rest();
        at_rest.prepare(outcome.kvs.iter()).await.map_err(|error| encryption::failure(&error))?;
        for (index, kv) in outcome.kvs.into_iter().enumerate() {
            let mut next = kv.key.to_vec();
            next.push(0);
            start = next.into();
            let stored = at_rest.open(kv, request.prefix_bytes()).map_err(|error| encryption::failure(&error))?;
            let Some(stored) = stored else { continue };
            let mut stored = Arc::new(stored);
            if selection.looks_into(row) {
                stored = in_version(request.server, row, stored).await?;
            }
            evaluated += 1;
            if selection.matches(row, &stored) {
                objects.push(stored);
                if limit.is_some_and(|limit| objects.len() >= limit) {
                    more |= index + 1 < read;
                    break;
                }
            }
        }
    }
    request.server.metrics().lists.stored(&row.storage, fetched, evaluated, objects.len());
    let continue_token = objects.last().filter(|_| more).map(|last| Token::at(at, last.path()));
    let remaining = (continue_token.is_some() && selection.is_everything()).then_some(remaining as u64);
    let listed = Listed { row: row.clone(), objects, revision: at, continue_token, remaining };
    converted(request, selection, listed).await
}

async fn converted(request: &Request<'_>, selection: &Selection, mut listed: Listed) -> Result<Listed, Failure> {
    if !selection.looks_into(&request.row) {
        listed.objects = convert::all_in_version(request.server, &request.row, listed.objects).await?;
    }
    Ok(listed)
}

fn limit(request: &Request<'_>) -> Option<usize> {
    request.call.options.limit.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0)
}

/// Where a list goes on, in upstream's form.
#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    /// The revision of the list, or [`NEWEST`].
    rv: i64,
    /// The last object's path.
    start: String,
}

/// The revision in a token for a list that goes on with whatever there is by then.
const NEWEST: i64 = -1;

impl Token {
    fn at(revision: u64, last: &str) -> String {
        let rv = i64::try_from(revision).unwrap_or(NEWEST);
        Token { v: "meta.k8s.io/v1".to_owned(), rv, start: last.to_owned() }.encoded()
    }

    fn encoded(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }
}

/// A resource version of the client's: none, or a number.
pub fn revision(text: Option<&str>) -> Result<Option<u64>, Failure> {
    parsed(text).map_err(|why| Failure::bad_request(format!("invalid resource version: {why}")))
}

/// The same for one object and for watches, where upstream takes a bad one for its own fault (500).
pub fn revision_of_one(text: Option<&str>) -> Result<Option<u64>, Failure> {
    parsed(text).map_err(|why| Failure::new(Reason::Unknown, why))
}

fn parsed(text: Option<&str>) -> Result<Option<u64>, String> {
    match text {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| {
            format!("resourceVersion: Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": invalid syntax")
        }),
    }
}

/// The revision that must be matched exactly, if one must.
fn check_match(rule: Option<&str>, asked: Option<u64>, resuming: bool) -> Result<Option<u64>, Failure> {
    let forbidden = |why: &str| Err(Failure::bad_request(format!("resourceVersionMatch: Forbidden: {why}")));
    match (rule, asked) {
        (None, _) => Ok(None),
        (Some(_), _) if resuming => forbidden("resourceVersionMatch is forbidden when continue is provided"),
        (Some(_), None) => forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided"),
        (Some("Exact"), Some(0)) => forbidden("resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\""),
        (Some("Exact"), Some(asked)) => Ok(Some(asked)),
        (Some("NotOlderThan"), _) => Ok(None),
        (Some(other), _) => Err(Failure::bad_request(format!(
            "resourceVersionMatch: Unsupported value: \"{other}\": supported values: \"Exact\", \"NotOlderThan\""
        ))),
    }
}

pub fn path(namespace: Option<&str>, name: &str) -> String {
    match namespace {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}
