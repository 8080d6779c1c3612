//! The objects that every cluster begins with and keeps: compiled in, applied at every start.

use std::borrow::Cow;

use anyhow::Context;
use api::{Call, PatchKind, Row, Verb};
use client::Client;
use serde_json::Value;

use crate::settings::ClusterSettings;

const MANIFESTS: [(&str, &str); 3] = [
    ("cluster-info.yaml", include_str!("../embedded/manifests/cluster-info.yaml")),
    ("dns.yaml", include_str!("../embedded/manifests/dns.yaml")),
    ("joining.yaml", include_str!("../embedded/manifests/joining.yaml")),
];

/// Applies all of them, in order.
pub async fn apply_all(client: &Client, settings: &ClusterSettings) -> anyhow::Result<()> {
    for (name, text) in MANIFESTS {
        for object in objects(text, settings).with_context(|| name.to_owned())? {
            apply(client, object).await.with_context(|| name.to_owned())?;
        }
    }
    Ok(())
}

fn objects(text: &str, settings: &ClusterSettings) -> anyhow::Result<Vec<Value>> {
    let text = text
        .replace("${SETTINGS}", &serde_json::to_string(settings)?)
        .replace("${CLUSTER_DNS}", &settings.cluster_dns.to_string());
    Ok(serde_saphyr::from_multiple(&text)?)
}

async fn apply(client: &Client, object: Value) -> anyhow::Result<()> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let api_version = text("/apiVersion").unwrap_or_default();
    let kind = text("/kind").unwrap_or_default();
    let row = Row::find_kind(&api_version, &kind).with_context(|| format!("{api_version} {kind} is not served"))?;
    let mut call = Call::new(Verb::Patch, row.resource.clone());
    call.namespace = text("/metadata/namespace");
    call.name = text("/metadata/name");
    call.subresource = None::<Cow<'static, str>>;
    call.options.patch = Some(PatchKind::Apply);
    call.options.force = Some(true);
    call.body = Some(object);
    client.raw(call).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_manifest_names_an_object_that_is_served() {
        let settings = ClusterSettings::parse("10.42.0.0/16", "10.43.0.0/16", None, "cluster.local").unwrap();
        for (name, text) in MANIFESTS {
            for object in objects(text, &settings).unwrap() {
                let text = |field: &str| object[field].as_str().unwrap().to_owned();
                assert!(Row::find_kind(&text("apiVersion"), &text("kind")).is_some(), "{name}: {object}");
                assert!(!object.to_string().contains("${"), "{name}: {object}");
            }
        }
    }
}
