//! The cluster's furniture: network, storage, scheduling, nodes, leases, devices.

use super::{Built, global, namespaced};
use crate::{
    defaults,
    meta::{Generation, NameRule},
    print,
    selector::SelectableField as Field,
    strategy::{kinds, retired, warnings},
    validation,
};

pub(super) fn add(rows: &mut Vec<Built>) {
    let networking = "networking.k8s.io";
    let storage = "storage.k8s.io";
    let resource = "resource.k8s.io";
    rows.extend([
        namespaced("coordination.k8s.io", "v1", "leases", "Lease")
            .show(print::LEASES, print::lease)
            .prepare_create(retired::lease_create)
            .prepare_update(retired::lease_update)
            .validate(validation::config::lease)
            .create_on_update()
            .conditional(),
        namespaced("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
            .show(print::ENDPOINT_SLICES, print::endpoint_slice)
            .prepare_create(retired::endpoint_slice_create)
            .prepare_update(retired::endpoint_slice_update)
            .validate(validation::service::endpoint_slice)
            .validate_update(validation::service::endpoint_slice_update)
            .default(defaults::service::endpoint_slice)
            .counts(Generation::SpecAndLabels),
        global(networking, "v1", "ingressclasses", "IngressClass")
            .show(print::INGRESS_CLASSES, print::ingress_class)
            .validate(validation::network::ingress_class)
            .validate_update(validation::network::ingress_class_update)
            .default(defaults::service::ingress_class)
            .generation(),
        namespaced(networking, "v1", "ingresses", "Ingress")
            .show(print::INGRESSES, print::ingress)
            .prepare_create(kinds::ingress_create)
            .validate(validation::network::ingress)
            .validate_update(validation::balancer::ingress_update)
            .default(defaults::service::ingress)
            .short(&["ing"])
            .key("ingress")
            .status()
            .generation(),
        global(networking, "v1", "ipaddresses", "IPAddress")
            .validate(validation::furniture::ip_address)
            .validate_update(validation::furniture::ip_address_update)
            .show(print::IP_ADDRESSES, print::ip_address)
            .short(&["ip"])
            .names(NameRule::IpAddress),
        namespaced(networking, "v1", "networkpolicies", "NetworkPolicy")
            .show(print::NETWORK_POLICIES, print::network_policy)
            .validate(validation::network::network_policy)
            .default(defaults::service::network_policy)
            .short(&["netpol"])
            .generation(),
        global(networking, "v1", "servicecidrs", "ServiceCIDR")
            .prepare_update(kinds::strict_status_update)
            .validate(validation::furniture::service_cidr)
            .show(print::SERVICE_CIDRS, print::service_cidr)
            .status(),
        global("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass")
            .validate(validation::furniture::runtime_class)
            .validate_update(validation::furniture::runtime_class_update)
            .show(print::RUNTIME_CLASSES, print::runtime_class)
            .default(defaults::cluster::runtime_class)
            .create_on_update()
            .conditional(),
        global("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass")
            .show(print::PRIORITY_CLASSES, print::priority_class)
            .validate(validation::autoscaling::priority_class)
            .validate_update(validation::autoscaling::priority_class_update)
            .default(defaults::cluster::priority_class)
            .short(&["pc"])
            .generation(),
        global(storage, "v1", "csidrivers", "CSIDriver")
            .prepare_create(retired::csi_driver_create)
            .prepare_update(retired::csi_driver_update)
            .warn(warnings::csi_driver)
            .validate(validation::furniture::csi_driver)
            .validate_update(validation::furniture::csi_driver_update)
            .show(print::CSI_DRIVERS, print::csi_driver)
            .default(defaults::storage::csi_driver)
            .conditional(),
        global(storage, "v1", "csinodes", "CSINode")
            .show(print::CSI_NODES, print::csi_node)
            .validate(validation::storage::csi_node)
            .validate_update(validation::storage::csi_node_update)
            .default(defaults::storage::csi_node)
            .conditional(),
        namespaced(storage, "v1", "csistoragecapacities", "CSIStorageCapacity")
            .show(print::CAPACITIES, print::capacity)
            .validate(validation::storage::capacity)
            .validate_update(validation::storage::capacity_update)
            .default(defaults::storage::capacity)
            .conditional(),
        global(storage, "v1", "storageclasses", "StorageClass")
            .show(print::CLASSES, print::class)
            .validate(validation::storage::class)
            .validate_update(validation::storage::class_update)
            .default(defaults::storage::class)
            .short(&["sc"]),
        global(storage, "v1", "volumeattachments", "VolumeAttachment")
            .prepare_update(kinds::strict_status_update)
            .show(print::ATTACHMENTS, print::attachment)
            .validate(validation::storage::attachment)
            .validate_update(validation::storage::attachment_update)
            .default(defaults::storage::attachment)
            .conditional()
            .status(),
        global(storage, "v1", "volumeattributesclasses", "VolumeAttributesClass")
            .show(print::ATTRIBUTES_CLASSES, print::attributes_class)
            .validate(validation::storage::attributes_class)
            .validate_update(validation::storage::attributes_class_update)
            .short(&["vac"]),
        global(resource, "v1", "deviceclasses", "DeviceClass")
            .show(print::NAME_AGE, print::name_age)
            .validate(validation::claims::device_class)
            .validate_update(validation::claims::device_class_update)
            .generation(),
        namespaced(resource, "v1", "resourceclaims", "ResourceClaim")
            .prepare_update(kinds::strict_status_update)
            .show(print::RESOURCE_CLAIMS, print::resource_claim)
            .validate(validation::claims::claim)
            .validate_update(validation::claims::claim_update)
            .default(defaults::cluster::resource_claim)
            .status(),
        namespaced(resource, "v1", "resourceclaimtemplates", "ResourceClaimTemplate")
            .show(print::NAME_AGE, print::name_age)
            .validate(validation::claims::claim_template)
            .validate_update(validation::claims::claim_template_update)
            .default(defaults::cluster::resource_claim_template),
        global(resource, "v1", "resourceslices", "ResourceSlice")
            .show(print::RESOURCE_SLICES, print::resource_slice)
            .validate(validation::devices::slice)
            .validate_update(validation::devices::slice_update)
            .generation()
            .select(&[Field::text("spec.nodeName"), Field::text("spec.driver")]),
    ]);
}
