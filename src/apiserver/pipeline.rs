//! A request's way, from the peer's identity to the answer. Reads from top to bottom.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use api::{Call, Failure, PatchKind, Reason, Row, Verb};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;

use crate::aggregator;
use crate::audit::{self, Recording};
use crate::authn::Peer;
use crate::authz::Action;
use crate::endpoints;
use crate::failures;
use crate::flowcontrol::{self, About, Arrival, Digest, Place, Schema, Work};
use crate::http::body::{self, Body};
use crate::http::negotiate::{self, Form, Media, Offer};
use crate::http::objects::{self, Writer};
use crate::http::serve::Stranger;
use crate::http::shape::{self, Include};
use crate::http::{pretty, respond};
use crate::identity::Identity;
use crate::impersonation;
use crate::metrics::{RequestSet, Took};
use crate::node;
use crate::notes::Notes;
use crate::options;
use crate::request::{self, Target};
use crate::server::{ApiServer, namespace_of, uid};
use crate::verbs::{self, Answered, watch};

mod decode;
mod recording;

use decode::{decode, repeated_fields};
use recording::End;

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// Clients that see these know that the server protects itself, and do not slow themselves down.
const FLOW_SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const PRIORITY_LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// Answers one request. Nothing that happens in here reaches another one.
pub async fn handle(server: ApiServer, peer: Peer, remote: IpAddr, mut request: Request<Incoming>) -> Response<Body> {
    let pretty = pretty::prepare(&mut request);
    let media = negotiate::form(request.headers(), Offer::ALL).unwrap_or(Form::JSON).media;
    let audit_id = request.headers().get(AUDIT_ID).cloned();
    let audit_id = audit_id.or_else(|| HeaderValue::from_str(&uid(&mut server.rng())).ok());
    let began = Instant::now();
    let mut seen = Seen {
        remote,
        audit_id,
        schema: None,
        recording: None,
        notes: Notes::default(),
        figures: None,
        lasts: false,
        foreign: false,
        stranger: false,
    };
    let answered = AssertUnwindSafe(answer(&server, &peer, request, &mut seen)).catch_unwind().await;
    if let Some(recording) = seen.recording.take() {
        let end = match &answered {
            Ok(Ok(response)) => End::Answered(response.status().as_u16()),
            Ok(Err(failure)) => End::Failed(failure.clone()),
            Err(_) => End::Panicked,
        };
        recording::close(&recording, end).await;
    }
    let mut response = match answered {
        Ok(Ok(response)) => response,
        Ok(Err(failure)) => respond::failure(&failure, media),
        Err(_) => {
            tracing::error!("a request's handler panicked");
            respond::failure(&failures::panicked(), Media::Json)
        }
    };
    // What was said of a stream, or before somebody refused.
    respond::warn(&mut response, &seen.notes.take_warnings());
    if pretty && !seen.lasts && !seen.foreign {
        response = pretty::indented(response);
    }
    if let Some(figures) = &seen.figures {
        let took = (!seen.lasts).then(|| Took { all: began.elapsed(), waiting: seen.notes.waiting() });
        figures.figures.answered(response.status().as_u16(), took, response.body().size_hint().exact());
    }
    if seen.stranger {
        response.extensions_mut().insert(Stranger);
    }
    if let Some(audit_id) = seen.audit_id {
        response.headers_mut().insert(AUDIT_ID, audit_id);
    }
    if let Some(schema) = seen.schema {
        let headers = response.headers_mut();
        headers.insert(FLOW_SCHEMA_UID, schema.uid.clone());
        headers.insert(PRIORITY_LEVEL_UID, schema.level_uid.clone());
    }
    response
}

/// What was found out about a request on its way, however it ended.
struct Seen {
    remote: IpAddr,
    audit_id: Option<HeaderValue>,
    recording: Option<Recording>,
    notes: Notes,
    figures: Option<RequestSet>,
    lasts: bool,
    /// Somebody else answers.
    foreign: bool,
    /// Nobody knows who asks.
    stranger: bool,
    schema: Option<Arc<Schema>>,
}

