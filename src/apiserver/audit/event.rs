//! An audit event (`audit.k8s.io/v1 Event`) and its forms.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::policy::{Level, Stage};
use crate::identity::Identity;

const TRUNCATED: &str = "audit.k8s.io/truncated";

/// What is known of a request so far.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub level: Level,
    pub audit_id: String,
    pub request_uri: String,
    pub verb: String,
    pub user: User,
    pub impersonated_user: Option<User>,
    pub source_ips: Vec<String>,
    pub user_agent: String,
    pub object_ref: Option<ObjectRef>,
    pub response_status: Option<Status>,
    pub request_object: Option<Box<RawValue>>,
    pub response_object: Option<Box<RawValue>>,
    pub received: Timestamp,
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct User {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subresource: String,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Status {
    pub metadata: Empty,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub status: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip_serializing_if = "Value::is_null")]
    pub details: Value,
    pub code: u16,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Empty {}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    kind: &'static str,
    api_version: &'static str,
    level: Level,
    #[serde(rename = "auditID")]
    audit_id: &'a str,
    stage: Stage,
    #[serde(rename = "requestURI")]
    request_uri: &'a str,
    verb: &'a str,
    user: &'a User,
    #[serde(skip_serializing_if = "Option::is_none")]
    impersonated_user: Option<&'a User>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "<[String]>::is_empty")]
    source_ips: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    user_agent: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_ref: Option<&'a ObjectRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_status: Option<&'a Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_object: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_object: Option<&'a RawValue>,
    request_received_timestamp: String,
    stage_timestamp: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

impl User {
    pub fn new(user: &Identity) -> User {
        User {
            username: user.name.clone(),
            uid: user.uid.clone(),
            groups: user.groups.clone(),
            extra: user.extra.clone(),
        }
    }
}

impl Facts {
    pub fn json(&self, stage: Stage, at: Timestamp) -> Vec<u8> {
        self.write(stage, at, self.request_object.as_deref(), self.response_object.as_deref(), &self.annotations)
    }

    /// Without the objects, which made it too large.
    pub fn truncated_json(&self, stage: Stage, at: Timestamp) -> Vec<u8> {
        let mut annotations = self.annotations.clone();
        annotations.insert(TRUNCATED.to_owned(), "true".to_owned());
        self.write(stage, at, None, None, &annotations)
    }

    fn write(
        &self,
        stage: Stage,
        at: Timestamp,
        request_object: Option<&RawValue>,
        response_object: Option<&RawValue>,
        annotations: &BTreeMap<String, String>,
    ) -> Vec<u8> {
        let event = Event {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level: self.level,
            audit_id: &self.audit_id,
            stage,
            request_uri: &self.request_uri,
            verb: &self.verb,
            user: &self.user,
            impersonated_user: self.impersonated_user.as_ref(),
            source_ips: &self.source_ips,
            user_agent: &self.user_agent,
            object_ref: self.object_ref.as_ref(),
            response_status: self.response_status.as_ref(),
            request_object,
            response_object,
            request_received_timestamp: api::meta::micro_time(self.received),
            stage_timestamp: api::meta::micro_time(at),
            annotations,
        };
        // Texts and maps of texts always serialise.
        serde_json::to_vec(&event).unwrap_or_default()
    }

    /// The old form: one line of text.
    pub fn legacy(&self, stage: Stage) -> String {
        let or = |text: &str, otherwise: &str| if text.is_empty() { otherwise.to_owned() } else { text.to_owned() };
        let quoted = |list: &[String]| list.iter().map(|one| format!("{one:?}")).collect::<Vec<_>>().join(",");
        let groups = if self.user.username.is_empty() { String::new() } else { quoted(&self.user.groups) };
        let (as_user, as_groups) = match &self.impersonated_user {
            Some(user) => (user.username.clone(), quoted(&user.groups)),
            None => ("<self>".to_owned(), "<lookup>".to_owned()),
        };
        let namespace = self.object_ref.as_ref().map_or("", |object| object.namespace.as_str());
        let response = self.response_status.as_ref().map_or("<deferred>".to_owned(), |status| status.code.to_string());
        format!(
            "{} AUDIT: id={:?} stage=\"{stage:?}\" ip={:?} method={:?} user={:?} groups={:?} as={as_user:?} \
             asgroups={as_groups:?} user-agent={:?} namespace={:?} uri={:?} response=\"{response}\"",
            self.received,
            self.audit_id,
            self.source_ips.first().map_or("<unknown>", String::as_str),
            self.verb,
            or(&self.user.username, "<none>"),
            or(&groups, "<none>"),
            self.user_agent,
            or(namespace, "<none>"),
            self.request_uri,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_have_upstreams_fields() {
        let mut facts = Facts {
            level: Level::Metadata,
            audit_id: "id".to_owned(),
            request_uri: "/api/v1/namespaces/a/pods".to_owned(),
            verb: "list".to_owned(),
            user: User::new(&Identity::user("jane", ["dev"])),
            source_ips: vec!["10.0.0.1".to_owned()],
            user_agent: "kubectl".to_owned(),
            object_ref: Some(ObjectRef {
                resource: "pods".to_owned(),
                namespace: "a".to_owned(),
                api_version: "v1".to_owned(),
                ..ObjectRef::default()
            }),
            ..Facts::default()
        };
        facts.response_status = Some(Status { code: 200, ..Status::default() });
        let json = String::from_utf8(facts.json(Stage::ResponseComplete, Timestamp::UNIX_EPOCH)).unwrap();
        assert_eq!(
            json,
            r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"id","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/a/pods","verb":"list","user":{"username":"jane","groups":["dev","system:authenticated"]},"sourceIPs":["10.0.0.1"],"userAgent":"kubectl","objectRef":{"resource":"pods","namespace":"a","apiVersion":"v1"},"responseStatus":{"metadata":{},"code":200},"requestReceivedTimestamp":"1970-01-01T00:00:00.000000Z","stageTimestamp":"1970-01-01T00:00:00.000000Z"}"#
        );
        assert_eq!(
            facts.legacy(Stage::ResponseComplete),
            r#"1970-01-01T00:00:00Z AUDIT: id="id" stage="ResponseComplete" ip="10.0.0.1" method="list" user="jane" groups="\"dev\",\"system:authenticated\"" as="<self>" asgroups="<lookup>" user-agent="kubectl" namespace="a" uri="/api/v1/namespaces/a/pods" response="200""#
        );
    }
}
