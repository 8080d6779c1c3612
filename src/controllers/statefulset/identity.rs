//! Who a pod of a StatefulSet is: its ordinal, its names, its revision and its volumes.

use std::ops::Range;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume};

use super::claims::claim_name;
use crate::shared::pod_control::pod_of;

/// The label of a pod that names its revision.
pub const REVISION_LABEL: &str = "controller-revision-hash";
const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

pub fn replicas(set: &StatefulSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1).max(0)
}

/// The ordinals that there should be.
pub fn ordinals(set: &StatefulSet) -> Range<i32> {
    let start = set.spec.as_ref().and_then(|spec| spec.ordinals.as_ref()?.start).unwrap_or(0);
    start..start.saturating_add(replicas(set))
}

/// The ordinal in a pod's name, if it is one of a set of this name.
pub fn ordinal_in(set_name: &str, pod_name: &str) -> Option<i32> {
    let (parent, ordinal) = pod_name.rsplit_once('-')?;
    let digits = !ordinal.is_empty() && ordinal.bytes().all(|byte| byte.is_ascii_digit());
    (parent == set_name && digits).then(|| ordinal.parse().ok()).flatten()
}

pub fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    ordinal_in(set.metadata.name.as_deref()?, pod.metadata.name.as_deref()?)
}

pub fn revision(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get(REVISION_LABEL).map(String::as_str)
}

/// A pod for an ordinal, of a revision's template.
pub fn pod_at(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let mut pod = pod_of(set, template);
    let name = format!("{}-{ordinal}", set.metadata.name.as_deref().unwrap_or_default());
    pod.metadata.generate_name = None;
    pod.metadata.name = Some(name.clone());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    spec.subdomain = set.spec.as_ref().and_then(|spec| spec.service_name.clone()).filter(|name| !name.is_empty());
    pod.metadata.labels.get_or_insert_default().insert(REVISION_LABEL.to_owned(), revision.to_owned());
    put_right(set, &mut pod, ordinal);
    pod
}

/// Whether the pod has the labels and the volumes of its ordinal.
pub fn is_right(set: &StatefulSet, pod: &Pod, ordinal: i32) -> bool {
    let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get(POD_NAME_LABEL));
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    let templates = set.spec.as_ref().and_then(|spec| spec.volume_claim_templates.as_deref()).unwrap_or_default();
    label == pod.metadata.name.as_ref()
        && templates.iter().all(|template| {
            let volume = volumes.iter().find(|volume| Some(&volume.name) == template.metadata.name.as_ref());
            let claim = volume.and_then(|volume| volume.persistent_volume_claim.as_ref());
            claim.is_some_and(|claim| claim.claim_name == claim_name(set, template, ordinal))
        })
}

/// Gives the pod the labels and the volumes of its ordinal.
pub fn put_right(set: &StatefulSet, pod: &mut Pod, ordinal: i32) {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME_LABEL.to_owned(), name);
    labels.insert(POD_INDEX_LABEL.to_owned(), ordinal.to_string());
    let templates = set.spec.as_ref().and_then(|spec| spec.volume_claim_templates.as_deref()).unwrap_or_default();
    if templates.is_empty() {
        return;
    }
    let claimed = templates.iter().map(|template| Volume {
        name: template.metadata.name.clone().unwrap_or_default(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim_name(set, template, ordinal),
            read_only: None,
        }),
        ..Volume::default()
    });
    let mut volumes: Vec<Volume> = claimed.collect();
    let spec = pod.spec.get_or_insert_default();
    let others = spec.volumes.take().unwrap_or_default();
    let taken = |other: &Volume| templates.iter().any(|one| one.metadata.name.as_ref() == Some(&other.name));
    volumes.extend(others.into_iter().filter(|other| !taken(other)));
    spec.volumes = Some(volumes);
}

/// The template that a revision holds.
pub fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set() -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "n", "uid": "s"},
            "spec": {"replicas": 2, "ordinals": {"start": 3}, "serviceName": "svc", "selector": {"matchLabels": {"app": "web"}},
                     "volumeClaimTemplates": [{"metadata": {"name": "data"}}],
                     "template": {"metadata": {"labels": {"app": "web"}}, "spec": {
                         "containers": [{"name": "c"}],
                         "volumes": [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]}}},
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_is_somebody() {
        let set = set();
        let pod = pod_at(&set, &set.spec.as_ref().unwrap().template, "web-abc", 3);
        let got = serde_json::to_value(&pod).unwrap();
        assert_eq!(
            got["metadata"]["labels"],
            json!({"app": "web", "controller-revision-hash": "web-abc",
            "statefulset.kubernetes.io/pod-name": "web-3", "apps.kubernetes.io/pod-index": "3"})
        );
        assert_eq!(got["metadata"].get("generateName"), None);
        assert_eq!(
            got["spec"],
            json!({"hostname": "web-3", "subdomain": "svc", "containers": [{"name": "c"}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data-web-3"}}, {"name": "tmp", "emptyDir": {}}]})
        );
        assert!(is_right(&set, &pod, 3) && !is_right(&set, &pod, 4));
        assert_eq!((ordinal(&set, &pod), revision(&pod), ordinals(&set)), (Some(3), Some("web-abc"), 3..5));
    }

    #[test]
    fn ordinals_are_read_from_names() {
        assert_eq!(ordinal_in("web", "web-0"), Some(0));
        assert_eq!(ordinal_in("web", "web-00"), Some(0));
        assert_eq!(ordinal_in("web", "web-a-0"), None);
        for other in ["web", "web-", "web-x", "web--1", "web-99999999999", "other-1"] {
            assert_eq!(ordinal_in("web", other), None, "{other}");
        }
    }

    #[test]
    fn a_revision_gives_its_template_back() {
        let template = set().spec.unwrap().template;
        let data = crate::shared::history::patch_of(&template).unwrap();
        let revision = serde_json::from_value(json!({"metadata": {}, "revision": 1, "data": data})).unwrap();
        assert_eq!(template_of(&revision), Some(template));
    }
}