async fn answer(
    server: &ApiServer,
    peer: &Peer,
    mut request: Request<Incoming>,
    seen: &mut Seen,
) -> Result<Response<Body>, Failure> {
    // Nodes that join know nobody yet: they check what they get here against their token.
    if request.uri().path() == "/cacerts" {
        return Ok(respond::text(200, server.config().authorities_pem.clone()));
    }

    // Who is it?
    let user = server.authenticator().identify(peer, request.headers(), request.uri().path(), server.now()).await;
    server.authenticator().forget(request.headers_mut());
    seen.stranger = user.as_ref().map_or(true, |user| user.name == Identity::ANONYMOUS);

    // What do they want?
    let asked = Asked::new(&request);

    if let Ok(asked) = &asked {
        seen.figures = Some(asked.figures(server));
        seen.lasts = asked.class() != Class::Short;
    }

    // Is it to be recorded?
    seen.recording = recording::open(server, user.as_deref().ok(), asked.as_ref().ok(), &request, seen);
    let (user, asked) = (user?, asked?);
    let Some(recording) = seen.recording.clone() else {
        // And for whom do they ask?
        let user = impersonation::apply(server, user, request.headers_mut(), &asked).await?;
        return proceed(server, user, asked, request, seen).await;
    };
    recording.received().await?;
    let asking = user.clone();
    let user = impersonation::apply(server, user, request.headers_mut(), &asked).await?;
    if user != asking {
        recording.impersonated(&user);
    }
    recording.on_the_way(Box::pin(proceed(server, user, asked, request, seen))).await
}

/// The way of a request whose user is known.
async fn proceed(
    server: &ApiServer,
    user: Arc<Identity>,
    asked: Asked,
    request: Request<Incoming>,
    seen: &mut Seen,
) -> Result<Response<Body>, Failure> {
    // Is it their turn? What lasts has a place as long as it lasts.
    let class = asked.class();
    let figures = seen.figures.clone().unwrap_or_else(|| asked.figures(server));
    let place = match class {
        Class::Short => None,
        Class::Watch | Class::Stream => Some(server.flow().place(seen.recording.clone(), figures.clone())?),
    };
    let digest = asked.digest(&user);
    let schema = server.flow().classify(&digest).filter(|_| class != Class::Stream);
    seen.schema.clone_from(&schema);
    let seat = match &schema {
        Some(schema) => {
            let work = asked.work(server, schema.level.seats_max());
            let arrival = Arrival { path: &asked.path, now: server.now() };
            match server.flow().enter(schema, &digest, work, arrival).await {
                Ok(seat) => {
                    seen.notes.waited(seat.waited());
                    Some(seat)
                }
                Err(too_many) => {
                    let requests = &server.metrics().requests;
                    let dropped =
                        if asked.mutates() { &requests.dropped_mutating } else { &requests.dropped_read_only };
                    dropped.inc();
                    figures.figures.terminated(Reason::TooManyRequests.code());
                    return Ok(respond::too_many(too_many.retry_after_seconds));
                }
            }
        }
        None => None,
    };

    let _in_flight = (class != Class::Stream).then(|| server.metrics().requests.in_flight(asked.mutates()));

    // May they?
    asked.authorize(server, &user).await?;

    // Does somebody else serve it?
    if let Some(elsewhere) = server.aggregator().elsewhere(&asked.path) {
        seen.foreign = true;
        return aggregator::forward(server, &user, &elsewhere, request, place).await;
    }

    // Then do it. A watch takes its turn until it is open.
    let answered = match place {
        Some(place) => long_running(server, &user, asked, request, place, &seen.notes, figures).await,
        None => {
            let limit = server.limits().request_max;
            let answered = short(server, &user, asked, request, &seen.notes, seen.recording.as_ref());
            tokio::time::timeout(limit, answered).await.map_err(|_| {
                let failure = Failure::new(Reason::Timeout, "the request did not end within its time");
                figures.figures.terminated(failure.code);
                failure
            })?
        }
    };
    drop(seat);
    answered
}

/// The words of authorisation for a path that is no resource.
fn method_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "options",
    }
}

/// How a request lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Short,
    Watch,
    Stream,
}

