//! Aggregated API servers: whole group versions that another program serves (upstream: kube-aggregator).
//!
//! An APIService says who serves a group version. Those without a Service are served here; the controller keeps one
//! for each ([`registration`]), so that clients see all of them alike. For the others the controller asks whether
//! somebody answers ([`availability`]) and reads what they offer ([`documents`]); requests go through unchanged but
//! for the user, who is named in headers that this server vouches for with a certificate ([`front_proxy`]).
//!
//! A cluster without aggregated servers pays one look at a revision per request.

mod availability;
mod certificate;
mod controller;
mod documents;
mod front_proxy;
mod groups;
mod priorities;
mod proxy;
mod registration;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::Fields;
use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use pki::Trust;
use serde_json::Value;
use task::Shutdown;

pub use controller::run;
pub use documents::Documents;
pub use groups::{groups, own_group};
pub use proxy::forward;

use crate::cache::{Cache, ResourceCache};
use crate::config::{AggregationOptions, Error};
use crate::metrics::{Kind, Text};
use crate::webhook::{ClientCertificate, Endpoint, EndpointError};

pub const GROUP: &str = "apiregistration.k8s.io";
const PREFIX: &[u8] = b"/registry/apiregistration.k8s.io/apiservices/";
const HTTPS_PORT: u16 = 443;

/// Who serves which group version.
pub struct Aggregator {
    services: Option<Arc<ResourceCache>>,
    table: ArcSwap<Table>,
    reading: Mutex<()>,
    certificate: ClientCertificate,
    documents: Documents,
    /// Names of the APIServices for what is served here, once they were made.
    made: ArcSwap<BTreeSet<String>>,
}

/// The APIServices as they are now.
#[derive(Default)]
pub struct Table {
    revision: Option<u64>,
    all: Vec<Arc<Registered>>,
    /// Those with a Service, by group and version.
    remote: BTreeMap<(String, String), Arc<Registered>>,
}

/// One APIService.
pub struct Registered {
    pub name: String,
    pub group: String,
    pub version: String,
    pub group_priority: i64,
    pub version_priority: i64,
    pub remote: Option<Remote>,
}

/// How an aggregated server is reached.
pub struct Remote {
    pub namespace: String,
    pub service: String,
    pub port: u16,
    pub endpoint: Result<Endpoint, EndpointError>,
    /// Its condition `Available` is true.
    pub available: bool,
}

impl Aggregator {
    pub fn new(cache: &Cache, options: &AggregationOptions, shutdown: &Shutdown) -> Result<Aggregator, Error> {
        let shown = certificate::shown(options, shutdown)?;
        Ok(Aggregator {
            services: cache.resource(PREFIX),
            table: ArcSwap::default(),
            reading: Mutex::new(()),
            certificate: ClientCertificate::new("front-proxy", shown),
            documents: Documents::default(),
            made: ArcSwap::default(),
        })
    }

    /// The APIServices for what is served here were there: from now on they count.
    pub fn made(&self, names: BTreeSet<String>) {
        if **self.made.load() != names {
            self.made.store(Arc::new(names));
        }
    }

    pub fn documents(&self) -> &Documents {
        &self.documents
    }

    /// The APIServices as they are now.
    pub fn table(&self) -> Arc<Table> {
        let table = self.table.load_full();
        let Some(services) = &self.services else { return table };
        if table.revision == Some(services.revision()) {
            return table;
        }
        let _reading = self.reading.lock();
        let table = self.table.load_full();
        if table.revision == Some(services.revision()) {
            return table;
        }
        let snapshot = services.snapshot(None, 0);
        let mut table = Table { revision: Some(snapshot.revision), ..Table::default() };
        for stored in &snapshot.objects {
            let Ok(object) = serde_json::from_slice::<Value>(&stored.value) else { continue };
            let registered = Arc::new(registered(&object, &self.certificate));
            if registered.remote.is_some() {
                let place = (registered.group.clone(), registered.version.clone());
                table.remote.insert(place, registered.clone());
            }
            table.all.push(registered);
        }
        let table = Arc::new(table);
        self.table.store(table.clone());
        table
    }

    /// For `/metrics`.
    pub fn write_figures(&self, out: &mut Text) {
        let table = self.table();
        if table.remote.is_empty() {
            return;
        }
        let name = "aggregator_unavailable_apiservice";
        out.family(name, Kind::Gauge, "[ALPHA] APIServices that are not available, by their name.");
        for registered in table.remote.values() {
            let unavailable = registered.remote.as_ref().is_some_and(|remote| !remote.available);
            out.sample(name, &[("name", &registered.name)], u8::from(unavailable));
        }
    }

    /// Who else serves a path, of resources or of their description; `None` for this server's own.
    pub fn elsewhere(&self, path: &str) -> Option<Arc<Registered>> {
        let rest = path.strip_prefix("/openapi/v3").unwrap_or(path).strip_prefix("/apis/")?;
        let table = self.table();
        if table.remote.is_empty() {
            return None;
        }
        let mut parts = rest.split('/');
        let place = (parts.next()?.to_owned(), parts.next()?.to_owned());
        table.remote.get(&place).cloned()
    }
}

fn registered(object: &Value, certificate: &ClientCertificate) -> Registered {
    let spec = object.part("spec");
    let available = object.part("status").list("conditions").iter();
    let available = available.clone().any(|one| one.text("type") == "Available" && one.text("status") == "True");
    let remote = spec.at("service").map(|service| {
        let (namespace, name) = (service.text("namespace"), service.text("name"));
        let port = service.int("port").and_then(|port| u16::try_from(port).ok()).unwrap_or(HTTPS_PORT);
        let bundle = STANDARD.decode(spec.text("caBundle"));
        let endpoint = match bundle {
            Err(error) => Err(EndpointError::Authorities(error.to_string())),
            Ok(bundle) => {
                let trust = match bundle {
                    _ if spec.flag("insecureSkipTLSVerify") => Trust::Anybody,
                    bundle if bundle.is_empty() => Trust::System,
                    bundle => Trust::Bundle(bundle),
                };
                Endpoint::service(namespace, name, port, "/", trust, Some(certificate.clone()))
            }
        };
        Remote { namespace: namespace.to_owned(), service: name.to_owned(), port, endpoint, available }
    });
    Registered {
        name: object.part("metadata").text("name").to_owned(),
        group: spec.text("group").to_owned(),
        version: spec.text("version").to_owned(),
        group_priority: spec.int("groupPriorityMinimum").unwrap_or_default(),
        version_priority: spec.int("versionPriority").unwrap_or_default(),
        remote,
    }
}
