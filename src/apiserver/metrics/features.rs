//! Upstream's features that are told apart by whoever looks at an API server: which of them this one has.
//!
//! Limitation: there are no feature gates to switch. Features of nodes and controllers are not listed.

use super::{Kind, Text};

/// Upstream's word for features that are there to stay.
const STABLE: &str = "";
const BETA: &str = "BETA";
const ALPHA: &str = "ALPHA";

/// Name, stage in 1.36, and whether it is here.
const FEATURES: [(&str, &str, bool); 39] = [
    ("APIResponseCompression", BETA, true),
    ("AllowUnsafeMalformedObjectDeletion", ALPHA, false),
    ("AnonymousAuthConfigurableEndpoints", STABLE, true),
    ("AuthorizeNodeWithSelectors", STABLE, true),
    ("AuthorizePodWebsocketUpgradeCreatePermission", BETA, true),
    ("AuthorizeWithSelectors", STABLE, true),
    ("CBORServingAndStorage", ALPHA, false),
    ("CRDValidationRatcheting", STABLE, true),
    ("ConsistentListFromCache", STABLE, true),
    ("ConstrainedImpersonation", BETA, true),
    ("CoordinatedLeaderElection", BETA, false),
    ("CustomResourceFieldSelectors", STABLE, true),
    ("HPAScaleToZero", ALPHA, false),
    ("ManifestBasedAdmissionControlConfig", ALPHA, false),
    ("MaxUnavailableStatefulSet", BETA, false),
    ("MutatingAdmissionPolicy", STABLE, true),
    ("NativeHistograms", ALPHA, false),
    ("NodeDeclaredFeatures", BETA, true),
    ("PodLogsQuerySplitStreams", ALPHA, false),
    ("PodTopologyLabelsAdmission", BETA, true),
    ("PortForwardWebsockets", BETA, true),
    ("RemoteRequestHeaderUID", BETA, true),
    ("RetryGenerateName", STABLE, true),
    ("ServiceAccountNodeAudienceRestriction", BETA, true),
    ("ServiceAccountTokenJTI", STABLE, true),
    ("ServiceAccountTokenNodeBinding", STABLE, true),
    ("ServiceAccountTokenPodNodeInfo", STABLE, true),
    ("ShardedListAndWatch", ALPHA, false),
    ("SizeBasedListCostEstimate", BETA, true),
    ("StorageVersionAPI", ALPHA, false),
    ("StorageVersionHash", BETA, true),
    ("StreamingCollectionEncodingToJSON", STABLE, true),
    ("StreamingCollectionEncodingToProtobuf", STABLE, true),
    ("StructuredAuthenticationConfiguration", STABLE, true),
    ("TopologyAwareWorkloadScheduling", ALPHA, false),
    ("TranslateStreamCloseWebsocketRequests", BETA, true),
    ("UnauthenticatedHTTP2DOSMitigation", BETA, true),
    ("VolumeLimitScaling", ALPHA, false),
    ("WatchList", BETA, true),
];

pub fn write(out: &mut Text) {
    let name = "kubernetes_feature_enabled";
    out.family(name, Kind::Gauge, "[BETA] Features by name and stage: 1 if the server has it.");
    for (feature, stage, enabled) in FEATURES {
        out.sample(name, &[("name", feature), ("stage", stage)], u8::from(enabled));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_feature_stands_once() {
        assert!(FEATURES.is_sorted_by(|(one, ..), (next, ..)| one < next));
        let mut text = Text::new(false);
        write(&mut text);
        let text = text.finish();
        for line in [
            "kubernetes_feature_enabled{name=\"WatchList\",stage=\"BETA\"} 1\n",
            "kubernetes_feature_enabled{name=\"CBORServingAndStorage\",stage=\"ALPHA\"} 0\n",
            "kubernetes_feature_enabled{name=\"AuthorizeWithSelectors\",stage=\"\"} 1\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