/// What a request is about.
pub struct Asked {
    path: String,
    method: Method,
    resource: Option<(Target, Call)>,
    include: Include,
}

impl Asked {
    pub fn new<B>(request: &Request<B>) -> Result<Asked, Failure> {
        let path = request.uri().path();
        let mut asked = Asked {
            path: path.to_owned(),
            method: request.method().clone(),
            resource: None,
            include: Include::Metadata,
        };
        let Some(target) = Target::parse(path) else { return Ok(asked) };
        let parameters = request::query(request.uri().query().unwrap_or_default());
        let (mut options, watch) = request::options(&parameters)?;
        let include = parameters.iter().find(|(key, _)| key == "includeObject").map(|(_, value)| value.as_ref());
        asked.include = Include::parse(include)?;
        // A method that nothing knows is refused when it is known whether there is anything at the path.
        let verb = request::verb(request.method(), &target, watch).unwrap_or(Verb::Get);
        if options.field_manager.is_none() {
            options.field_manager = Some(manager(request));
        }
        if verb == Verb::Patch {
            let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
            options.patch = request::patch_kind(content_type.unwrap_or_default());
            // An apply must say for whom; the name of the program is no answer.
            if options.patch == Some(PatchKind::Apply) && !parameters.iter().any(|(key, _)| key == "fieldManager") {
                options.field_manager = None;
            }
        }
        let call = Call {
            verb,
            resource: api::Resource {
                group: target.group.clone().into(),
                version: target.version.clone().into(),
                plural: target.plural.clone().into(),
            },
            subresource: target.subresource.clone().map(Into::into),
            namespace: target.namespace.clone(),
            name: target.name.clone(),
            repeated: Vec::new(),
            body: None,
            options,
        };
        asked.resource = Some((target, call));
        Ok(asked)
    }

    fn class(&self) -> Class {
        match &self.resource {
            Some((_, call)) => match (call.verb, call.subresource.as_deref()) {
                (Verb::Watch, _) => Class::Watch,
                (_, Some("exec" | "attach" | "portforward" | "log" | "proxy")) => Class::Stream,
                _ => Class::Short,
            },
            None => Class::Short,
        }
    }

    /// Where the request is counted. What is not served is counted together.
    fn figures(&self, server: &ApiServer) -> RequestSet {
        let requests = &server.metrics().requests;
        let served = self.resource.as_ref().map(|(_, call)| call).filter(|call| {
            let row = server.find_row(&call.resource.group, &call.resource.version, &call.resource.plural);
            row.is_some_and(|row| call.subresource.as_deref().is_none_or(|name| row.subresource(name).is_some()))
        });
        match served {
            Some(call) => requests.of_call(call),
            None => requests.of_path(&self.method, &self.path),
        }
    }

    fn mutates(&self) -> bool {
        let verb = self.resource.as_ref().map(|(_, call)| call.verb);
        !matches!(verb, None | Some(Verb::Get | Verb::List | Verb::Watch))
    }

    fn digest<'a>(&'a self, user: &'a Identity) -> Digest<'a> {
        match &self.resource {
            Some((_, call)) => Digest {
                user,
                verb: call.verb.as_str(),
                about: About::Resource {
                    group: &call.resource.group,
                    resource: &call.resource.plural,
                    subresource: call.subresource.as_deref().unwrap_or_default(),
                    namespace: namespace_of(call),
                },
            },
            None => Digest { user, verb: method_verb(&self.method), about: About::Path(&self.path) },
        }
    }

    fn work(&self, server: &ApiServer, seats_max: u64) -> Work {
        let Some((_, call)) = &self.resource else { return Work::ONE };
        if call.verb == Verb::Get {
            return Work::ONE;
        }
        let row = server.find_row(&call.resource.group, &call.resource.version, &call.resource.plural);
        let cache = row.and_then(|row| server.cache().resource(row.list_key(None).as_bytes()));
        flowcontrol::estimate(call, server.selected_name(call).is_some(), cache.as_deref(), seats_max)
    }

