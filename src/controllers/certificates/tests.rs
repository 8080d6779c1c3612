use api::{Answer, Call, Encoded, EventKind, Verb, WatchEvent, WatchResult};
use client::{Backend, Informers};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::*;

/// An API with one alive node and one request, whose node changes as `nodes` says. What is written is told to `written`.
struct Api {
    request: Value,
    nodes: Mutex<Option<UnboundedReceiver<Value>>>,
    written: UnboundedSender<Call>,
}

impl Backend for Api {
    fn call(&self, call: Call) -> BoxFuture<'static, Result<Answer, Failure>> {
        let body = match (call.verb, call.resource.plural.as_ref()) {
            (Verb::List, "nodes") => json!({"metadata": {"resourceVersion": "1"}, "items": [node("True", 1)]}),
            (Verb::List, _) => json!({"metadata": {"resourceVersion": "1"}, "items": [self.request]}),
            _ => {
                let body = call.body.clone().unwrap();
                self.written.send(call).unwrap();
                body
            }
        };
        let body = serde_json::to_vec(&body).unwrap().into();
        Box::pin(async move { Ok(Answer { code: 200, body, warnings: vec![] }) })
    }

    fn watch(&self, call: Call) -> BoxStream<'static, WatchResult> {
        match self.nodes.lock().take_if(|_| call.resource.plural == "nodes") {
            Some(mut nodes) => futures::stream::poll_fn(move |context| nodes.poll_recv(context))
                .map(|node| {
                    Ok(WatchEvent {
                        kind: EventKind::Modified,
                        object: Encoded::whole(serde_json::to_vec(&node).unwrap()),
                    })
                })
                .boxed(),
            None => futures::stream::pending().boxed(),
        }
    }
}

fn node(ready: &str, version: u32) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "shed", "resourceVersion": version.to_string()},
           "status": {"conditions": [{"type": "Ready", "status": ready}]}})
}

/// Reads every request as one for the node `shed`.
struct Shed;

impl Signer for Shed {
    fn read(&self, _: &str) -> Result<Subject, String> {
        Ok(subject("system:node:shed"))
    }

    fn sign(&self, _: &str, _: &Subject, _: bool) -> Result<String, String> {
        Err("nothing is signed here".to_owned())
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_no_longer_alive_is_given_to_who_waits_for_it() {
    let (nodes, changes) = unbounded_channel();
    let (written, mut writes) = unbounded_channel();
    let request = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"name": "joining", "resourceVersion": "1"},
        "spec": {"signerName": CLIENT_KUBELET, "request": "", "usages": ["digital signature", "client auth"],
                 "username": "system:bootstrap:node", "groups": ["system:bootstrappers"]},
    });
    let backend = Arc::new(Api { request, nodes: Mutex::new(Some(changes)), written });
    let shutdown = Shutdown::new();
    let client = Client::new(backend.clone(), Informers::new(backend, shutdown.clone()), "test");
    let running = task::spawn("certificates", run(client, Arc::new(Shed), vec![], shutdown.clone()));

    // Time stands still until everybody waits.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(writes.try_recv().is_err(), "the node of that name is alive");
    nodes.send(node("Unknown", 2)).unwrap();
    let approval = tokio::time::timeout(Duration::from_secs(60), writes.recv()).await.unwrap().unwrap();
    assert_eq!((approval.name.as_deref(), approval.subresource.as_deref()), (Some("joining"), Some("approval")));
    assert_eq!(approval.body.unwrap()["status"]["conditions"][0]["type"], "Approved");

    shutdown.cancel();
    running.await.unwrap().unwrap().unwrap();
}

#[test]
fn heartbeats_do_not_matter() {
    let node = |ready: &str, address: &str| -> Node {
        let mut node = node(ready, 1);
        node["status"]["addresses"] = json!([{"type": "InternalIP", "address": address}]);
        serde_json::from_value(node).unwrap()
    };
    let alive = node("True", "10.0.0.1");
    assert!(!matters(Some(&alive), Some(&alive.clone())));
    assert!(matters(Some(&alive), Some(&node("Unknown", "10.0.0.1"))));
    assert!(matters(Some(&alive), Some(&node("True", "10.0.0.2"))));
    assert!(matters(Some(&alive), None));
}

fn subject(common_name: &str) -> Subject {
    Subject {
        common_name: common_name.to_owned(),
        organizations: vec!["system:nodes".to_owned()],
        ..Subject::default()
    }
}

#[test]
fn what_is_signed_at_all() {
    let usages = |usage: &str| vec!["digital signature".to_owned(), usage.to_owned()];
    let node = subject("system:node:a");
    assert!(permitted(CLIENT_KUBELET, &usages("client auth"), &node).is_ok());
    assert!(permitted(CLIENT_KUBELET, &usages("server auth"), &node).is_err());
    assert!(permitted(CLIENT_KUBELET, &usages("client auth"), &subject("admin")).is_err());
    assert!(permitted(SERVING, &usages("server auth"), &node).is_err(), "no names");
    let named = Subject { dns_names: vec!["a".to_owned()], ..node.clone() };
    assert!(permitted(SERVING, &usages("server auth"), &named).is_ok());
    assert!(permitted(CLIENT_KUBELET, &usages("client auth"), &named).is_err());
    let mut masters = subject("eve");
    masters.organizations = vec!["system:masters".to_owned()];
    assert!(permitted(CLIENT, &usages("client auth"), &masters).is_err());
}

#[test]
fn requests_are_not_kept_for_ever() {
    let mut request = CertificateSigningRequest::default();
    let at = |second| Timestamp::from_second(second).unwrap();
    request.metadata.creation_timestamp = Some(Time(at(0)));
    assert_eq!(left(&request, true, at(3000)), Some(Duration::from_secs(600)));
    assert_eq!(left(&request, true, at(3600)), None);
    assert!(left(&request, false, at(3600)).is_some());
}
