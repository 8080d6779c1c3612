//! What a request leaves behind on its way besides its answer, however it ends: texts for the client's user, and
//! annotations of its audit event.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::audit::{self, Level};

/// One request's notes. Shared by what works on the request at the same time.
#[derive(Default)]
pub struct Notes {
    warnings: Mutex<Vec<String>>,
    annotations: Mutex<Vec<Annotation>>,
    /// Nanoseconds spent waiting for a turn and for webhooks.
    waited: AtomicU64,
}

/// An annotation of an audit event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    pub key: String,
    pub value: String,
    /// It tells what the request's body holds: for events that show bodies too (upstream: the level `Request`).
    pub of_body: bool,
}

impl Notes {
    /// Texts for the `Warning` header; the same text once.
    pub fn warn(&self, texts: impl IntoIterator<Item = String>) {
        let mut warnings = self.warnings.lock();
        for text in texts {
            if !warnings.contains(&text) {
                warnings.push(text);
            }
        }
    }

    /// The first value of a key stays, as upstream has it.
    pub fn annotate(&self, annotations: impl IntoIterator<Item = Annotation>) {
        let mut known = self.annotations.lock();
        for annotation in annotations {
            if !known.iter().any(|one| one.key == annotation.key) {
                audit::annotate_at(level(&annotation), &annotation.key, || annotation.value.clone());
                known.push(annotation);
            }
        }
    }

    /// So long the request waited for what is not this server's doing: its turn, or webhooks.
    pub fn waited(&self, time: Duration) {
        self.waited.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// All such times together.
    pub fn waiting(&self) -> Duration {
        Duration::from_nanos(self.waited.load(Ordering::Relaxed))
    }

    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.warnings.lock())
    }

    #[cfg(test)]
    pub fn take_annotations(&self) -> Vec<Annotation> {
        std::mem::take(&mut self.annotations.lock())
    }
}

/// The least level at which it is shown.
fn level(annotation: &Annotation) -> Level {
    if annotation.of_body { Level::Request } else { Level::Metadata }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_said_once_and_the_first_annotation_stays() {
        let notes = Notes::default();
        notes.warn(["a".to_owned(), "b".to_owned()]);
        notes.warn(["a".to_owned()]);
        assert_eq!(notes.take_warnings(), ["a", "b"]);
        let annotation = |value: &str| Annotation { key: "k".to_owned(), value: value.to_owned(), of_body: false };
        notes.annotate([annotation("1")]);
        notes.annotate([annotation("2")]);
        assert_eq!(notes.take_annotations(), [annotation("1")]);
    }
}
