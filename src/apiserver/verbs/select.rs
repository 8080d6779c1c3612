//! Which objects a list or watch is about: a namespace, labels, fields.

use std::borrow::Cow;

use api::{Failure, FieldSelector, LabelSelector, Options, Row};

use crate::cache::{Attributes, Stored};

pub struct Selection {
    pub namespace: Option<String>,
    labels: LabelSelector,
    fields: FieldSelector,
    /// A watch of one object by its path.
    only: Option<String>,
}

impl Selection {
    pub fn new(row: &Row, namespace: Option<&str>, options: &Options) -> Result<Selection, Failure> {
        let refused = |error: api::selector::SelectorError| Failure::bad_request(error.to_string());
        let labels = match &options.label_selector {
            Some(text) => LabelSelector::parse(text).map_err(refused)?,
            None => LabelSelector::everything(),
        };
        let fields = match &options.field_selector {
            Some(text) => FieldSelector::parse(text, row).map_err(refused)?,
            None => FieldSelector::everything(),
        };
        // A selector on the namespace is the namespace.
        let namespace = namespace.or_else(|| fields.requires("metadata.namespace").filter(|_| row.namespaced));
        Ok(Selection { namespace: namespace.map(str::to_owned), labels, fields, only: None })
    }

    /// Everything in the namespace is wanted.
    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty() && self.only.is_none()
    }

    /// How wide it looks, in the words of metrics.
    pub fn scope(&self) -> &'static str {
        match (self.name(), &self.namespace) {
            (Some(_), _) => "resource",
            (None, Some(_)) => "namespace",
            (None, None) => "cluster",
        }
    }

    /// Objects must be in the row's version for this to match: fields of custom resources may have moved between
    /// versions.
    pub fn looks_into(&self, row: &Row) -> bool {
        row.custom.is_some() && self.fields.terms.iter().any(|term| !term.field.label.starts_with("metadata."))
    }

    /// Nothing but the object of this name.
    pub fn only(&mut self, name: &str) {
        self.only = Some(name.to_owned());
    }

    /// The one object that is wanted, if the selector names it.
    pub fn name(&self) -> Option<&str> {
        self.only.as_deref().or_else(|| self.fields.requires("metadata.name"))
    }

    pub fn matches(&self, row: &Row, stored: &Stored) -> bool {
        if self.namespace.as_deref().is_some_and(|namespace| namespace != stored.namespace()) {
            return false;
        }
        if self.is_everything() {
            return true;
        }
        if self.name().is_some_and(|name| name != stored.name()) {
            return false;
        }
        if self.labels.is_empty() && self.fields.terms.iter().all(|term| term.field.label.starts_with("metadata.")) {
            return self.fields.terms.iter().all(|term| {
                let value = if term.field.label == "metadata.name" { stored.name() } else { stored.namespace() };
                (value == term.value) != term.negated
            });
        }
        let attributes = attributes(row, stored);
        if self.looks_into(row) {
            let Ok(object) = serde_json::from_slice(&stored.value) else { return false };
            return self.labels.matches_with(|key| attributes.label(key)) && self.fields.matches(&object);
        }
        self.labels.matches_with(|key| attributes.label(key))
            && self
                .fields
                .terms
                .iter()
                .all(|term| (attributes.field(&term.field.label).unwrap_or_default() == term.value) != term.negated)
    }
}

fn attributes<'a>(row: &Row, stored: &'a Stored) -> &'a Attributes {
    stored.attributes(|object| {
        if row.custom.is_some() {
            // What may be selected by can change, with what was kept.
            return Vec::new();
        }
        // They are kept for whoever asks next, in whichever version: Events have other fields in each.
        let mut fields = Vec::new();
        for row in api::rows().iter().filter(|other| other.storage == row.storage) {
            let mut served = Cow::Borrowed(object);
            if row.storage != row.resource {
                row.to_served(served.to_mut());
            }
            let values = row.selectable_fields.iter().map(|field| field.of(&served).into_owned());
            fields.extend(row.selectable_fields.iter().map(|field| field.label.clone().into_owned()).zip(values));
        }
        fields
    })
}
