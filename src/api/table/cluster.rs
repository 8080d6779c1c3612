//! The cluster's furniture: network, storage, scheduling, nodes, leases, devices.

use super::{Built, global, namespaced};
use crate::{defaults, meta::NameRule, selector::SelectableField as Field};

pub(super) fn add(rows: &mut Vec<Built>) {
    let networking = "networking.k8s.io";
    let storage = "storage.k8s.io";
    let resource = "resource.k8s.io";
    rows.extend([
        namespaced("coordination.k8s.io", "v1", "leases", "Lease").create_on_update().conditional(),
        namespaced("coordination.k8s.io", "v1beta1", "leasecandidates", "LeaseCandidate")
            .off()
            .create_on_update()
            .conditional(),
        namespaced("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
            .default(defaults::service::endpoint_slice)
            .generation(),
        global(networking, "v1", "ingressclasses", "IngressClass")
            .default(defaults::service::ingress_class)
            .generation(),
        namespaced(networking, "v1", "ingresses", "Ingress")
            .default(defaults::service::ingress)
            .short(&["ing"])
            .key("ingress")
            .status()
            .generation(),
        global(networking, "v1", "ipaddresses", "IPAddress").short(&["ip"]).names(NameRule::IpAddress),
        namespaced(networking, "v1", "networkpolicies", "NetworkPolicy")
            .default(defaults::service::network_policy)
            .short(&["netpol"])
            .generation(),
        global(networking, "v1", "servicecidrs", "ServiceCIDR").status(),
        global("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass")
            .default(defaults::cluster::runtime_class)
            .create_on_update()
            .conditional(),
        global("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass")
            .default(defaults::cluster::priority_class)
            .short(&["pc"])
            .generation(),
        global(storage, "v1", "csidrivers", "CSIDriver")
            .default(defaults::storage::csi_driver)
            .conditional()
            .generation(),
        global(storage, "v1", "csinodes", "CSINode").default(defaults::storage::csi_node).conditional(),
        namespaced(storage, "v1", "csistoragecapacities", "CSIStorageCapacity")
            .default(defaults::storage::capacity)
            .conditional(),
        global(storage, "v1", "storageclasses", "StorageClass").default(defaults::storage::class).short(&["sc"]),
        global(storage, "v1", "volumeattachments", "VolumeAttachment")
            .default(defaults::storage::attachment)
            .conditional()
            .status(),
        global(storage, "v1", "volumeattributesclasses", "VolumeAttributesClass").short(&["vac"]),
        global(resource, "v1", "deviceclasses", "DeviceClass").generation(),
        namespaced(resource, "v1", "resourceclaims", "ResourceClaim")
            .default(defaults::cluster::resource_claim)
            .status(),
        namespaced(resource, "v1", "resourceclaimtemplates", "ResourceClaimTemplate")
            .default(defaults::cluster::resource_claim_template),
        global(resource, "v1", "resourceslices", "ResourceSlice")
            .generation()
            .select(&[Field::text("spec.nodeName"), Field::text("spec.driver")]),
    ]);
}
