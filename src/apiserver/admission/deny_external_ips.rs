//! DenyServiceExternalIPs: Services get no external addresses beyond those that they have.

use api::{Failure, Fields};
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::cache::Cache;

pub struct DenyServiceExternalIps;

impl Plugin for DenyServiceExternalIps {
    fn validate(
        &self,
        _cache: &Cache,
        attributes: &mut Attributes<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), Failure> {
        if !attributes.is("", "services") || !matches!(attributes.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        let addresses = |service: Option<&'_ Value>| -> Vec<Value> {
            service.map(|service| service.part("spec").list("externalIPs").to_vec()).unwrap_or_default()
        };
        let before = addresses(old);
        if addresses(object).iter().all(|address| before.contains(address)) {
            return Ok(());
        }
        Err(attributes.refuse("Use of external IPs is denied by admission control"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::Fixture;

    #[tokio::test]
    async fn a_service_gets_no_more_external_addresses() {
        let t = Fixture::with_flags(&["enable-admission-plugins=DenyServiceExternalIPs"]).await;
        let service = |addresses: Value| json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "externalIPs": addresses}});
        let failure = t.create("", "services", service(json!(["192.0.2.1"]))).await.unwrap_err();
        assert_eq!(failure.message, "services \"s\" is forbidden: Use of external IPs is denied by admission control");
        t.create("", "services", service(json!([]))).await.unwrap();
    }
}
