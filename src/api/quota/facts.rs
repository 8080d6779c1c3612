//! What quotas look at in an object.

use super::{Amounts, Scope};

/// An object as quotas see it.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub usage: Amounts,
    pub(super) kind: Kind,
    /// Of each container the names of what it asks for or is limited in; `None` where the Pod as a whole says it.
    pub(super) containers: Option<Vec<(String, Vec<String>)>>,
}

#[derive(Clone, Debug, Default)]
pub(super) enum Kind {
    Pod {
        terminating: bool,
        best_effort: bool,
        /// One or none.
        priority_class: Vec<String>,
        cross_namespace: bool,
    },
    Claim {
        attributes_classes: Vec<String>,
    },
    /// No scope is about other kinds.
    #[default]
    Other,
}

impl Facts {
    pub fn is_in(&self, scope: &Scope) -> bool {
        match &self.kind {
            Kind::Pod { terminating, best_effort, priority_class, cross_namespace } => match scope.name.as_str() {
                "Terminating" => *terminating,
                "NotTerminating" => !terminating,
                "BestEffort" => *best_effort,
                "NotBestEffort" => !best_effort,
                "PriorityClass" => scope.selects(priority_class),
                "CrossNamespacePodAffinity" => *cross_namespace,
                _ => false,
            },
            Kind::Claim { attributes_classes } => {
                scope.name == "VolumeAttributesClass" && scope.selects(attributes_classes)
            }
            Kind::Other => false,
        }
    }

    /// What containers do not say that must be said, as upstream words it.
    pub(super) fn missing(&self, required: &[&String]) -> Option<String> {
        let mut texts = Vec::new();
        for name in required {
            let without = self.containers.iter().flatten().filter(|(_, said)| !said.contains(name));
            let mut without: Vec<&str> = without.map(|(container, _)| container.as_str()).collect();
            without.sort_unstable();
            without.dedup();
            if !without.is_empty() {
                texts.push(format!("{name} for: {}", without.join(",")));
            }
        }
        (!texts.is_empty()).then(|| format!("must specify {}", texts.join("; ")))
    }
}
