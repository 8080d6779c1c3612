//! Which form of an answer a client takes.

use api::Failure;
use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING};

use crate::failures;

const OFFERED: &str = "application/json, application/yaml";

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    pub yaml: bool,
    pub shape: Shape,
}

/// What is made of objects (`as=` in the media type).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Object,
    Table,
    PartialObjectMetadata,
    PartialObjectMetadataList,
}

impl Form {
    pub const JSON: Form = Form { yaml: false, shape: Shape::Object };

    pub fn content_type(self) -> &'static str {
        if self.yaml { "application/yaml" } else { "application/json" }
    }
}

/// One media range of an `Accept` header.
struct Range<'a> {
    media_type: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    quality: f32,
}

impl Range<'_> {
    fn parameter(&self, key: &str) -> Option<&str> {
        self.parameters.iter().find(|(one, _)| one.eq_ignore_ascii_case(key)).map(|(_, value)| *value)
    }
}

fn ranges(headers: &HeaderMap) -> Vec<Range<'_>> {
    const RANGES_MAX: usize = 32;
    let mut ranges: Vec<Range<'_>> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .take(RANGES_MAX)
        .filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let media_type = parts.next().filter(|media_type| !media_type.is_empty())?;
            let parameters: Vec<_> = parts.filter_map(|part| part.split_once('=')).collect();
            let quality = parameters.iter().find(|(key, _)| *key == "q").and_then(|(_, value)| value.parse().ok());
            Some(Range { media_type, parameters, quality: quality.unwrap_or(1.0) })
        })
        .collect();
    ranges.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    ranges
}

/// The first form in the client's order that can be made, or 406.
pub fn form(headers: &HeaderMap) -> Result<Form, Failure> {
    let ranges = ranges(headers);
    if ranges.is_empty() {
        return Ok(Form::JSON);
    }
    ranges.iter().find_map(accepted).ok_or_else(|| failures::not_acceptable(OFFERED))
}

fn accepted(range: &Range<'_>) -> Option<Form> {
    let yaml = match range.media_type {
        "application/json" | "*/*" | "application/*" => false,
        "application/yaml" => true,
        _ => return None,
    };
    let meta = range.parameter("g") == Some("meta.k8s.io") && matches!(range.parameter("v"), Some("v1" | "v1beta1"));
    let shape = match range.parameter("as") {
        None => Shape::Object,
        Some("Table") if meta => Shape::Table,
        Some("PartialObjectMetadata") if meta => Shape::PartialObjectMetadata,
        Some("PartialObjectMetadataList") if meta => Shape::PartialObjectMetadataList,
        Some(_) => return None,
    };
    Some(Form { yaml, shape })
}

/// The client asks for discovery in one document.
pub fn aggregated_discovery(headers: &HeaderMap) -> Option<&'static str> {
    ranges(headers).iter().find_map(|range| {
        let aggregated = range.media_type == "application/json"
            && range.parameter("g") == Some("apidiscovery.k8s.io")
            && range.parameter("as") == Some("APIGroupDiscoveryList");
        match range.parameter("v") {
            Some("v2") if aggregated => Some("v2"),
            Some("v2beta1") if aggregated => Some("v2beta1"),
            _ => None,
        }
    })
}

/// The client takes gzip.
pub fn gzip(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').any(|one| {
            let mut parts = one.split(';').map(str::trim);
            parts.next() == Some("gzip") && !parts.any(|part| part == "q=0")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn of(accept: &str) -> Result<Form, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_str(accept).unwrap());
        form(&headers).map_err(|failure| failure.code)
    }

    #[test]
    fn the_first_form_that_can_be_made_is_taken() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert_eq!(of(table), Ok(Form { yaml: false, shape: Shape::Table }));
        assert_eq!(of("application/vnd.kubernetes.protobuf,application/json"), Ok(Form::JSON));
        assert_eq!(of("application/json;q=0.5,application/yaml"), Ok(Form { yaml: true, shape: Shape::Object }));
        assert_eq!(of("*/*"), Ok(Form::JSON));
        assert_eq!(of("application/vnd.kubernetes.protobuf"), Err(406));
        assert_eq!(of("application/json;as=Chair;v=v1;g=meta.k8s.io"), Err(406));
    }
}
