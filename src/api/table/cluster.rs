//! The cluster's furniture: network, storage, scheduling, nodes, leases, devices.

use super::{Built, global, namespaced};
use crate::{meta::NameRule, selector::SelectableField as Field, strategy::Functions};

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
        namespaced("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice").generation(),
        global(networking, "v1", "ingressclasses", "IngressClass").generation(),
        namespaced(networking, "v1", "ingresses", "Ingress")
            .short(&["ing"])
            .key("ingress")
            .status()
            .generation()
            .with(Functions::WITH_STATUS),
        global(networking, "v1", "ipaddresses", "IPAddress").short(&["ip"]).names(NameRule::IpAddress),
        namespaced(networking, "v1", "networkpolicies", "NetworkPolicy").short(&["netpol"]).generation(),
        global(networking, "v1", "servicecidrs", "ServiceCIDR").status().with(Functions::WITH_STATUS),
        global("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass").create_on_update().conditional(),
        global("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass").short(&["pc"]).generation(),
        global(storage, "v1", "csidrivers", "CSIDriver").conditional().generation(),
        global(storage, "v1", "csinodes", "CSINode").conditional(),
        namespaced(storage, "v1", "csistoragecapacities", "CSIStorageCapacity").conditional(),
        global(storage, "v1", "storageclasses", "StorageClass").short(&["sc"]),
        global(storage, "v1", "volumeattachments", "VolumeAttachment")
            .conditional()
            .status()
            .with(Functions::WITH_STATUS),
        global(storage, "v1", "volumeattributesclasses", "VolumeAttributesClass").short(&["vac"]),
        global(resource, "v1", "deviceclasses", "DeviceClass").generation(),
        namespaced(resource, "v1", "resourceclaims", "ResourceClaim").status().with(Functions::WITH_STATUS),
        namespaced(resource, "v1", "resourceclaimtemplates", "ResourceClaimTemplate"),
        global(resource, "v1", "resourceslices", "ResourceSlice")
            .generation()
            .select(&[Field::text("spec.nodeName"), Field::text("spec.driver")]),
    ]);
}