    /// Whether they may do this as another, in one of the ways of impersonation.
    pub async fn authorize_impersonated(&self, server: &ApiServer, user: &Identity, mode: &str) -> Result<(), Failure> {
        let on = |verb: &str| format!("impersonate-on:{mode}:{verb}");
        match &self.resource {
            Some((_, call)) => server.authorize_verb(user, call, &on(call.verb.as_str())).await,
            None => {
                let verb = on(method_verb(&self.method));
                let action = Action::Path { verb: &verb, path: &self.path };
                server.authorizer().require(user, &action.into()).await
            }
        }
    }

    async fn authorize(&self, server: &ApiServer, user: &Identity) -> Result<(), Failure> {
        let Some((_, call)) = &self.resource else {
            let action = Action::Path { verb: method_verb(&self.method), path: &self.path };
            return server.authorizer().require(user, &action.into()).await;
        };
        server.authorize(user, call).await?;
        // Who opens a shell changes something, with whatever method.
        let stream = matches!(call.subresource.as_deref(), Some("exec" | "attach" | "portforward"));
        if stream && call.verb == Verb::Get {
            server.authorize(user, &Call { verb: Verb::Create, ..call.clone() }).await?;
        }
        Ok(())
    }
}

/// The forms in which a resource's answers can be had.
fn offer(row: &Row, call: &Call) -> Offer {
    let kept = row.stored || row.has_verb(Verb::List);
    Offer {
        protobuf: objects::of_row(row).is_some(),
        table: kept && !matches!(call.subresource.as_deref(), Some("binding" | "eviction" | "token")),
        watch: matches!(call.verb, Verb::List | Verb::Watch),
    }
}

/// Requests that end: objects, lists, and paths that are no resources.
async fn short(
    server: &ApiServer,
    user: &Identity,
    asked: Asked,
    request: Request<Incoming>,
    notes: &Notes,
    recording: Option<&Recording>,
) -> Result<Response<Body>, Failure> {
    let Some((target, mut call)) = asked.resource else {
        return endpoints::answer(server, &request).await;
    };
    let row = server.row(&call)?;
    // Only what is proxied to has paths of its own.
    if !target.rest.is_empty() && call.subresource.as_deref() != Some("proxy") {
        return Err(failures::no_such_path());
    }
    routed(&row, &call, request.method())?;
    let parameters = request::query(request.uri().query().unwrap_or_default());
    options::check(&call, &parameters)?;
    let form = negotiate::form(request.headers(), offer(&row, &call))?;
    let (parts, incoming) = request.into_parts();
    let mut warnings = Vec::new();
    if matches!(call.verb, Verb::Create | Verb::Update | Verb::Patch | Verb::Delete | Verb::DeleteCollection) {
        let limits = server.limits();
        let bytes = body::read(incoming, &parts.headers, limits.body_bytes_max, limits.body_read_max).await?;
        let (body, repeated) = decode(&row, &call, &parts.headers, &bytes)?;
        call.body = body;
        // Of objects it is said together with what else is wrong with their fields.
        if row.stored
            && (matches!(
                (call.verb, call.subresource.as_deref()),
                (Verb::Create, None) | (Verb::Update, None | Some("status"))
            ))
        {
            call.repeated = repeated;
        } else {
            warnings = repeated_fields(&row, &call, repeated)?;
        }
        if let (Some(recording), Some(body)) = (recording, &call.body) {
            recording.request(body, matches!(call.verb, Verb::Create | Verb::Update));
        }
    }
    let executed = verbs::execute(server, user, row.clone(), call, notes).await;
    let mut outcome = match executed {
        Ok(outcome) => outcome,
        Err(failure) => {
            if let Some(recording) = recording {
                recording.status(failure.code, Some(&failure));
            }
            // What a webhook said before somebody refused is for the user all the same.
            let mut response = respond::failure(&failure, form.media);
            respond::warn(&mut response, &notes.take_warnings());
            return Ok(response);
        }
    };
    if let Some(recording) = recording.filter(|recording| recording.wants_response()) {
        recording.response(&audit::body_of(&outcome.body));
    }
    warnings.append(&mut outcome.warnings);
    for text in notes.take_warnings() {
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }
    let now = server.now();
    let mut response = match (outcome.body, Writer::new(&row, form)?) {
        (Answered::Stored(stored), Some(mut writer)) => {
            shape::check_single(form.shape)?;
            respond::bytes(outcome.code, form.media.content_type(), writer.body(&stored)?)
        }
        (Answered::List(listed), Some(writer)) => {
            shape::check_list(form.shape)?;
            respond::list(writer, listed, &parts.headers).await?
        }
        (body, _) => {
            let value = shape::of_answer(&row, &body, form, asked.include, now)?;
            respond::value(outcome.code, &value, form.media)?
        }
    };
    respond::warn(&mut response, &warnings);
    Ok(respond::compressed(response, &parts.headers))
}

