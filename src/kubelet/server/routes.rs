//! Which path leads where.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cri::v1::{AttachRequest, ContainerState, ExecRequest, PortForwardRequest};
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::sync::mpsc;

use super::identity::Identity;
use super::{metrics, stats, streaming};
use crate::containers::config::log_path;
use crate::containers::sandbox::log_directory;
use crate::logs::parse::Stream;
use crate::logs::read;
use crate::objects::PodExt;
use crate::pods::observed::{Observed, Seen};
use crate::pods::{Context, Pods};

pub type Body = BoxBody<Bytes, std::io::Error>;
pub type Answer = Response<Body>;

/// A refusal: status and text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub StatusCode, pub String);

impl Refusal {
    pub fn not_found(text: impl Into<String>) -> Refusal {
        Refusal(StatusCode::NOT_FOUND, text.into())
    }

    pub fn bad(text: impl Into<String>) -> Refusal {
        Refusal(StatusCode::BAD_REQUEST, text.into())
    }

    pub fn internal(error: impl std::fmt::Display) -> Refusal {
        Refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

pub async fn answer(
    context: &Arc<Context>,
    pods: &Arc<Pods>,
    identity: Option<&Identity>,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    let outcome = match identity {
        None => Err(Refusal(StatusCode::UNAUTHORIZED, "Unauthorized".to_owned())),
        Some(identity) if !identity.is_allowed() => Err(Refusal(
            StatusCode::FORBIDDEN,
            format!(
                "Forbidden (user={}, verb={}, resource=nodes, subresource(s)=[proxy])\n",
                identity.user,
                if request.method() == Method::GET { "get" } else { "create" }
            ),
        )),
        Some(_) => route(context, pods, request).await,
    };
    Ok(outcome.unwrap_or_else(|Refusal(status, text)| plain(status, text)))
}

async fn route(context: &Arc<Context>, pods: &Arc<Pods>, request: Request<Incoming>) -> Result<Answer, Refusal> {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    match parts.as_slice() {
        ["healthz"] | ["healthz", "ping" | "syncloop" | "log"] => Ok(plain(StatusCode::OK, "ok")),
        ["pods"] => Ok(json_answer(&pod_list(pods, context))),
        ["runningpods"] => Ok(json_answer(&pod_list(pods, context))),
        ["configz"] => Ok(json_answer(&configz(context))),
        ["stats", "summary"] => Ok(json_answer(&stats::summary(context, pods).await.map_err(Refusal::internal)?)),
        ["metrics"] => Ok(plain(StatusCode::OK, metrics::text(context, pods).await)),
        ["metrics", "resource"] => Ok(plain(StatusCode::OK, metrics::resource(context, pods).await)),
        ["metrics", "cadvisor" | "probes"] => Ok(plain(StatusCode::OK, String::new())),
        ["containerLogs", namespace, pod, container] => logs(context, pods, namespace, pod, container, &query).await,
        ["exec", namespace, pod, rest @ .., container] => {
            let id = running(context, pods, namespace, pod, rest, container).await?;
            let command: Vec<String> = query.all("command").map(str::to_owned).collect();
            if command.is_empty() {
                return Err(Refusal::bad("you must specify at least 1 command for the container"));
            }
            let tty = query.flag("tty");
            let exec = ExecRequest {
                container_id: id,
                cmd: command,
                tty,
                stdin: query.flag("input") || query.flag("stdin"),
                stdout: query.flag("output") || query.flag("stdout"),
                // A terminal has one stream for both.
                stderr: !tty && (query.flag("error") || query.flag("stderr")),
            };
            let url = context.runtime.exec(exec).await.map_err(Refusal::internal)?;
            streaming::proxy(request, &url).await
        }
        ["attach", namespace, pod, rest @ .., container] => {
            let id = running(context, pods, namespace, pod, rest, container).await?;
            let tty = query.flag("tty");
            let attach = AttachRequest {
                container_id: id,
                stdin: query.flag("input") || query.flag("stdin"),
                tty,
                stdout: query.flag("output") || query.flag("stdout"),
                stderr: !tty && (query.flag("error") || query.flag("stderr")),
            };
            let url = context.runtime.attach(attach).await.map_err(Refusal::internal)?;
            streaming::proxy(request, &url).await
        }
        ["portForward", namespace, pod] | ["portForward", namespace, pod, _] => {
            let pod = find(pods, namespace, pod, parts.get(3).copied())?;
            let observed = context.runtime.observe(pod.uid()).await.map_err(Refusal::internal)?;
            let sandbox = observed
                .sandbox(false)
                .ok_or_else(|| Refusal::internal(format!("pod {} has no running sandbox", pod.full())))?;
            let port = query.all("port").chain(query.all("ports")).filter_map(|port| port.parse().ok()).collect();
            let forward = PortForwardRequest { pod_sandbox_id: sandbox.id.clone(), port };
            let url = context.runtime.port_forward(forward).await.map_err(Refusal::internal)?;
            streaming::proxy(request, &url).await
        }
        ["run", namespace, pod, rest @ .., container] if request.method() == Method::POST => {
            let id = running(context, pods, namespace, pod, rest, container).await?;
            let command = query.first("cmd").unwrap_or_default().split(' ').map(str::to_owned).collect();
            /// As long as a request may take at all.
            const TIMEOUT: Duration = Duration::from_secs(120);
            let done = context.runtime.exec_sync(&id, command, TIMEOUT).await.map_err(Refusal::internal)?;
            let mut output = done.stdout;
            output.extend_from_slice(&done.stderr);
            Ok(answer_with(StatusCode::OK, "text/plain; charset=utf-8", output))
        }
        _ => Err(Refusal::not_found("404 page not found\n")),
    }
}

/// Query parameters, decoded, in their order.
struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str) -> Query {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Query(
            pairs
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(key), decode(value))
                })
                .collect(),
        )
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn first<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).next().filter(|value| !value.is_empty())
    }

    fn flag(&self, name: &str) -> bool {
        matches!(self.first(name), Some("1" | "true"))
    }
}

fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match (byte, hex.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(value)) => {
                out.push(value);
                rest = after.get(2..).unwrap_or_default();
            }
            (b'+', _) => {
                out.push(b' ');
                rest = after;
            }
            _ => {
                out.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn find(pods: &Pods, namespace: &str, name: &str, uid: Option<&str>) -> Result<Arc<Pod>, Refusal> {
    pods.find(namespace, name)
        .filter(|pod| uid.is_none_or(|uid| pod.uid() == uid))
        .ok_or_else(|| Refusal::not_found(format!("pod does not exist: {name}_{namespace}")))
}

/// The id of a running container.
async fn running(
    context: &Context,
    pods: &Pods,
    namespace: &str,
    pod: &str,
    uid: &[&str],
    container: &str,
) -> Result<String, Refusal> {
    if uid.len() > 1 {
        return Err(Refusal::not_found("404 page not found\n"));
    }
    let pod = find(pods, namespace, pod, uid.first().copied())?;
    let observed = context.runtime.observe(pod.uid()).await.map_err(Refusal::internal)?;
    let seen = observed.latest(container).filter(|seen| seen.is_running());
    seen.map(|seen| seen.status.id.clone())
        .ok_or_else(|| Refusal::not_found(format!("container not found (\"{container}\")")))
}

async fn logs(
    context: &Arc<Context>,
    pods: &Pods,
    namespace: &str,
    pod: &str,
    container: &str,
    query: &Query,
) -> Result<Answer, Refusal> {
    let pod = find(pods, namespace, pod, None)?;
    if pod.container(container).is_none() {
        return Err(Refusal::not_found(format!("container {container} not found in pod {}", pod.full())));
    }
    let options = options(query)?;
    let observed = context.runtime.observe(pod.uid()).await.map_err(Refusal::internal)?;
    let status = context.statuses.wanted(pod.uid()).or_else(|| pod.status.clone()).unwrap_or_default();
    let seen = instance(&observed, &pod, &status, container, query.flag("previous"))?;
    let path = log_directory(&context.config.log_dir, &pod).join(log_path(container, seen.attempt()));
    let (sender, receiver) = mpsc::channel(4);
    let (runtime, id) = (context.runtime.clone(), seen.status.id.clone());
    task::spawn(
        "log-reader",
        read::stream(path, options, sender, move || {
            let (runtime, id) = (runtime.clone(), id.clone());
            async move {
                let status = runtime.container_status(&id).await;
                status.is_ok_and(|status| status.state() == ContainerState::ContainerRunning)
            }
        }),
    );
    let pieces = tokio_stream::wrappers::ReceiverStream::new(receiver).map(|piece| piece.map(Frame::data));
    let body = BodyExt::boxed(StreamBody::new(pieces));
    let mut answer = Response::new(body);
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
    Ok(answer)
}

/// The container's instance whose log is meant. The previous one is what the status calls the last state: while a
/// container waits to be restarted that is the one that ended just now, the same that is shown without asking.
fn instance<'a>(
    observed: &'a Observed,
    pod: &Pod,
    status: &PodStatus,
    container: &str,
    previous: bool,
) -> Result<&'a Seen, Refusal> {
    let statuses = [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    let status = statuses.into_iter().flatten().flatten().find(|one| one.name == container);
    if previous {
        let last = status.and_then(|one| one.last_state.as_ref()?.terminated.as_ref()?.container_id.as_deref());
        let id = last.and_then(|id| id.split_once("://")).map(|(_, id)| id).filter(|id| !id.is_empty());
        let id = id.ok_or_else(|| {
            Refusal::bad(format!("previous terminated container \"{container}\" in pod \"{}\" not found", pod.name()))
        })?;
        return observed
            .by_id(id)
            .ok_or_else(|| Refusal::bad(format!("unable to retrieve container logs for {}", last.unwrap_or(id))));
    }
    let mut all = observed.containers.iter().filter(|seen| seen.name() == container);
    all.find(|seen| seen.state() != ContainerState::ContainerCreated).ok_or_else(|| {
        let waiting = status.and_then(|one| one.state.as_ref()?.waiting.as_ref());
        let why = match waiting.and_then(|waiting| waiting.reason.as_deref()).unwrap_or("ContainerCreating") {
            "ErrImagePull" => "image can't be pulled",
            "ImagePullBackOff" => "trying and failing to pull image",
            reason => reason,
        };
        Refusal::bad(format!("container \"{container}\" in pod \"{}\" is waiting to start: {why}", pod.name()))
    })
}

