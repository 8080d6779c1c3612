//! The core group and its events.

use super::{ALL_VERBS, Built, CREATE, CREATE_GET, GET, PROXY, UPDATE, global, namespaced};
use crate::{
    call::Verb,
    defaults,
    meta::NameRule,
    print,
    selector::SelectableField as Field,
    strategy::{claims, convert, kinds, pod, retired, service, warnings},
    validation,
};

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
        wide("componentstatuses", "ComponentStatus")
            .show(print::COMPONENT_STATUSES, print::component_status)
            .computed(&[Verb::Get, Verb::List])
            .deprecated("1.19", "")
            .short(&["cs"]),
        core("configmaps", "ConfigMap")
            .show(print::CONFIG_MAPS, print::config_map)
            .validate(validation::config::config_map)
            .validate_update(validation::config::config_map_update)
            .short(&["cm"]),
        core("endpoints", "Endpoints")
            .deprecated("1.33", "; use discovery.k8s.io/v1 EndpointSlice")
            .show(print::ENDPOINTS, print::endpoints)
            .validate(validation::service::endpoints)
            .short(&["ep"])
            .key("services/endpoints")
            .create_on_update()
            .default(defaults::service::endpoints),
        core("events", "Event")
            .show(print::EVENTS, print::event)
            .names(NameRule::PathSegment)
            .validate(validation::events::event)
            .default(defaults::config::event)
            .short(&["ev"])
            .select(EVENT_FIELDS)
            .create_on_update(),
        core("limitranges", "LimitRange")
            .prepare_create(retired::limit_range_create)
            .validate(validation::config::limit_range)
            .short(&["limits"])
            .create_on_update()
            .default(defaults::config::limit_range),
        wide("namespaces", "Namespace")
            .show(print::NAMESPACES, print::namespace)
            .prepare_create(kinds::namespace_create)
            .prepare_update(kinds::namespace_update)
            .validate(validation::config::namespace)
            .validate_update(validation::config::namespace_update)
            .verbs(NO_DELETE_COLLECTION)
            .short(&["ns"])
            .sub("finalize", ["", "", "Namespace"], UPDATE)
            .status()
            .names(NameRule::Label)
            .select(&[Field::text("status.phase")])
            .default(defaults::config::namespace),
        wide("nodes", "Node")
            .show(print::NODES, print::node)
            .prepare_create(retired::node_create)
            .validate(validation::node::node)
            .validate_update(validation::node::node_update)
            .short(&["no"])
            .key("minions")
            .sub("proxy", ["", "", "NodeProxyOptions"], PROXY)
            .status()
            .select(&[Field::boolean("spec.unschedulable")])
            .default(defaults::config::node),
        core("persistentvolumeclaims", "PersistentVolumeClaim")
            .show(print::CLAIMS, print::claim)
            .warn(warnings::claim)
            .prepare_create(claims::prepare_create)
            .prepare_update(claims::prepare_update)
            .validate(validation::storage::claim)
            .validate_update(validation::storage::claim_update)
            .short(&["pvc"])
            .status()
            .default(defaults::storage::claim),
        wide("persistentvolumes", "PersistentVolume")
            .show(print::VOLUMES, print::volume)
            .prepare_create(kinds::volume_create)
            .warn(warnings::volume)
            .validate(validation::storage::volume)
            .validate_update(validation::storage::volume_update)
            .short(&["pv"])
            .status()
            .default(defaults::storage::volume),
        core("pods", "Pod")
            .show(print::PODS, print::pod)
            .prepare_create(pod::prepare_create)
            .prepare_update(pod::prepare_update)
            .validate(validation::pod::create)
            .validate_update(validation::pod::update)
            .warn(warnings::pod)
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
        core("podtemplates", "PodTemplate")
            .show(print::POD_TEMPLATES, print::pod_template)
            .validate(validation::pod::pod_template)
            .generation()
            .default(defaults::pod::pod_template),
        core("replicationcontrollers", "ReplicationController")
            .show(print::REPLICA_SETS, print::replication_controller)
            .validate(validation::apps::replication_controller)
            .validate_update(validation::apps::replication_controller_update)
            .short(&["rc"])
            .category("all")
            .key("controllers")
            .scale()
            .status()
            .generation()
            .select(&[Field::number("status.replicas")])
            .default(defaults::apps::replication_controller),
        core("resourcequotas", "ResourceQuota")
            .show(print::QUOTAS, print::quota)
            .validate(validation::quotas::quota)
            .validate_update(validation::quotas::update)
            .short(&["quota"])
            .status()
            .default(defaults::config::resource_quota),
        core("secrets", "Secret")
            .show(print::SECRETS, print::secret)
            .warn(warnings::secret)
            .validate(validation::config::secret)
            .validate_update(validation::config::secret_update)
            .select(&[Field::text("type")])
            .default(defaults::config::secret),
        core("serviceaccounts", "ServiceAccount")
            .prepare_create(kinds::service_account)
            .prepare_update(kinds::service_account_update)
            .show(print::NAME_AGE, print::name_age)
            .short(&["sa"])
            .sub("token", ["authentication.k8s.io", "v1", "TokenRequest"], CREATE),
        core("services", "Service")
            .show(print::SERVICES, print::service)
            .warn(warnings::service)
            .prepare_create(service::prepare_create)
            .prepare_update(service::prepare_update)
            .validate(validation::service::service)
            .validate_update(validation::service::service_update)
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
            .show(print::EVENTS, print::new_event)
            .convert(convert::event_to_core, convert::event_from_core)
            .validate(validation::events::new_event)
            .validate_update(validation::events::new_event_update)
            .short(&["ev"])
            .verbs(ALL_VERBS)
            .stored_as("", "v1", "events")
            .select(EVENTS_V1_FIELDS)
            .create_on_update(),
        global("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview").computed(CREATE),
        global("authentication.k8s.io", "v1", "tokenreviews", "TokenReview").computed(CREATE),
    ]);
}
