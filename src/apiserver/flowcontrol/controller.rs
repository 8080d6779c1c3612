//! Follows the configuration objects: keeps those that must be there, compiles all, tells FlowSchemas whether their
//! level exists, and adjusts the levels' limits while there is contention.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use api::{Call, Failure, Fields, PatchKind, Resource, Row, Verb};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::allocate::{self, Demand};
use super::{compile, objects};
use crate::cache::ResourceCache;
use crate::identity::Identity;
use crate::server::ApiServer;
use crate::verbs;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const LEVELS: Resource = Resource::new(GROUP, "v1", "prioritylevelconfigurations");
const SCHEMAS: Resource = Resource::new(GROUP, "v1", "flowschemas");
/// Names under which the fields are owned (upstream's).
const PRODUCER: &str = "api-priority-and-fairness-config-producer-v1";
const CONSUMER: &str = "api-priority-and-fairness-config-consumer-v1";
/// Changes that come together are digested together; two who fight over an object do not keep the server busy.
const SYNC_PAUSE: Duration = Duration::from_secs(1);
/// Limits are adjusted this often while there is contention (upstream: `borrowingAdjustmentPeriod`).
const ADJUST_PERIOD: Duration = Duration::from_secs(10);
/// What stays of the smoothed demand after a period (upstream: `seatDemandSmoothingCoefficient`).
const SMOOTHING: f64 = 0.977;

/// Writes the objects that must be there and puts what is configured to use.
pub async fn keep_up(server: &ApiServer) -> Result<(), Failure> {
    let user = Identity::master("system:apiserver");
    for (resource, wanted, mandatory) in [
        (LEVELS, objects::levels(), objects::mandatory_levels().len()),
        (SCHEMAS, objects::schemas(), objects::mandatory_schemas().len()),
    ] {
        let (row, cache) = place(server, &resource)?;
        for (index, mut object) in wanted.into_iter().enumerate() {
            row.default(&mut object);
            let name = object.part("metadata").text("name").to_owned();
            let there = cache.get(&name).map(|stored| stored.decode()).transpose().map_err(Failure::internal)?;
            let written = match there {
                None => create(server, &user, &resource, object).await,
                Some(current) => match revised(&current, &object, index < mandatory) {
                    Some(revised) => update(server, &user, &resource, &name, revised).await,
                    None => Ok(()),
                },
            };
            written?;
        }
    }
    digest(server, &user).await
}

/// Until the server stops.
pub async fn run(server: ApiServer) -> Result<(), Failure> {
    let reached = server.cache().revision();
    let follow =
        |resource: &Resource| Ok::<_, Failure>(place(&server, resource)?.1.snapshot_and_follow(None, reached).1);
    let (mut levels, mut schemas) = (follow(&LEVELS)?, follow(&SCHEMAS)?);
    let mut adjusted = Instant::now();
    let mut contended = false;
    loop {
        tokio::select! {
            // One who falls behind reads everything anew, which is what happens anyhow.
            changes = levels.next() => if changes.is_err() { levels = follow(&LEVELS)? },
            changes = schemas.next() => if changes.is_err() { schemas = follow(&SCHEMAS)? },
            () = server.flow().pressed.notified(), if !contended => {
                contended = true;
                continue;
            }
            () = tokio::time::sleep_until(adjusted + ADJUST_PERIOD), if contended => {
                contended = adjust(&server, adjusted.elapsed());
                adjusted = Instant::now();
                continue;
            }
        }
        tokio::time::sleep(SYNC_PAUSE).await;
        if let Err(failure) = keep_up(&server).await {
            tracing::warn!(%failure, "the objects of priority and fairness are not kept up for now");
        }
    }
}