fn options(query: &Query) -> Result<read::Options, Refusal> {
    let number = |name: &str| {
        let value = query.first(name).map(|text| text.parse::<u64>());
        value.transpose().map_err(|_| Refusal::bad(format!("invalid value of {name}")))
    };
    let since_seconds = number("sinceSeconds")?.and_then(|seconds| i64::try_from(seconds).ok());
    let since_time = query.first("sinceTime").map(str::parse::<Timestamp>).transpose();
    let since_time = since_time.map_err(|_| Refusal::bad("invalid value of sinceTime"))?;
    let since = since_seconds
        .and_then(|seconds| Timestamp::now().checked_sub(SignedDuration::from_secs(seconds)).ok())
        .or(since_time);
    Ok(read::Options {
        follow: query.flag("follow"),
        tail_lines: number("tailLines")?.and_then(|lines| usize::try_from(lines).ok()),
        since,
        timestamps: query.flag("timestamps"),
        limit_bytes: number("limitBytes")?,
        stream: match query.first("stream") {
            Some("Stdout") => Some(Stream::Stdout),
            Some("Stderr") => Some(Stream::Stderr),
            _ => None,
        },
    })
}

fn pod_list(pods: &Pods, context: &Context) -> serde_json::Value {
    let items: Vec<Pod> = pods
        .list()
        .into_iter()
        .map(|pod| {
            let mut pod = Pod::clone(&pod);
            if let Some(status) = context.statuses.wanted(pod.uid()) {
                pod.status = Some(status);
            }
            pod
        })
        .collect();
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
}

fn configz(context: &Context) -> serde_json::Value {
    let config = &context.config;
    json!({"kubeletconfig": {
        "kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "clusterDNS": config.cluster_dns, "clusterDomain": config.cluster_domain, "maxPods": config.pods_max,
        "containerRuntimeEndpoint": format!("unix://{}", config.cri_socket.display()),
        "resolvConf": config.resolv_conf, "podLogsDir": config.log_dir, "cgroupDriver": "cgroupfs",
        "containerLogMaxFiles": crate::logs::rotate::FILES_MAX, "containerLogMaxSize": "10Mi",
        "staticPodPath": config.static_pods_dir, "podPidsLimit": config.pod_pids_max.map_or(-1, |max| max as i64),
    }})
}

