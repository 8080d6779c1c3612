//! ImagePolicyWebhook: a program elsewhere says whether a Pod's images may run. Its answers are kept for a while.

use std::sync::Arc;

use api::{Failure, Fields};
use futures::future::BoxFuture;
use serde_json::{Map, Value, json};

use super::{Attributes, Operation, Plugin};
use crate::answers::Answers;
use crate::config::{Error, ImagePolicy};
use crate::reviewer::Reviewer;
use crate::server::ApiServer;
use crate::webhook::Caller;

const API_VERSION: &str = "imagepolicy.k8s.io/v1alpha1";
const AUDIT_PREFIX: &str = "imagepolicywebhook.image-policy.k8s.io/";
/// Of a Pod's annotations, the program sees those with this in their names.
const SHOWN: &str = ".image-policy.k8s.io/";
/// For one try (upstream: the webhooks' request timeout).
const TRY_MAX: std::time::Duration = std::time::Duration::from_secs(30);

pub struct ImagePolicyWebhook {
    policy: ImagePolicy,
    reviewer: Reviewer,
    answers: Answers<Value>,
}

impl ImagePolicyWebhook {
    pub fn new(policy: ImagePolicy, caller: &Arc<Caller>) -> Result<ImagePolicyWebhook, Error> {
        let path = policy.kubeconfig.clone();
        let reviewer = Reviewer::new(caller.clone(), &path, API_VERSION.to_owned(), "ImageReview", TRY_MAX)
            .map_err(|source| Error::Webhook { path, source })?
            .with_first_pause(policy.retry_pause);
        let life = policy.allowed_life.max(policy.denied_life);
        Ok(ImagePolicyWebhook { policy, reviewer, answers: Answers::new(life) })
    }

    async fn review(&self, attributes: &mut Attributes<'_>, pod: &Value) -> Result<(), Failure> {
        let spec = spec(attributes, pod);
        let key = self.answers.key(&spec.to_string(), &[]);
        let status = match self.answers.get(&key) {
            Some(status) => status,
            None => match self.reviewer.ask(&spec).await {
                Ok(status) => {
                    let allowed = status.flag("allowed");
                    let life = if allowed { self.policy.allowed_life } else { self.policy.denied_life };
                    let status = Arc::new(status);
                    self.answers.put_for(key, status.clone(), life);
                    status
                }
                Err(_) if self.policy.fails_open => {
                    attributes.annotate(format!("{AUDIT_PREFIX}failed-open"), "true");
                    return Ok(());
                }
                Err(why) => return Err(attributes.refuse(why)),
            },
        };
        for (key, value) in status.map("auditAnnotations").into_iter().flatten() {
            attributes.annotate(format!("{AUDIT_PREFIX}{key}"), value.as_str().unwrap_or_default());
        }
        if status.flag("allowed") {
            return Ok(());
        }
        Err(attributes.refuse(match status.text("reason") {
            "" => "one or more images rejected by webhook backend".to_owned(),
            reason => format!("image policy webhook backend denied one or more images: {reason}"),
        }))
    }
}

/// `ImageReviewSpec`.
fn spec(attributes: &Attributes<'_>, pod: &Value) -> Value {
    let lists: &[&str] = match attributes.subresource {
        None => &["containers", "initContainers"],
        Some(_) => &["ephemeralContainers"],
    };
    let containers = lists.iter().flat_map(|list| pod.part("spec").list(list));
    let images: Vec<Value> = containers.map(|container| json!({"image": container.text("image")})).collect();
    let annotations = pod.part("metadata").map("annotations").into_iter().flatten();
    let annotations: Map<String, Value> =
        annotations.filter(|(key, _)| key.contains(SHOWN)).map(|(key, value)| (key.clone(), value.clone())).collect();
    let mut spec = json!({"containers": images, "namespace": attributes.namespace});
    if !annotations.is_empty() {
        spec.set("annotations", annotations);
    }
    spec
}

impl Plugin for ImagePolicyWebhook {
    fn asks(&self, attributes: &Attributes<'_>) -> bool {
        let resource = &attributes.row.resource;
        matches!(attributes.operation, Operation::Create | Operation::Update)
            && matches!(attributes.subresource, None | Some("ephemeralcontainers"))
            && resource.group.is_empty()
            && resource.plural == "pods"
    }

    fn ask<'a>(
        &'a self,
        _server: &'a ApiServer,
        attributes: &'a mut Attributes<'_>,
        object: Option<&'a Value>,
        _old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            match object {
                Some(pod) => self.review(attributes, pod).await,
                None => Ok(()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::testing::Fixture;
    use crate::webhook::testing::{Program, answer};

    async fn server(program: &Program, directory: &std::path::Path, fails_open: bool) -> Fixture {
        let kubeconfig = directory.join("kubeconfig");
        let (port, bundle) = (program.port, program.bundle());
        let text = format!(
            "clusters: [{{name: a, cluster: {{server: 'https://127.0.0.1:{port}/images', certificate-authority-data: {bundle}}}}}]\n\
             contexts: [{{name: a, context: {{cluster: a, user: ''}}}}]\ncurrent-context: a\n"
        );
        std::fs::write(&kubeconfig, text).unwrap();
        let (life, retry_pause) = (Duration::from_secs(30), Duration::from_millis(1));
        let policy = ImagePolicy { kubeconfig, allowed_life: life, denied_life: life, retry_pause, fails_open };
        let t = Fixture::with(|config| {
            config.admission.enabled = vec!["ImagePolicyWebhook".to_owned()];
            config.admission.image_policy = Some(policy);
        });
        t.await.with_account().await
    }

    fn pod(name: &str, image: &str) -> Value {
        json!({"metadata": {"name": name, "annotations": {"ticket.image-policy.k8s.io/1": "x", "other": "y"}},
            "spec": {"containers": [{"name": "c", "image": image}]}})
    }

    #[tokio::test]
    async fn a_program_says_which_images_run() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let program = Program::start("images.example.com", move |request| {
            counted.fetch_add(1, Ordering::SeqCst);
            let review: Value = serde_json::from_slice(request.body()).unwrap();
            assert_eq!(review["spec"]["annotations"], json!({"ticket.image-policy.k8s.io/1": "x"}));
            let status = match review["spec"]["containers"][0].text("image") {
                "good" => json!({"allowed": true}),
                _ => json!({"allowed": false, "reason": "too old"}),
            };
            let answered = json!({"apiVersion": API_VERSION, "kind": "ImageReview", "status": status});
            std::future::ready(answer(200, answered.to_string()))
        });
        let (program, directory) = (program.await, tempfile::tempdir().unwrap());
        let t = server(&program, directory.path(), false).await;
        t.create("", "pods", pod("a", "good")).await.unwrap();
        t.create("", "pods", pod("b", "good")).await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 1, "the answer is kept");
        let failure = t.create("", "pods", pod("c", "bad")).await.unwrap_err();
        assert_eq!(
            failure.message,
            "pods \"c\" is forbidden: image policy webhook backend denied one or more images: too old"
        );
    }

    #[tokio::test]
    async fn without_an_answer_it_is_as_configured() {
        let broken = Program::start("images.example.com", |_| std::future::ready(answer(400, ""))).await;
        let directory = tempfile::tempdir().unwrap();
        let t = server(&broken, directory.path(), true).await;
        t.create("", "pods", pod("a", "any")).await.unwrap();
        let t = server(&broken, directory.path(), false).await;
        assert_eq!(t.create("", "pods", pod("a", "any")).await.unwrap_err().code, 403);
    }
}
