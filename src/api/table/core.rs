//! The core group and its events.

use super::{ALL_VERBS, Built, CREATE, CREATE_GET, GET, PROXY, UPDATE, global, namespaced};
use crate::{call::Verb, defaults, meta::NameRule, selector::SelectableField as Field};

/// Namespaces are deleted one by one.
const NO_DELETE_COLLECTION: &[Verb] =
    &[Verb::Create, Verb::Delete, Verb::Get, Verb::List, Verb::Patch, Verb::Update, Verb::Watch];

const POD_FIELDS: &[Field] = &[
    Field::text("spec.nodeName"),
    Field::text("spec.restartPolicy"),
    Field::text("spec.schedulerName"),
    Field::text("spec.serviceAccountName"),
    Field::boolean("spec.hostNetwork"),
    Field::text("status.phase"),
    Field::text("status.podIP"),
    Field::text("status.podIPs"),
    Field::text("status.nominatedNodeName"),
    Field::at("spec.host", "spec.nodeName", ""),
];

const EVENT_FIELDS: &[Field] = &[
    Field::text("involvedObject.kind"),
    Field::text("involvedObject.namespace"),
    Field::text("involvedObject.name"),
    Field::text("involvedObject.uid"),
    Field::text("involvedObject.apiVersion"),
    Field::text("involvedObject.resourceVersion"),
    Field::text("involvedObject.fieldPath"),
    Field::text("reason"),
    Field::text("reportingComponent"),
    Field::either("source", "source.component", "reportingComponent"),
    Field::text("type"),
];

const EVENTS_V1_FIELDS: &[Field] = &[
    Field::text("regarding.kind"),
    Field::text("regarding.namespace"),
    Field::text("regarding.name"),
    Field::text("regarding.uid"),
    Field::text("regarding.apiVersion"),
    Field::text("regarding.resourceVersion"),
    Field::text("regarding.fieldPath"),
    Field::text("reason"),
    Field::text("reportingController"),
    Field::text("type"),
];

pub(super) fn add(rows: &mut Vec<Built>) {
    let core = |plural, kind| namespaced("", "v1", plural, kind);
    let wide = |plural, kind| global("", "v1", plural, kind);
    rows.extend([
        core("bindings", "Binding").computed(CREATE),
        wide("componentstatuses", "ComponentStatus").computed(&[Verb::Get, Verb::List]).short(&["cs"]),
        core("configmaps", "ConfigMap").short(&["cm"]),
        core("endpoints", "Endpoints")
            .short(&["ep"])
            .key("services/endpoints")
            .create_on_update()
            .default(defaults::service::endpoints),
        core("events", "Event").default(defaults::config::event).short(&["ev"]).select(EVENT_FIELDS).create_on_update(),
        core("limitranges", "LimitRange").short(&["limits"]).create_on_update().default(defaults::config::limit_range),
        wide("namespaces", "Namespace")
            .verbs(NO_DELETE_COLLECTION)
            .short(&["ns"])
            .sub("finalize", ["", "", "Namespace"], UPDATE)
            .status()
            .names(NameRule::Label)
            .select(&[Field::text("status.phase")])
            .default(defaults::config::namespace),
        wide("nodes", "Node")
            .short(&["no"])
            .key("minions")
            .sub("proxy", ["", "", "NodeProxyOptions"], PROXY)
            .status()
            .select(&[Field::boolean("spec.unschedulable")])
            .default(defaults::config::node),
        core("persistentvolumeclaims", "PersistentVolumeClaim")
            .short(&["pvc"])
            .status()
            .default(defaults::storage::claim),
        wide("persistentvolumes", "PersistentVolume").short(&["pv"]).status().default(defaults::storage::volume),
        core("pods", "Pod")
            .short(&["po"])
            .category("all")
            .sub("attach", ["", "", "PodAttachOptions"], CREATE_GET)
            .sub("binding", ["", "", "Binding"], CREATE)
            .view("ephemeralcontainers")
            .sub("eviction", ["policy", "v1", "Eviction"], CREATE)
            .sub("exec", ["", "", "PodExecOptions"], CREATE_GET)
            .sub("log", ["", "", "Pod"], GET)
            .sub("portforward", ["", "", "PodPortForwardOptions"], CREATE_GET)
            .sub("proxy", ["", "", "PodProxyOptions"], PROXY)
            .view("resize")
            .status()
            .generation()
            .select(POD_FIELDS)
            .default(defaults::pod::pod),
        core("podtemplates", "PodTemplate").generation().default(defaults::pod::pod_template),
        core("replicationcontrollers", "ReplicationController")
            .short(&["rc"])
            .category("all")
            .key("controllers")
            .scale()
            .status()
            .generation()
            .select(&[Field::number("status.replicas")])
            .default(defaults::apps::replication_controller),
        core("resourcequotas", "ResourceQuota").short(&["quota"]).status().default(defaults::config::resource_quota),
        core("secrets", "Secret").select(&[Field::text("type")]).default(defaults::config::secret),
        core("serviceaccounts", "ServiceAccount").short(&["sa"]).sub(
            "token",
            ["authentication.k8s.io", "v1", "TokenRequest"],
            CREATE,
        ),
        core("services", "Service")
            .short(&["svc"])
            .category("all")
            .key("services/specs")
            .sub("proxy", ["", "", "ServiceProxyOptions"], PROXY)
            .status()
            .names(NameRule::ServiceLabel)
            .create_on_update()
            .select(&[Field::text("spec.clusterIP"), Field::text("spec.type")])
            .default(defaults::service::service),
        namespaced("events.k8s.io", "v1", "events", "Event")
            .short(&["ev"])
            .verbs(ALL_VERBS)
            .stored_as("", "v1", "events")
            .select(EVENTS_V1_FIELDS)
            .create_on_update(),
        global("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview").computed(CREATE),
        global("authentication.k8s.io", "v1", "tokenreviews", "TokenReview").computed(CREATE),
    ]);
}