fn json_answer(value: &serde_json::Value) -> Answer {
    answer_with(StatusCode::OK, "application/json", value.to_string().into_bytes())
}

pub fn plain(status: StatusCode, text: impl Into<String>) -> Answer {
    answer_with(status, "text/plain; charset=utf-8", text.into().into_bytes())
}

fn answer_with(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Answer {
    let body = Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed();
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    answer
}

#[cfg(test)]
mod tests {
    use cri::v1::ContainerStatus;

    use super::*;
    use crate::containers::names;
    use crate::objects::testing::pod;

    fn seen(attempt: u32, state: ContainerState) -> Seen {
        let status = ContainerStatus {
            id: format!("a{attempt}"),
            state: state.into(),
            labels: [(names::CONTAINER_NAME.to_owned(), "a".to_owned())].into(),
            annotations: [(names::RESTART_COUNT.to_owned(), attempt.to_string())].into(),
            ..ContainerStatus::default()
        };
        Seen { sandbox_id: "s".into(), status }
    }

    /// The attempt whose log is shown, or the refusal's text.
    fn shown(containers: &[Seen], status: serde_json::Value, previous: bool) -> Result<u32, String> {
        let observed = Observed::new(vec![], containers.to_vec());
        let status: PodStatus = serde_json::from_value(json!({"containerStatuses": [status]})).unwrap();
        let pod = pod(json!({"spec": {"containers": [{"name": "a"}]}}));
        instance(&observed, &pod, &status, "a", previous).map(Seen::attempt).map_err(|refusal| refusal.1)
    }

    #[test]
    fn the_previous_instance_is_the_last_state() {
        use ContainerState::{ContainerExited as Exited, ContainerRunning as Running};
        let last = |id: &str, state: serde_json::Value| {
            json!({"name": "a", "state": state, "lastState": {"terminated": {"exitCode": 1, "containerID": id}},
                   "image": "", "imageID": "", "ready": false, "restartCount": 1})
        };
        let crashed = [seen(1, Exited), seen(0, Exited)];
        let waits = last("cluster://a1", json!({"waiting": {"reason": "CrashLoopBackOff"}}));
        assert_eq!(shown(&crashed, waits.clone(), true), Ok(1));
        assert_eq!(shown(&crashed, waits, false), Ok(1));
        let runs = last("cluster://a1", json!({"running": {}}));
        assert_eq!(shown(&[seen(2, Running), seen(1, Exited)], runs.clone(), true), Ok(1));
        assert_eq!(shown(&[seen(2, Running), seen(1, Exited)], runs, false), Ok(2));
        let ended = last("cluster://a0", json!({"terminated": {"exitCode": 0, "containerID": "cluster://a1"}}));
        assert_eq!(shown(&crashed, ended.clone(), true), Ok(0));
        let removed = shown(&[seen(1, Exited)], ended, true).unwrap_err();
        assert_eq!(removed, "unable to retrieve container logs for cluster://a0");
    }

    #[test]
    fn what_has_no_log_says_why() {
        let status = |reason: &str| {
            json!({"name": "a", "state": {"waiting": {"reason": reason}}, "lastState": {},
                   "image": "", "imageID": "", "ready": false, "restartCount": 0})
        };
        let once = shown(&[seen(0, ContainerState::ContainerExited)], status("x"), true).unwrap_err();
        assert!(once.starts_with("previous terminated container \"a\" in pod"), "{once}");
        for (reason, text) in [
            ("ErrImagePull", "is waiting to start: image can't be pulled"),
            ("ImagePullBackOff", "is waiting to start: trying and failing to pull image"),
            ("PodInitializing", "is waiting to start: PodInitializing"),
        ] {
            let why = shown(&[], status(reason), false).unwrap_err();
            assert!(why.ends_with(text), "{why}");
        }
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("command=sh&command=-c&command=echo%20a%2Bb+c&tty=1&x&tailLines=5&input=true");
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["sh", "-c", "echo a+b c"]);
        assert!(query.flag("tty") && query.flag("input") && !query.flag("x"));
        assert_eq!(options(&query).unwrap().tail_lines, Some(5));
        assert!(options(&Query::parse("tailLines=-1")).is_err());
        assert!(options(&Query::parse("sinceTime=yesterday")).is_err());
        assert_eq!(decode("%zz%4"), "%zz%4");
    }
}