/// Divides the seats anew. True as long as there is contention or something still moves.
fn adjust(server: &ApiServer, since: Duration) -> bool {
    let flow = server.flow();
    let compiled = flow.compiled.load();
    let periods = since.as_secs_f64() / ADJUST_PERIOD.as_secs_f64();
    let mut busy = false;
    let demands: Vec<Demand> = compiled
        .levels
        .iter()
        .map(|level| {
            let (figures, pressed) = level.measure(since.as_secs_f64(), SMOOTHING.powf(periods));
            busy |= pressed;
            let bounds = level.bounds();
            Demand {
                exempt: level.exempt,
                nominal: bounds.nominal,
                min: bounds.min,
                max: bounds.max,
                high_watermark: figures.high_watermark,
                smoothed: figures.smoothed,
            }
        })
        .collect();
    let (adjusted, fair_fraction) = allocate::adjust(&demands);
    flow.fair_fraction.store(fair_fraction.to_bits(), Ordering::Relaxed);
    for (level, adjusted) in compiled.levels.iter().zip(adjusted) {
        busy |= !level.exempt && level.limit() != adjusted.current;
        level.set_limit(adjusted.current, adjusted.target);
    }
    busy
}

/// Compiles what is in the cache and writes the conditions that changed.
async fn digest(server: &ApiServer, user: &Identity) -> Result<(), Failure> {
    // What was just written counts.
    let written = server.store().revision();
    server.cache().reach(written).await?;
    let all = |resource: &Resource| -> Result<Vec<Value>, Failure> {
        let (_, cache) = place(server, resource)?;
        cache.objects(None).iter().map(|stored| stored.decode().map_err(Failure::internal)).collect()
    };
    let (levels, schemas) = (all(&LEVELS)?, all(&SCHEMAS)?);
    let flow = server.flow();
    let (compiled, found) = compile::compile(&flow.compiled.load(), &levels, &schemas, flow.seats);
    flow.compiled.store(Arc::new(compiled));
    for schema in &schemas {
        let Some(condition) = dangling(schema, &found, server.now()) else { continue };
        let name = schema.part("metadata").text("name");
        let mut call = Call::new(Verb::Patch, SCHEMAS);
        call.name = Some(name.to_owned());
        call.subresource = Some("status".into());
        call.options.patch = Some(PatchKind::Apply);
        call.options.field_manager = Some(CONSUMER.to_owned());
        call.options.force = Some(true);
        call.body = Some(json!({
            "apiVersion": SCHEMAS.api_version(), "kind": "FlowSchema", "metadata": {"name": name},
            "status": {"conditions": [condition]},
        }));
        gone_is_well(server.call(user, call).await.map(|_| ()))?;
    }
    Ok(())
}

/// The condition that a FlowSchema should have, unless it has it.
fn dangling(schema: &Value, found: &BTreeMap<String, bool>, now: jiff::Timestamp) -> Option<Value> {
    let found = *found.get(schema.part("metadata").text("name"))?;
    let level = schema.part("spec").part("priorityLevelConfiguration").text("name");
    let (status, reason, end) =
        if found { ("False", "Found", "and it exists") } else { ("True", "NotFound", "but there is no such object") };
    let message = format!("This FlowSchema references the PriorityLevelConfiguration object named \"{level}\" {end}");
    let conditions = schema.part("status").list("conditions");
    let current = conditions.iter().find(|condition| condition.text("type") == "Dangling");
    let same = current.is_some_and(|current| {
        current.text("status") == status && current.text("reason") == reason && current.text("message") == message
    });
    (!same).then(|| {
        json!({
            "type": "Dangling", "status": status, "reason": reason, "message": message,
            "lastTransitionTime": api::meta::time(now),
        })
    })
}

/// The object as it should be, if it is to be kept as the server wants it and is not so.
fn revised(current: &Value, wanted: &Value, mandatory: bool) -> Option<Value> {
    let metadata = current.part("metadata");
    let automatic = match metadata.part("annotations").text(objects::AUTO_UPDATE) {
        _ if mandatory => true,
        // Whoever made it did not say; nobody changed it since.
        "" => metadata.int("generation") == Some(1),
        text => text == "true",
    };
    let mut revised = current.clone();
    if automatic {
        revised.set("spec", wanted.part("spec").clone());
    }
    if let Some(annotations) = revised.object("metadata").and_then(|metadata| metadata.object("annotations")) {
        annotations.set(objects::AUTO_UPDATE, if automatic { "true" } else { "false" });
    }
    (revised != *current).then_some(revised)
}