/// Whether there is a route for the method: to a collection or an object of it, within a namespace or not.
fn routed(row: &Row, call: &Call, method: &Method) -> Result<(), Failure> {
    if !matches!(*method, Method::GET | Method::POST | Method::PUT | Method::PATCH | Method::DELETE) {
        return Err(failures::no_such_verb());
    }
    let one = call.name.is_some();
    if row.namespaced && call.namespace.is_none() && one {
        return Err(failures::no_such_path());
    }
    if call.subresource.is_some() {
        return Ok(());
    }
    let allowed = match call.verb {
        Verb::Create => !one && (call.namespace.is_some() || !row.namespaced),
        Verb::DeleteCollection => call.namespace.is_some() || !row.namespaced,
        Verb::Update | Verb::Patch => one,
        _ => true,
    };
    if allowed { Ok(()) } else { Err(failures::no_such_verb()) }
}

/// Requests that last: watches, and streams to and from nodes.
async fn long_running(
    server: &ApiServer,
    user: &Identity,
    asked: Asked,
    request: Request<Incoming>,
    place: Place,
    notes: &Notes,
    figures: RequestSet,
) -> Result<Response<Body>, Failure> {
    let Some((target, call)) = asked.resource else { return Err(failures::no_such_path()) };
    if call.verb != Verb::Watch {
        server.row(&call)?;
        return node::stream(server, user, &target, &call, request, place, notes).await;
    }
    let mut allowed = call.clone();
    allowed.subresource = None;
    let row = server.row(&allowed)?;
    options::check(&call, &request::query(request.uri().query().unwrap_or_default()))?;
    let form = negotiate::form(request.headers(), offer(&row, &call))?;
    let content_type = form.media.stream_type()?;
    let mut writer = Writer::new(&row, form)?;
    let watch = watch::open(server, row.clone(), call).await?;
    let deprecation = row.deprecation.as_deref().map(str::to_owned);
    if deprecation.is_some() {
        server.metrics().asked_for_deprecated(&row, None);
    }
    let include = asked.include;
    let server = server.clone();
    let mut first = true;
    let frames = watch.into_batches().map(move |batch| {
        let _held = &place;
        let events = batch.len() as u64;
        let mut frames = batch.into_iter().map(|item| match &mut writer {
            Some(writer) => writer.frame(item),
            None => shape::of_event(&row, item, form.meta, include, server.now(), &mut first),
        });
        let Some(one) = frames.next() else { return Bytes::new() };
        let mut rest = frames.peekable();
        let all = if rest.peek().is_none() {
            one
        } else {
            let mut all = one.to_vec();
            rest.for_each(|frame| all.extend_from_slice(&frame));
            Bytes::from(all)
        };
        figures.figures.sent(events, all.len() as u64);
        all
    });
    let mut response = Response::new(Body::stream(frames));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    respond::warn(&mut response, deprecation.as_slice());
    Ok(response)
}

/// The field manager of a client that names none: the program's name in its user agent.
fn manager<B>(request: &Request<B>) -> String {
    const MANAGER_BYTES_MAX: usize = 128;
    const UNKNOWN: &str = "unknown";
    let agent = request.headers().get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let name = agent.split('/').next().unwrap_or_default();
    let name: String = name.chars().filter(|one| !one.is_control()).take(MANAGER_BYTES_MAX).collect();
    if name.is_empty() { UNKNOWN.to_owned() } else { name }
}

#[cfg(test)]
mod hostile;