fn place(server: &ApiServer, resource: &Resource) -> Result<(Arc<Row>, Arc<ResourceCache>), Failure> {
    let row = server.find_row(&resource.group, &resource.version, &resource.plural);
    let row = row.ok_or_else(|| Failure::internal(format!("{resource} is not served")))?;
    let cache = verbs::cache_of(server, &row)?;
    Ok((row, cache))
}

async fn create(server: &ApiServer, user: &Identity, resource: &Resource, object: Value) -> Result<(), Failure> {
    let mut call = Call::new(Verb::Create, resource.clone());
    call.options.field_manager = Some(PRODUCER.to_owned());
    call.body = Some(object);
    match server.call(user, call).await {
        Err(failure) if !failure.is_already_exists() => Err(failure),
        _ => Ok(()),
    }
}

async fn update(
    server: &ApiServer,
    user: &Identity,
    resource: &Resource,
    name: &str,
    object: Value,
) -> Result<(), Failure> {
    let mut call = Call::new(Verb::Update, resource.clone());
    call.name = Some(name.to_owned());
    call.options.field_manager = Some(PRODUCER.to_owned());
    call.body = Some(object);
    gone_is_well(server.call(user, call).await.map(|_| ()))
}

/// An object that somebody changed or deleted in between is looked at again when that change comes.
fn gone_is_well(written: Result<(), Failure>) -> Result<(), Failure> {
    match written {
        Err(failure) if failure.is_not_found() || failure.reason == api::Reason::Conflict => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;

    async fn names(fixture: &Fixture, path: &str) -> usize {
        fixture.call(fixture.ask(Verb::List, GROUP, path, None)).await.unwrap().list("items").len()
    }

    #[tokio::test]
    async fn what_must_be_there_is_there_and_comes_back() {
        let fixture = Fixture::start().await;
        assert_eq!(
            (names(&fixture, "prioritylevelconfigurations").await, names(&fixture, "flowschemas").await),
            (8, 11)
        );
        let schema = fixture.get(GROUP, "flowschemas/catch-all").await.unwrap();
        let condition = &schema["status"]["conditions"][0];
        assert_eq!((condition.text("type"), condition.text("status")), ("Dangling", "False"));
        fixture.delete(GROUP, "flowschemas/catch-all", None).await.unwrap();
        let mut level = fixture.get(GROUP, "prioritylevelconfigurations/system").await.unwrap();
        level["spec"]["limited"]["nominalConcurrencyShares"] = 7.into();
        fixture.update(GROUP, "prioritylevelconfigurations/system", level).await.unwrap();
        fixture.catch_up().await;
        keep_up(&fixture.server).await.unwrap();
        fixture.get(GROUP, "flowschemas/catch-all").await.unwrap();
        let level = fixture.get(GROUP, "prioritylevelconfigurations/system").await.unwrap();
        assert_eq!(level["spec"]["limited"]["nominalConcurrencyShares"], 30);
    }

    #[tokio::test]
    async fn an_administrators_own_numbers_stay() {
        let fixture = Fixture::start().await;
        let mut level = fixture.get(GROUP, "prioritylevelconfigurations/system").await.unwrap();
        level["metadata"]["annotations"][objects::AUTO_UPDATE] = "false".into();
        level["spec"]["limited"]["nominalConcurrencyShares"] = 7.into();
        fixture.update(GROUP, "prioritylevelconfigurations/system", level).await.unwrap();
        let lost = json!({
            "metadata": {"name": "lost"},
            "spec": {
                "priorityLevelConfiguration": {"name": "nowhere"},
                "rules": [{
                    "subjects": [{"kind": "Group", "group": {"name": "*"}}],
                    "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
                }],
            },
        });
        fixture.create(GROUP, "flowschemas", lost).await.unwrap();
        fixture.catch_up().await;
        keep_up(&fixture.server).await.unwrap();
        let level = fixture.get(GROUP, "prioritylevelconfigurations/system").await.unwrap();
        assert_eq!(level["spec"]["limited"]["nominalConcurrencyShares"], 7);
        let lost = fixture.get(GROUP, "flowschemas/lost").await.unwrap();
        assert_eq!(
            lost["status"]["conditions"][0]["message"],
            "This FlowSchema references the PriorityLevelConfiguration object named \"nowhere\" but there is no such \
             object"
        );
    }
}
